package feed_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/module/feed"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// history is a channel with one partition that keeps everything.
type history struct {
	mu     sync.Mutex
	cond   *sync.Cond
	all    [][]byte
	opened int
}

func newHistory() *history {
	h := new(history)
	h.cond = sync.NewCond(&h.mu)
	return h
}

func (h *history) add(payloads ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range payloads {
		h.all = append(h.all, []byte(p))
	}
	h.cond.Broadcast()
}

func (h *history) at(n int) *message.Position {
	p := message.Position{Origin: 7}
	p.Advance(message.Mark{Channel: "c", Next: int64(n)})
	return &p
}

// open reads from position n on, or from the head when n is negative.
func (h *history) open(n int) *tail {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.opened++
	if n < 0 {
		n = len(h.all)
	}
	return &tail{h: h, next: n}
}

func (h *history) opener() feed.Opener {
	return func(_ context.Context, at *message.Position) (message.Stream, error) {
		n := 0
		if at != nil {
			if m, ok := at.Find("c", 0); ok {
				n = int(m.Next)
			}
		}
		return h.open(n), nil
	}
}

// tail is a stream on a history.
type tail struct {
	h       *history
	next    int
	most    int // messages per batch; 0 is all
	closed  bool
	settled []string
	fail    error
}

func (s *tail) Position() message.Position { return *s.h.at(s.next) }

func (s *tail) Receive(ctx context.Context) (message.Batch, error) {
	stop := context.AfterFunc(ctx, func() { s.h.mu.Lock(); s.h.cond.Broadcast(); s.h.mu.Unlock() })
	defer stop()
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	for s.next >= len(s.h.all) {
		if ctx.Err() != nil {
			return message.Batch{}, ctx.Err()
		}
		if s.fail != nil {
			return message.Batch{}, s.fail
		}
		s.h.cond.Wait()
	}
	var b message.Batch
	for s.next < len(s.h.all) && (s.most == 0 || len(b.Deliveries) < s.most) {
		p := s.h.all[s.next]
		s.next++
		b.Deliveries = append(b.Deliveries, message.Delivery{
			Message: &message.Message{Payload: p}, Mark: message.Mark{Channel: "c", Next: int64(s.next)},
		})
	}
	return b, nil
}

func (s *tail) Settle(_ context.Context, how message.Settlement, ds ...message.Delivery) error {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	for _, d := range ds {
		s.settled = append(s.settled, fmt.Sprint(how, ":", string(d.Payload)))
	}
	return nil
}

func (s *tail) Close(context.Context) error {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	s.closed = true
	return nil
}

// lines writes each message as a line, with its cursor.
type lines struct{ cursor bool }

func (l lines) Format() string    { return "lines" + strconv.FormatBool(l.cursor) }
func (l lines) WantsCursor() bool { return l.cursor }
func (l lines) Append(dst []byte, d *message.Delivery, cursor []byte) []byte {
	dst = append(dst, d.Payload...)
	if l.cursor {
		dst = append(append(dst, '@'), cursor...)
	}
	return append(dst, '\n')
}

// client polls a feed.
type client struct {
	t    *testing.T
	feed entrypoints.Feed
	wake chan struct{}
	gaps []message.GapReason
	seq  uint64
}

func newClient(t *testing.T) *client { return &client{t: t, wake: make(chan struct{}, 1)} }

func (c *client) options() feed.Options {
	return feed.Options{Encoder: lines{}, Wake: func() {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}}
}

func (c *client) close() {
	c.t.Helper()
	if err := c.feed.Close(context.Background()); err != nil {
		c.t.Errorf("close: %v", err)
	}
}

// read polls until n lines have come.
func (c *client) read(n int) []string {
	c.t.Helper()
	var got []string
	deadline := time.After(10 * time.Second)
	for len(got) < n {
		b, err := c.feed.Poll(n - len(got))
		if err != nil {
			c.t.Fatalf("poll after %d of %d: %v", len(got), n, err)
		}
		if b.Gap != nil {
			c.gaps = append(c.gaps, b.Gap.Reason)
		}
		if b.Messages > 0 && b.First != c.seq+1 {
			c.t.Fatalf("first sequence number %d after %d", b.First, c.seq)
		}
		c.seq += uint64(b.Messages)
		for _, f := range b.Frames {
			for _, l := range bytes.Split(bytes.TrimSuffix(f, []byte("\n")), []byte("\n")) {
				got = append(got, string(l))
			}
		}
		if b.Empty() {
			select {
			case <-c.wake:
			case <-deadline:
				c.t.Fatalf("only %d of %d messages came", len(got), n)
			}
		}
	}
	return got
}

