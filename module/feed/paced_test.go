package feed_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/module/feed"
	"github.com/caddy-message-api/caddy-message-api/plans"
	"github.com/caddy-message-api/caddy-message-api/plans/limits"
)

// script is a feed that hands out bursts as they are written here, limits cut short.
type script struct {
	entrypoints.Feed
	bursts []entrypoints.Burst
	limits []int
	seq    uint64
	err    error
	closed bool
}

func (s *script) Poll(limit int) (entrypoints.Burst, error) {
	s.limits = append(s.limits, limit)
	if len(s.bursts) == 0 {
		return entrypoints.Burst{First: s.seq + 1}, s.err
	}
	b := s.bursts[0]
	b.First = s.seq + 1
	if limit > 0 && b.Messages > limit {
		s.bursts[0].Messages -= limit
		s.bursts[0].Gap = nil
		b.Messages = limit
	} else {
		s.bursts = s.bursts[1:]
	}
	s.seq += uint64(b.Messages)
	return b, nil
}

func (s *script) Close(context.Context) error { s.closed = true; return nil }

// pacer allows what it is told to, and counts.
type pacer struct {
	left     int
	wait     time.Duration
	asked    []int
	refunded int
	out      int
	wakes    atomic.Int64
}

func (p *pacer) pace(want int) (int, time.Duration) {
	p.asked = append(p.asked, want)
	n := min(want, p.left)
	p.left -= n
	if n == 0 {
		return 0, p.wait
	}
	return n, 0
}

func (p *pacer) feed(f entrypoints.Feed) entrypoints.Feed {
	return feed.Paced(f, p.pace, func(n int) { p.refunded += n; p.left += n }, func() { p.wakes.Add(1) }, func() { p.out++ })
}

func poll(t *testing.T, f entrypoints.Feed, limit, messages int, first uint64) entrypoints.Burst {
	t.Helper()
	b, err := f.Poll(limit)
	if err != nil || b.Messages != messages || b.First != first {
		t.Fatalf("%d messages from %d on, want %d from %d on (%v)", b.Messages, b.First, messages, first, err)
	}
	return b
}

func TestPacedAsksAndRefunds(t *testing.T) {
	p, s := &pacer{left: 1000}, &script{bursts: []entrypoints.Burst{{Messages: 100}, {Messages: 3}}}
	f := p.feed(s)
	poll(t, f, 0, 64, 1)
	poll(t, f, 30, 30, 65)
	poll(t, f, 500, 6, 95)
	poll(t, f, 0, 3, 101)
	poll(t, f, 1, 0, 104)
	same(t, words(p.asked), words([]int{64, 30, 64, 64, 1}))
	same(t, words(s.limits), words([]int{64, 30, 64, 64, 1}))
	if p.left != 1000-103 || p.out != 0 {
		t.Errorf("%d were charged for 103 messages; held back %d times", 1000-p.left, p.out)
	}
	if err := f.Close(t.Context()); err != nil || !s.closed {
		t.Error("the feed was not closed")
	}
}

func words(numbers []int) (w []string) {
	for _, n := range numbers {
		w = append(w, strconv.Itoa(n))
	}
	return w
}

func TestPacedHoldsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := &pacer{left: 10, wait: 30 * time.Second}, &script{bursts: []entrypoints.Burst{{Messages: 25}}}
		f := p.feed(s)
		poll(t, f, 0, 10, 1)
		for range 5 { // what the feed itself wakes for makes it ask no sooner
			poll(t, f, 0, 0, 11)
		}
		if p.out != 1 || len(p.asked) != 2 || len(s.limits) != 1 {
			t.Fatalf("held back %d times; asked %v, polled %v", p.out, p.asked, s.limits)
		}
		time.Sleep(30*time.Second - time.Nanosecond)
		synctest.Wait()
		if p.wakes.Load() != 0 {
			t.Fatal("woken too early")
		}
		p.left = 10
		poll(t, f, 0, 0, 11)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if p.wakes.Load() != 1 {
			t.Fatal("not woken when the time was over")
		}
		poll(t, f, 0, 10, 11)
		poll(t, f, 0, 0, 21)
		time.Sleep(time.Hour) // the timer is good for more than once, and for once each time
		synctest.Wait()
		if p.wakes.Load() != 2 {
			t.Fatalf("woken %d times", p.wakes.Load())
		}
		p.left = 100
		poll(t, f, 0, 5, 21)
		poll(t, f, 0, 0, 26)
		time.Sleep(time.Hour)
		synctest.Wait()
		if p.wakes.Load() != 2 {
			t.Error("woken when nothing was held back")
		}
	})
}

// Who is told to wait for no time at all must not ask in a loop.
func TestPacedWaitsAtLeastAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pacer{}
		f := p.feed(new(script))
		poll(t, f, 0, 0, 1)
		synctest.Wait()
		if p.wakes.Load() != 0 {
			t.Error("woken at once")
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if p.wakes.Load() != 1 {
			t.Error("not woken")
		}
	})
}

func TestPacedCloseStopsTheTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := &pacer{wait: time.Minute}, new(script)
		f := p.feed(s)
		poll(t, f, 0, 0, 1)
		if err := f.Close(t.Context()); err != nil || !s.closed {
			t.Fatal("not closed")
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if p.wakes.Load() != 0 {
			t.Error("woken after the end")
		}
	})
}

// Waking and closing come from other goroutines than polling.
func TestPacedIsRaceFree(t *testing.T) {
	for range 200 {
		s := &script{bursts: []entrypoints.Burst{{Messages: 1000}}}
		wake := make(chan struct{}, 1)
		closed := make(chan struct{})
		turn := 0
		f := feed.Paced(s, func(want int) (int, time.Duration) {
			if turn++; turn%2 == 0 {
				return min(want, 2), 0
			}
			return 0, 50 * time.Microsecond
		}, func(int) {}, func() {
			select {
			case wake <- struct{}{}:
			default:
			}
		}, nil)
		go func() {
			defer close(closed)
			<-wake
			if err := f.Close(context.Background()); err != nil {
				t.Error(err)
			}
		}()
		for open := true; open; {
			if _, err := f.Poll(0); err != nil {
				t.Fatal(err)
			}
			select {
			case <-closed:
				open = false
			default:
			}
		}
	}
}

func TestPacedErrorsAndGapsPass(t *testing.T) {
	gone := errors.New("gone")
	gap := &message.Gap{Reason: message.GapSlow, Detail: "shared with others"}
	expired := &message.Gap{Reason: message.GapExpired}
	p := &pacer{left: 5, wait: time.Hour}
	s := &script{bursts: []entrypoints.Burst{{Gap: gap, Messages: 2}, {Gap: expired}, {Gap: gap}}, err: gone}
	f := p.feed(s)
	defer f.Close(t.Context())
	if b := poll(t, f, 0, 2, 1); b.Gap != gap {
		t.Errorf("a gap of a feed that was not held back became %+v", b.Gap)
	}
	if b := poll(t, f, 0, 0, 3); b.Gap != expired {
		t.Errorf("%+v", b.Gap)
	}
	if b := poll(t, f, 0, 0, 3); b.Gap != gap {
		t.Errorf("%+v", b.Gap)
	}
	if _, err := f.Poll(0); !errors.Is(err, gone) {
		t.Errorf("the error of the feed became %v", err)
	}
	if p.left != 3 {
		t.Errorf("%d were charged for 2 messages", 5-p.left)
	}
}

func TestPacedGapHasReasonRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow, expired := &message.Gap{Reason: message.GapSlow, Detail: "shared"}, &message.Gap{Reason: message.GapExpired}
		p := &pacer{left: 1, wait: time.Second}
		s := &script{bursts: []entrypoints.Burst{{Messages: 1}, {Gap: expired}, {Gap: slow}, {Messages: 1}}}
		f := p.feed(s)
		defer f.Close(t.Context())
		poll(t, f, 0, 1, 1)
		poll(t, f, 0, 0, 2)
		time.Sleep(time.Second)
		synctest.Wait()
		p.left = 100
		if b := poll(t, f, 0, 0, 2); b.Gap != expired {
			t.Errorf("another reason became %+v", b.Gap)
		}
		if b := poll(t, f, 0, 0, 2); b.Gap == nil || b.Gap.Reason != message.GapRate || b.Gap.Detail == "" {
			t.Errorf("held back, and the gap is %+v", b.Gap)
		}
		if slow.Reason != message.GapSlow || slow.Detail != "shared" {
			t.Error("a gap that others share was changed")
		}
		poll(t, f, 0, 1, 2)
		poll(t, f, 0, 0, 3) // it has caught up: from here on, slowness is the client's own
		s.bursts = []entrypoints.Burst{{Gap: slow}}
		if b := poll(t, f, 0, 0, 3); b.Gap != slow {
			t.Errorf("caught up, and the gap is %+v", b.Gap)
		}
	})
}

// paceBy reads a client's feed at a rate, with the arithmetic that the gateway uses.
func (c *client) paceBy(f entrypoints.Feed, opt *feed.Options, rate string) {
	c.t.Helper()
	r := new(plans.Rate)
	if err := r.UnmarshalText([]byte(rate)); err != nil {
		c.t.Fatal(err)
	}
	a := limits.NewTable(limits.Options{}).Account(limits.Key{Who: "me"}, plans.Limits{ReceiveRate: r}, time.Time{}, nil)
	c.feed = feed.Paced(f, a.Receive, a.Refund, opt.Wake, nil)
}

func linesOf(b entrypoints.Burst) (got []string) {
	for _, f := range b.Frames {
		got = append(got, strings.Split(strings.TrimSuffix(string(f), "\n"), "\n")...)
	}
	return got
}

