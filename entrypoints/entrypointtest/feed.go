package entrypointtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// Origin is the origin of the cursors that the feed makes.
const Origin = 0x7e57

// ErrClosed is what a closed feed answers.
var ErrClosed = errors.New("feed is closed")

// Feed is a scripted entrypoints.Feed. Deliver, Gap and Fail queue what Poll returns, in
// that order, and wake the entrypoint. They may be called before Subscribe too.
type Feed struct {
	// Resumable gives cursors, made from the deliveries' marks.
	Resumable bool
	// Joined puts all messages of a burst into one frame; otherwise each has its own.
	Joined bool
	// WrittenErr, SettleErr and CloseErr are what those methods return.
	WrittenErr, SettleErr, CloseErr error

	tb   testing.TB
	busy atomic.Bool

	mu       sync.Mutex
	want     entrypoints.Want
	state    feedState
	queue    []step
	position message.Position
	seq      uint64
	written  uint64
	settled  map[uint64]message.Settlement
	calls    []string
	lent     [][]byte
	copies   [][]byte
}

type feedState uint8

const (
	unused feedState = iota
	subscribed
	closed
)

// step is one thing that Poll comes upon.
type step struct {
	delivery *message.Delivery
	gap      *message.Gap
	err      error
}

// Deliver queues messages.
func (f *Feed) Deliver(deliveries ...message.Delivery) { f.push(steps(deliveries)...) }

func steps(deliveries []message.Delivery) []step {
	all := make([]step, len(deliveries))
	for i := range deliveries {
		all[i].delivery = &deliveries[i]
	}
	return all
}

// Gap queues a gap, with which a new burst begins, and the messages after it.
func (f *Feed) Gap(reason message.GapReason, detail string, deliveries ...message.Delivery) {
	f.push(append([]step{{gap: &message.Gap{Reason: reason, Detail: detail}}}, steps(deliveries)...)...)
}

// Fail queues the final error.
func (f *Feed) Fail(err error) { f.push(step{err: err}) }

func (f *Feed) push(steps ...step) {
	f.mu.Lock()
	f.queue = append(f.queue, steps...)
	wake := f.want.Wake
	f.mu.Unlock()
	if wake != nil {
		wake()
	}
}

// Wake calls Want.Wake without a reason, as a feed may.
func (f *Feed) Wake() { f.push() }

func (f *Feed) begin(want entrypoints.Want) {
	f.mu.Lock()
	if f.state == subscribed {
		f.tb.Errorf("a second Subscribe while the first feed is open")
	}
	f.want, f.state = want, subscribed
	f.position = message.Position{Origin: Origin}
	if p, err := message.ParseCursor(want.Cursor); err == nil {
		f.position = p
	}
	waiting := len(f.queue) > 0
	f.mu.Unlock()
	if waiting && want.Wake != nil {
		want.Wake()
	}
}

func (f *Feed) open() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state == subscribed
}

// enter notices calls from two goroutines at a time.
func (f *Feed) enter(op string) (leave func()) {
	if !f.busy.CompareAndSwap(false, true) {
		f.tb.Errorf("Feed.%s while another goroutine is in the feed", op)
		return func() {}
	}
	return func() { f.busy.Store(false) }
}

// Poll returns what is queued, up to limit messages, the next gap or the error.
func (f *Feed) Poll(limit int) (entrypoints.Burst, error) {
	defer f.enter("Poll")()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.recall()
	if f.state == closed {
		return entrypoints.Burst{}, ErrClosed
	}
	burst := entrypoints.Burst{First: f.seq + 1}
	for len(f.queue) > 0 && (limit <= 0 || burst.Messages < limit) {
		next := f.queue[0]
		if burst.Messages > 0 && next.delivery == nil {
			break
		}
		if next.err != nil {
			f.record("fail")
			return entrypoints.Burst{}, next.err
		}
		f.queue = f.queue[1:]
		if next.gap != nil {
			if burst.Gap != nil {
				f.tb.Errorf("the script has two gaps in a row")
			}
			burst.Gap = next.gap
			continue
		}
		f.encode(&burst, next.delivery)
	}
	f.lend(&burst)
	return burst, nil
}

