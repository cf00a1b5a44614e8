//go:build cgo && (linux || darwin)

package smftest

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"solace.dev/go/messaging"
	"solace.dev/go/messaging/pkg/solace"
	"solace.dev/go/messaging/pkg/solace/config"
	"solace.dev/go/messaging/pkg/solace/resource"
)

func wantSubcode(t *testing.T, err error, code int) {
	t.Helper()
	var native *solace.NativeError
	if !errors.As(err, &native) || int(native.SubCode()) != code {
		t.Errorf("error %v, want subcode %d", err, code)
	}
}

// faulty has a fault happen to the first n operations of a kind.
func faulty(s *Server, op Op, n int32, f Fault) {
	var left atomic.Int32
	left.Store(n)
	s.OnFault(func(o Op, _ string) *Fault {
		if o == op && left.Add(-1) >= 0 {
			return &f
		}
		return nil
	})
}

func TestLogin(t *testing.T) {
	s := listen(t, Options{Users: map[string]string{"user": "secret"}, VPN: "orders"})
	attempt := func(more config.ServicePropertyMap) error {
		service, err := messaging.NewMessagingServiceBuilder().FromConfigurationProvider(properties(s, more)).Build()
		if err != nil {
			t.Fatal(err)
		}
		defer service.Disconnect()
		return service.Connect()
	}
	right := config.ServicePropertyMap{config.ServicePropertyVPNName: "orders"}
	if err := attempt(right); err != nil {
		t.Error(err)
	}
	wantSubcode(t, attempt(nil), 45)
	var auth *solace.AuthenticationError
	err := attempt(config.ServicePropertyMap{
		config.ServicePropertyVPNName:                    "orders",
		config.AuthenticationPropertySchemeBasicPassword: "wrong",
	})
	if !errors.As(err, &auth) {
		t.Errorf("wrong password: %v", err)
	}
	faulty(s, OpLogin, 1, Fault{Code: 503, Text: "Too Many Clients"})
	wantSubcode(t, attempt(right), 22)
	faulty(s, OpLogin, 1, Fault{Drop: true})
	if err := attempt(right); err == nil {
		t.Error("connected, though the connection was cut")
	}
	if err := attempt(right); err != nil {
		t.Error(err)
	}
}

func TestRefusedPublish(t *testing.T) {
	for _, every := range []int{1, 5} {
		s := listen(t, Options{AckEvery: every})
		s.Queue("q", Queue{Topics: []string{"a"}})
		p := newPublisher(t, connect(t, s, nil))
		var count atomic.Int32
		s.OnFault(func(op Op, _ string) *Fault {
			if op == OpPublish && count.Add(1)%4 == 0 {
				return &Fault{Code: 403, Text: "Publish ACL Denied"}
			}
			return nil
		})
		const n = 40
		for i := range n {
			p.send(t, "a", numbered(i))
		}
		refused := make(map[string]bool)
		for range n {
			if text, err := p.outcome(t); err != nil {
				wantSubcode(t, err, 69)
				refused[text] = true
			}
		}
		m, err := s.Take(within(t), "q", n-len(refused))
		if err != nil || len(refused) != n/4 {
			t.Fatalf("%d refused, %d stored: %v", len(refused), len(m), err)
		}
		for _, one := range m {
			if refused[string(one.Payload)] {
				t.Errorf("%s was refused and stored", one.Payload)
			}
		}
	}
}

func TestQuota(t *testing.T) {
	s := listen(t, Options{RejectNoMatch: true})
	s.Queue("q", Queue{Topics: []string{"a"}, MaxMessages: 1})
	p := newPublisher(t, connect(t, s, nil))
	send := func(topic string) error {
		p.send(t, topic, topic)
		_, err := p.outcome(t)
		return err
	}
	if err := send("a"); err != nil {
		t.Error(err)
	}
	wantSubcode(t, send("a"), 71)
	wantSubcode(t, send("nowhere"), 130)
	s.Shutdown("q", true)
	wantSubcode(t, send("a"), 72)
	s.Shutdown("q", false)
	if _, err := s.Take(within(t), "q", 1); err != nil {
		t.Error(err)
	}
	if err := send("a"); err != nil {
		t.Error(err)
	}
}

// Messages that were swallowed come again, in order.
func TestSilentPublish(t *testing.T) {
	s := listen(t, Options{})
	s.Queue("q", Queue{Topics: []string{"a"}})
	p := newPublisher(t, connect(t, s, nil))
	faulty(s, OpPublish, 1, Fault{Silent: true})
	for i := range 5 {
		p.send(t, "a", numbered(i))
	}
	for i := range 5 {
		if text, err := p.outcome(t); err != nil || text != numbered(i) {
			t.Fatalf("receipt of %s: %v", text, err)
		}
	}
	m, err := s.Take(within(t), "q", 5)
	for i := range m {
		if string(m[i].Payload) != numbered(i) {
			t.Errorf("message %d is %q", i, m[i].Payload)
		}
	}
	if err != nil || s.Counts("q").Ready != 0 {
		t.Errorf("%v; %+v", err, s.Counts("q"))
	}
}

