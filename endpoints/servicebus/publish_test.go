package servicebus

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/go-amqp"
	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/endpoints/endpointtest"
	"github.com/caddy-message-api/caddy-message-api/endpoints/servicebus/servicebustest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// rawTaken removes one message as a foreign client would, with all that it holds.
func rawTaken(t *testing.T, n *servicebustest.Server, entity string) *amqp.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	all, err := n.Take(ctx, entity, 1)
	if err != nil {
		t.Fatal(err)
	}
	return all[0]
}

func wantResult(t *testing.T, r message.Result, status message.Status, kind message.Kind) {
	t.Helper()
	if r.Status != status || status != message.Stored && message.KindOf(r.Err) != kind {
		t.Errorf("%s (%v), want %s of kind %s", r.Status, r.Err, status, kind)
	}
}

func TestWhatIsSent(t *testing.T) {
	n := namespace(t, servicebustest.Options{})
	n.Queue("q", servicebustest.Entity{})
	e := sending(t, n, func(p *Producer) {
		p.Subject, p.SessionID, p.PartitionKey, p.TimeToLive = "news", "s1", "s1", caddy.Duration(time.Hour)
	})
	r := publish(t, e, &message.Message{
		ID: "id-7", Key: []byte("ignored"), Payload: []byte("hello"),
		Headers: []message.Header{{Name: "Content-Type", Value: "text/plain"}, {Name: "a", Value: "1"}, {Name: "a", Value: "2"}, {Name: "b", Value: "\xff"}},
	})[0]
	wantResult(t, r, message.Stored, 0)
	if r.ID != "id-7" || len(r.Metadata) != 1 || r.Metadata[0].String() != "q" {
		t.Errorf("result %+v", r)
	}
	m := rawTaken(t, n, "q")
	p := m.Properties
	if p.MessageID != "id-7" || *p.Subject != "news" || *p.GroupID != "s1" || *p.ContentType != "text/plain" || string(m.GetData()) != "hello" {
		t.Errorf("sent %+v with %q", p, m.GetData())
	}
	if m.Annotations["x-opt-partition-key"] != "s1" || m.Header == nil || m.Header.TTL != time.Hour {
		t.Errorf("sent %v and %+v", m.Annotations, m.Header)
	}
	if a := m.ApplicationProperties; a["a"] != "1, 2" || a["Content-Type"] != "text/plain" || string(a["b"].([]byte)) != "\xff" {
		t.Errorf("sent headers %v", a)
	}
}

// A message without an id gets one, by which the service can detect duplicates; one with a
// key gets that as its partition key.
func TestIDsAndKeys(t *testing.T) {
	n := namespace(t, servicebustest.Options{})
	n.Queue("q", servicebustest.Entity{})
	e := sending(t, n)
	r := publish(t, e, &message.Message{Key: []byte("customer-7")})[0]
	m := rawTaken(t, n, "q")
	if len(r.ID) != 36 || m.Properties.MessageID != r.ID || m.Annotations["x-opt-partition-key"] != "customer-7" {
		t.Errorf("%+v became %v with %v", r, m.Properties, m.Annotations)
	}
	for _, bad := range []*message.Message{
		{ID: strings.Repeat("i", 129)}, {Key: []byte(strings.Repeat("k", 129))}, {Key: []byte{0xff}},
		{Headers: []message.Header{{Name: "\xff", Value: "x"}}}, {Headers: []message.Header{{Name: deadLetterReason, Value: "\xff"}}},
	} {
		results := publish(t, e, &message.Message{Payload: []byte("good")}, bad, &message.Message{Payload: []byte("good")})
		wantResult(t, results[0], message.Stored, 0)
		wantResult(t, results[1], message.Refused, message.BadInput)
		wantResult(t, results[2], message.Stored, 0)
	}
}

func TestScheduled(t *testing.T) {
	n := namespace(t, servicebustest.Options{})
	n.Queue("q", servicebustest.Entity{})
	e := sending(t, n, func(p *Producer) { p.ScheduledDelay = caddy.Duration(time.Hour) })
	wantResult(t, publish(t, e, &message.Message{Payload: []byte("later")})[0], message.Stored, 0)
	if c := n.Counts("q"); c.Scheduled != 1 || c.Active != 0 {
		t.Errorf("the queue holds %+v", c)
	}
}

func TestWhatTheServiceRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		fault servicebustest.Fault
		kind  message.Kind
		after time.Duration
	}{
		"throttled":     {servicebustest.Fault{Condition: condBusy, Description: "The server is busy."}, message.Busy, busyAfter},
		"full":          {servicebustest.Fault{Condition: condFull, Description: "The queue is full."}, message.Busy, fullAfter},
		"denied":        {servicebustest.Fault{Condition: condDenied, Description: "'Send' claim(s) are required."}, message.Denied, 0},
		"disabled":      {servicebustest.Fault{Condition: condDisabled, Description: "The queue is disabled."}, message.Unavailable, retryAfter},
		"bad":           {servicebustest.Fault{Condition: condArgument, Description: "The message is bad."}, message.BadInput, 0},
		"needs session": {servicebustest.Fault{Condition: condNotAllowed, Description: "The SessionId was not set on a message."}, message.Mismatch, 0},
	} {
		t.Run(name, func(t *testing.T) {
			n := namespace(t, servicebustest.Options{})
			n.Queue("q", servicebustest.Entity{})
			e := sending(t, n)
			wantResult(t, publish(t, e, &message.Message{})[0], message.Stored, 0)
			always(n, servicebustest.OpSend, tc.fault)
			for _, r := range publish(t, e, numbered(0, 3)...) {
				wantResult(t, r, message.Refused, tc.kind)
				if err, ok := errors.AsType[*message.Error](r.Err); !ok || err.RetryAfter != tc.after ||
					!strings.Contains(err.Detail, tc.fault.Description) || strings.Contains(err.Detail, "*Error{") {
					t.Errorf("%+v", err)
				}
			}
			healthy(n)
			wantResult(t, publish(t, e, &message.Message{})[0], message.Stored, 0)
			if c := n.Counts("q"); c.Active != 2 {
				t.Errorf("the queue holds %d messages", c.Active)
			}
		})
	}
}

// A batch is refused as a whole. Only the message that is to blame is refused at last.
func TestTheInnocentAreStored(t *testing.T) {
	n := namespace(t, servicebustest.Options{})
	n.Queue("q", servicebustest.Entity{MaxMessageBytes: 100_000})
	e := sending(t, n)
	messages := numbered(0, 40)
	messages[17].Payload = make([]byte, 200_000)
	for i, r := range publish(t, e, messages...) {
		if i == 17 {
			wantResult(t, r, message.Refused, message.TooLarge)
		} else {
			wantResult(t, r, message.Stored, 0)
		}
	}
	if c := n.Counts("q"); c.Active != 39 {
		t.Errorf("the queue holds %d messages", c.Active)
	}
	// Batches larger than the service takes are divided.
	large := numbered(0, 30)
	for _, m := range large {
		m.Payload = make([]byte, 20_000)
	}
	for _, r := range publish(t, e, large...) {
		wantResult(t, r, message.Stored, 0)
	}
}

// The service refuses batches once or twice for what one of their messages is to blame for.
func TestABatchIsDivided(t *testing.T) {
	n := namespace(t, servicebustest.Options{})
	n.Queue("q", servicebustest.Entity{})
	e := sending(t, n)
	wantResult(t, publish(t, e, &message.Message{})[0], message.Stored, 0)
	var sends atomic.Int32
	n.OnFault(func(op servicebustest.Op, _ string) *servicebustest.Fault {
		if op == servicebustest.OpSend && sends.Add(1) <= 2 { // all eight, and the first four
			return &servicebustest.Fault{Condition: condArgument, Description: "one of them is bad"}
		}
		return nil
	})
	for _, r := range publish(t, e, numbered(0, 8)...) {
		wantResult(t, r, message.Stored, 0)
	}
	if got := sends.Load(); got != 5 {
		t.Errorf("%d batches were sent, want 5", got)
	}
	var got []string
	for _, m := range taken(t, n, "q", 9)[1:] {
		got = append(got, string(m.Payload))
	}
	if strings.Join(got, " ") != "m0 m1 m2 m3 m4 m5 m6 m7" {
		t.Errorf("stored %v", got)
	}
}