func (f *Feed) encode(burst *entrypoints.Burst, d *message.Delivery) {
	f.seq++
	burst.Messages++
	f.position.Advance(d.Mark)
	var cursor []byte
	if f.Resumable && f.want.Encoder.WantsCursor() {
		cursor = f.position.AppendCursor(nil)
	}
	if f.Joined && len(burst.Frames) > 0 {
		last := &burst.Frames[len(burst.Frames)-1]
		before := len(*last)
		*last = f.want.Encoder.Append(*last, d, cursor)
		burst.Bytes += len(*last) - before
		return
	}
	frame := f.want.Encoder.Append(nil, d, cursor)
	burst.Bytes += len(frame)
	burst.Frames = append(burst.Frames, frame)
}

// lend remembers what a burst held, to see later that nobody changed it.
func (f *Feed) lend(burst *entrypoints.Burst) {
	if burst.Empty() {
		return
	}
	for _, frame := range burst.Frames {
		f.lent = append(f.lent, frame)
		f.copies = append(f.copies, bytes.Clone(frame))
	}
	if burst.Gap != nil {
		f.record("gap " + string(burst.Gap.Reason))
	}
	if burst.Messages > 0 {
		f.record(fmt.Sprintf("poll %d", burst.Messages))
	}
}

// recall takes the frames of the last burst back, and spoils them: they are no longer valid.
func (f *Feed) recall() {
	f.checkLent()
	for _, frame := range f.lent {
		for j := range frame {
			frame[j] = '!'
		}
	}
	f.lent, f.copies = nil, nil
}

func (f *Feed) checkLent() {
	for i, frame := range f.lent {
		if !bytes.Equal(frame, f.copies[i]) {
			f.tb.Errorf("a shared frame was changed from %q to %q", f.copies[i], frame)
		}
	}
}

// Written notes how many messages had been polled.
func (f *Feed) Written(context.Context) error {
	defer f.enter("Written")()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.written = f.seq
	f.record(fmt.Sprintf("written %d", f.seq))
	return f.WrittenErr
}

// Settle notes the settlements and reports numbers that were not polled or are settled.
func (f *Feed) Settle(_ context.Context, how message.Settlement, seqs ...uint64) error {
	defer f.enter("Settle")()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.record(fmt.Sprintf("settle %d %v", how, seqs))
	var unknown []uint64
	for _, seq := range seqs {
		if _, twice := f.settled[seq]; twice || seq == 0 || seq > f.seq {
			unknown = append(unknown, seq)
			continue
		}
		if f.settled == nil {
			f.settled = make(map[uint64]message.Settlement)
		}
		f.settled[seq] = how
	}
	if len(unknown) > 0 {
		return message.Errorf(message.BadInput, "unknown or already settled: %v", unknown)
	}
	return f.SettleErr
}

// Cursor appends the position after all that was polled, if the feed is resumable.
func (f *Feed) Cursor(dst []byte) []byte {
	defer f.enter("Cursor")()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.Resumable {
		return dst
	}
	return f.position.AppendCursor(dst)
}

// Close ends the feed.
func (f *Feed) Close(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.checkLent()
	if f.state != closed {
		f.state = closed
		f.record("close")
	}
	return f.CloseErr
}

func (f *Feed) record(call string) { f.calls = append(f.calls, call) }

// Calls returns what happened, in order: "gap foreign", "poll 3", "fail", "written 3",
// "settle 0 [1 2]", "close". Polls that returned nothing are left out.
func (f *Feed) Calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// WrittenCount is how many messages Written has confirmed.
func (f *Feed) WrittenCount() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return int(f.written)
}

// Settled returns the settlement of a sequence number and whether there is one.
func (f *Feed) Settled(seq uint64) (message.Settlement, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	how, ok := f.settled[seq]
	return how, ok
}

// Interface guards
var _ entrypoints.Feed = (*Feed)(nil)
