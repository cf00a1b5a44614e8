//go:build cgo && (linux || darwin)

package solace

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"solace.dev/go/messaging"
	api "solace.dev/go/messaging/pkg/solace"
	"solace.dev/go/messaging/pkg/solace/resource"

	"github.com/caddy-message-api/caddy-message-api/endpoints/endpointtest"
	"github.com/caddy-message-api/caddy-message-api/endpoints/solace/smftest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// The endpoint beside the plain library, each at the peer in the same process, which takes
// its share of the two processors that such a number comes from:
//
//	go test ./endpoints/solace -run xxx -bench .

const benchBatch = 50

func benchBroker(b *testing.B) *smftest.Server {
	b.Helper()
	s, err := smftest.Listen("127.0.0.1:0", smftest.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(s.Close)
	return s
}

func benchEndpoint(b *testing.B, s *Solace) *Solace {
	b.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	b.Cleanup(cancel)
	if err := s.Provision(ctx); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Cleanup() }) // nothing of it can fail here
	return s
}

func benchClient(b *testing.B, url string) api.MessagingService {
	b.Helper()
	svc, err := messaging.NewMessagingServiceBuilder().FromConfigurationProvider(site{url: url}.properties()).Build()
	if err == nil {
		err = svc.Connect()
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = svc.Disconnect() })
	return svc
}

// BenchmarkPublish: batches of 50 messages of 256 bytes, each waited for.
func BenchmarkPublish(b *testing.B) {
	payload := make([]byte, 256)
	b.Run("endpoint", func(b *testing.B) {
		s := benchEndpoint(b, &Solace{URL: []string{benchBroker(b).URL()}, Producer: &Producer{Topics: []string{"t"}}})
		p, err := s.Publisher(endpointtest.Verbatim{})
		if err != nil {
			b.Fatal(err)
		}
		messages := make([]*message.Message, benchBatch)
		for i := range messages {
			messages[i] = &message.Message{Payload: payload, ID: "id"}
		}
		b.ReportAllocs()
		for b.Loop() {
			for _, r := range p.Publish(context.Background(), message.Auto, messages...) {
				if r.Status != message.Stored {
					b.Fatal(r.Err)
				}
			}
		}
		b.ReportMetric(float64(b.N*benchBatch)/b.Elapsed().Seconds(), "messages/s")
	})
	b.Run("plain", func(b *testing.B) {
		svc := benchClient(b, benchBroker(b).URL())
		p, err := svc.CreatePersistentMessagePublisherBuilder().OnBackPressureReject(0).Build()
		if err != nil {
			b.Fatal(err)
		}
		var acked sync.WaitGroup
		p.SetMessagePublishReceiptListener(func(r api.PublishReceipt) {
			r.GetMessage().Dispose()
			acked.Done()
		})
		if err := p.Start(); err != nil {
			b.Fatal(err)
		}
		topic := resource.TopicOf("t")
		b.ReportAllocs()
		for b.Loop() {
			for range benchBatch {
				m, err := svc.MessageBuilder().WithApplicationMessageID("id").BuildWithByteArrayPayload(payload)
				if err != nil {
					b.Fatal(err)
				}
				acked.Add(1)
				if err := p.Publish(m, topic, nil, nil); err != nil {
					b.Fatal(err)
				}
				m.Dispose()
			}
			acked.Wait()
		}
		b.ReportMetric(float64(b.N*benchBatch)/b.Elapsed().Seconds(), "messages/s")
		_ = p.Terminate(0)
	})
}

// fill puts messages into a queue until there are enough.
func fill(b *testing.B, s *smftest.Server, n int) {
	b.Helper()
	batch := make([]smftest.Message, 1000)
	for i := range batch {
		batch[i] = smftest.Message{Payload: make([]byte, 256), ApplicationMessageID: fmt.Sprint(i)}
	}
	for left := n; left > 0; left -= len(batch) {
		if err := s.Put("q", batch[:min(left, len(batch))]...); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReceive: messages of 256 bytes of a queue, each settled.
func BenchmarkReceive(b *testing.B) {
	const n = 20_000
	b.Run("endpoint", func(b *testing.B) {
		broker := benchBroker(b)
		broker.Queue("q", smftest.Queue{NonExclusive: true})
		s := benchEndpoint(b, &Solace{URL: []string{broker.URL()}, Consumer: &Consumer{Queue: "q", Shared: true}})
		channel, err := s.Channel(endpointtest.Verbatim{})
		if err != nil {
			b.Fatal(err)
		}
		stream, err := s.Subscribe(context.Background(), channel, message.Subscription{Mode: message.Shared})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			fill(b, broker, n)
			b.StartTimer()
			for got := 0; got < n; {
				batch, err := stream.Receive(context.Background())
				if err == nil {
					err = stream.Settle(context.Background(), message.Ack, batch.Deliveries...)
				}
				if err != nil {
					b.Fatal(err)
				}
				got += len(batch.Deliveries)
			}
		}
		b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "messages/s")
		_ = stream.Close(context.Background())
	})
	b.Run("plain", func(b *testing.B) {
		broker := benchBroker(b)
		broker.Queue("q", smftest.Queue{NonExclusive: true})
		svc := benchClient(b, broker.URL())
		r, err := svc.CreatePersistentMessageReceiverBuilder().WithMessageClientAcknowledgement().Build(resource.QueueDurableNonExclusive("q"))
		if err == nil {
			err = r.Start()
		}
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			fill(b, broker, n)
			b.StartTimer()
			for range n {
				m, err := r.ReceiveMessage(10 * time.Second)
				if err != nil {
					b.Fatal(err)
				}
				if _, ok := m.GetPayloadAsBytes(); !ok {
					b.Fatal("no payload")
				}
				if err := r.Ack(m); err != nil {
					b.Fatal(err)
				}
				m.Dispose()
			}
		}
		b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "messages/s")
		_ = r.Terminate(0)
	})
}
