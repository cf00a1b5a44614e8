package mock

import (
	"context"
	"fmt"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// member is a stream of a name, which remembers what was settled. Everything in it is
// guarded by the name's lock.
type member struct {
	base
	name  *name
	owed  map[int64]loan // nil after Close
	bytes int            // of what is owed
}

// loan is a delivery that was not settled yet.
type loan struct {
	attempt, size int
	made          time.Time
}

func (m *Mock) newMember(sub message.Subscription) *member {
	s := &member{name: m.names.acquire(sub.Name), owed: make(map[int64]loan)}
	s.begin(m, sub, clock{start: time.Now(), interval: m.interval})
	s.name.mu.Lock()
	defer s.name.mu.Unlock()
	s.name.members[s] = true
	return s
}

// Receive implements message.Stream.
func (s *member) Receive(ctx context.Context) (message.Batch, error) {
	return s.receive(ctx, s.collect)
}

func (s *member) collect(now time.Time) (batch message.Batch, next time.Time) {
	s.name.mu.Lock()
	defer s.name.mu.Unlock()
	if s.owed == nil {
		return batch, next
	}
	left := room{s.sub.Window.Messages - len(s.owed), min(s.sub.Window.Bytes-s.bytes, batchBytes)}
	batch.Deliveries = s.again(nil, &left)

	first := s.name.next
	size := s.m.made.size(first + max(s.ticks(now), 1))
	fits := left.fits(size, len(s.owed) == 0)
	n := int(min(s.ticks(now), int64(fits)))
	if n > 0 {
		row := s.use(n, first)
		s.name.next += int64(n)
		batch.Deliveries = s.lend(batch.Deliveries, row)
	}
	if fits > 0 { // else only a settlement makes room
		next = s.nextTick()
	}
	return batch, next
}

// again appends what came back, as far as there is room.
func (s *member) again(batch []message.Delivery, left *room) []message.Delivery {
	used := 0
	for _, r := range s.name.back {
		size := s.m.made.size(r.id)
		if left.fits(size, len(s.owed) == 0) == 0 {
			break
		}
		left.messages--
		left.bytes -= size
		used++
		batch = s.lend(batch, run{
			first: r.id, n: 1, due: r.made, attempt: r.attempt, epoch: s.epoch, lane: laneClock,
		})
	}
	s.name.back = s.name.back[used:]
	return batch
}

// lend appends a run of messages whose attempt is how often they came before.
func (s *member) lend(batch []message.Delivery, row run) []message.Delivery {
	row.attempt++
	row.channel = channelOwn
	before := len(batch)
	batch = s.m.made.appendTo(batch, row)
	for i := range batch[before:] {
		d := &batch[before+i]
		size := d.Size()
		s.owed[d.Mark.Next-1] = loan{attempt: row.attempt, size: size, made: d.Time}
		s.bytes += size
	}
	return batch
}

// Settle implements message.Stream.
func (s *member) Settle(ctx context.Context, how message.Settlement, deliveries ...message.Delivery) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.name.mu.Lock()
	defer s.name.mu.Unlock()
	stale := 0
	for i := range deliveries {
		id := deliveries[i].Mark.Next - 1
		l, ok := s.owed[id]
		if !ok || deliveries[i].Epoch != s.epoch || deliveries[i].Attempt != l.attempt {
			stale++
			continue
		}
		delete(s.owed, id)
		s.bytes -= l.size
		if how == message.Release {
			s.name.giveBack(returned{id, l.attempt, l.made})
		}
	}
	if how == message.Release {
		s.name.rouse()
	}
	s.rouse()
	if stale > 0 {
		return fmt.Errorf("%d of %d deliveries: %w", stale, len(deliveries), message.ErrStale)
	}
	return nil
}

// Close implements message.Stream: what is owed goes to the other members, or the next.
func (s *member) Close(context.Context) error {
	s.closing.Do(func() {
		close(s.closed)
		s.leave()
		s.m.names.release(s.name)
	})
	return nil
}

func (s *member) leave() {
	s.name.mu.Lock()
	defer s.name.mu.Unlock()
	for id, l := range s.owed {
		s.name.giveBack(returned{id, l.attempt, l.made})
	}
	s.owed, s.bytes = nil, 0
	delete(s.name.members, s)
	s.name.rouse()
}

var _ message.Stream = (*member)(nil)
