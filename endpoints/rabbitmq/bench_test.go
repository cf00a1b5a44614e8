package rabbitmq

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/caddy-message-api/caddy-message-api/endpoints/endpointtest"
	"github.com/caddy-message-api/caddy-message-api/endpoints/options"
	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/test/brokers"
)

// The endpoint beside the plain library, on the same broker in the same run:
//
//	go test -run '^$' -bench . ./endpoints/rabbitmq
const benchSize = 256

// benchQueue makes a queue that keeps little.
func benchQueue(b *testing.B, vhost string, shared brokers.RabbitMQBroker) *amqp.Connection {
	conn, err := amqp.DialConfig("amqp://"+shared.Addr(), amqp.Config{Vhost: vhost})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	ch, err := conn.Channel()
	if err == nil {
		_, err = ch.QueueDeclare("bench", true, false, false, false, amqp.Table{"x-max-length": int64(1000), "x-queue-type": "quorum"})
	}
	if err != nil {
		b.Fatal(err)
	}
	return conn
}

// The broker costs most of it. At a peer that confirms at once, what the endpoint adds is
// seen better.
func BenchmarkPublish(b *testing.B) {
	b.Run("broker", func(b *testing.B) {
		shared := brokers.SharedRabbitMQ(b)
		vhost := shared.Vhost(b)
		benchPublish(b, shared.Addr(), vhost, benchQueue(b, vhost, shared))
	})
	b.Run("peer", func(b *testing.B) {
		p := startPeer(b)
		conn, err := amqp.Dial("amqp://" + p.addr)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { conn.Close() })
		benchPublish(b, p.addr, "/", conn)
	})
}

func benchPublish(b *testing.B, addr, vhost string, conn *amqp.Connection) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("library/%d", callers), func(b *testing.B) {
			ch, err := conn.Channel()
			if err == nil {
				err = ch.Confirm(false)
			}
			if err != nil {
				b.Fatal(err)
			}
			defer ch.Close()
			body := make([]byte, benchSize)
			publishing(b, callers, func() error {
				c, err := ch.PublishWithDeferredConfirm("", "bench", true, false, amqp.Publishing{Body: body, DeliveryMode: amqp.Persistent, MessageId: "id"})
				if err == nil && !c.Wait() {
					err = amqp.ErrClosed
				}
				return err
			})
		})
		b.Run(fmt.Sprintf("endpoint/%d", callers), func(b *testing.B) {
			r := benchEndpoint(b, &RabbitMQ{Server: []string{addr}, VirtualHost: vhost, Producer: &Producer{RoutingKey: "bench"}})
			p, err := r.Publisher(endpointtest.Verbatim{})
			if err != nil {
				b.Fatal(err)
			}
			m := &message.Message{Payload: make([]byte, benchSize)}
			publishing(b, callers, func() error { return p.Publish(context.Background(), message.Auto, m)[0].Err })
		})
	}
}

// publishing has callers publish one message after the other, each waiting for its own.
func publishing(b *testing.B, callers int, one func() error) {
	b.ReportAllocs()
	b.SetParallelism(callers)
	begun := time.Now()
	n := b.N
	work := make(chan struct{}, n)
	for range n {
		work <- struct{}{}
	}
	close(work)
	done := make(chan error, callers)
	b.ResetTimer()
	for range callers {
		go func() {
			for range work {
				if err := one(); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range callers {
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
	b.ReportMetric(float64(n)/time.Since(begun).Seconds(), "messages/s")
}

func benchEndpoint(b *testing.B, r *RabbitMQ) *RabbitMQ {
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	b.Cleanup(cancel)
	if err := r.Provision(ctx); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = r.Cleanup() })
	return r
}

func BenchmarkReceive(b *testing.B) {
	shared := brokers.SharedRabbitMQ(b)
	vhost := shared.Vhost(b)
	conn := benchQueue(b, vhost, shared)
	fill := func(b *testing.B, queue string) *amqp.Channel {
		ch, err := conn.Channel()
		if err == nil {
			_, err = ch.QueueDeclare(queue, true, false, false, false, nil)
		}
		if err == nil {
			err = ch.Confirm(false)
		}
		if err != nil {
			b.Fatal(err)
		}
		var last *amqp.DeferredConfirmation
		for range b.N {
			if last, err = ch.PublishWithDeferredConfirm("", queue, false, false, amqp.Publishing{Body: make([]byte, benchSize)}); err != nil {
				b.Fatal(err)
			}
		}
		last.Wait()
		b.ReportAllocs()
		b.ResetTimer()
		return ch
	}
	rate := func(b *testing.B, begun time.Time) {
		b.ReportMetric(float64(b.N)/time.Since(begun).Seconds(), "messages/s")
	}
	b.Run("library", func(b *testing.B) {
		queue := fmt.Sprintf("library-%d", b.N)
		ch := fill(b, queue)
		defer ch.Close()
		begun := time.Now()
		if err := ch.Qos(500, 0, false); err != nil {
			b.Fatal(err)
		}
		deliveries, err := ch.Consume(queue, "", false, false, false, false, nil)
		if err != nil {
			b.Fatal(err)
		}
		for n := 0; n < b.N; n++ {
			d := <-deliveries
			if n%100 == 99 {
				_ = d.Ack(true)
			}
		}
		rate(b, begun)
	})
	for _, qos := range []message.QoS{message.AtLeastOnce, message.AtMostOnce} {
		b.Run("endpoint/"+qos.String(), func(b *testing.B) {
			queue := fmt.Sprintf("endpoint-%s-%d", qos, b.N)
			defer fill(b, queue).Close()
			begun := time.Now()
			r := benchEndpoint(b, &RabbitMQ{
				Server: []string{shared.Addr()}, VirtualHost: vhost, Auth: &options.Auth{User: shared.User(), Password: shared.Password()},
				Consumer: &Consumer{Queue: &Queue{Name: queue}, Shared: true},
			})
			channel, err := r.Channel(endpointtest.Verbatim{})
			if err != nil {
				b.Fatal(err)
			}
			s, err := r.Subscribe(context.Background(), channel, message.Subscription{Mode: message.Shared, QoS: qos})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close(context.Background())
			for n := 0; n < b.N; {
				batch, err := s.Receive(context.Background())
				if err == nil {
					err = s.Settle(context.Background(), message.Ack, batch.Deliveries...)
				}
				if err != nil {
					b.Fatal(err)
				}
				n += len(batch.Deliveries)
			}
			rate(b, begun)
		})
	}
}