// The library would send again after a detach what may be stored.
func TestNothingIsSentTwice(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]servicebustest.Fault{
		"detached": {Detach: true, Condition: "amqp:link:detach-forced", Description: "maintenance"},
		"unknown":  {Detach: true, Condition: "com.microsoft:something-new"},
		"cut":      {Drop: true},
	} {
		t.Run(name, func(t *testing.T) {
			n := namespace(t, servicebustest.Options{})
			n.Queue("q", servicebustest.Entity{})
			e := sending(t, n)
			wantResult(t, publish(t, e, &message.Message{})[0], message.Stored, 0)
			var sends atomic.Int32
			n.OnFault(func(op servicebustest.Op, _ string) *servicebustest.Fault {
				if op == servicebustest.OpSend && sends.Add(1) == 1 {
					return &fault
				}
				return nil
			})
			for _, r := range publish(t, e, numbered(0, 3)...) {
				wantResult(t, r, message.Unknown, message.OutcomeUnknown)
			}
			if got := sends.Load(); got != 1 {
				t.Errorf("it was sent %d times", got)
			}
			wantResult(t, publish(t, e, &message.Message{})[0], message.Stored, 0)
		})
	}
}

// A link that was detached while nothing was sent costs nobody a message.
func TestADetachedLinkIsReplaced(t *testing.T) {
	n := namespace(t, servicebustest.Options{})
	n.Queue("q", servicebustest.Entity{})
	e := sending(t, n)
	for range 3 {
		wantResult(t, publish(t, e, &message.Message{})[0], message.Stored, 0)
		conn, _ := e.producer.link.Up()
		before := conn.C.wire.detaches()
		n.Queue("q", servicebustest.Entity{}) // made anew, with its links detached
		eventually(t, "the detach was seen", func() bool { return conn.C.wire.detaches() > before })
	}
	n.Delete("q")
	eventually(t, "the queue is gone", func() bool {
		r := publish(t, e, &message.Message{})[0]
		return r.Status == message.Refused && message.KindOf(r.Err) == message.NotFound
	})
}

// A token that is refused is refused to all; when it is accepted again, all goes on.
func TestDeniedThenAllowed(t *testing.T) {
	var denied atomic.Bool
	denied.Store(true)
	n := namespace(t, servicebustest.Options{Deny: func(string, string) bool { return denied.Load() }})
	n.Queue("q", servicebustest.Entity{LockDuration: shortLock})
	out, in := sending(t, n), reading(t, n)
	wantResult(t, publish(t, out, &message.Message{})[0], message.Refused, message.Denied)
	if _, err := trySubscribe(t, in, message.Subscription{}); message.KindOf(err) != message.Denied {
		t.Errorf("subscribing: %v", err)
	}
	if message.KindOf(out.Probe(t.Context())) != message.Denied || message.KindOf(in.Probe(t.Context())) != message.Denied {
		t.Error("the probes see nothing of it")
	}
	denied.Store(false)
	wantResult(t, publish(t, out, &message.Message{Payload: []byte("m0")})[0], message.Stored, 0)
	s := subscribe(t, in, message.Subscription{})
	if got := texts(receiveAll(t, s, 1)); got != "m0" {
		t.Errorf("received %s", got)
	}
	if err := errors.Join(out.Probe(t.Context()), in.Probe(t.Context())); err != nil {
		t.Error(err)
	}
}

// A namespace that takes bytes and answers nothing holds nobody up for long.
func TestAMuteNamespace(t *testing.T) {
	t.Parallel()
	n := namespace(t, servicebustest.Options{})
	n.Queue("q", servicebustest.Entity{LockDuration: shortLock})
	out, in := sending(t, n), reading(t, n)
	wantResult(t, publish(t, out, numbered(0, 3)...)[0], message.Stored, 0)
	s := subscribe(t, in, message.Subscription{})
	held := receiveAll(t, s, 3)
	n.Mute(true)
	var wg sync.WaitGroup
	within := func(what string, f func()) {
		wg.Go(func() {
			begun := time.Now()
			f()
			if took := time.Since(begun); took > 6*time.Second {
				t.Errorf("%s took %v", what, took)
			}
		})
	}
	within("publishing", func() {
		wantResult(t, publish(t, out, &message.Message{})[0], message.Unknown, message.OutcomeUnknown)
	})
	within("settling", func() {
		if err := settle(t, s, message.Ack, held...); !errors.Is(err, message.ErrStale) {
			t.Errorf("settling: %v", err)
		}
	})
	within("subscribing", func() {
		if _, err := trySubscribe(t, in, message.Subscription{}); message.KindOf(err) != message.Unavailable {
			t.Errorf("subscribing: %v", err)
		}
	})
	wg.Wait()
	n.Mute(false)
	eventually(t, "publishing works again", func() bool { return publish(t, out, &message.Message{Payload: []byte("m3")})[0].Status.OK() })
	receiveAll(t, s, 1)
	within("closing", func() { _ = s.Close(context.Background()) })
	wg.Wait()
}

