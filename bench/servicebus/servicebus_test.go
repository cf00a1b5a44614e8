package servicebus

import (
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/bench/load"
)

func open(t *testing.T) *Broker {
	t.Helper()
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
	for _, clients := range []int{1, 3} {
		queue := b.NewQueue("test")
		calls, err := Publish(PublishArgs{ConnectionString: b.ConnectionString(), Queue: queue, Callers: 4, Clients: clients, For: 50 * time.Millisecond})
		if err != nil || len(calls.Took) < 4 || b.Counts(queue).Active != len(calls.Took) {
			t.Errorf("by %d clients: %d calls, %+v, %v", clients, len(calls.Took), b.Counts(queue), err)
		}
	}
	if _, err := Publish(PublishArgs{ConnectionString: b.ConnectionString(), Queue: "missing", Callers: 1, Clients: 1, For: time.Millisecond}); err == nil {
		t.Error("publishing to nobody is no error")
	}
}

func TestLive(t *testing.T) {
	b := open(t)
	queue := b.NewQueue("test")
	consumer, got := new(Consumer), make(chan []byte, 100)
	if err := consumer.Start(ConsumeArgs{ConnectionString: b.ConnectionString(), Queue: queue, Window: 10}, func(m []byte) { got <- m }); err != nil {
		t.Fatal(err)
	}
	var f load.Feeder = NewFeeder(b, queue)
	if err := f.Publish(100); err != nil || f.Sent() != 100 {
		t.Fatalf("%d published, %v", f.Sent(), err)
	}
	for range 100 {
		if m := <-got; len(m) != len(load.Content()) {
			t.Fatalf("got %q", m)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); b.Counts(queue).Active > 0; {
		if time.Now().After(deadline) {
			t.Fatalf("not all was completed: %+v", b.Counts(queue))
		}
	}
	if err := consumer.Stop(); err != nil {
		t.Error(err)
	}
	if err := consumer.Stop(); err == nil {
		t.Error("stopping twice is no error")
	}
}
