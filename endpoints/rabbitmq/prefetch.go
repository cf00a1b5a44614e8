package rabbitmq

import (
	"context"
	"strconv"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// The broker bounds what it sends ahead in messages, and memory is a matter of bytes. So
// a consumer begins with a small prefetch, and is replaced by one whose prefetch fits the
// window in bytes as well, when it is seen how large messages are. A replacement is there
// before its predecessor goes, because some queues go with their last consumer.
//
// Meanwhile nothing is settled, so that a predecessor whose prefetch is used up gets nothing
// more. What a quorum queue gives to a consumer that is just being cancelled never arrives, and
// is held until the channel is closed.

// firstPrefetch is what a consumer begins with, unless the window is smaller.
const firstPrefetch = 16

// flow is how much the broker sends ahead on a session. It is guarded by the stream.
type flow struct {
	prefetch int // of the present consumer
	its      int // unsettled messages that came by it
	out      int // unsettled messages, received or not
	bytes    int // in them
	mean     int // bytes of a message, of late
	// changing: a replacement is under way.
	changing bool
	// following is where deliveries come from when the present consumer has gone.
	following <-chan amqp.Delivery
	consumers int
}

// came notes a delivery, and says what the prefetch should be changed to, or 0.
func (f *flow) came(size int, its bool, window message.Window) int {
	f.out++
	f.bytes += size
	if its {
		f.its++
	}
	if f.mean == 0 {
		f.mean = size
	}
	f.mean += (size - f.mean) / 8
	if f.changing {
		return 0
	}
	want := min(max(window.Bytes/max(f.mean, 1), 1), window.Messages)
	// What is out by those that went before counts for the window too.
	if more := want - f.out; f.its >= f.prefetch && more >= 2*f.prefetch {
		return more
	}
	if f.bytes > 2*window.Bytes && want < f.prefetch/2 {
		return want
	}
	return 0
}

// went notes that deliveries are settled, so many of them by the present consumer.
func (f *flow) went(messages, bytes, its int) {
	f.out -= messages
	f.bytes -= bytes
	f.its -= its
}

// resize replaces the consumer of a session by one with another prefetch.
func (q *queueStream) resize(s *session, prefetch int) {
	ctx, cancel := context.WithTimeout(q.ctx, patience)
	defer cancel()
	defer q.resized(s)
	// What goes wrong ends the channel, and the stream makes another one.
	_ = s.call(ctx, func() error {
		defer q.resized(s) // before somebody else may call
		q.mu.Lock()
		over := q.stopped || q.err != nil
		old, tag := s.tag, "gateway-"+strconv.Itoa(s.flow.consumers)
		q.mu.Unlock()
		if over {
			return nil
		}
		following, err := q.consumer(s, tag, prefetch)
		if err != nil {
			return err
		}
		q.mu.Lock()
		s.tag, s.flow.following = tag, following
		s.flow.prefetch, s.flow.its = prefetch, 0
		s.flow.consumers++
		q.mu.Unlock()
		return s.ch.Cancel(old, false)
	})
}

// resized tells the broker what was settled while a consumer was replaced.
func (q *queueStream) resized(s *session) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s.flow.changing = false
	for _, r := range s.held {
		_ = s.ch.Nack(r.tag, false, r.requeue) // a channel that takes nothing is closed: it all comes again
	}
	s.held = nil
	if upTo := s.ledger.advance(); upTo > 0 {
		_ = s.ch.Ack(upTo, true)
	}
	for i, state := range s.ledger.slots {
		if state == acked {
			s.ledger.slots[i] = over
			_ = s.ch.Ack(s.ledger.base+uint64(i), false)
		}
	}
}

// consumer adds a consumer to a session.
func (q *queueStream) consumer(s *session, tag string, prefetch int) (<-chan amqp.Delivery, error) {
	if err := s.ch.Qos(prefetch, 0, false); err != nil {
		return nil, err
	}
	deliveries, err := s.ch.Consume(s.queue, tag, false, false, false, false, nil)
	if err == nil && q.qos == message.AtMostOnce {
		err = s.ch.Qos(1, 0, false) // for the consumers of the barrier
	}
	return deliveries, err
}
