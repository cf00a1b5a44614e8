//go:build cgo && (linux || darwin)

package solace

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
	topic := b.Topic("test")
	all := b.Record(topic)
	defer all.Close()
	calls, err := Publish(PublishArgs{URL: b.URL(), Topic: topic, Callers: 4, For: 50 * time.Millisecond})
	if err != nil || len(calls.Took) < 4 || all.Len() != len(calls.Took) {
		t.Errorf("%d calls, %d messages, %v", len(calls.Took), all.Len(), err)
	}
	if _, err := Publish(PublishArgs{URL: "tcp://127.0.0.1:1", Topic: "t", Callers: 1, For: time.Millisecond}); err == nil {
		t.Error("publishing to nobody is no error")
	}
}

func TestLive(t *testing.T) {
	b := open(t)
	topic := b.Topic("test")
	consumer, got := new(Consumer), make(chan []byte, 100)
	if err := consumer.Start(ConsumeArgs{URL: b.URL(), Topic: topic}, func(m []byte) { got <- m }); err != nil {
		t.Fatal(err)
	}
	var f load.Feeder = NewFeeder(b, topic)
	if err := f.Publish(100); err != nil || f.Sent() != 100 {
		t.Fatalf("%d published, %v", f.Sent(), err)
	}
	for range 100 {
		if m := <-got; len(m) != len(load.Content()) {
			t.Fatalf("got %q", m)
		}
	}
	if err := consumer.Stop(); err != nil {
		t.Error(err)
	}
	if err := consumer.Stop(); err == nil {
		t.Error("stopping twice is no error")
	}
}
