package endpointtest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// fakeGroup is what the broker knows about a name: where it is, what came back, and what
// is lent to whom. It is guarded by the broker's lock.
type fakeGroup struct {
	next []int64
	// back holds offsets to be delivered again, in order.
	back []map[int64]int
	lent map[*fakeLoan]bool
}

// fakeLoan is one delivery that is owed a settlement.
type fakeLoan struct {
	to        *fakeMember
	partition int
	offset    int64
	attempt   int
	size      int
	expires   time.Time
}

// fakeMember is a stream whose progress the broker tracks: Member and Shared.
type fakeMember struct {
	fakeStream
	group   *fakeGroup
	revoked []string
	stopped bool
}

// newMember is called with the broker's lock held.
func newMember(base fakeStream, ch *fakeChannel) message.Stream {
	name := base.sub.Name
	if base.sub.Mode == message.Shared {
		name = "" // the queue that all share
	}
	g := ch.groups[name]
	if g == nil {
		g = &fakeGroup{lent: make(map[*fakeLoan]bool)}
		for i := range ch.parts {
			g.next = append(g.next, ch.parts[i].start(base.sub.From))
			g.back = append(g.back, make(map[int64]int))
		}
		ch.groups[name] = g
	}
	return &fakeMember{fakeStream: base, group: g}
}

// Receive implements message.Stream.
func (s *fakeMember) Receive(ctx context.Context) (message.Batch, error) {
	return s.receive(ctx, s.collect)
}

func (s *fakeMember) collect() (message.Batch, time.Time) {
	s.epoch = s.b.epoch
	ch, g := s.channel(), s.group
	now := time.Now()
	g.giveBack(func(l *fakeLoan) bool { return !l.expires.IsZero() && !now.Before(l.expires) })

	left, empty, until := room{s.sub.Window.Messages, s.sub.Window.Bytes}, true, time.Time{}
	for l := range g.lent {
		if l.to == s {
			left.messages--
			left.bytes -= l.size
			empty = false
		}
		if !l.expires.IsZero() && (until.IsZero() || l.expires.Before(until)) {
			until = l.expires
		}
	}
	batch := message.Batch{Revoked: s.revoked}
	s.revoked = nil
	if s.stopped {
		return batch, until
	}
	for i := range ch.parts {
		for {
			offset, attempt, ok := g.peek(i, &ch.parts[i])
			if !ok {
				break
			}
			m := ch.parts[i].at(offset)
			if !left.take(m.Size(), empty && len(batch.Deliveries) == 0) {
				break
			}
			g.pop(i, offset)
			batch.Deliveries = append(batch.Deliveries, s.lend(m, i, offset, attempt+1, now))
		}
	}
	return batch, until
}

func (s *fakeMember) lend(m *message.Message, partition int, offset int64, attempt int, now time.Time) message.Delivery {
	d := message.Delivery{
		Message: m, Mark: s.mark(partition, offset, m), Lane: lane(s.topic, partition), Attempt: attempt, Epoch: s.epoch,
	}
	if !s.f.Caps.ManualSettle {
		return d
	}
	loan := &fakeLoan{to: s, partition: partition, offset: offset, attempt: attempt, size: m.Size()}
	if s.f.Caps.MaxHold > 0 {
		loan.expires = now.Add(s.f.Caps.MaxHold)
	}
	s.group.lent[loan] = true
	d.Handle = loan
	return d
}

// Settle implements message.Stream.
func (s *fakeMember) Settle(ctx context.Context, how message.Settlement, deliveries ...message.Delivery) error {
	if !s.f.Caps.ManualSettle {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	return s.each(deliveries, func(l *fakeLoan) { s.settle(l, how) })
}

// each calls f for the loans that are still ours, and reports the others.
func (s *fakeMember) each(deliveries []message.Delivery, f func(*fakeLoan)) error {
	stale := 0
	now := time.Now()
	for _, d := range deliveries {
		l, ok := d.Handle.(*fakeLoan)
		switch {
		case !ok, l.to != s, !s.group.lent[l], !l.expires.IsZero() && !now.Before(l.expires):
			stale++
		default:
			f(l)
		}
	}
	s.b.changed()
	if stale > 0 {
		return fmt.Errorf("%d of %d deliveries: %w", stale, len(deliveries), message.ErrStale)
	}
	return nil
}

func (s *fakeMember) settle(l *fakeLoan, how message.Settlement) {
	g := s.group
	delete(g.lent, l)
	switch how {
	case message.Release:
		g.back[l.partition][l.offset] = l.attempt
	case message.Reject:
		if s.f.Caps.DeadLetter {
			if m := s.channel().parts[l.partition].at(l.offset); m != nil {
				s.channel().dead = append(s.channel().dead, m)
			}
		}
	case message.Ack:
		if !s.f.Caps.OrderedSettle {
			return
		}
		for other := range g.lent {
			if other.to == s && other.partition == l.partition && other.offset < l.offset {
				delete(g.lent, other)
			}
		}
	}
}

// Stop implements message.Stopper. Nothing is fetched before Receive, so there is nothing
// to give back.
func (s *fakeMember) Stop(context.Context) error {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.stopped = true
	return nil
}

// Close implements message.Stream.
func (s *fakeMember) Close(context.Context) error {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	if s.end() {
		s.group.giveBack(func(l *fakeLoan) bool { return l.to == s })
	}
	return nil
}

// peek is the next offset to deliver in a partition, and how often it was before.
func (g *fakeGroup) peek(partition int, p *fakePartition) (offset int64, attempts int, ok bool) {
	back := g.back[partition]
	if len(back) == 0 {
		return g.next[partition], 0, g.next[partition] < p.end()
	}
	offset = p.end()
	for o, n := range back {
		if o < offset {
			offset, attempts = o, n
		}
	}
	return offset, attempts, true
}

func (g *fakeGroup) pop(partition int, offset int64) {
	if _, again := g.back[partition][offset]; again {
		delete(g.back[partition], offset)
		return
	}
	g.next[partition]++
}

// giveBack ends the loans that match: they are delivered again.
func (g *fakeGroup) giveBack(match func(*fakeLoan) bool) {
	for l := range g.lent {
		if match(l) {
			delete(g.lent, l)
			g.back[l.partition][l.offset] = l.attempt
		}
	}
}

// revoke is giveBack for all, and tells those who held something.
func (g *fakeGroup) revoke() {
	for l := range g.lent {
		if name := lane(l.to.topic, l.partition); !slices.Contains(l.to.revoked, name) {
			l.to.revoked = append(l.to.revoked, name)
		}
	}
	g.giveBack(func(*fakeLoan) bool { return true })
}

func (g *fakeGroup) truncate(ch *fakeChannel) {
	clear(g.lent)
	for i := range ch.parts {
		clear(g.back[i])
		g.next[i] = max(g.next[i], ch.parts[i].low)
	}
}

var _ message.Stream = (*fakeMember)(nil)
