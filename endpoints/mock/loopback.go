package mock

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// hub hands what is published to all subscriptions, in one order. The zero value is
// ready to use.
type hub struct {
	metadata []message.Field

	mu      sync.Mutex
	streams []*loop
	next    uint64
}

// publish numbers the messages and hands them out. It returns the first number, and
// waits for no reader.
func (h *hub) publish(messages []*message.Message) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	first := h.next
	h.next += uint64(len(messages))
	if len(h.streams) == 0 || len(messages) == 0 {
		return first
	}
	now := time.Now()
	copies := make([]message.Message, len(messages))
	for i, m := range messages {
		copies[i] = message.Message{
			ID: idOf(m, first+uint64(i)), Key: m.Key, Payload: m.Payload, Headers: m.Headers,
			Metadata: h.metadata, Time: now,
		}
	}
	for _, s := range h.streams {
		s.push(copies)
	}
	return first
}

func (m *Mock) newLoop(sub message.Subscription) *loop {
	h := &m.hub
	s := &loop{hub: h}
	now := time.Now()
	s.begin(m, sub, m.sharedClock(now))
	s.tick = s.clock.due(now)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.streams = append(h.streams, s)
	return s
}

func (h *hub) remove(s *loop) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := slices.Index(h.streams, s); i >= 0 {
		last := len(h.streams) - 1
		h.streams[i], h.streams[last] = h.streams[last], nil
		h.streams = h.streams[:last]
	}
}

// loop is a subscription to what is published.
type loop struct {
	base
	hub *hub

	mu      sync.Mutex
	queue   []*message.Message // never more than the window
	bytes   int
	dropped int
}

// push adds messages, and makes room by dropping the oldest.
func (s *loop) push(messages []message.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range messages {
		s.queue = append(s.queue, &messages[i])
		s.bytes += messages[i].Size()
	}
	drop, w := 0, s.sub.Window
	for len(s.queue)-drop > w.Messages || s.bytes > w.Bytes && len(s.queue)-drop > 1 {
		s.bytes -= s.queue[drop].Size()
		drop++
	}
	if drop > 0 {
		s.dropped += drop
		clear(s.queue[:drop]) // for the garbage collector
		s.queue = s.queue[drop:]
	}
	s.rouse()
}

// Receive implements message.Stream.
func (s *loop) Receive(ctx context.Context) (message.Batch, error) {
	return s.receive(ctx, s.collect)
}

func (s *loop) collect(now time.Time) (message.Batch, time.Time) {
	s.mu.Lock()
	queue, bytes, dropped := s.queue, s.bytes, s.dropped
	s.queue, s.bytes, s.dropped = nil, 0, 0
	s.mu.Unlock()

	var batch message.Batch
	if dropped > 0 {
		batch.Gap = &message.Gap{
			Reason: message.GapSlow,
			Detail: fmt.Sprintf("%d messages were dropped, because they came faster than they were read", dropped),
		}
	}
	if len(queue) > 0 {
		batch.Deliveries = make([]message.Delivery, len(queue))
		for i, m := range queue {
			batch.Deliveries[i] = message.Delivery{Message: m, Lane: laneLoopback, Epoch: s.epoch}
		}
	}
	if due := s.ticks(now); due > 0 {
		left := room{s.sub.Window.Messages - len(queue), min(s.sub.Window.Bytes, batchBytes) - bytes}
		n := left.fits(s.m.made.size(s.tick+due), len(queue) == 0)
		if n = int(min(due, int64(n))); n > 0 {
			batch.Deliveries = s.m.made.appendTo(batch.Deliveries, s.use(n, s.tick))
		}
	}
	return batch, s.nextTick()
}

// Settle implements message.Stream: nothing is owed.
func (s *loop) Settle(context.Context, message.Settlement, ...message.Delivery) error { return nil }

// Close implements message.Stream.
func (s *loop) Close(context.Context) error {
	s.closing.Do(func() {
		close(s.closed)
		s.hub.remove(s)
	})
	return nil
}

var _ message.Stream = (*loop)(nil)
