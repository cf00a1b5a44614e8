//go:build cgo && (linux || darwin)

package solace

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"solace.dev/go/messaging/pkg/solace/message/sdt"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/endpointtest"
	"github.com/caddy-message-api/caddy-message-api/endpoints/solace/smftest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// broker is the peer, and what foreign clients do at it.
type broker struct{ *smftest.Server }

func startBroker(t *testing.T, options smftest.Options) broker {
	t.Helper()
	s, err := smftest.Listen("127.0.0.1:0", options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return broker{s}
}

const deadLetters = "#DEAD_MSG_QUEUE"

// endpoint provisions an endpoint at the broker.
func (b broker) endpoint(t *testing.T, s *Solace) *Solace {
	t.Helper()
	if s.URL == nil {
		s.URL = []string{b.URL()}
	}
	return provision(t, s)
}

func provision(t *testing.T, s *Solace) *Solace {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	if err := s.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	s.SetScope(endpoints.Scope{Owner: "test", Name: "solace"})
	t.Cleanup(func() {
		if err := s.Cleanup(); err != nil {
			t.Error(err)
		}
	})
	return s
}

var names64 atomic.Int64

// unique makes a name that nobody else has.
func unique(what string) string {
	return fmt.Sprintf("%s-%x-%d", what, time.Now().UnixNano(), names64.Add(1))
}

// produce publishes as another client would.
func (b broker) produce(t *testing.T, topic string, messages ...*message.Message) {
	t.Helper()
	for _, m := range messages {
		err := b.Publish(topic, true, foreign(m))
		if err != nil && !strings.Contains(err.Error(), "No Subscription Match") { // nobody may read it at the moment
			t.Fatal(err)
		}
	}
}

// foreign is a message as another client sends it.
func foreign(m *message.Message) smftest.Message {
	out := smftest.Message{
		Payload: m.Payload, ApplicationMessageID: m.ID, Properties: make(map[string]any), DMQEligible: true, SenderTimestamp: time.Now(),
	}
	for _, h := range m.Headers {
		out.Properties[h.Name] = property(h.Value)
	}
	if m.Key != nil {
		out.Properties[keyProperty] = property(string(m.Key))
	}
	return out
}

// take takes the next n messages out of a queue.
func (b broker) take(t *testing.T, queue string, n int) []*message.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	taken, err := b.Take(ctx, queue, n)
	if err != nil {
		t.Fatalf("%d of %d messages came out of queue %s: %v", len(taken), n, queue, err)
	}
	all := make([]*message.Message, len(taken))
	for i := range taken {
		all[i] = own(&taken[i])
	}
	return all
}

// own is what another client got, as the gateway sees it.
func own(in *smftest.Message) *message.Message {
	out := &message.Message{ID: in.ApplicationMessageID, Payload: in.Payload}
	properties := make(sdt.Map, len(in.Properties))
	for name, value := range in.Properties {
		properties[name] = value
	}
	out.Headers, out.Key = headers(properties)
	return out
}

// eventually polls until f is true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !f(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 15s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// once is a fault that happens to the next operation of a kind on what bears a name.
func once(op smftest.Op, name string, fault smftest.Fault) func(smftest.Op, string) *smftest.Fault {
	var done atomic.Bool
	return func(o smftest.Op, n string) *smftest.Fault {
		if o != op || !strings.HasPrefix(n, name) || done.Swap(true) {
			return nil
		}
		return &fault
	}
}

// cutAfterWrite stores the next message and cuts the connection. Who logs in then has to
// wait: else the library can be back, and have its answer, before we have left it.
func cutAfterWrite(topic string) func(smftest.Op, string) *smftest.Fault {
	cut := once(smftest.OpPublish, topic, smftest.Fault{Drop: true})
	var done atomic.Bool
	return func(op smftest.Op, name string) *smftest.Fault {
		if op == smftest.OpLogin && done.Load() {
			return &smftest.Fault{Delay: time.Second}
		}
		f := cut(op, name)
		if f != nil {
			done.Store(true)
		}
		return f
	}
}

// always is a fault that happens each time.
func always(op smftest.Op, fault smftest.Fault) func(smftest.Op, string) *smftest.Fault {
	return func(o smftest.Op, _ string) *smftest.Fault {
		if o != op {
			return nil
		}
		return &fault
	}
}

func (b broker) newRig(t *testing.T, consumer func(topic, queue string) *Consumer) *endpointtest.Rig {
	in, out := unique("in"), unique("out")
	b.DeleteQueue(deadLetters) // of those before
	b.Queue(deadLetters, smftest.Queue{NonExclusive: true})
	b.Queue(out, smftest.Queue{NonExclusive: true, Topics: []string{out}})
	c := consumer(in+"/>", in)
	if c.Queue != "" {
		b.Queue(c.Queue, smftest.Queue{NonExclusive: true, Topics: []string{in + "/>"}})
	}
	make := func(t *testing.T, url string, c *Consumer, out string) endpoints.Endpoint {
		copied := *c
		return b.endpoint(t, &Solace{URL: []string{url}, Producer: &Producer{Topics: []string{out}}, Consumer: &copied})
	}
	rig := &endpointtest.Rig{
		Endpoint:    make(t, b.URL(), c, out),
		Produce:     func(t *testing.T, messages ...*message.Message) { b.produce(t, in+"/a/b", messages...) },
		Consume:     func(t *testing.T, n int) []*message.Message { return b.take(t, out, n) },
		DeadLetters: func(t *testing.T, n int) []*message.Message { return b.take(t, deadLetters, n) },
		Again:       func(t *testing.T) endpoints.Endpoint { return make(t, b.URL(), c, out) },
		Unreachable: func(t *testing.T) endpoints.Endpoint { return make(t, "tcp://127.0.0.1:1", c, out) },
		Cut:         func(*testing.T) { b.Pause() },
		Restore: func(t *testing.T) {
			if err := b.Resume(); err != nil {
				t.Fatal(err)
			}
		},
		CutAfterWrite: func(*testing.T) { b.OnFault(cutAfterWrite(out)) },
		Refuse: func(*testing.T) {
			b.OnFault(once(smftest.OpPublish, out, smftest.Fault{Code: 503, Text: "Spool Over Quota"}))
		},
	}
	if c.Queue != "" {
		missing := *c
		missing.Queue = "no-" + in
		rig.Missing = func(t *testing.T) endpoints.Endpoint { return make(t, b.URL(), &missing, "no-"+out) }
	}
	return rig
}