func numbers(from, to int) []string {
	var s []string
	for i := from; i < to; i++ {
		s = append(s, strconv.Itoa(i))
	}
	return s
}

func same(t *testing.T, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("got %d messages, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("message %d is %q, want %q", i, got[i], want[i])
		}
	}
}

func closeLog(t *testing.T, l *feed.Log) {
	t.Helper()
	if err := l.Close(context.Background()); err != nil {
		t.Errorf("closing the log: %v", err)
	}
}

func TestFollowersGetEverythingInOrder(t *testing.T) {
	h := newHistory()
	log := feed.NewLog(h.open(-1), 1<<20)
	defer closeLog(t, log)
	var wg sync.WaitGroup
	for range 20 {
		c := newClient(t)
		c.feed = log.Follow(c.options(), h.opener())
		wg.Go(func() {
			defer c.close()
			same(t, c.read(1000), numbers(0, 1000))
		})
	}
	for _, n := range numbers(0, 1000) {
		h.add(n)
	}
	wg.Wait()
	if h.opened != 1 {
		t.Errorf("%d subscriptions were opened for one log", h.opened)
	}
	if log.Sessions() != 0 {
		t.Errorf("%d sessions are left", log.Sessions())
	}
}

func TestLimitLeavesTheRest(t *testing.T) {
	h := newHistory()
	log := feed.NewLog(h.open(-1), 1<<20)
	defer closeLog(t, log)
	c := newClient(t)
	c.feed = log.Follow(c.options(), nil)
	defer c.close()
	h.add(numbers(0, 100)...)
	var got []string
	for range 34 {
		got = append(got, c.read(min(3, 100-len(got)))...)
	}
	same(t, got, numbers(0, 100))
}

func TestJoinFromAPosition(t *testing.T) {
	for _, tc := range []struct{ before, at int }{{100, 0}, {100, 50}, {100, 100}} {
		t.Run(fmt.Sprint(tc.at, " of ", tc.before), func(t *testing.T) {
			h := newHistory()
			h.add(numbers(0, tc.before)...)
			log := feed.NewLog(h.open(-1), 1<<20)
			defer closeLog(t, log)
			c := newClient(t)
			var err error
			c.feed, err = log.FollowFrom(t.Context(), c.options(), h.at(tc.at), h.opener())
			if err != nil {
				t.Fatal(err)
			}
			defer c.close()
			got := c.read(tc.before - tc.at)
			for i := tc.before; i < tc.before+200; i++ {
				h.add(strconv.Itoa(i))
				got = append(got, c.read(1)...)
			}
			same(t, got, numbers(tc.at, tc.before+200))
		})
	}
}

// A session whose position the log still has needs no stream of its own.
func TestResumeFromMemory(t *testing.T) {
	h := newHistory()
	log := feed.NewLog(h.open(0), 1<<20)
	defer closeLog(t, log)
	h.add(numbers(0, 500)...)
	first := newClient(t)
	first.feed = log.Follow(first.options(), h.opener())
	defer first.close()
	h.add(numbers(500, 501)...)
	first.read(1)
	for at := 0; at < 500; at += 37 {
		c := newClient(t)
		var err error
		if c.feed, err = log.FollowFrom(t.Context(), c.options(), h.at(at), h.opener()); err != nil {
			t.Fatal(err)
		}
		same(t, c.read(501-at), numbers(at, 501))
		c.close()
	}
	if h.opened != 1 {
		t.Errorf("%d subscriptions were opened", h.opened)
	}
}

