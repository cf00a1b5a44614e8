package servicebustest

import (
	"context"
	"sync"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/go-amqp"
)

// BenchmarkSend sends from 32 goroutines, each message confirmed.
func BenchmarkSend(b *testing.B) {
	s := start(b, Options{})
	sender := newSender(b, connect(b, s), "q")
	send(b, sender, "warm")
	body := make([]byte, 256)
	b.SetBytes(256)
	b.ReportAllocs()
	b.SetParallelism(16)
	ctx := context.Background()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := sender.SendMessage(ctx, &azservicebus.Message{Body: body}, nil); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkReceive receives and completes what is there, completing from 32 goroutines.
func BenchmarkReceive(b *testing.B) {
	s := start(b, Options{})
	body := make([]byte, 256)
	for range b.N {
		if err := s.Put("q", amqp.NewMessage(body)); err != nil {
			b.Fatal(err)
		}
	}
	receiver := newReceiver(b, connect(b, s), "q", nil)
	b.SetBytes(256)
	b.ReportAllocs()
	b.ResetTimer()
	ctx := context.Background()
	work := make(chan *azservicebus.ReceivedMessage, 1000)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for m := range work {
				if err := receiver.CompleteMessage(ctx, m, nil); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for n := 0; n < b.N; {
		messages, err := receiver.ReceiveMessages(ctx, 500, nil)
		if err != nil {
			b.Fatal(err)
		}
		n += len(messages)
		for _, m := range messages {
			work <- m
		}
	}
	close(work)
	wg.Wait()
}

// BenchmarkPutTake is the broker without a wire.
func BenchmarkPutTake(b *testing.B) {
	s := start(b, Options{})
	m := amqp.NewMessage(make([]byte, 256))
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Put("q", m); err != nil {
			b.Fatal(err)
		}
		if _, err := s.Take(b.Context(), "q", 1); err != nil {
			b.Fatal(err)
		}
	}
}
