package rabbitmq

import (
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/bench/load"
	"github.com/caddy-message-api/caddy-message-api/test/brokers"
)

// open opens the shared broker.
func open(t *testing.T) *Broker {
	t.Helper()
	shared := brokers.SharedRabbitMQ(t)
	t.Setenv("RABBITMQ_ADDR", shared.Addr())
	t.Setenv("RABBITMQ_API", shared.API())
	b, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func TestPublish(t *testing.T) {
	b := open(t)
	for _, kind := range []string{"classic", "quorum"} {
		if err := b.Queue(kind, kind); err != nil {
			t.Fatal(err)
		}
		for _, channels := range []int{1, 3} {
			calls, err := Publish(PublishArgs{Place: b.Place, Queue: kind, Callers: 4, Channels: channels, For: 50 * time.Millisecond})
			if err != nil || len(calls.Took) < 4 {
				t.Errorf("%s by %d channels: %d calls, %v", kind, channels, len(calls.Took), err)
			}
		}
		if err := b.Purge(kind); err != nil {
			t.Error(err)
		}
	}
	if _, err := Publish(PublishArgs{Place: b.Place, Queue: "nowhere", Callers: 2, Channels: 1, For: time.Millisecond}); err == nil {
		t.Error("publishing to a queue that is not there is no error")
	}
}

func TestLive(t *testing.T) {
	b := open(t)
	if err := b.Exchange("x"); err != nil {
		t.Fatal(err)
	}
	var c Consumer
	if err := c.Stop(); err == nil {
		t.Error("stopping what does not read is no error")
	}
	received := make(chan int, 10)
	args := ConsumeArgs{Place: b.Place, Exchange: "x"}
	if err := c.Start(args, func(p []byte) { received <- load.Count(p) }); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(args, nil); err == nil {
		t.Error("starting twice is no error")
	}
	// The management API is told of a consumer a moment later.
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		n, err := b.Consumers()
		if n == 1 && err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d consumers, %v", n, err)
		}
	}
	f, err := NewFeeder(b.Place, "x")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Publish(3); err != nil || f.Sent() != 3 {
		t.Fatalf("%d sent, %v", f.Sent(), err)
	}
	for range 3 {
		select {
		case n := <-received:
			if n != 1 {
				t.Errorf("%d messages in one", n)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("a message is lost")
		}
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
}