func TestCursorIsNextToRead(t *testing.T) {
	h := newHistory()
	log := feed.NewLog(h.open(-1), 1<<20)
	defer closeLog(t, log)
	c := newClient(t)
	opt := c.options()
	opt.Encoder = lines{cursor: true}
	c.feed = log.Follow(opt, h.opener())
	defer c.close()
	h.add(numbers(0, 40)...)
	for i, line := range c.read(40) {
		_, cursor, _ := bytes.Cut([]byte(line), []byte("@"))
		pos, err := message.ParseCursor(string(cursor))
		if err != nil {
			t.Fatal(err)
		}
		if m, _ := pos.Find("c", 0); m.Next != int64(i+1) {
			t.Fatalf("the cursor of message %d says %d", i, m.Next)
		}
	}
	pos, err := message.ParseCursor(string(c.feed.Cursor(nil)))
	if err != nil || pos.Origin != 7 {
		t.Fatalf("cursor %v: %v", pos, err)
	}
}

func fat(i int) string {
	b := make([]byte, 1000)
	binary.BigEndian.PutUint32(b, uint32(i))
	for j := 4; j < len(b); j++ {
		b[j] = 'x'
	}
	copy(b[:4], fmt.Sprintf("%04d", i))
	return string(b)
}

func TestSlowClient(t *testing.T) {
	run := func(t *testing.T, qos message.QoS, slow func()) (*client, *history, func()) {
		h := newHistory()
		log := feed.NewLog(h.open(-1), 64<<10)
		c, fast := newClient(t), newClient(t)
		opt := c.options()
		opt.QoS, opt.Slow = qos, slow
		c.feed = log.Follow(opt, h.opener())
		fast.feed = log.Follow(fast.options(), nil)
		for i := range 500 {
			h.add(fat(i))
			fast.read(1)
		}
		return c, h, func() { c.close(); fast.close(); closeLog(t, log) }
	}
	t.Run("gap", func(t *testing.T) {
		c, _, done := run(t, message.None, nil)
		defer done()
		got := c.read(20)
		if len(c.gaps) != 1 || c.gaps[0] != message.GapSlow {
			t.Fatalf("gaps %v", c.gaps)
		}
		first, err := strconv.Atoi(got[0][:4])
		if err != nil || first < 400 {
			t.Fatalf("goes on at %v %v: the log holds only 64 KiB", first, err)
		}
	})
	t.Run("close", func(t *testing.T) {
		ended := 0
		c, _, done := run(t, message.None, func() { ended++ })
		defer done()
		for range 3 {
			if b, err := c.feed.Poll(0); err != nil || !b.Empty() {
				t.Fatalf("got %+v %v after the end", b, err)
			}
		}
		if ended != 1 {
			t.Fatalf("ended %d times", ended)
		}
	})
	t.Run("at_least_once reads on by itself", func(t *testing.T) {
		c, _, done := run(t, message.AtLeastOnce, nil)
		defer done()
		for i, line := range c.read(500) {
			if line[:4] != fmt.Sprintf("%04d", i) {
				t.Fatalf("message %d is %s", i, line[:4])
			}
		}
		if len(c.gaps) != 0 {
			t.Fatalf("gaps %v", c.gaps)
		}
	})
}

// A position that the log has not reached is not taken on trust: the channel may be a new
// one of the same name.
func TestPositionAheadOfTheLogIsAskedOfTheBroker(t *testing.T) {
	h := newHistory()
	h.add(numbers(0, 10)...)
	log := feed.NewLog(h.open(-1), 1<<20)
	defer closeLog(t, log)
	c := newClient(t)
	var err error
	if c.feed, err = log.FollowFrom(t.Context(), c.options(), h.at(12), h.opener()); err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if h.opened != 2 {
		t.Fatalf("%d subscriptions: the broker was not asked", h.opened)
	}
	h.add(numbers(10, 20)...)
	same(t, c.read(8), numbers(12, 20))
}

func TestTheEndOfTheStreamEndsTheSessions(t *testing.T) {
	h := newHistory()
	s := h.open(-1)
	log := feed.NewLog(s, 1<<20)
	defer closeLog(t, log)
	c := newClient(t)
	c.feed = log.Follow(c.options(), nil)
	defer c.close()
	h.add("a")
	c.read(1)
	want := errors.New("no more")
	h.mu.Lock()
	s.fail = want
	h.cond.Broadcast()
	h.mu.Unlock()
	for {
		b, err := c.feed.Poll(0)
		if errors.Is(err, want) {
			return
		}
		if err != nil || !b.Empty() {
			t.Fatalf("got %+v, %v", b, err)
		}
		<-c.wake
	}
}

