package endpointtest

import (
	"context"
	"errors"
	"hash/fnv"
	"sort"
	"strconv"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

var errFakeClosed = errors.New("the stream is closed")

// fakeStream is what the fake's streams have in common. All fields are guarded by the
// broker's lock.
type fakeStream struct {
	f     *Fake
	b     *FakeBroker
	topic string
	sub   message.Subscription
	epoch uint64
	ended error
	gap   *message.Gap
}

// receive waits until collect, which runs under the broker's lock, returns something.
// until is when collect should be tried again at the latest; zero is never.
func (s *fakeStream) receive(ctx context.Context, collect func() (batch message.Batch, until time.Time)) (message.Batch, error) {
	for {
		if err := ctx.Err(); err != nil {
			return message.Batch{}, err
		}
		s.b.mu.Lock()
		if s.ended == nil && s.b.failure != nil {
			s.ended = s.b.failure
		}
		if err := s.ended; err != nil {
			s.b.mu.Unlock()
			return message.Batch{}, err
		}
		var batch message.Batch
		var until time.Time
		if s.b.down.IsZero() && !s.b.stalled && s.b.channels[s.topic] != nil {
			batch, until = collect()
		}
		wake := s.b.wake
		s.b.mu.Unlock()
		if len(batch.Deliveries) > 0 || batch.Gap != nil || len(batch.Revoked) > 0 {
			return batch, nil
		}
		await(ctx, wake, until)
	}
}

func await(ctx context.Context, wake <-chan struct{}, until time.Time) {
	if !until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, until)
		defer cancel()
	}
	select {
	case <-ctx.Done():
	case <-wake:
	}
}

// end ends the stream once, and tells whether it was the first time.
func (s *fakeStream) end() bool {
	first := !errors.Is(s.ended, errFakeClosed)
	s.ended = errFakeClosed
	s.b.changed()
	return first
}

func (s *fakeStream) channel() *fakeChannel { return s.b.channels[s.topic] }

func lane(topic string, partition int) string { return topic + "/" + strconv.Itoa(partition) }

// mark is the place after the message at an offset.
func (s *fakeStream) mark(partition int, offset int64, m *message.Message) message.Mark {
	if !s.f.Caps.Positions {
		return message.Mark{}
	}
	return message.Mark{Channel: s.topic, Partition: int32(partition), Next: offset + 1, Time: m.Time.UnixMilli()}
}

func (s *fakeStream) origin() uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte("fake/" + s.topic)) // a hash takes everything
	return h.Sum64()
}

// start is the offset in a partition at which reading begins.
func (p *fakePartition) start(from message.Start) int64 {
	switch from.Kind {
	case message.StartEarliest:
		return p.low
	case message.StartTime:
		return p.low + int64(sort.Search(len(p.log), func(i int) bool { return !p.log[i].Time.Before(from.Time) }))
	default:
		return p.end()
	}
}

// room is what is left of a window.
type room struct{ messages, bytes int }

// take takes the room for a message, and says whether there was enough. An empty window
// takes a message of any size.
func (r *room) take(size int, empty bool) bool {
	if r.messages < 1 || size > r.bytes && !empty {
		return false
	}
	r.messages--
	r.bytes -= size
	return true
}