func TestPauseAndMute(t *testing.T) {
	s := listen(t, Options{})
	s.Queue("q", Queue{Topics: []string{"a"}})
	service := connect(t, s, config.ServicePropertyMap{
		config.TransportLayerPropertyKeepAliveInterval:             500,
		config.TransportLayerPropertyKeepAliveWithoutResponseLimit: 3,
	})
	down := make(chan bool, 100)
	up := make(chan bool, 100)
	service.AddReconnectionAttemptListener(func(solace.ServiceEvent) {
		select {
		case down <- true:
		default:
		}
	})
	service.AddReconnectionListener(func(solace.ServiceEvent) { up <- true })
	p := newPublisher(t, service)
	send := func() {
		t.Helper()
		p.send(t, "a", "hello")
		if _, err := p.outcome(t); err != nil {
			t.Error(err)
		}
	}
	send()
	s.Pause()
	soon(t, "end of the connection", down)
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	soon(t, "reconnection", up)
	send()
	for len(down) > 0 {
		<-down
	}
	s.Mute(true)
	soon(t, "end of the connection for want of keep-alives", down)
	s.Mute(false)
	soon(t, "reconnection", up)
	send()
	if s.Counts("q").Ready != 3 {
		t.Errorf("counts: %+v", s.Counts("q"))
	}
}

func TestUnbind(t *testing.T) {
	s := listen(t, Options{})
	s.Queue("q", Queue{})
	service := connect(t, s, nil)
	r := newReceiver(t, service, resource.QueueDurableExclusive("q"), nil)
	ended := make(chan error, 1)
	r.SetTerminationNotificationListener(func(e solace.TerminationEvent) { ended <- e.GetCause() })
	put(t, s, "q", 0, 3)
	for i := range 3 {
		r.want(t, numbered(i))
	}
	s.Unbind("q", "Replay Started")
	eventually(t, "the client binds again", func() bool { return s.Counts("q").Flows == 1 })
	put(t, s, "q", 3, 4)
	for _, text := range next(r, t) {
		if text == numbered(3) {
			break
		}
	}
	s.DeleteQueue("q")
	select {
	case err := <-ended:
		wantSubcode(t, err, 27)
	case <-time.After(patience):
		t.Error("the receiver does not end")
	}
}

// next are messages as they come.
func next(r receiver, t *testing.T) func(func(int, string) bool) {
	return func(yield func(int, string) bool) {
		for i := 0; ; i++ {
			if _, text := r.next(t); !yield(i, text) {
				return
			}
		}
	}
}

func TestRefusedBind(t *testing.T) {
	s := listen(t, Options{})
	s.Queue("q", Queue{})
	service := connect(t, s, nil)
	start := func() error {
		r, err := service.CreatePersistentMessageReceiverBuilder().Build(resource.QueueDurableExclusive("q"))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Terminate(0)
		return r.Start()
	}
	faulty(s, OpBind, 1, Fault{Code: 503, Text: "Max clients exceeded for queue"})
	wantSubcode(t, start(), 63)
	s.Shutdown("q", true)
	wantSubcode(t, start(), 72)
	s.Shutdown("q", false)
	if err := start(); err != nil {
		t.Error(err)
	}
	s.DeleteQueue("q")
	wantSubcode(t, start(), 61)
}

func TestRefusedSubscription(t *testing.T) {
	s := listen(t, Options{})
	service := connect(t, s, nil)
	faulty(s, OpSubscribe, 1, Fault{Code: 403, Text: "Subscription ACL Denied"})
	r, err := service.CreateDirectMessageReceiverBuilder().WithSubscriptions(resource.TopicSubscriptionOf("a")).Build()
	if err != nil {
		t.Fatal(err)
	}
	wantSubcode(t, r.Start(), 68)
	if all := s.Subscriptions(); len(all) != 0 {
		t.Errorf("subscriptions: %v", all)
	}
}

func TestDeliveryFaults(t *testing.T) {
	s := listen(t, Options{})
	s.Queue("q", Queue{})
	service := connect(t, s, nil)
	r := newReceiver(t, service, resource.QueueDurableExclusive("q"), nil)
	faults := []Fault{{Delay: 20 * time.Millisecond}, {Drop: true}, {Drop: true, Silent: true}}
	for i, f := range faults {
		faulty(s, OpDeliver, 1, f)
		put(t, s, "q", 10*i, 10*i+3)
		seen := make(map[string]bool)
		for len(seen) < 3 {
			m, text := r.next(t)
			seen[text] = true
			r.ack(t, m)
		}
	}
	faulty(s, OpAck, 1, Fault{Drop: true, Silent: true})
	put(t, s, "q", 100, 101)
	r.ack(t, r.want(t, numbered(100)))
	eventually(t, "all are settled", func() bool { c := s.Counts("q"); return c.Ready+c.Unacked == 0 })
}
