//go:build cgo && (linux || darwin)

package smftest

import (
	"testing"
	"time"

	"solace.dev/go/messaging"
	"solace.dev/go/messaging/pkg/solace"
	"solace.dev/go/messaging/pkg/solace/message"
	"solace.dev/go/messaging/pkg/solace/resource"
)

// What follows measures the broker and the client library together, on the same cores:
// an upper bound for what an endpoint can do in its tests.

func benchmarked(b *testing.B) (*Server, solace.MessagingService) {
	b.Helper()
	s, err := Listen("127.0.0.1:0", Options{AckEvery: 32})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(s.Close)
	service, err := messaging.NewMessagingServiceBuilder().FromConfigurationProvider(properties(s, nil)).Build()
	if err == nil {
		err = service.Connect()
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { service.Disconnect() })
	return s, service
}

func BenchmarkPersistentPublish(b *testing.B) {
	s, service := benchmarked(b)
	s.Queue("q", Queue{Topics: []string{"a"}})
	p, err := service.CreatePersistentMessagePublisherBuilder().OnBackPressureWait(1000).Build()
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error, b.N)
	p.SetMessagePublishReceiptListener(func(r solace.PublishReceipt) { done <- r.GetError() })
	if err := p.Start(); err != nil {
		b.Fatal(err)
	}
	defer p.Terminate(time.Second)
	payload := make([]byte, 256)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		m, err := service.MessageBuilder().BuildWithByteArrayPayload(payload)
		if err != nil {
			b.Fatal(err)
		}
		if err := p.Publish(m, resource.TopicOf("a"), nil, nil); err != nil {
			b.Fatal(err)
		}
	}
	for range b.N {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPersistentReceive(b *testing.B) {
	s, service := benchmarked(b)
	s.Queue("q", Queue{})
	for range b.N {
		if err := s.Put("q", Message{Payload: make([]byte, 256)}); err != nil {
			b.Fatal(err)
		}
	}
	r, err := service.CreatePersistentMessageReceiverBuilder().Build(resource.QueueDurableExclusive("q"))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	if err := r.Start(); err != nil {
		b.Fatal(err)
	}
	for range b.N {
		m, err := r.ReceiveMessage(10 * time.Second)
		if err != nil {
			b.Fatal(err)
		}
		r.Ack(m)
		m.Dispose()
	}
	b.StopTimer()
	r.Terminate(0)
}

func BenchmarkDirectReceive(b *testing.B) {
	s, service := benchmarked(b)
	r, err := service.CreateDirectMessageReceiverBuilder().OnBackPressureDropLatest(100_000).
		WithSubscriptions(resource.TopicSubscriptionOf("a")).Build()
	if err != nil {
		b.Fatal(err)
	}
	if err := r.Start(); err != nil {
		b.Fatal(err)
	}
	const group = 1000 // fits what may wait
	got := make(chan struct{}, group)
	if err := r.ReceiveAsync(func(message.InboundMessage) { got <- struct{}{} }); err != nil {
		b.Fatal(err)
	}
	m := Message{Payload: make([]byte, 256)}
	b.ReportAllocs()
	b.ResetTimer()
	for sent := 0; sent < b.N; {
		n := min(group, b.N-sent)
		for range n {
			if err := s.Publish("a", false, m); err != nil {
				b.Fatal(err)
			}
		}
		for range n {
			<-got
		}
		sent += n
	}
	b.StopTimer()
	r.Terminate(0)
}
