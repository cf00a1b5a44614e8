package mqtt5

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/test/brokers"
)

// A stream that is not read takes its window from the broker and not one message more,
// also from one that ignores Receive Maximum. Its connection lives on meanwhile, and
// everything comes when reading goes on.
func TestNothingIsReadBeyondTheWindow(t *testing.T) {
	for _, mode := range []struct {
		name string
		sub  message.Subscription
		qos  byte // of the messages
	}{
		{"member", message.Subscription{Mode: message.Member, QoS: message.AtLeastOnce, Name: "api.client"}, 1},
		{"at most once", message.Subscription{Mode: message.Member, QoS: message.AtMostOnce, Name: "api.client"}, 0},
		{"broadcast", message.Subscription{Mode: message.Broadcast}, 1},
	} {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel() // most of it is waiting for keep-alive
			onBrokers(t, func(t *testing.T, addr string) {
				const window, n = 5, 200
				topic := brokers.UniqueName(t)
				gateway := provision(t, &MQTT5{
					Servers: []string{addr}, Consumer: &Consumer{Topics: []string{topic}}, KeepAlive: caddy.Duration(time.Second),
				})
				sub := mode.sub
				sub.Window = message.Window{Messages: window, Bytes: 1 << 20}
				s, _ := subscribe(t, gateway, sub).(*stream)
				s.mu.Lock()
				c := s.home.conn
				s.mu.Unlock()
				connectForeign(t, addr, topic, false, nil).produce(t, topic, numbered(0, n)...)
				seen := make(map[string]int)
				take := func() {
					some := receive(t, s, 1)
					if len(some) > window {
						t.Errorf("%d messages at once", len(some))
					}
					ack(t, s, some...)
					for k := range payloads(some) {
						seen[k]++
					}
				}
				for len(seen) < 20 { // Mosquitto forgets the window with the first acknowledgement
					take()
				}
				state := func() (arrivals, held int) {
					s.mu.Lock()
					defer s.mu.Unlock()
					return int(s.home.arrivals), s.held.messages
				}
				waitFor(t, "the window fills", func() bool { _, held := state(); return held == window })
				time.Sleep(2500 * time.Millisecond) // longer than any broker waits for a sign of life
				if arrivals, held := state(); arrivals != len(seen)+window || held != window {
					t.Errorf("%d messages were read and %d are held, with a window of %d after %d", arrivals, held, window, len(seen))
				}
				if strings.Contains(t.Name(), "mosquitto") && !c.paused.Load() {
					t.Error("the reader did not have to wait")
				}
				if err := c.reason(); err != nil {
					t.Errorf("the connection did not live on: %v", err)
				}
				for len(seen) < n {
					take()
				}
			})
		})
	}
}

func waitFor(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in time", what)
		}
	}
}

// A broker that says nothing any more is given up, and so is nobody who merely has nothing
// to say.
func TestASilentBrokerIsGivenUp(t *testing.T) {
	p := newPeer(t)
	gateway := provision(t, &MQTT5{
		Servers: []string{p.addr()}, Consumer: &Consumer{Topics: []string{"topic"}}, KeepAlive: caddy.Duration(time.Second),
	})
	s, _ := subscribe(t, gateway, message.Subscription{Mode: message.Broadcast}).(*stream)
	s.mu.Lock()
	c := s.home.conn
	s.mu.Unlock()
	time.Sleep(3 * time.Second)
	if err := c.reason(); err != nil {
		t.Fatalf("the connection was given up: %v", err)
	}
	p.with(func() { p.mute = true })
	waitFor(t, "the connection is given up", func() bool { return c.reason() != nil })
	if !errors.Is(c.reason(), errQuiet) {
		t.Errorf("it was given up because of %v", c.reason())
	}
	waitFor(t, "the status is down", func() bool { return gateway.Status().State == endpoints.Down })
	p.with(func() { p.mute = false })
	feed := connectForeign(t, p.addr(), "feed", false, nil)
	waitFor(t, "it is connected again", func() bool { return gateway.Status().State == endpoints.Up })
	batch, err := s.Receive(context.Background())
	if err != nil || batch.Gap == nil || batch.Gap.Reason != message.GapConnection {
		t.Errorf("Receive returned %+v, %v and no gap", batch, err)
	}
	feed.produce(t, "topic", numbered(0, 3)...)
	receive(t, s, 3)
}

// What the server says when it ends a connection stands in the status.
func TestTheServersReasonIsTold(t *testing.T) {
	p := newPeer(t)
	gateway := provision(t, &MQTT5{Servers: []string{p.addr()}, Consumer: &Consumer{Topics: []string{"topic"}}})
	s, _ := subscribe(t, gateway, message.Subscription{Mode: message.Broadcast}).(*stream)
	p.with(func() { p.refuse = reasonQuota })
	p.kick(s.home.id, 0x8B)
	waitFor(t, "the status tells it", func() bool {
		status := gateway.Status()
		return status.State == endpoints.Down && strings.Contains(status.Error, "(0x8B)") || strings.Contains(status.Error, "(0x97)")
	})
	p.with(func() { p.refuse = 0 })
}

// Before a session is there, retained messages may fill the window: the subscription
// stands all the same, and so does one that is resumed with a full window.
func TestAFullWindowIsNoFailure(t *testing.T) {
	onBrokers(t, func(t *testing.T, addr string) {
		topic := brokers.UniqueName(t)
		feed := connectForeign(t, addr, topic, false, nil)
		gateway := newProcess(t, addr, topic)
		s := gateway.member(t, 3)
		feed.produce(t, topic, numbered(0, 60)...)
		receive(t, s, 3)
		closeStream(t, s)
		begun := time.Now()
		s = gateway.member(t, 3)
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("Subscribe took %v", took)
		}
		gather(t, s, wants(0, 60))
	})
}
