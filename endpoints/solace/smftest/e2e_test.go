//go:build cgo && (linux || darwin)

package smftest

import (
	"testing"
	"time"

	"solace.dev/go/messaging/pkg/solace/message"
	"solace.dev/go/messaging/pkg/solace/resource"
)

func TestDirect(t *testing.T) {
	s := listen(t, Options{})
	service := connect(t, s, nil)
	got := make(chan message.InboundMessage, 10)
	r, err := service.CreateDirectMessageReceiverBuilder().WithSubscriptions(resource.TopicSubscriptionOf("a/*/c/>")).Build()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	defer r.Terminate(0)
	if err := r.ReceiveAsync(func(m message.InboundMessage) { got <- m }); err != nil {
		t.Fatal(err)
	}
	record := s.Record("a/>")
	p, err := service.CreateDirectMessagePublisherBuilder().Build()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	defer p.Terminate(0)
	if err := p.PublishString("hello", resource.TopicOf("a/b/c/d")); err != nil {
		t.Fatal(err)
	}
	select {
	case m := <-got:
		if text, _ := m.GetPayloadAsString(); text != "hello" || m.GetDestinationName() != "a/b/c/d" {
			t.Errorf("received %q from %s", text, m.GetDestinationName())
		}
	case <-time.After(patience):
		t.Fatal("nothing came")
	}
	m, err := record.Take(within(t), 1)
	if err != nil || string(m[0].Payload) != "hello" || !m[0].Text || m[0].Persistent {
		t.Errorf("recorded %+v, %v", m, err)
	}
}

func TestPersistent(t *testing.T) {
	for _, options := range []Options{{}, {AckEvery: 7}, {old: true}} {
		s := listen(t, options)
		s.Queue("q", Queue{Topics: []string{"orders/>"}})
		service := connect(t, s, nil)
		p := newPublisher(t, service)
		const n = 1000
		for i := range n {
			p.send(t, "orders/1", numbered(i))
		}
		for i := range n {
			if text, err := p.outcome(t); err != nil || text != numbered(i) {
				t.Fatalf("receipt of %s: %v", text, err)
			}
		}
		r := newReceiver(t, service, resource.QueueDurableExclusive("q"), nil)
		for i := range n {
			m := r.want(t, numbered(i))
			r.ack(t, m)
		}
		eventually(t, "all are acknowledged", func() bool { return s.Counts("q").Acked == n })
	}
}
