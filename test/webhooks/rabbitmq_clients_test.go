package webhooks

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/caddy-message-api/caddy-message-api/test/brokers"
	"github.com/caddy-message-api/caddy-message-api/test/webhooks/ledger"
)

// amqpQueue is a quorum queue in the virtual host "/".
type amqpQueue struct {
	server *brokers.RabbitMQServer
	// addr is the server's, for goroutines that are not the test's.
	addr, user, password, name string
}

// newQueue declares a queue and waits until it is on disk.
func newQueue(t *testing.T, server *brokers.RabbitMQServer, name string) *amqpQueue {
	t.Helper()
	q := &amqpQueue{server, server.Addr(), server.User(), server.Password(), name}
	err := q.with(func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(name, true, false, false, false, amqp.Table{"x-queue-type": "quorum"})
		return err
	})
	if err != nil {
		t.Fatalf("declaring %s: %v", name, err)
	}
	server.AwaitRegistered("%2F", name) // as the queue of "/" is named on disk
	return q
}

// with runs f on a channel of a connection of its own.
func (q *amqpQueue) with(f func(*amqp.Channel) error) error {
	conn, err := amqp.DialConfig("amqp://"+q.addr, amqp.Config{
		Vhost: "/", SASL: []amqp.Authentication{&amqp.PlainAuth{Username: q.user, Password: q.password}}, Dial: amqp.DefaultDial(5 * time.Second),
	})
	if err != nil {
		return err
	}
	ch, err := conn.Channel()
	if err == nil {
		err = f(ch)
	}
	if closed := conn.Close(); !errors.Is(closed, amqp.ErrClosed) {
		err = errors.Join(err, closed)
	}
	return err
}

// again does f on a new connection until it succeeds.
func (q *amqpQueue) again(ctx context.Context, f func(*amqp.Channel) error) error {
	for {
		err := q.with(f)
		if err == nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(100 * time.Millisecond): // the broker is away
		case <-ctx.Done():
		}
	}
}

// produce publishes all messages of the ledger in their order, and no more ahead of what is known
// than so many. What may be in the queue already is published again: the first of each stay in
// order.
func (q *amqpQueue) produce(ctx context.Context, l *ledger.Ledger, ahead int) error {
	var pending []ledger.Message
	next := make(chan []ledger.Message)
	done := make(chan error, 1)
	go func() {
		defer close(next)
		done <- inBatches(ctx, l, ahead, func(batch []ledger.Message) error {
			select {
			case next <- batch:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	err := q.again(ctx, func(ch *amqp.Channel) error {
		if err := ch.Confirm(false); err != nil {
			return err
		}
		for {
			if len(pending) == 0 {
				if pending = <-next; pending == nil {
					return nil
				}
			}
			if err := q.publish(ctx, ch, pending); err != nil {
				return err
			}
			pending = nil
		}
	})
	return errors.Join(err, <-done)
}

// publish publishes a batch and waits until all of it is confirmed.
func (q *amqpQueue) publish(ctx context.Context, ch *amqp.Channel, batch []ledger.Message) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	confirmations := make([]*amqp.DeferredConfirmation, len(batch))
	for i, m := range batch {
		var err error
		confirmations[i], err = ch.PublishWithDeferredConfirmWithContext(ctx, "", q.name, false, false, amqp.Publishing{
			DeliveryMode: amqp.Persistent, MessageId: fmt.Sprintf("%s-%d", q.name, m.N), ContentType: "application/json",
			Headers: amqp.Table{keptHeader: strconv.Itoa(m.N)}, Body: m.Payload(),
		})
		if err != nil {
			return err
		}
	}
	for i, c := range confirmations {
		if ok, err := c.WaitContext(ctx); err != nil || !ok {
			return fmt.Errorf("message %d: confirmed %t, %w", batch[i].N, ok, err)
		}
	}
	return nil
}

// letters reads a queue of dead letters until ctx ends.
func (q *amqpQueue) letters(ctx context.Context, l *ledger.Ledger) error {
	for ctx.Err() == nil {
		_ = q.again(ctx, func(ch *amqp.Channel) error {
			deliveries, err := ch.ConsumeWithContext(ctx, q.name, "", false, false, false, false, nil)
			if err != nil {
				return err
			}
			for {
				select {
				case <-ctx.Done():
					return nil
				case d, ok := <-deliveries:
					if !ok {
						return errors.New("the connection is gone")
					}
					letter := ledger.Letter{Payload: d.Body, Headers: make(map[string]string)}
					for name, value := range d.Headers {
						letter.Headers[name] = fmt.Sprint(value)
					}
					l.Died(letter)
					if err := d.Ack(false); err != nil {
						return err
					}
				}
			}
		})
	}
	return nil
}

// left is how many messages the queue has once nobody reads it any more.
func (q *amqpQueue) left(t *testing.T) int64 {
	t.Helper()
	var messages int
	err := q.with(func(ch *amqp.Channel) error {
		state, err := ch.QueueDeclarePassive(q.name, true, false, false, false, nil)
		messages = state.Messages
		return err
	})
	if err != nil {
		t.Fatalf("looking at %s: %v", q.name, err)
	}
	return int64(messages)
}
