package module

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/plans"
)

// scriptedPublisher answers each message by what its payload says, up to the first colon.
type scriptedPublisher struct {
	name string
	err  error // what Publisher returns
	made int
	got  []*message.Message
}

func (p *scriptedPublisher) Publisher(endpoints.Values) (message.Publisher, error) {
	p.made++
	if p.err != nil {
		return nil, p.err
	}
	return p, nil
}

func (p *scriptedPublisher) Publish(_ context.Context, _ message.QoS, messages ...*message.Message) []message.Result {
	results := make([]message.Result, len(messages))
	for i, m := range messages {
		p.got = append(p.got, m)
		results[i] = p.result(string(m.Payload))
	}
	return results
}

func (p *scriptedPublisher) result(payload string) message.Result {
	script, _, _ := strings.Cut(payload, ":")
	switch script {
	case "down":
		return message.Result{Status: message.Refused, Err: message.Errorf(message.Unavailable, "%s is down", p.name)}
	case "denied":
		return message.Result{Status: message.Refused, Err: message.Errorf(message.Denied, "%s denies it", p.name)}
	case "cut":
		return message.Result{Status: message.Unknown, Err: message.Errorf(message.Unavailable, "%s went away", p.name)}
	case "unanswered":
		return message.Result{Status: message.Unknown, Err: message.Errorf(message.OutcomeUnknown, "%s did not answer", p.name)}
	case "silence":
		return message.Result{}
	case "panic":
		panic("out of my depth")
	}
	return message.Result{Status: message.Stored, ID: p.name + "/" + payload}
}

// payloads are what was published here.
func (p *scriptedPublisher) payloads() []string {
	var list []string
	for _, m := range p.got {
		list = append(list, string(m.Payload))
	}
	return list
}

// publishingSession opens a session that publishes by first, and by fallback if there is one.
func publishingSession(t *testing.T, first, fallback *scriptedPublisher, limit int) *session {
	t.Helper()
	w := &way{needs: entrypoints.Needs{Type: "http_post", Publish: true}}
	w.pub = &endpoint{name: first.name, caps: message.Capabilities{MaxPayload: limit}, pub: first}
	if fallback != nil {
		w.pubFallback = &endpoint{name: fallback.name, pub: fallback}
	}
	return testSession(t, testUnit(unique("publishing")), w, plans.Principal{API: "publishing"})
}

func texts(payloads ...string) []*message.Message {
	list := make([]*message.Message, len(payloads))
	for i, p := range payloads {
		list[i] = &message.Message{Payload: []byte(p)}
	}
	return list
}

// The fallback gets what certainly is not at the first broker because it is down, and
// nothing that may be there: a message is never doubled by falling back.
func TestFallbackGetsOnlyWhatDidNotLeave(t *testing.T) {
	first, second := &scriptedPublisher{name: "first"}, &scriptedPublisher{name: "second"}
	s := publishingSession(t, first, &scriptedPublisher{name: "second"}, 0)
	s.way.pubFallback.pub = answering{second, message.Result{Status: message.Stored, ID: "second/ok"}}
	sent := texts("ok:1", "down:2", "cut:3", "denied:4", "silence:5", "down:6", "unanswered:7")
	results, err := s.Publish(t.Context(), sent...)
	if err != nil {
		t.Fatal(err)
	}
	if got := second.payloads(); !slices.Equal(got, []string{"down:2", "down:6"}) {
		t.Errorf("the fallback got %q", got)
	}
	want := []message.Status{
		message.Stored, message.Stored, message.Unknown, message.Refused, message.Unknown, message.Stored, message.Unknown,
	}
	for i, r := range results {
		if r.Status != want[i] {
			t.Errorf("%s: %s, want %s", sent[i].Payload, r.Status, want[i])
		}
	}
	if results[1].ID != "second/ok" || results[0].ID != "first/ok:1" || results[1].Err != nil {
		t.Errorf("results %+v", results)
	}
}

// answering gives every message the same result.
type answering struct {
	*scriptedPublisher
	result message.Result
}

func (a answering) Publisher(endpoints.Values) (message.Publisher, error) { return a, nil }

func (a answering) Publish(_ context.Context, _ message.QoS, messages ...*message.Message) []message.Result {
	a.got = append(a.got, messages...)
	return slices.Repeat([]message.Result{a.result}, len(messages))
}

// When both fail, the client is told of both, and an unknown outcome stays one.
func TestFallbackFails(t *testing.T) {
	for want, cause := range map[message.Status]message.Kind{
		message.Refused: message.Unavailable, message.Unknown: message.OutcomeUnknown,
	} {
		s := publishingSession(t, &scriptedPublisher{name: "first"}, &scriptedPublisher{name: "second"}, 0)
		failed := message.Result{Status: want, Err: message.Errorf(cause, "second failed")}
		s.way.pubFallback.pub = answering{&scriptedPublisher{}, failed}
		results, err := s.Publish(t.Context(), texts("down")...)
		if err != nil || results[0].Status != want {
			t.Fatalf("%+v, %v", results, err)
		}
		got := entrypoints.AsProblem(results[0].Err)
		if !strings.Contains(got.Detail, "first is down") || !strings.Contains(got.Detail, "second failed") || got.Status != 503 {
			t.Errorf("%s: %+v", want, got)
		}
		if !errors.Is(results[0].Err, failed.Err) {
			t.Errorf("%s: the cause is lost", want)
		}
	}
}

