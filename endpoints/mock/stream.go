package mock

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

var errClosed = errors.New("the stream is closed")

// base is what all streams of the mock have in common: they have a clock, wait for it
// with one timer, and need no goroutine.
type base struct {
	m     *Mock
	sub   message.Subscription
	epoch uint64
	clock clock
	tick  int64 // the next tick that was not used yet
	left  int64 // how many messages may still be generated

	closing sync.Once
	closed  chan struct{}
	wake    chan struct{} // something else than time has come
	timer   *time.Timer   // of Receive
}

// begin makes a base ready, with the first tick of its clock as the next one.
func (b *base) begin(m *Mock, sub message.Subscription, c clock) {
	b.m, b.sub, b.clock = m, sub, c
	b.epoch = m.epochs.Add(1)
	b.left = 1<<63 - 1
	if m.MessageCount != nil {
		b.left = *m.MessageCount
	}
	b.closed, b.wake = make(chan struct{}), make(chan struct{}, 1)
}

// sharedClock is the clock of all broadcast subscriptions. It starts with the first.
func (m *Mock) sharedClock(now time.Time) clock {
	m.shared.Lock()
	defer m.shared.Unlock()
	if m.sharedTick.start.IsZero() {
		m.sharedTick = clock{start: now, interval: m.interval}
	}
	return m.sharedTick
}

// receive waits until collect returns something. collect also tells when the clock will
// have something for it; the zero time is never.
func (b *base) receive(ctx context.Context, collect func(now time.Time) (message.Batch, time.Time)) (message.Batch, error) {
	// Who comes with a context that was cancelled before asks for what is ready.
	once := errors.Is(ctx.Err(), context.Canceled)
	for {
		now := time.Now()
		if err := over(ctx, now); err != nil && !once {
			return message.Batch{}, err
		}
		select {
		case <-b.closed:
			return message.Batch{}, errClosed
		default:
		}
		batch, next := collect(now)
		if len(batch.Deliveries) > 0 || batch.Gap != nil {
			return batch, nil
		}
		if once {
			return batch, ctx.Err()
		}
		b.await(ctx, next)
	}
}

// over says whether ctx has ended at a time, even if its own timer is late. Otherwise a
// tick that is due with the deadline would sometimes come before it.
func over(ctx context.Context, now time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok && !now.Before(deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

// await waits for the given time, a wake-up, or an end.
func (b *base) await(ctx context.Context, next time.Time) {
	var tick <-chan time.Time
	if !next.IsZero() {
		if b.timer == nil {
			b.timer = time.NewTimer(time.Until(next))
		} else {
			b.timer.Reset(time.Until(next))
		}
		tick = b.timer.C
	}
	select {
	case <-tick:
		return
	case <-b.wake:
	case <-ctx.Done():
	case <-b.closed:
	}
	if tick != nil {
		b.timer.Stop()
	}
}

// rouse wakes a waiting Receive, or the next one.
func (b *base) rouse() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// room is what may still be put into a batch.
type room struct{ messages, bytes int }

// fits is how many messages of one size fit; into an empty batch one always does.
func (r room) fits(size int, empty bool) int {
	n := min(r.messages, r.bytes/size)
	if n < 1 && empty && r.messages > 0 {
		n = 1
	}
	return max(n, 0)
}

// ticks is how many ticks are due, and may be turned into messages.
func (b *base) ticks(now time.Time) int64 {
	return min(b.clock.due(now)-b.tick, b.left)
}

// use marks n ticks as used and returns the run of messages that they make.
func (b *base) use(n int, first int64) run {
	r := run{
		first: first, n: n, due: b.clock.at(b.tick), step: b.clock.interval,
		epoch: b.epoch, lane: laneClock,
	}
	b.tick += int64(n)
	b.left -= int64(n)
	return r
}

// nextTick is when the next message will be due.
func (b *base) nextTick() time.Time {
	if b.clock.interval <= 0 || b.left <= 0 {
		return time.Time{}
	}
	return b.clock.at(b.tick)
}

// The lanes: generated messages are in order among themselves, and so are published ones.
const (
	laneClock    = "clock"
	laneLoopback = "loopback"
)
