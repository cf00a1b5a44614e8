package mock

import (
	"context"
	"sync"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// The channels of marks: ids that a subscription counts by a clock of its own, and those
// of the clock that broadcast subscriptions share.
const (
	channelOwn    = "mock"
	channelShared = "mock-shared"
)

// maxID is the highest id that a cursor may ask for.
const maxID = 1 << 62

// reading is a stream by position: Broadcast and Assigned.
type reading struct {
	base
	channel string
	first   int64 // the id of tick 0

	mu     sync.Mutex // guards what Receive moves and Position reads
	gap    *message.Gap
	before int64 // the time of the message before the next, in Unix milliseconds
}

func (m *Mock) newReading(sub message.Subscription) message.Stream {
	now := time.Now()
	at, gap := m.where(&sub, now)
	r := &reading{channel: at.Channel, before: at.Time, gap: gap}
	if at.Channel == channelShared {
		r.begin(m, sub, m.sharedClock(now))
		r.tick = at.Next
	} else {
		r.begin(m, sub, clock{start: now, interval: m.interval})
		r.first = at.Next
	}
	if sub.Mode == message.Assigned && sub.Name != "" && r.channel == channelOwn {
		return &bookmarked{reading: r, name: m.names.acquire(sub.Name)}
	}
	return r
}

// where finds the place at which a subscription begins, and what to tell about it.
func (m *Mock) where(sub *message.Subscription, now time.Time) (message.Mark, *message.Gap) {
	begin := message.Mark{Channel: channelOwn}
	switch {
	case sub.Mode == message.Broadcast:
		begin = m.head(now)
	case sub.Name != "":
		begin.Next = m.names.stands(sub.Name)
	}
	at := sub.Position
	if at == nil {
		return begin, nil
	}
	foreign := &message.Gap{Reason: message.GapForeign, Detail: "the cursor belongs to another endpoint or configuration"}
	if at.Origin != m.origin() || len(at.Marks) > 1 {
		return begin, foreign
	}
	if len(at.Marks) == 0 { // the one partition is newer than the cursor
		return message.Mark{Channel: channelOwn}, nil
	}
	switch mark := at.Marks[0]; {
	case mark.Partition != 0 || mark.Next > maxID:
		return begin, foreign
	case mark.Channel == channelOwn:
		return mark, nil
	case mark.Channel == channelShared:
		if !m.sameShared(mark, now) {
			return m.head(now), &message.Gap{Reason: message.GapRecreated, Detail: "the shared clock was started anew since the cursor was given"}
		}
		return mark, nil
	}
	return begin, foreign
}

// head is where the shared clock is now.
func (m *Mock) head(now time.Time) message.Mark {
	c := m.sharedClock(now)
	mark := message.Mark{Channel: channelShared, Next: c.due(now)}
	if mark.Next > 0 {
		mark.Time = c.at(mark.Next - 1).UnixMilli()
	}
	return mark
}

// sameShared tells by the time of the message before the mark whether the shared clock
// still is the one that the mark was made by.
func (m *Mock) sameShared(mark message.Mark, now time.Time) bool {
	c := m.sharedClock(now)
	if mark.Next > c.due(now) {
		return false
	}
	return mark.Next == 0 || c.at(mark.Next-1).UnixMilli() == mark.Time
}

// Receive implements message.Stream.
func (r *reading) Receive(ctx context.Context) (message.Batch, error) {
	return r.receive(ctx, r.collect)
}

func (r *reading) collect(now time.Time) (message.Batch, time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	batch := message.Batch{Gap: r.gap}
	r.gap = nil
	due := r.ticks(now)
	if due <= 0 {
		return batch, r.nextTick()
	}
	first := r.first + r.tick
	left := room{r.sub.Window.Messages, min(r.sub.Window.Bytes, batchBytes)}
	n := int(min(due, int64(left.fits(r.m.made.size(first+due), true))))
	row := r.use(n, first)
	row.channel = r.channel
	batch.Deliveries = r.m.made.appendTo(nil, row)
	r.before = r.clock.at(r.tick - 1).UnixMilli()
	return batch, time.Time{}
}

// Position implements message.Positioned.
func (r *reading) Position() message.Position {
	r.mu.Lock()
	defer r.mu.Unlock()
	return message.Position{Origin: r.m.origin(), Marks: []message.Mark{
		{Channel: r.channel, Next: r.first + r.tick, Time: r.before},
	}}
}

// Settle implements message.Stream: nothing is owed for what is read by position.
func (r *reading) Settle(context.Context, message.Settlement, ...message.Delivery) error {
	return nil
}

// Close implements message.Stream.
func (r *reading) Close(context.Context) error {
	r.closing.Do(func() { close(r.closed) })
	return nil
}

// bookmarked is a reading that carries a name.
type bookmarked struct {
	*reading
	name *name
}

// Bookmark implements message.Bookmarker.
func (b *bookmarked) Bookmark(_ context.Context, at message.Position) error {
	if at.Origin != b.m.origin() {
		return message.Errorf(message.BadInput, "the bookmark belongs to another endpoint or configuration")
	}
	if mark, ok := at.Find(channelOwn, 0); ok {
		b.name.advance(min(mark.Next, maxID))
	}
	return nil
}

// Close implements message.Stream.
func (b *bookmarked) Close(context.Context) error {
	b.closing.Do(func() {
		close(b.closed)
		b.m.names.release(b.name)
	})
	return nil
}

var (
	_ message.Stream     = (*reading)(nil)
	_ message.Positioned = (*reading)(nil)
	_ message.Bookmarker = (*bookmarked)(nil)
)
