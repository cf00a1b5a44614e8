package servicebus

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/go-amqp"

	"github.com/caddy-message-api/caddy-message-api/endpoints/endpointtest"
	"github.com/caddy-message-api/caddy-message-api/endpoints/servicebus/servicebustest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// The endpoint beside the plain library, on the same peer in the same run:
//
//	go test -run '^$' -bench . ./endpoints/servicebus
const benchSize = 256

func benchClient(b *testing.B, n *servicebustest.Server) *azservicebus.Client {
	client, err := azservicebus.NewClientFromConnectionString(n.ConnectionString(), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = client.Close(context.Background()) })
	return client
}

func BenchmarkPublish(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("library/%d", callers), func(b *testing.B) {
			n := namespace(b, servicebustest.Options{})
			n.Queue("q", servicebustest.Entity{})
			s, err := benchClient(b, n).NewSender("q", nil)
			if err != nil {
				b.Fatal(err)
			}
			body, id := make([]byte, benchSize), "id"
			publishing(b, callers, func() error {
				return s.SendMessage(context.Background(), &azservicebus.Message{Body: body, MessageID: &id}, nil)
			})
		})
		b.Run(fmt.Sprintf("endpoint/%d", callers), func(b *testing.B) {
			n := namespace(b, servicebustest.Options{})
			n.Queue("q", servicebustest.Entity{})
			p, err := sending(b, n).Publisher(endpointtest.Verbatim{})
			if err != nil {
				b.Fatal(err)
			}
			m := &message.Message{ID: "id", Payload: make([]byte, benchSize)}
			publishing(b, callers, func() error { return p.Publish(context.Background(), message.Auto, m)[0].Err })
		})
	}
}

// publishing has callers publish one message after the other, each waiting for its own.
func publishing(b *testing.B, callers int, one func() error) {
	if err := one(); err != nil { // the link
		b.Fatal(err)
	}
	b.ReportAllocs()
	n := b.N
	work := make(chan struct{}, n)
	for range n {
		work <- struct{}{}
	}
	close(work)
	done := make(chan error, callers)
	b.ResetTimer()
	begun := time.Now()
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

func benchFill(b *testing.B, n *servicebustest.Server) {
	n.Queue("q", servicebustest.Entity{})
	body := make([]byte, benchSize)
	for range b.N {
		if err := n.Put("q", amqp.NewMessage(body)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
}

func BenchmarkReceive(b *testing.B) {
	rate := func(b *testing.B, begun time.Time) {
		b.ReportMetric(float64(b.N)/time.Since(begun).Seconds(), "messages/s")
	}
	b.Run("library", func(b *testing.B) {
		n := namespace(b, servicebustest.Options{})
		benchFill(b, n)
		r, err := benchClient(b, n).NewReceiverForQueue("q", nil)
		if err != nil {
			b.Fatal(err)
		}
		begun := time.Now()
		for n := 0; n < b.N; {
			all, err := r.ReceiveMessages(context.Background(), defaultPrefetch, nil)
			for _, m := range all {
				if err == nil {
					err = r.CompleteMessage(context.Background(), m, nil)
				}
			}
			if err != nil {
				b.Fatal(err)
			}
			n += len(all)
		}
		rate(b, begun)
	})
	for _, qos := range []message.QoS{message.AtLeastOnce, message.AtMostOnce} {
		b.Run("endpoint/"+qos.String(), func(b *testing.B) {
			n := namespace(b, servicebustest.Options{})
			benchFill(b, n)
			s := subscribe(b, reading(b, n), message.Subscription{QoS: qos})
			begun := time.Now()
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
