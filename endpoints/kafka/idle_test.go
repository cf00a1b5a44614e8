package kafka

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

func TestUnusedConnectionsAreClosed(t *testing.T) {
	b := fakeBroker(t)
	topic, line := b.topic(t, 1), &line{}
	k := b.endpoint(t, &Kafka{
		dial: line.dial, Idle: caddy.Duration(100 * time.Millisecond),
		Producer: &Producer{Topics: []string{topic}}, Consumer: &Consumer{Topics: []string{topic}},
	})
	for range 2 {
		wantStored(t, publish(t, k, &message.Message{Payload: []byte("0")}))
		if s := k.Status(); s.State != endpoints.Up || s.Error != "" {
			t.Errorf("in use: %+v", s)
		}
		eventually(t, "connections are closed", func() bool { return line.open() == 0 })
		if s := k.Status(); s.State != endpoints.Idle {
			t.Errorf("unused: %+v", s)
		}
	}
	// A stream is a use, also when nothing comes.
	s := subscribe(t, k, message.Subscription{Mode: message.Broadcast})
	quiet(t, s)
	if line.open() == 0 {
		t.Error("the connections of a stream were closed")
	}
}

func TestCleanupEndsEverything(t *testing.T) {
	b := fakeBroker(t)
	topic := b.topic(t, 1)
	k := b.both(t, topic)
	streams := []message.Stream{
		subscribe(t, k, message.Subscription{Mode: message.Broadcast}),
		subscribe(t, k, message.Subscription{Mode: message.Member, Name: "api.client"}),
	}
	if err := k.Cleanup(); err != nil {
		t.Fatal(err)
	}
	for _, s := range streams {
		if _, err := s.Receive(context.Background()); !errors.Is(err, errClosed) {
			t.Errorf("receive: %v", err)
		}
	}
	if r := publish(t, k, &message.Message{})[0]; r.Status != message.Refused || r.Err == nil {
		t.Errorf("publish: %s, %v", r.Status, r.Err)
	}
}

func TestCleanupWaitsForWhatIsOnItsWay(t *testing.T) {
	b := fakeBroker(t)
	topic := b.topic(t, 1)
	k := b.both(t, topic)
	p, err := k.Publisher(verbatim{})
	if err != nil {
		t.Fatal(err)
	}
	const n = 500
	for range n {
		if r := p.Publish(context.Background(), message.None, &message.Message{Payload: []byte("x")})[0]; r.Status != message.Handed {
			t.Fatalf("%s: %v", r.Status, r.Err)
		}
	}
	if err := k.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if got := b.consume(t, n, topic); len(got) != n {
		t.Errorf("%d records", len(got))
	}
}