func TestOwnSettles(t *testing.T) {
	t.Run("when written", func(t *testing.T) {
		h := newHistory()
		s := h.open(0)
		c := newClient(t)
		opt := c.options()
		opt.Mode = message.Member
		c.feed = feed.Own(s, opt)
		h.add("a", "b")
		c.read(2)
		if len(s.settled) != 0 {
			t.Fatalf("settled before it was written: %v", s.settled)
		}
		if err := c.feed.Written(t.Context()); err != nil {
			t.Fatal(err)
		}
		same(t, s.settled, []string{"0:a", "0:b"})
		c.close()
		if !s.closed {
			t.Error("the stream was not closed")
		}
	})
	t.Run("before hand-over at at_most_once", func(t *testing.T) {
		h := newHistory()
		s := h.open(0)
		s.most = 1
		c := newClient(t)
		opt := c.options()
		opt.Mode, opt.QoS = message.Member, message.AtMostOnce
		dropped := 0
		opt.Dropped = func(n int) { dropped += n }
		s.fail = errors.New("fenced off")
		c.feed = feed.Own(s, opt)
		h.add("a")
		defer c.close()
		// The stream ends with the failure it settles with; what could not be settled must
		// never be seen.
		for {
			b, err := c.feed.Poll(0)
			if err != nil {
				break
			}
			if b.Messages > 0 {
				t.Fatalf("handed over what was not settled")
			}
			<-c.wake
		}
		if dropped != 1 {
			t.Errorf("%d dropped", dropped)
		}
	})
	t.Run("by the client", func(t *testing.T) {
		h := newHistory()
		s := h.open(0)
		c := newClient(t)
		opt := c.options()
		opt.Mode, opt.QoS, opt.ClientAcks = message.Member, message.AtLeastOnce, true
		c.feed = feed.Own(s, opt)
		defer c.close()
		h.add("a", "b", "c")
		c.read(3)
		if err := c.feed.Settle(t.Context(), message.Ack, 2); err != nil {
			t.Fatal(err)
		}
		if err := c.feed.Settle(t.Context(), message.Release, 1); err != nil {
			t.Fatal(err)
		}
		same(t, s.settled, []string{"0:b", "1:a"})
		for _, seq := range []uint64{1, 2, 99} {
			if err := c.feed.Settle(t.Context(), message.Ack, seq); message.KindOf(err) != message.BadInput {
				t.Errorf("settling %d again: %v", seq, err)
			}
		}
		if err := c.feed.Settle(t.Context(), message.Ack, 3); err != nil {
			t.Fatal(err)
		}
	})
}

// retaining is a stream whose broker keeps messages for those who come later.
type retaining struct {
	*tail
	kept []string
}

func (s *retaining) Snapshot() []message.Delivery {
	var all []message.Delivery
	for _, p := range s.kept {
		all = append(all, message.Delivery{Message: &message.Message{Payload: []byte(p)}})
	}
	return all
}

func TestWhoJoinsLaterGetsWhatTheBrokerKeeps(t *testing.T) {
	h := newHistory()
	s := &retaining{tail: h.open(0)}
	l := feed.NewLog(s, 1<<20)
	defer closeLog(t, l)
	first := newClient(t)
	first.feed = l.Follow(first.options(), nil)
	defer first.close()
	h.add("0")
	same(t, first.read(1), numbers(0, 1))

	s.kept = []string{"kept", "as", "well"}
	later := newClient(t)
	later.feed = l.Follow(later.options(), nil)
	defer later.close()
	h.add("1", "2")
	same(t, later.read(2), []string{"kept", "as"})
	same(t, later.read(3), []string{"well", "1", "2"})
	same(t, first.read(2), numbers(1, 3))

	leaving := newClient(t)
	leaving.feed = l.Follow(leaving.options(), nil)
	leaving.close() // with all of it unread
}
