package mock

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// loopBytes is how much a subscriber may be behind before the oldest is dropped for it.
const loopBytes = 1 << 20

// hub hands what is published to all subscribers. Publishing never waits for one.
type hub struct {
	ticks *template // nil: no clock

	mu   sync.Mutex
	next int64
	subs map[*subscriber]struct{}
}

func newHub() *hub { return &hub{subs: make(map[*subscriber]struct{})} }

// publish delivers copies with an id of ours, and returns the ids.
func (h *hub) publish(now time.Time, messages []*message.Message) []string {
	ids := make([]string, len(messages))
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, msg := range messages {
		own := *msg
		if own.ID == "" {
			own.ID = strconv.FormatInt(h.next, 10)
		}
		own.Time = now
		ids[i] = own.ID
		h.next++
		for s := range h.subs {
			s.add(&own)
		}
	}
	for s := range h.subs {
		s.rouse()
	}
	return ids
}

func (h *hub) subscribe(w message.Window) *subscriber {
	s := &subscriber{hub: h, most: w.Messages, wake: make(chan struct{}, 1), closed: make(chan struct{})}
	if s.most <= 0 {
		s.most = 20 * defaultWindow
	}
	if h.ticks != nil {
		s.ticks = &grid{tmpl: h.ticks, start: time.Now()}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.subs[s] = struct{}{}
	return s
}

// subscriber is one subscription to a hub; its fields but the channels are guarded by
// hub.mu.
type subscriber struct {
	hub    *hub
	most   int
	ticks  *grid
	ticked int64
	wake   chan struct{}
	closed chan struct{}
	once   sync.Once

	queue   []*message.Message
	bytes   int
	dropped int
}

// add queues a message; what is too much pushes out the oldest.
func (s *subscriber) add(m *message.Message) {
	s.queue = append(s.queue, m)
	s.bytes += m.Size()
	for len(s.queue) > s.most || s.bytes > loopBytes && len(s.queue) > 1 {
		s.bytes -= s.queue[0].Size()
		s.queue[0] = nil
		s.queue = s.queue[1:]
		s.dropped++
	}
}

func (s *subscriber) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Receive implements message.Stream.
func (s *subscriber) Receive(ctx context.Context) (message.Batch, error) {
	for {
		batch, wait, ticking := s.take(time.Now())
		if len(batch.Deliveries) > 0 {
			return batch, nil
		}
		if err := sleep(ctx, s.closed, s.wake, wait, ticking); err != nil {
			return message.Batch{}, err
		}
	}
}

func (s *subscriber) take(now time.Time) (batch message.Batch, wait time.Duration, ticking bool) {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	if s.ticks != nil {
		s.tick(now)
		wait, ticking = s.ticks.wait(s.ticked, now)
	}
	if s.dropped > 0 {
		batch.Gap = &message.Gap{Reason: message.GapSlow, Detail: fmt.Sprintf("%d messages were dropped", s.dropped)}
		s.dropped = 0
	}
	bytes, n := 0, 0
	for n < len(s.queue) && (n == 0 || bytes+len(s.queue[n].Payload) <= batchBytes) {
		bytes += len(s.queue[n].Payload)
		n++
	}
	for i, m := range s.queue[:n] {
		s.bytes -= m.Size()
		s.queue[i] = nil
		batch.Deliveries = append(batch.Deliveries, message.Delivery{Message: m, Attempt: 1, Lane: channelName})
	}
	s.queue = s.queue[n:]
	return batch, wait, ticking
}

// tick queues what the clock has made.
func (s *subscriber) tick(now time.Time) {
	for due := s.ticks.due(now); s.ticked < due; s.ticked++ {
		s.add(s.ticks.tmpl.make(s.ticked, s.ticks.at(s.ticked)))
	}
}

// Settle implements message.Stream: nothing is owed for a broadcast.
func (s *subscriber) Settle(context.Context, message.Settlement, ...message.Delivery) error {
	return nil
}

// Close implements message.Stream.
func (s *subscriber) Close(context.Context) error {
	s.once.Do(func() {
		close(s.closed)
		s.hub.mu.Lock()
		defer s.hub.mu.Unlock()
		delete(s.hub.subs, s)
	})
	return nil
}
