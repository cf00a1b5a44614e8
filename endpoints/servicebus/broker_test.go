package servicebus

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/go-amqp"
	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/endpoints/endpointtest"
	"github.com/caddy-message-api/caddy-message-api/endpoints/servicebus/servicebustest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// shortLock makes what a lost connection has left behind come again soon.
const shortLock = time.Second

// namespace starts a namespace of the test's own.
func namespace(t testing.TB, o servicebustest.Options) *servicebustest.Server {
	t.Helper()
	s, err := servicebustest.Listen("127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// provision makes an endpoint of what is configured.
func provision(t testing.TB, s *ServiceBus) *ServiceBus {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	if err := s.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Cleanup() })
	if s.consumer != nil && strings.Contains(s.consumer.cfg.address, "127.0.0.1") { // which is near
		s.consumer.onItsWay, s.consumer.firstWait, s.consumer.setup = 100*time.Millisecond, 100*time.Millisecond, 300*time.Millisecond
	}
	return s
}

// reading is an endpoint that reads queue q.
func reading(t testing.TB, n *servicebustest.Server, change ...func(*Consumer)) *ServiceBus {
	t.Helper()
	c := &Consumer{Queue: "q", Shared: true}
	for _, f := range change {
		f(c)
	}
	return provision(t, &ServiceBus{ConnectionString: n.ConnectionString(), Consumer: c})
}

// sending is an endpoint that publishes to queue q.
func sending(t testing.TB, n *servicebustest.Server, change ...func(*Producer)) *ServiceBus {
	t.Helper()
	p := &Producer{Queue: "q"}
	for _, f := range change {
		f(p)
	}
	return provision(t, &ServiceBus{ConnectionString: n.ConnectionString(), Producer: p})
}

func subscribe(t testing.TB, e *ServiceBus, sub message.Subscription) message.Stream {
	t.Helper()
	s, err := trySubscribe(t, e, sub)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

func trySubscribe(t testing.TB, e *ServiceBus, sub message.Subscription) (message.Stream, error) {
	t.Helper()
	channel, err := e.Channel(endpointtest.Verbatim{})
	if err != nil {
		t.Fatal(err)
	}
	sub.Mode = message.Shared
	return e.Subscribe(t.Context(), channel, sub)
}

func publish(t testing.TB, e *ServiceBus, messages ...*message.Message) []message.Result {
	t.Helper()
	p, err := e.Publisher(endpointtest.Verbatim{})
	if err != nil {
		t.Fatal(err)
	}
	return p.Publish(t.Context(), message.Auto, messages...)
}

// put stores messages as a foreign client would.
func put(t testing.TB, n *servicebustest.Server, entity string, messages ...*message.Message) {
	t.Helper()
	all := make([]*amqp.Message, len(messages))
	for i, m := range messages {
		a := amqp.NewMessage(m.Payload)
		id := fmt.Sprintf("foreign-%d", i)
		a.Properties = &amqp.MessageProperties{MessageID: id}
		if len(m.Headers) > 0 {
			a.ApplicationProperties = make(map[string]any)
			for _, h := range m.Headers {
				a.ApplicationProperties[h.Name] = headerValue(nil, h.Value)
			}
		}
		session := sessionOf(m)
		a.Properties.GroupID = &session
		all[i] = a
	}
	if err := n.Put(entity, all...); err != nil {
		t.Fatal(err)
	}
}

// sessionOf makes more sessions of the suite's messages than a client has at a time, and
// different ones for the same key.
func sessionOf(m *message.Message) string {
	var number int
	if _, err := fmt.Sscanf(string(m.Payload), "message %d", &number); err != nil {
		return "other"
	}
	return fmt.Sprintf("%s-%d", m.Key, number/7%2)
}

// taken removes messages as a foreign client would.
func taken(t testing.TB, n *servicebustest.Server, entity string, count int) []*message.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	raw, err := n.Take(ctx, entity, count)
	if err != nil {
		t.Fatalf("%s: %d of %d messages: %v", entity, len(raw), count, err)
	}
	all := make([]*message.Message, len(raw))
	for i, a := range raw {
		all[i] = &message.Message{Payload: a.GetData(), Headers: headers(a.ApplicationProperties)}
		if a.Properties != nil && a.Properties.MessageID != nil {
			all[i].ID = text(a.Properties.MessageID)
		}
	}
	return all
}

func numbered(from, n int) []*message.Message {
	all := make([]*message.Message, n)
	for i := range all {
		all[i] = &message.Message{Payload: fmt.Appendf(nil, "m%d", from+i)}
	}
	return all
}

func receiveAll(t testing.TB, s message.Stream, n int) []message.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	var all []message.Delivery
	for len(all) < n {
		b, err := s.Receive(ctx)
		if err != nil {
			t.Fatalf("received %d of %d: %v", len(all), n, err)
		}
		all = append(all, b.Deliveries...)
	}
	return all
}

func settle(t testing.TB, s message.Stream, how message.Settlement, d ...message.Delivery) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return s.Settle(ctx, how, d...)
}

func texts(deliveries []message.Delivery) string {
	all := make([]string, len(deliveries))
	for i, d := range deliveries {
		all[i] = string(d.Payload)
	}
	return strings.Join(all, " ")
}

// eventually polls until f is true.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in time", what)
		}
	}
}

// nextTime has a fault befall the next operation of its kind, and no other.
func nextTime(n *servicebustest.Server, op servicebustest.Op, f servicebustest.Fault) {
	var done atomic.Bool
	n.OnFault(func(o servicebustest.Op, _ string) *servicebustest.Fault {
		if o == op && done.CompareAndSwap(false, true) {
			return &f
		}
		return nil
	})
}

// always has a fault befall all operations of its kind.
func always(n *servicebustest.Server, op servicebustest.Op, f servicebustest.Fault) {
	n.OnFault(func(o servicebustest.Op, _ string) *servicebustest.Fault {
		if o == op {
			return &f
		}
		return nil
	})
}

func healthy(n *servicebustest.Server) { n.OnFault(nil) }
