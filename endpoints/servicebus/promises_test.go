package servicebus

import (
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/endpointtest"
	"github.com/caddy-message-api/caddy-message-api/endpoints/servicebus/servicebustest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// shortHold makes a client that holds messages for longer lose them, so that the suite can
// see it.
const shortHold = caddy.Duration(4 * time.Second)

func promises(t *testing.T, rig func(t *testing.T) *endpointtest.Rig) {
	endpointtest.Run(t, endpointtest.Harness{New: rig, Headers: true, BinaryHeaders: true})
}

func TestPromisesOfAQueue(t *testing.T) {
	promises(t, func(t *testing.T) *endpointtest.Rig {
		n := namespace(t, servicebustest.Options{})
		make := func() { n.Queue("in", servicebustest.Entity{LockDuration: shortLock}) }
		make()
		n.Queue("out", servicebustest.Entity{})
		rig := newRig(t, n, "in", Consumer{Queue: "in", MaxHold: shortHold}, Producer{Queue: "out"}, "out")
		rig.Recreate = func(*testing.T) { make() }
		return rig
	})
}

// skipInShort leaves variants of a suite to the full run.
func skipInShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("NOT RUN with -short: the suite runs on a queue, and with all variants in make test")
	}
}

func TestPromisesOfASubscription(t *testing.T) {
	skipInShort(t)
	promises(t, func(t *testing.T) *endpointtest.Rig {
		n := namespace(t, servicebustest.Options{})
		n.Topic("events", servicebustest.Entity{})
		n.Subscription("events", "gateway", servicebustest.Entity{LockDuration: shortLock})
		n.Topic("orders", servicebustest.Entity{})
		n.Subscription("orders", "all", servicebustest.Entity{})
		return newRig(t, n, "events/Subscriptions/gateway", Consumer{Topic: "events", Subscription: "gateway"},
			Producer{Topic: "orders", Subject: "order", TimeToLive: caddy.Duration(time.Hour)}, "orders/Subscriptions/all")
	})
}

func TestPromisesOfSessions(t *testing.T) {
	skipInShort(t)
	promises(t, func(t *testing.T) *endpointtest.Rig {
		n := namespace(t, servicebustest.Options{})
		n.Queue("in", servicebustest.Entity{LockDuration: shortLock, Sessions: true})
		n.Queue("out", servicebustest.Entity{Sessions: true})
		return newRig(t, n, "in", Consumer{Queue: "in", Sessions: true, ConcurrentSessions: 16},
			Producer{Queue: "out", SessionID: "one"}, "out")
	})
}

// newRig is an endpoint that reads from one place and, if there is a producer, publishes to
// another.
func newRig(t *testing.T, n *servicebustest.Server, in string, c Consumer, p Producer, out string) *endpointtest.Rig {
	c.Shared = true
	provisioned := func(t *testing.T, address string, c Consumer, p Producer) endpoints.Endpoint {
		s := &ServiceBus{ConnectionString: address, Consumer: &c}
		if out != "" {
			s.Producer = &p
		}
		return provision(t, s)
	}
	missing, nowhere := c, p
	if c.Queue != "" {
		missing.Queue = "no-" + c.Queue
	} else {
		missing.Subscription = "no-" + c.Subscription
	}
	if p.Queue != "" {
		nowhere.Queue = "no-" + p.Queue
	} else {
		nowhere.Topic = "no-" + p.Topic
	}
	connect := n.ConnectionString()
	return &endpointtest.Rig{
		Endpoint:    provisioned(t, connect, c, p),
		Produce:     func(t *testing.T, messages ...*message.Message) { put(t, n, in, messages...) },
		Consume:     func(t *testing.T, count int) []*message.Message { return taken(t, n, out, count) },
		DeadLetters: func(t *testing.T, count int) []*message.Message { return taken(t, n, in+"/$DeadLetterQueue", count) },
		Again:       func(t *testing.T) endpoints.Endpoint { return provisioned(t, connect, c, p) },
		Missing:     func(t *testing.T) endpoints.Endpoint { return provisioned(t, connect, missing, nowhere) },
		Unreachable: func(t *testing.T) endpoints.Endpoint {
			return provisioned(t, strings.Replace(connect, n.Addr(), "127.0.0.1:1", 1), c, p)
		},
		Cut: func(*testing.T) { n.Pause() },
		Restore: func(t *testing.T) {
			if err := n.Resume(); err != nil {
				t.Fatal(err)
			}
		},
		CutAfterWrite: func(*testing.T) { nextTime(n, servicebustest.OpSend, servicebustest.Fault{Drop: true}) },
		Refuse: func(*testing.T) {
			nextTime(n, servicebustest.OpSend, servicebustest.Fault{Condition: condBusy, Description: "the server is busy"})
		},
		Restart: func(t *testing.T) {
			n.Pause()
			if err := n.Resume(); err != nil {
				t.Fatal(err)
			}
		},
	}
}
