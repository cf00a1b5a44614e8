//go:build cgo && (linux || darwin)

package smftest

import (
	"testing"
	"time"

	"solace.dev/go/messaging/pkg/solace"
	"solace.dev/go/messaging/pkg/solace/config"
	"solace.dev/go/messaging/pkg/solace/resource"
)

func put(t *testing.T, s *Server, queue string, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if err := s.Put(queue, Message{Payload: []byte(numbered(i)), DMQEligible: true}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFailedComesAgain(t *testing.T) {
	s := listen(t, Options{})
	s.Queue("q", Queue{})
	put(t, s, "q", 0, 3)
	r := newReceiver(t, connect(t, s, nil), resource.QueueDurableExclusive("q"), nil)
	first := r.want(t, numbered(0))
	r.want(t, numbered(1))
	r.want(t, numbered(2))
	r.settle(t, first, config.PersistentReceiverFailedOutcome)
	again := r.want(t, numbered(0))
	if !again.IsRedelivered() || first.IsRedelivered() {
		t.Errorf("redelivered: first %v, again %v", first.IsRedelivered(), again.IsRedelivered())
	}
	if c := s.Counts("q"); c.Unacked != 3 || c.Failed != 1 || c.Redelivered != 1 {
		t.Errorf("counts: %+v", c)
	}
}

func TestRejectedIsPutAside(t *testing.T) {
	s := listen(t, Options{})
	s.Queue("q", Queue{})
	s.Queue(defaultDMQ, Queue{})
	put(t, s, "q", 0, 2)
	r := newReceiver(t, connect(t, s, nil), resource.QueueDurableExclusive("q"), nil)
	r.settle(t, r.want(t, numbered(0)), config.PersistentReceiverRejectedOutcome)
	m, err := s.Take(within(t), defaultDMQ, 1)
	if err != nil || string(m[0].Payload) != numbered(0) {
		t.Fatalf("dead message queue: %+v, %v", m, err)
	}
	r.want(t, numbered(1))
	if c := s.Counts("q"); c.Rejected != 1 || c.Unacked != 1 || c.GivenUp != 1 {
		t.Errorf("counts: %+v", c)
	}
}

func TestMaxRedeliveries(t *testing.T) {
	s := listen(t, Options{})
	s.Queue("q", Queue{MaxRedeliveries: 2})
	put(t, s, "q", 0, 1)
	r := newReceiver(t, connect(t, s, nil), resource.QueueDurableExclusive("q"), nil)
	for range 3 {
		r.settle(t, r.want(t, numbered(0)), config.PersistentReceiverFailedOutcome)
	}
	eventually(t, "the queue gives it up", func() bool { return s.Counts("q").GivenUp == 1 })
}

func TestTimeToLive(t *testing.T) {
	s := listen(t, Options{})
	s.Queue("q", Queue{RespectTTL: true})
	if err := s.Put("q", Message{Payload: []byte("old"), TTL: time.Millisecond}, Message{Payload: []byte("young")}); err != nil {
		t.Fatal(err)
	}
	<-time.After(5 * time.Millisecond)
	if m, err := s.Take(within(t), "q", 1); err != nil || string(m[0].Payload) != "young" {
		t.Errorf("taken: %+v, %v", m, err)
	}
}

func TestMaxUnacked(t *testing.T) {
	s := listen(t, Options{})
	s.Queue("q", Queue{MaxUnacked: 5})
	put(t, s, "q", 0, 20)
	r := newReceiver(t, connect(t, s, nil), resource.QueueDurableExclusive("q"), nil)
	for i := range 20 {
		m := r.want(t, numbered(i))
		if c := s.Counts("q"); c.Unacked > 5 {
			t.Fatalf("counts: %+v", c)
		}
		r.ack(t, m)
	}
}

// What a receiver that ends still holds goes to the next one.
func TestReceiverEnds(t *testing.T) {
	s := listen(t, Options{})
	s.Queue("q", Queue{})
	put(t, s, "q", 0, 5)
	service := connect(t, s, nil)
	one := newReceiver(t, service, resource.QueueDurableExclusive("q"), nil)
	for i := range 5 {
		if m := one.want(t, numbered(i)); i < 2 {
			one.ack(t, m)
		}
	}
	if err := one.Terminate(time.Second); err != nil {
		t.Logf("terminate: %v", err)
	}
	two := newReceiver(t, service, resource.QueueDurableExclusive("q"), nil)
	for i := 2; i < 5; i++ {
		if m := two.want(t, numbered(i)); !m.IsRedelivered() {
			t.Errorf("message %d is not marked as redelivered", i)
		}
	}
}

func TestExclusive(t *testing.T) {
	s := listen(t, Options{})
	s.Queue("q", Queue{})
	service := connect(t, s, nil)
	states := make(chan string, 10)
	watched := func(name string) receiver {
		return newReceiver(t, service, resource.QueueDurableExclusive("q"), func(b solace.PersistentMessageReceiverBuilder) {
			b.WithActivationPassivationSupport(func(_, to solace.ReceiverState, _ time.Time) {
				if to == solace.ReceiverActive {
					states <- name
				}
			})
		})
	}
	active := func(want string) {
		t.Helper()
		select {
		case name := <-states:
			if name != want {
				t.Fatalf("%s is active, want %s", name, want)
			}
		case <-time.After(patience):
			t.Fatalf("%s does not become active", want)
		}
	}
	one := watched("one")
	active("one")
	two := watched("two")
	put(t, s, "q", 0, 1)
	one.ack(t, one.want(t, numbered(0)))
	if err := one.Terminate(0); err != nil {
		t.Logf("terminate: %v", err)
	}
	active("two")
	put(t, s, "q", 1, 2)
	two.want(t, numbered(1))
}

func TestNonExclusive(t *testing.T) {
	s := listen(t, Options{})
	s.Queue("q", Queue{NonExclusive: true, MaxUnacked: 5})
	one := newReceiver(t, connect(t, s, nil), resource.QueueDurableNonExclusive("q"), nil)
	two := newReceiver(t, connect(t, s, nil), resource.QueueDurableNonExclusive("q"), nil)
	eventually(t, "both are bound", func() bool { return s.Counts("q").Flows == 2 })
	put(t, s, "q", 0, 10)
	seen := make(map[string]bool)
	for range 5 {
		for _, r := range []receiver{one, two} {
			_, text := r.next(t)
			seen[text] = true
		}
	}
	if len(seen) != 10 {
		t.Errorf("received %v", seen)
	}
}

func TestTemporaryQueue(t *testing.T) {
	s := listen(t, Options{})
	service := connect(t, s, nil)
	r := newReceiver(t, service, resource.QueueNonDurableExclusiveAnonymous(), func(b solace.PersistentMessageReceiverBuilder) {
		b.WithSubscriptions(resource.TopicSubscriptionOf("a/>"))
	})
	if len(s.Queues()) != 1 {
		t.Fatalf("queues: %v", s.Queues())
	}
	if err := s.Publish("a/b", true, Message{Payload: []byte("one")}); err != nil {
		t.Fatal(err)
	}
	r.ack(t, r.want(t, "one"))
	s.Drop()
	eventually(t, "the client is back", func() bool { return s.Clients() == 1 && s.Counts(s.Queues()[0]).Flows == 1 })
	if err := s.Publish("a/b", true, Message{Payload: []byte("two")}); err != nil {
		t.Fatal(err)
	}
	r.want(t, "two")
	if err := r.Terminate(0); err != nil {
		t.Logf("terminate: %v", err)
	}
	eventually(t, "the queue is gone", func() bool { return len(s.Queues()) == 0 })
}

func TestProvisioning(t *testing.T) {
	s := listen(t, Options{})
	service := connect(t, s, nil)
	outcome := service.EndpointProvisioner().WithDurability(true).WithExclusiveAccess(false).
		WithMaxMessageRedelivery(3).Provision("made", false)
	if outcome.GetError() != nil {
		t.Fatal(outcome.GetError())
	}
	s.mu.Lock()
	q := s.queues["made"]
	s.mu.Unlock()
	if q == nil || !q.NonExclusive || q.MaxRedeliveries != 3 {
		t.Fatalf("made %+v", q)
	}
	again := service.EndpointProvisioner().WithDurability(true).Provision("made", false)
	if again.GetError() == nil {
		t.Error("made twice")
	}
	if err := service.EndpointProvisioner().WithDurability(true).Provision("made", true).GetError(); err != nil {
		t.Errorf("made, and that it exists should not matter: %v", err)
	}
	if err := service.EndpointProvisioner().Deprovision("made", false); err != nil {
		t.Fatal(err)
	}
	if err := service.EndpointProvisioner().Deprovision("made", false); err == nil {
		t.Error("deleted twice")
	}
}

func TestCreateOnStart(t *testing.T) {
	s := listen(t, Options{})
	service := connect(t, s, nil)
	r := newReceiver(t, service, resource.QueueDurableExclusive("made"), func(b solace.PersistentMessageReceiverBuilder) {
		b.WithMissingResourcesCreationStrategy(config.PersistentReceiverCreateOnStartMissingResources).
			WithSubscriptions(resource.TopicSubscriptionOf("a/*"))
	})
	if err := s.Publish("a/b", true, Message{Payload: []byte("one")}); err != nil {
		t.Fatal(err)
	}
	r.want(t, "one")
}

func TestNoProvisioning(t *testing.T) {
	s := listen(t, Options{NoProvisioning: true})
	service := connect(t, s, nil)
	outcome := service.EndpointProvisioner().WithDurability(true).Provision("made", false)
	wantSubcode(t, outcome.GetError(), 76)
}
