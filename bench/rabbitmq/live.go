package rabbitmq

import (
	"context"
	"errors"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/caddy-message-api/caddy-message-api/bench/load"
)

// Feeder publishes to an exchange without waiting for anything.
type Feeder struct {
	conn     *amqp.Connection
	channel  *amqp.Channel
	exchange string
	content  []byte
	sent     int64
}

// NewFeeder connects a feeder.
func NewFeeder(p Place, exchange string) (*Feeder, error) {
	conn, err := Dial(p)
	if err != nil {
		return nil, err
	}
	ch, err := conn.Channel()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &Feeder{conn: conn, channel: ch, exchange: exchange, content: load.Content()}, nil
}

// Publish publishes n messages.
func (f *Feeder) Publish(n int) error {
	for range n {
		err := f.channel.PublishWithContext(context.Background(), f.exchange, "", false, false,
			amqp.Publishing{DeliveryMode: amqp.Transient, ContentType: "text/plain", Body: f.content})
		if err != nil {
			return err
		}
		f.sent++
	}
	return nil
}

// Sent is how many messages were published.
func (f *Feeder) Sent() int64 { return f.sent }

// Close ends the connection.
func (f *Feeder) Close() error { return f.conn.Close() }

// ConsumeArgs say what a plain client reads.
type ConsumeArgs struct {
	Place
	Exchange string
}

// Consumer is a plain client that reads an exchange by a queue of its own, in the way that
// amqp091-go's documentation shows: prefetch 500, an acknowledgement for each message.
type Consumer struct {
	mu   sync.Mutex
	conn *amqp.Connection
	done chan error
}

// Start begins to read, and hands every message to f.
func (c *Consumer) Start(args ConsumeArgs, f func([]byte)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		return errors.New("it reads already")
	}
	conn, err := Dial(args.Place)
	if err != nil {
		return err
	}
	deliveries, err := consume(conn, args.Exchange)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	c.conn, c.done = conn, make(chan error, 1)
	go func() {
		for d := range deliveries {
			f(d.Body)
			if err := d.Ack(false); err != nil {
				c.done <- err
				return
			}
		}
		c.done <- nil
	}()
	return nil
}

func consume(conn *amqp.Connection, exchange string) (<-chan amqp.Delivery, error) {
	ch, err := conn.Channel()
	if err != nil {
		return nil, err
	}
	q, err := ch.QueueDeclare("", false, true, true, false, nil)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(ch.QueueBind(q.Name, "", exchange, false, nil), ch.Qos(500, 0, false)); err != nil {
		return nil, err
	}
	return ch.Consume(q.Name, "", false, true, false, false, nil)
}

// Stop ends reading.
func (c *Consumer) Stop() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return errors.New("it does not read")
	}
	err := errors.Join(c.conn.Close(), <-c.done)
	c.conn = nil
	return err
}