// drain reads until nothing comes for a minute.
func (c *client) drain() (got []string) {
	c.t.Helper()
	for {
		b, err := c.feed.Poll(0)
		if err != nil {
			c.t.Fatal(err)
		}
		if b.Gap != nil {
			c.gaps = append(c.gaps, b.Gap.Reason)
		}
		if b.Messages > 0 && b.First != c.seq+1 {
			c.t.Fatalf("first sequence number %d after %d", b.First, c.seq)
		}
		c.seq += uint64(b.Messages)
		got = append(got, linesOf(b)...)
		if !b.Empty() {
			if err := c.feed.Written(c.t.Context()); err != nil {
				c.t.Fatal(err)
			}
			continue
		}
		select {
		case <-c.wake:
		case <-time.After(time.Minute):
			return got
		}
	}
}

// A stream of one's own loses nothing, however slowly it may be read: what is not read waits
// at the broker.
func TestPacedOwnReaderLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHistory()
		c := newClient(t)
		opt := c.options()
		opt.Mode = message.Assigned
		s := h.open(0)
		s.most = 300
		c.paceBy(feed.Own(s, opt), &opt, "100/1s")
		defer c.close()
		h.add(numbers(0, 5000)...)
		begin := time.Now()
		got := c.drain()
		took := time.Since(begin) - time.Minute
		same(t, got, numbers(0, 5000))
		if len(c.gaps) > 0 {
			t.Errorf("gaps %v", c.gaps)
		}
		if took < 48*time.Second || took > 50*time.Second {
			t.Errorf("5000 messages, 100 of them at once, at 100/1s took %v", took)
		}
	})
}

// flood follows a log with room for little at a rate, while far more messages come.
func flood(t *testing.T, qos message.QoS, rate string, open bool) (*client, []string) {
	h := newHistory()
	log := feed.NewLog(h.open(-1), 32<<10)
	defer closeLog(t, log)
	c, other := newClient(t), newClient(t)
	opt := c.options()
	opt.QoS = qos
	var opener feed.Opener
	if open {
		opener = h.opener()
	}
	c.paceBy(log.Follow(opt, opener), &opt, rate)
	defer c.close()
	other.feed = log.Follow(other.options(), nil)
	defer other.close()
	got := make(chan []string, 1)
	go func() { got <- c.drain() }()
	for i := range 1000 {
		h.add(fat(i))
		other.read(1)
		time.Sleep(10 * time.Millisecond)
	}
	if len(other.gaps) > 0 {
		t.Errorf("a session that is not paced got gaps %v", other.gaps)
	}
	return c, <-got
}

// In a broadcast that is faster than the rate, messages are dropped for this session alone,
// and each time it is told why.
func TestPacedBroadcastIsToldOfTheGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, got := flood(t, message.None, "20/1s", false)
		if len(c.gaps) == 0 || len(got) >= 1000 || len(got) < 200 {
			t.Fatalf("%d messages in 10 s at 20/1s, gaps %v", len(got), c.gaps)
		}
		for _, g := range c.gaps {
			if g != message.GapRate {
				t.Fatalf("gaps %v", c.gaps)
			}
		}
		last, jumps := -1, 0
		for _, line := range got {
			n, err := strconv.Atoi(line[:4])
			if err != nil || n <= last {
				t.Fatalf("%s after %d", line[:4], last)
			}
			if n > last+1 {
				jumps++
			}
			last = n
		}
		if jumps > len(c.gaps) || last != 999 {
			t.Errorf("%d holes, of which %d were told; the last one is %d", jumps, len(c.gaps), last)
		}
		t.Logf("%d of 1000 messages, %d gaps", len(got), len(c.gaps))
	})
}

// At at_least_once on positions it reads on by a stream of its own, and gets everything.
func TestPacedAtLeastOnceLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, got := flood(t, message.AtLeastOnce, "20/1s", true)
		if len(got) != 1000 || len(c.gaps) > 0 {
			t.Fatalf("%d of 1000 messages, gaps %v", len(got), c.gaps)
		}
		for i, line := range got {
			if n, err := strconv.Atoi(line[:4]); err != nil || n != i {
				t.Fatalf("message %d is %s", i, line[:4])
			}
		}
	})
}

func TestPacedIsNoSlowerWhereTheRateIsNotReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, got := flood(t, message.None, "200/1s", false)
		if len(got) != 1000 || len(c.gaps) > 0 {
			t.Errorf("%d of 1000 messages at half the rate, gaps %v", len(got), c.gaps)
		}
	})
}

func BenchmarkPaced(b *testing.B) {
	s := new(endless)
	r := &plans.Rate{N: 1e12, Per: time.Second}
	a := limits.NewTable(limits.Options{}).Account(limits.Key{Who: "me"}, plans.Limits{ReceiveRate: r}, time.Time{}, nil)
	for name, f := range map[string]entrypoints.Feed{"bare": s, "paced": feed.Paced(s, a.Receive, a.Refund, func() {}, nil)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f.Poll(0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// endless has one message each time.
type endless struct{ entrypoints.Feed }

func (*endless) Poll(int) (entrypoints.Burst, error) { return entrypoints.Burst{Messages: 1}, nil }
