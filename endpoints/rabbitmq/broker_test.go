package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/options"
	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/test/brokers"
)

// broker is a virtual host of a RabbitMQ, and a foreign client in it.
type broker struct {
	brokers.RabbitMQBroker
	vhost string
	conn  *amqp.Connection
}

func onShared(t *testing.T) *broker {
	shared := brokers.SharedRabbitMQ(t)
	return &broker{RabbitMQBroker: shared, vhost: shared.Vhost(t)}
}

// dial connects the foreign client.
func (b *broker) dial(t *testing.T) *amqp.Connection {
	t.Helper()
	conn, err := amqp.DialConfig("amqp://"+b.Addr(), amqp.Config{
		Vhost: b.vhost, Heartbeat: 10 * time.Second,
		SASL: []amqp.Authentication{&amqp.PlainAuth{Username: b.User(), Password: b.Password()}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // some tests end the broker
	return conn
}

// channel opens a channel of the foreign client, in confirm mode. The connection is made
// again after the broker was away.
func (b *broker) channel(t *testing.T) *amqp.Channel {
	t.Helper()
	if b.conn == nil || b.conn.IsClosed() {
		b.conn = b.dial(t)
	}
	ch, err := b.conn.Channel()
	if err == nil {
		err = ch.Confirm(false)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ch.Close() }) // it may be closed already
	return ch
}

func (b *broker) exchange(t *testing.T, name, kind string) {
	t.Helper()
	if err := b.channel(t).ExchangeDeclare(name, kind, true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
}

func (b *broker) queue(t *testing.T, name, kind string, arguments amqp.Table) {
	t.Helper()
	all := amqp.Table{"x-queue-type": kind}
	for k, v := range arguments {
		all[k] = v
	}
	if _, err := b.channel(t).QueueDeclare(name, true, false, false, false, all); err != nil {
		t.Fatal(err)
	}
}

func (b *broker) bind(t *testing.T, queue, key, exchange string) {
	t.Helper()
	if err := b.channel(t).QueueBind(queue, key, exchange, false, nil); err != nil {
		t.Fatal(err)
	}
}

func (b *broker) deleteQueue(t *testing.T, name string) {
	t.Helper()
	if _, err := b.channel(t).QueueDelete(name, false, false, false); err != nil {
		t.Fatal(err)
	}
}

// produce returns when the broker has the messages.
func (b *broker) produce(t *testing.T, exchange, key string, messages ...*message.Message) {
	t.Helper()
	ch := b.channel(t)
	var confirms []*amqp.DeferredConfirmation
	for _, m := range messages {
		p := amqp.Publishing{Body: m.Payload, DeliveryMode: amqp.Persistent, Timestamp: time.Now(), Headers: make(amqp.Table)}
		for _, h := range m.Headers {
			addHeader(p.Headers, h.Name, headerValue(h.Value))
		}
		c, err := ch.PublishWithDeferredConfirm(exchange, key, false, false, p)
		if err != nil {
			t.Fatal(err)
		}
		confirms = append(confirms, c)
	}
	for _, c := range confirms {
		if !c.Wait() {
			t.Fatal("the broker did not take a message of the foreign client")
		}
	}
	if err := ch.Close(); err != nil {
		t.Fatal(err)
	}
}

// consume takes the next n messages out of a queue.
func (b *broker) consume(t *testing.T, queue string, n int) []*message.Message {
	t.Helper()
	var all []*message.Message
	for deadline := time.Now().Add(20 * time.Second); len(all) < n; {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d messages came out of queue %s", len(all), n, queue)
		}
		all = append(all, b.take(t, queue, n-len(all))...)
	}
	return all
}

// take takes up to n messages out of a queue, and no more than come within a while.
func (b *broker) take(t *testing.T, queue string, n int) (all []*message.Message) {
	t.Helper()
	conn := b.dial(t)
	defer conn.Close()
	// About a queue that is not ready after a start, the broker forgets to answer.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var ch *amqp.Channel
	deliveries, err := within(ctx, func() (_ <-chan amqp.Delivery, err error) {
		if ch, err = conn.Channel(); err != nil {
			return nil, err
		}
		if err := ch.Qos(n, 0, false); err != nil {
			return nil, err
		}
		return ch.Consume(queue, "", false, false, false, false, nil)
	}, nil)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	} else if err != nil {
		t.Fatal(err)
	}
	defer ch.Close()
	quiet := time.NewTimer(2 * time.Second)
	defer quiet.Stop()
	for len(all) < n {
		select {
		case d, ok := <-deliveries:
			if !ok {
				return all
			}
			m := &message.Message{ID: d.MessageId, Payload: d.Body, Time: d.Timestamp, Headers: headers(d.Headers), Metadata: metadata(&d)}
			all = append(all, m)
			if err := d.Ack(false); err != nil {
				t.Fatal(err)
			}
		case <-quiet.C:
			return all
		}
	}
	return all
}

// endpoint provisions an endpoint at the broker.
func (b *broker) endpoint(t *testing.T, r *RabbitMQ) *RabbitMQ {
	t.Helper()
	if r.Server == nil {
		r.Server = []string{b.Addr()}
	}
	r.VirtualHost = b.vhost
	if r.Auth == nil && r.TLS == nil {
		r.Auth = &options.Auth{User: b.User(), Password: b.Password()}
	}
	return provision(t, r)
}

func provision(t *testing.T, r *RabbitMQ) *RabbitMQ {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	if err := r.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	r.SetScope(endpoints.Scope{Owner: "test", Name: "rabbitmq"})
	t.Cleanup(func() {
		if err := r.Cleanup(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// unique makes a name that nobody else has.
func unique(t *testing.T, what string) string {
	return fmt.Sprintf("%s-%s-%x", what, strings.NewReplacer("/", "-", " ", "-").Replace(t.Name()[max(0, len(t.Name())-60):]), time.Now().UnixNano())
}

func payloads(messages []*message.Message) []string {
	var all []string
	for _, m := range messages {
		all = append(all, string(m.Payload))
	}
	slices.Sort(all)
	return all
}
