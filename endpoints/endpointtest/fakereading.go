package endpointtest

import (
	"context"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// fakeReading is a stream that reads the log by offsets and competes with nobody:
// Broadcast and Assigned.
type fakeReading struct {
	fakeStream
	born int
	next []int64
	turn int // the partition to begin with, so that none starves
}

// newReading is called with the broker's lock held.
func newReading(base fakeStream, ch *fakeChannel) message.Stream {
	s := &fakeReading{fakeStream: base, born: ch.born, next: make([]int64, len(ch.parts))}
	at := base.sub.Position
	if at == nil && base.sub.Name != "" {
		at = ch.bookmarks[base.sub.Name]
	}
	switch {
	case at == nil:
		s.begin(ch)
	case !base.f.Caps.Positions:
		s.begin(ch)
		s.gap = &message.Gap{Reason: message.GapUnresumable}
	default:
		s.resume(ch, at)
	}
	if !base.f.Caps.Positions {
		return s
	}
	if base.sub.Mode == message.Assigned && base.sub.Name != "" {
		return &fakeBookmarked{fakePositioned{s}}
	}
	return &fakePositioned{s}
}

func (s *fakeReading) begin(ch *fakeChannel) {
	for i := range ch.parts {
		s.next[i] = ch.parts[i].start(s.sub.From)
	}
}

func (s *fakeReading) resume(ch *fakeChannel, at *message.Position) {
	known := 0
	for i := range ch.parts {
		if _, ok := at.Find(ch.name, int32(i)); ok {
			known++
		}
	}
	if at.Origin != s.origin() || known != len(at.Marks) {
		s.begin(ch)
		s.gap = &message.Gap{Reason: message.GapForeign, Detail: "the cursor belongs to another channel"}
		return
	}
	for i := range ch.parts {
		p := &ch.parts[i]
		m, _ := at.Find(ch.name, int32(i))
		before := p.at(m.Next - 1)
		switch {
		case m.Next > p.end(), m.Time != 0 && before != nil && before.Time.UnixMilli() != m.Time:
			s.startOver(ch, message.GapRecreated)
			return
		case m.Next < p.low:
			s.next[i] = p.low
			s.gap = &message.Gap{Reason: message.GapExpired, Detail: "messages after the cursor were deleted"}
		default:
			s.next[i] = m.Next
		}
	}
}

func (s *fakeReading) startOver(ch *fakeChannel, why message.GapReason) {
	for i := range ch.parts {
		s.next[i] = ch.parts[i].low
	}
	s.gap = &message.Gap{Reason: why}
}

// Receive implements message.Stream.
func (s *fakeReading) Receive(ctx context.Context) (message.Batch, error) {
	return s.receive(ctx, s.collect)
}

func (s *fakeReading) collect() (message.Batch, time.Time) {
	ch := s.channel()
	if s.born != ch.born {
		s.born = ch.born
		s.startOver(ch, message.GapRecreated)
	}
	if s.epoch != s.b.epoch {
		s.epoch = s.b.epoch
		if !s.f.Caps.Positions { // the broker kept nothing for us
			s.sub.From.Kind = message.StartLatest
			s.begin(ch)
			s.gap = &message.Gap{Reason: message.GapConnection, Detail: "the connection was lost"}
		}
	}
	batch := message.Batch{Gap: s.gap}
	s.gap = nil
	left := room{s.sub.Window.Messages, s.sub.Window.Bytes}
	for i := range ch.parts {
		partition := (s.turn + i) % len(ch.parts)
		p := &ch.parts[partition]
		if s.next[partition] < p.low {
			s.next[partition] = p.low
			batch.Gap = &message.Gap{Reason: message.GapExpired}
		}
		for m := p.at(s.next[partition]); m != nil; m = p.at(s.next[partition]) {
			if !left.take(m.Size(), len(batch.Deliveries) == 0) {
				break
			}
			batch.Deliveries = append(batch.Deliveries, message.Delivery{
				Message: m, Mark: s.mark(partition, s.next[partition], m), Lane: lane(ch.name, partition), Epoch: s.epoch,
			})
			s.next[partition]++
		}
	}
	s.turn++
	return batch, time.Time{}
}

// Settle implements message.Stream: nothing is owed for what is read by offset.
func (s *fakeReading) Settle(context.Context, message.Settlement, ...message.Delivery) error {
	return nil
}

// Close implements message.Stream.
func (s *fakeReading) Close(context.Context) error {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.end()
	return nil
}

// fakePositioned adds the position.
type fakePositioned struct{ *fakeReading }

// Position implements message.Positioned.
func (s *fakePositioned) Position() message.Position {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	at := message.Position{Origin: s.origin()}
	ch := s.channel()
	for i, next := range s.next {
		mark := message.Mark{Channel: s.topic, Partition: int32(i), Next: next}
		if before := ch.parts[i].at(next - 1); before != nil {
			mark.Time = before.Time.UnixMilli()
		}
		at.Marks = append(at.Marks, mark)
	}
	return at
}

// fakeBookmarked adds bookmarks.
type fakeBookmarked struct{ fakePositioned }

// Bookmark implements message.Bookmarker.
func (s *fakeBookmarked) Bookmark(_ context.Context, at message.Position) error {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	if !s.b.down.IsZero() {
		return unavailable()
	}
	ch := s.channel()
	mine := ch.bookmarks[s.sub.Name]
	if mine == nil {
		mine = &message.Position{Origin: s.origin()}
		ch.bookmarks[s.sub.Name] = mine
	}
	for _, m := range at.Marks {
		mine.Advance(m)
	}
	return nil
}

var (
	_ message.Positioned = (*fakePositioned)(nil)
	_ message.Bookmarker = (*fakeBookmarked)(nil)
)
