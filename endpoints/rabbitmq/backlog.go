package rabbitmq

import (
	"context"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// Backlog implements message.Backlogger: what is ready in the queue, and what is out at this
// stream.
func (q *queueStream) Backlog(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	q.mu.Lock()
	s := q.cur
	out := 0
	if s != nil {
		out = s.flow.out
	}
	q.mu.Unlock()
	if s == nil {
		return 0, message.Errorf(message.Unavailable, "%s: the connection is being made again", q.what)
	}
	ready := 0
	err := onChannel(ctx, s.conn, func(ch *amqp.Channel) error {
		there, err := ch.QueueDeclarePassive(s.queue, true, false, false, false, nil) // only the name counts
		ready = there.Messages
		return err
	})
	return int64(ready + out), at("queue "+s.queue, err)
}

var _ message.Backlogger = (*queueStream)(nil)
