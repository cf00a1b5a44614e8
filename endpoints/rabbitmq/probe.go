package rabbitmq

import (
	"context"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// Probe implements endpoints.Prober: the broker lets us in and takes messages, and the
// exchanges and queues that are known without a request are there, or can be declared.
func (r *RabbitMQ) Probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if r.producer != nil {
		probe := r.fixed
		if probe == nil {
			probe = r.producer.publisher("", "")
		}
		if _, err := probe.open(ctx); err != nil {
			return err
		}
	}
	if r.consumer == nil {
		return nil
	}
	conn, err := r.consumer.first().Get(ctx)
	if err != nil || r.spec == nil {
		return err
	}
	return r.consumer.probe(ctx, conn.C, r.spec)
}

// probe asks for what is read without declaring it: what would be declared need not be
// there yet.
func (c *consumer) probe(ctx context.Context, conn *connection, s *spec) error {
	if s.exchange != "" && !c.exchange.declare {
		err := onChannel(ctx, conn, func(ch *amqp.Channel) error { return c.exchange.ensure(ch, s.exchange) })
		if err != nil {
			return clash("exchange "+s.exchange, err)
		}
	}
	if s.queue == "" || c.named.declare {
		return nil
	}
	there, err := exists(ctx, conn, s.queue)
	if err != nil {
		return clash("queue "+s.queue, err)
	}
	if !there {
		return message.Errorf(message.NotFound, "queue %s does not exist at RabbitMQ", s.queue)
	}
	return nil
}