// One who publishes alone waits for nobody, and many who publish share batches.
func TestBatchesOfMany(t *testing.T) {
	n := namespace(t, servicebustest.Options{})
	n.Queue("q", servicebustest.Entity{})
	e := sending(t, n)
	wantResult(t, publish(t, e, &message.Message{})[0], message.Stored, 0)
	var sends atomic.Int32
	n.OnFault(func(op servicebustest.Op, _ string) *servicebustest.Fault {
		if op != servicebustest.OpSend {
			return nil
		}
		sends.Add(1)
		return &servicebustest.Fault{Delay: 20 * time.Millisecond}
	})
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() { wantResult(t, publish(t, e, &message.Message{})[0], message.Stored, 0) })
	}
	wg.Wait()
	if got := sends.Load(); got > 20 {
		t.Errorf("100 messages went out in %d batches", got)
	}
}

// What waits is bounded, and what waited is not sent after its caller has given up.
func TestWhatWaitsIsBounded(t *testing.T) {
	t.Parallel()
	n := namespace(t, servicebustest.Options{})
	n.Queue("q", servicebustest.Entity{})
	e := sending(t, n)
	wantResult(t, publish(t, e, &message.Message{})[0], message.Stored, 0)
	always(n, servicebustest.OpSend, servicebustest.Fault{Delay: 2 * time.Second})
	p, err := e.Publisher(endpointtest.Verbatim{})
	if err != nil {
		t.Fatal(err)
	}
	p.Publish(t.Context(), message.None, &message.Message{Payload: []byte("flying")})
	o := e.producer.outlets["q"]
	eventually(t, "the first is on its way", func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return len(o.groups) == 1 && o.waiting == 0
	})
	ctx, cancel := context.WithCancel(t.Context())
	given := make(chan message.Result, 1)
	go func() { given <- p.Publish(ctx, message.Auto, &message.Message{Payload: []byte("given up")})[0] }()
	eventually(t, "the second waits", func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.waiting == 1
	})
	cancel()
	wantResult(t, <-given, message.Refused, message.Unavailable)
	large := make([]*message.Message, maxWaiting+1)
	for i := range large {
		large[i] = &message.Message{}
	}
	for _, r := range p.Publish(t.Context(), message.None, large...)[:2] {
		wantResult(t, r, message.Refused, message.Busy)
	}
	healthy(n)
	wantResult(t, p.Publish(t.Context(), message.Auto, &message.Message{Payload: []byte("last")})[0], message.Stored, 0)
	var got []string
	for _, m := range taken(t, n, "q", 3)[1:] {
		got = append(got, string(m.Payload))
	}
	if strings.Join(got, " ") != "flying last" {
		t.Errorf("stored %v", got)
	}
}

// Requests can name queues; what is kept for each of them is bounded.
func TestManyQueues(t *testing.T) {
	n := namespace(t, servicebustest.Options{})
	for _, name := range []string{"one", "two"} {
		n.Queue(name, servicebustest.Entity{})
	}
	e := sending(t, n, func(p *Producer) { p.Queue = "{queue}" })
	for i := range 4 {
		name := []string{"one", "two"}[i%2]
		p, err := e.Publisher(replace{"{queue}": name})
		if err != nil {
			t.Fatal(err)
		}
		wantResult(t, p.Publish(t.Context(), message.Auto, &message.Message{})[0], message.Stored, 0)
		if i == 1 { // as if many others had been used meanwhile
			e.producer.mu.Lock()
			e.producer.forget()
			if len(e.producer.outlets) != 1 || e.producer.outlets["two"] == nil {
				t.Errorf("kept %v", e.producer.outlets)
			}
			e.producer.mu.Unlock()
		}
	}
}