// That the fallback can't be used for this request says nothing about the messages that
// are at the first broker.
func TestFallbackWithoutPublisher(t *testing.T) {
	cause := message.Errorf(message.BadInput, "the value of {x} can't be used")
	first, second := &scriptedPublisher{name: "first"}, &scriptedPublisher{name: "second", err: cause}
	s := publishingSession(t, first, second, 0)
	results, err := s.Publish(t.Context(), texts("ok", "down", "ok")...)
	if err != nil {
		t.Fatalf("an error that means that none was tried: %v", err)
	}
	if results[0].Status != message.Stored || results[2].Status != message.Stored {
		t.Errorf("%+v", results)
	}
	if r := results[1]; r.Status != message.Refused || !errors.Is(r.Err, cause) || message.KindOf(r.Err) != message.Unavailable {
		t.Errorf("%+v", r)
	}
}

// The first publisher is made once, and an error of it means that none was tried.
func TestPublisherIsMadeOnce(t *testing.T) {
	first, second := &scriptedPublisher{name: "first"}, &scriptedPublisher{name: "second"}
	s := publishingSession(t, first, second, 0)
	for range 3 {
		if _, err := s.Publish(t.Context(), texts("ok")...); err != nil {
			t.Fatal(err)
		}
	}
	if first.made != 1 || second.made != 0 {
		t.Errorf("made %d and %d times", first.made, second.made)
	}
	broken := publishingSession(t, &scriptedPublisher{name: "b", err: errors.New("no key")}, nil, 0)
	if results, err := broken.Publish(t.Context(), texts("ok")...); err == nil || results != nil {
		t.Errorf("%+v, %v", results, err)
	}
}

// Results are in the order of the messages, whatever was refused before sending.
func TestBoundedResultsKeepTheirOrder(t *testing.T) {
	const limit = 16
	r := rand.New(rand.NewPCG(5, 5))
	for range 200 {
		first := &scriptedPublisher{name: "first"}
		s := publishingSession(t, first, nil, limit)
		sent := make([]*message.Message, r.IntN(8))
		for i := range sent {
			payload := fmt.Sprintf("%s:%d", []string{"ok", "cut", "silence", "denied"}[r.IntN(4)], i)
			if r.IntN(3) == 0 {
				payload += strings.Repeat("x", limit)
			}
			sent[i] = &message.Message{Payload: []byte(payload)}
		}
		results, err := s.Publish(t.Context(), sent...)
		if err != nil || len(results) != len(sent) {
			t.Fatalf("%d results for %d messages, %v", len(results), len(sent), err)
		}
		for i, got := range results {
			if len(sent[i].Payload) > limit {
				if got.Status != message.Refused || message.KindOf(got.Err) != message.TooLarge {
					t.Errorf("%q: %+v", sent[i].Payload, got)
				}
				continue
			}
			want := first.result(string(sent[i].Payload))
			if got.Status != want.Status || got.ID != want.ID || fmt.Sprint(got.Err) != fmt.Sprint(want.Err) {
				t.Errorf("%q: %+v, want %+v", sent[i].Payload, got, want)
			}
		}
		s.close(nil)
	}
}

// Every result is counted, also when no message was small enough to be sent.
func TestPublishCounts(t *testing.T) {
	s := publishingSession(t, &scriptedPublisher{name: "first"}, nil, 8)
	if _, err := s.Publish(t.Context(), texts("ok", "down", "cut", "123456789")...); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Publish(t.Context(), texts("123456789")...); err != nil {
		t.Fatal(err)
	}
	for outcome, want := range map[string]float64{"stored": 1, "refused": 3, "unknown": 1, "handed": 0} {
		labels := map[string]string{"api": s.unit.def.ID, "entrypoint": "http_post", "outcome": outcome}
		if got := metricValue(t, "messages_published_total", labels); got != want {
			t.Errorf("%s: %v, want %v", outcome, got, want)
		}
	}
}

// The ids go with the message, and a client can't put its own in their place.
func TestPropagateIdentity(t *testing.T) {
	first := &scriptedPublisher{name: "first"}
	s := publishingSession(t, first, nil, 0)
	s.unit.def.PropagateIdentity = true
	original := []message.Header{{Name: "a", Value: "1"}, {Name: "x-gravitee-REQUEST-id", Value: "forged"}, {Name: "a", Value: "2"}}
	m := &message.Message{Payload: []byte("ok"), Headers: slices.Clone(original)}
	if _, err := s.Publish(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	want := []message.Header{
		{Name: "a", Value: "1"}, {Name: "a", Value: "2"},
		{Name: "X-Gravitee-Request-Id", Value: "request"}, {Name: "X-Gravitee-Transaction-Id", Value: "transaction"},
		{Name: "X-Gravitee-Client-Identifier", Value: "client"},
	}
	if got := first.got[0].Headers; !slices.Equal(got, want) {
		t.Errorf("sent with %v", got)
	}
	if !slices.Equal(m.Headers, original) {
		t.Errorf("the client's message became %v", m.Headers)
	}
}

func TestAPanicCostsItsMessagesAlone(t *testing.T) {
	s := publishingSession(t, &scriptedPublisher{name: "first"}, nil, 0)
	results, err := s.Publish(t.Context(), texts("a", "panic", "b")...)
	if err != nil || len(results) != 3 {
		t.Fatalf("got %+v, %v", results, err)
	}
	for i, r := range results {
		if r.Status != message.Unknown || message.KindOf(r.Err) != message.OutcomeUnknown {
			t.Errorf("message %d: %+v", i, r)
		}
	}
	if results, err = s.Publish(t.Context(), texts("c")...); err != nil || results[0].Status != message.Stored {
		t.Errorf("afterwards: %+v, %v", results, err)
	}
}
