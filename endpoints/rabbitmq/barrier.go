package rabbitmq

import (
	"context"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// settleSurely settles and waits until the broker is known to have it in force. An
// acknowledgement has no answer. So another consumer is added to the queue, and taken away
// again: both have answers, and both go the way that acknowledgements go. In a quorum
// queue they are entries of its log, behind the acknowledgements, and answered when a
// majority has them on disk.
func (q *queueStream) settleSurely(ctx context.Context, how message.Settlement, deliveries []message.Delivery) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case q.settling <- struct{}{}:
		defer func() { <-q.settling }()
	case <-ctx.Done():
		return fault("settling", ctx.Err())
	}
	s, err := q.note(how, deliveries)
	if err != nil {
		return err
	}
	if err := q.barrier(ctx, s); err != nil {
		// Nobody knows whether it was settled, and an answer may come late: the channel is
		// given up.
		go s.close(q.ctx)
		return fault("waiting until settlements are in force", err)
	}
	return nil
}

// barrier returns when the broker has handled all that was said on the channel before.
func (q *queueStream) barrier(ctx context.Context, s *session) error {
	return s.call(ctx, func() error {
		// The lowest priority: it gets something only while the other may have no more.
		strays, err := s.ch.Consume(s.queue, barrierTag, false, false, false, false, lowest)
		if err != nil {
			return err
		}
		if err := s.ch.Cancel(barrierTag, false); err != nil {
			return err
		}
		for d := range strays {
			q.add(s, &d)
		}
		return nil
	})
}

const barrierTag = "gateway-barrier"

var lowest = amqp.Table{"x-priority": int32(-1000)}
