package servicebus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/Azure/go-amqp"
	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/endpoints/servicebus/servicebustest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// Sessions are lanes, each in its order, and more of them than a client has at a time are
// served in turn.
func TestSessionsTakeTurns(t *testing.T) {
	n := namespace(t, servicebustest.Options{})
	n.Queue("q", servicebustest.Entity{Sessions: true})
	const sessions, each = 10, 5
	for i := range sessions * each {
		id := fmt.Sprintf("s%d", i%sessions)
		m := amqp.NewMessage(fmt.Appendf(nil, "%d", i/sessions))
		m.Properties = &amqp.MessageProperties{GroupID: &id}
		if err := n.Put("q", m); err != nil {
			t.Fatal(err)
		}
	}
	e := reading(t, n, func(c *Consumer) {
		c.Sessions, c.ConcurrentSessions, c.SessionIdle = true, 3, caddy.Duration(50*time.Millisecond)
	})
	s := subscribe(t, e, message.Subscription{})
	order := make(map[string]string)
	for total := 0; total < sessions*each; {
		b, err := s.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range b.Deliveries {
			order[d.Lane] += string(d.Payload)
		}
		total += len(b.Deliveries)
		if err := settle(t, s, message.Ack, b.Deliveries...); err != nil {
			t.Fatal(err)
		}
	}
	for lane, got := range order {
		if got != "01234" {
			t.Errorf("lane %s: %s", lane, got)
		}
	}
	if len(order) != sessions {
		t.Errorf("%d lanes", len(order))
	}
}

// A session whose lock is lost is revoked, and read anew.
func TestALostSession(t *testing.T) {
	n := namespace(t, servicebustest.Options{})
	n.Queue("q", servicebustest.Entity{Sessions: true, LockDuration: 400 * time.Millisecond})
	put(t, n, "q", numbered(0, 3)...)
	s := subscribe(t, reading(t, n, func(c *Consumer) { c.Sessions = true }), message.Subscription{})
	old := receiveAll(t, s, 3)
	n.ExpireLocks("q")
	var revoked []string
	var again []message.Delivery
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for len(again) < 3 {
		b, err := s.Receive(ctx)
		if err != nil {
			t.Fatalf("revoked %v, received %s: %v", revoked, texts(again), err)
		}
		revoked = append(revoked, b.Revoked...)
		again = append(again, b.Deliveries...)
	}
	if !slices.Equal(revoked, []string{old[0].Lane}) {
		t.Errorf("revoked %v, want %s", revoked, old[0].Lane)
	}
	if err := settle(t, s, message.Ack, old...); !errors.Is(err, message.ErrStale) {
		t.Errorf("settling old deliveries: %v", err)
	}
	if err := settle(t, s, message.Ack, again...); err != nil {
		t.Error(err)
	}
}

// No session, no load, and the end comes at once.
func TestNoSession(t *testing.T) {
	n := namespace(t, servicebustest.Options{})
	n.Queue("q", servicebustest.Entity{Sessions: true})
	s := subscribe(t, reading(t, n, func(c *Consumer) { c.Sessions = true }), message.Subscription{})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := s.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	begun := time.Now()
	_ = s.Close(context.Background())
	if took := time.Since(begun); took > time.Second {
		t.Errorf("closing took %v", took)
	}
}

// A stream that stops looking for sessions disturbs no other on its connection.
func TestStoppingDisturbsNobody(t *testing.T) {
	n := namespace(t, servicebustest.Options{})
	n.Queue("q", servicebustest.Entity{Sessions: true})
	e := reading(t, n, func(c *Consumer) { c.Sessions = true })
	other := subscribe(t, e, message.Subscription{})
	put(t, n, "q", numbered(0, 3)...)
	held := receiveAll(t, other, 3)
	for i := range 10 {
		s := subscribe(t, e, message.Subscription{})
		if i%2 == 0 {
			if err := s.(message.Stopper).Stop(t.Context()); err != nil {
				t.Error(err)
			}
		}
		_ = s.Close(context.Background())
	}
	if err := settle(t, other, message.Ack, held...); err != nil {
		t.Errorf("the connection was lost: %v", err)
	}
}
