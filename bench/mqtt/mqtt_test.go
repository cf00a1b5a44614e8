package mqtt

import (
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/bench/load"
	"github.com/caddy-message-api/caddy-message-api/test/brokers"
)

// open opens a broker of its own.
func open(t *testing.T) *Broker {
	t.Helper()
	t.Setenv("MQTT_ADDR", brokers.Mosquitto(t).Addr())
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
		calls, err := Publish(PublishArgs{Addr: b.Addr, Topic: b.Topic("test"), Callers: 4, Clients: clients, For: 50 * time.Millisecond})
		if err != nil || len(calls.Took) < 4 {
			t.Errorf("by %d clients: %d calls, %v", clients, len(calls.Took), err)
		}
	}
	if _, err := Publish(PublishArgs{Addr: "127.0.0.1:1", Topic: "t", Callers: 1, Clients: 1, For: time.Millisecond}); err == nil {
		t.Error("publishing to nobody is no error")
	}
}

func TestLive(t *testing.T) {
	b := open(t)
	before, err := b.Counts()
	if err != nil {
		t.Fatal(err)
	}
	var c Consumer
	if err := c.Stop(); err == nil {
		t.Error("stopping what does not read is no error")
	}
	received := make(chan int, 100)
	args := ConsumeArgs{Addr: b.Addr, Topic: b.Topic("live")}
	if err := c.Start(args, func(p []byte) { received <- load.Count(p) }); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(args, nil); err == nil {
		t.Error("starting twice is no error")
	}
	now, err := b.Counts()
	if now.Connections-before.Connections != 1 || now.Subscriptions-before.Subscriptions != 1 || err != nil {
		t.Errorf("from %+v to %+v: %v", before, now, err)
	}
	f, err := NewFeeder(b.Addr, args.Topic)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Publish(100); err != nil || f.Sent() != 100 {
		t.Fatalf("%d sent, %v", f.Sent(), err)
	}
	for range 100 {
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
