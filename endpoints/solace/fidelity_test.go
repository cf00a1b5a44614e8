//go:build cgo && (linux || darwin)

package solace

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	api "solace.dev/go/messaging/pkg/solace"
	apimessage "solace.dev/go/messaging/pkg/solace/message"
	"solace.dev/go/messaging/pkg/solace/message/sdt"
	"solace.dev/go/messaging/pkg/solace/resource"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/endpointtest"
	"github.com/caddy-message-api/caddy-message-api/endpoints/solace/smftest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// open subscribes, and closes at the end of the test.
func open(t *testing.T, s *Solace, sub message.Subscription) message.Stream {
	t.Helper()
	channel, err := s.Channel(endpointtest.Verbatim{})
	if err != nil {
		t.Fatal(err)
	}
	stream, err := s.Subscribe(t.Context(), channel, sub)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeStream(t, stream) })
	return stream
}

func closeStream(t *testing.T, stream message.Stream) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 6*time.Second)
	defer cancel()
	if err := stream.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

var member = message.Subscription{Mode: message.Member, QoS: message.AtLeastOnce, Name: "api.reader"}

// receive returns the next n deliveries, and the gaps before them.
func receive(t *testing.T, stream message.Stream, n int) (all []message.Delivery, gaps []message.Gap) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	for len(all) < n {
		batch, err := stream.Receive(ctx)
		if err != nil {
			t.Fatalf("received %d of %d messages: %v", len(all), n, err)
		}
		if batch.Gap != nil {
			gaps = append(gaps, *batch.Gap)
		}
		all = append(all, batch.Deliveries...)
	}
	return all, gaps
}

func settle(t *testing.T, stream message.Stream, how message.Settlement, deliveries ...message.Delivery) {
	t.Helper()
	if err := stream.Settle(t.Context(), how, deliveries...); err != nil {
		t.Fatalf("settle: %v", err)
	}
}

// publish publishes one message and returns what became of it.
func publish(t *testing.T, s *Solace, qos message.QoS, m *message.Message) message.Result {
	t.Helper()
	return publisherOf(t, s, endpointtest.Verbatim{}).Publish(t.Context(), qos, m)[0]
}

func publisherOf(t *testing.T, s *Solace, values endpoints.Values) message.Publisher {
	t.Helper()
	p, err := s.Publisher(values)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// payloadsOfOthers are those that have a type in Solace, and what clients get of them.
func payloadsOfOthers(t *testing.T, b api.OutboundMessageBuilder) map[string]func() (apimessage.OutboundMessage, error) {
	t.Helper()
	return map[string]func() (apimessage.OutboundMessage, error){
		"Größe 漢字": func() (apimessage.OutboundMessage, error) { return b.BuildWithStringPayload("Größe 漢字") },
		`{"bytes":"text","inner":{"list":[1,true,null]},"n":-7,"none":"NaN","topic":"a/b"}`: func() (apimessage.OutboundMessage, error) {
			return b.BuildWithMapPayload(sdt.Map{
				"n": int64(-7), "bytes": []byte("text"), "none": math.NaN(), "topic": resource.TopicOf("a/b"),
				"inner": sdt.Map{"list": sdt.Stream{uint8(1), true, nil}},
			})
		},
		`["a","/wA=",2.5]`: func() (apimessage.OutboundMessage, error) {
			return b.BuildWithStreamPayload(sdt.Stream{"a", []byte{0xff, 0}, 2.5})
		},
	}
}

func TestPayloadsThatHaveATypeInSolace(t *testing.T) {
	b := startBroker(t, smftest.Options{})
	s := b.endpoint(t, &Solace{Consumer: &Consumer{Topics: []string{"typed"}}})
	queue, copied := open(t, s, member), open(t, s, message.Subscription{})
	svc := site{url: b.URL()}.client(t)
	p, err := svc.CreatePersistentMessagePublisherBuilder().Build()
	if err == nil {
		err = p.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	for want, build := range payloadsOfOthers(t, svc.MessageBuilder()) {
		m, err := build()
		if err != nil {
			t.Fatal(err)
		}
		if err := p.PublishAwaitAcknowledgement(m, resource.TopicOf("typed"), 5*time.Second, nil); err != nil {
			t.Fatal(err)
		}
		m.Dispose()
		for _, stream := range []message.Stream{queue, copied} {
			got, _ := receive(t, stream, 1)
			if string(got[0].Payload) != want {
				t.Errorf("payload came as %q, want %q", got[0].Payload, want)
			}
			settle(t, stream, message.Ack, got...)
		}
	}
}

// What begins like a type of Solace's, and is none, stays as it is; with `payload raw`
// everything does.
func TestBytesThatLookLikeAType(t *testing.T) {
	b := startBroker(t, smftest.Options{})
	for _, payload := range []string{
		"\x1c\x08hello\x01", "\x1c\x09hello\x00", "\x1c\x08he\x00lo\x00", "\x1c\x08\xff\xfe\x00lo\x00", "\x1f\x00\x00\x00\x0bhello\x00 ",
		"\x2b\x00\x00\x00\x06\x00", "\x2f\x00\x00\x00\x08\x00\x02", "\x1c", "\x1c\x02", "\x08\x03\x01", "\x2f\xff\xff\xff\xff\x00",
	} {
		roundTrip(t, b, asTyped, payload)
	}
	for _, payload := range []string{"\x1c\x08hello\x00", "\x2f\x00\x00\x00\x07\x00\x02", "\x2b\x00\x00\x00\x05"} {
		roundTrip(t, b, raw, payload)
	}
}

// roundTrip publishes a payload and reads it in both ways.
func roundTrip(t *testing.T, b broker, form, payload string) {
	t.Helper()
	topic := unique("bytes")
	s := b.endpoint(t, &Solace{
		Producer: &Producer{Topics: []string{topic}}, Consumer: &Consumer{Topics: []string{topic}, Payload: form},
	})
	streams := []message.Stream{open(t, s, member), open(t, s, message.Subscription{})}
	publish(t, s, message.Auto, &message.Message{Payload: []byte(payload)})
	for _, stream := range streams {
		got, _ := receive(t, stream, 1)
		if string(got[0].Payload) != payload {
			t.Errorf("payload %q came as %q", payload, got[0].Payload)
		}
		settle(t, stream, message.Ack, got...)
	}
}

func FuzzTyped(f *testing.F) {
	for _, seed := range []string{"\x1c\x08hello\x00", "\x2f\x00\x00\x00\x07\x00\x02", "\x2b\x00\x00\x00\x0c\x1c\x04a\x00\x08\x03\x01"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, ok := typed(b); ok && !json.Valid(asJSON(v)) {
			t.Errorf("%x is made into invalid JSON", b)
		}
	})
}

// What a message has besides its payload arrives with another client of the gateway.
func TestProperties(t *testing.T) {
	b := startBroker(t, smftest.Options{})
	priority := 7
	s := b.endpoint(t, &Solace{
		Producer: &Producer{
			Topics: []string{"orders/new"}, Key: "by default", MessageID: "id {x}", CorrelationID: "case {x}", Priority: &priority,
			TimeToLive: caddy.Duration(time.Minute),
		},
		Consumer: &Consumer{Topics: []string{"orders/*"}},
	})
	queue, copied := open(t, s, member), open(t, s, message.Subscription{})
	record := b.Record("orders/>")
	defer record.Close()
	sent := []message.Header{
		{Name: "Content-Type", Value: "text/plain"}, {Name: "twice", Value: "one"}, {Name: "twice", Value: "\x00\xff"}, {Name: "empty"},
	}
	p := publisherOf(t, s, values{"x": "17"})
	before := time.Now().Add(-time.Second)
	r := p.Publish(t.Context(), message.Auto, &message.Message{Payload: []byte("x"), Headers: sent})[0]
	if r.Status != message.Stored || r.ID != "id 17" || len(r.Metadata) != 1 || r.Metadata[0] != message.Text("destination", "orders/new") {
		t.Errorf("result is %+v", r)
	}
	got, err := record.Take(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if got[0].TTL != time.Minute || !got[0].DMQEligible || got[0].HTTPContentType != "text/plain" {
		t.Errorf("published was %+v", got[0])
	}
	for _, stream := range []message.Stream{queue, copied} {
		all, _ := receive(t, stream, 1)
		d := all[0]
		slices.SortStableFunc(sent, func(a, b message.Header) int { return strings.Compare(a.Name, b.Name) })
		if !slices.Equal(d.Headers, sent) {
			t.Errorf("headers came as %q, want %q", d.Headers, sent)
		}
		if string(d.Key) != "by default" || d.ID != "id 17" || d.Time.Before(before) || d.Attempt != 1 {
			t.Errorf("came as %+v of %+v", d, d.Message)
		}
		for _, want := range []message.Field{
			message.Text("destination", "orders/new"), message.Text("message_id", "id 17"), message.Text("correlation_id", "case 17"),
			message.Text("content_type", "text/plain"), message.Number("priority", 7), message.Number("sender_timestamp", d.Time.UnixMilli()),
		} {
			if !slices.Contains(d.Metadata, want) {
				t.Errorf("metadata %v has no %s %v", d.Metadata, want.Name, want)
			}
		}
	}
}

// values are placeholders with one letter.
type values map[string]string

func (v values) Text(s string) (string, error) {
	for name, value := range v {
		s = strings.ReplaceAll(s, "{"+name+"}", value)
	}
	return s, nil
}

func (v values) Name(s string) (string, error) { return v.Text(s) }

func TestMessagesThatSolaceCantHold(t *testing.T) {
	b := startBroker(t, smftest.Options{})
	b.Queue("q", smftest.Queue{Topics: []string{"t"}})
	s := b.endpoint(t, &Solace{Producer: &Producer{Topics: []string{"t"}}})
	p := publisherOf(t, s, endpointtest.Verbatim{})
	bad := []*message.Message{
		{Headers: []message.Header{{Name: "a\x00b"}}},
		{Headers: []message.Header{{Name: ""}}},
		{Headers: []message.Header{{Name: strings.Repeat("n", 64<<10)}}},
		{Headers: []message.Header{{Name: "solace.messaging.message.priority", Value: "1"}}},
		{ID: "a\x00b"},
		{ID: "\xff"},
	}
	for _, m := range bad {
		results := p.Publish(t.Context(), message.Auto, m, &message.Message{Payload: []byte("good")})
		if results[0].Status != message.Refused || message.KindOf(results[0].Err) != message.BadInput {
			t.Errorf("%.60q: %v %v", fmt.Sprint(m), results[0].Status, results[0].Err)
		}
		if results[1].Status != message.Stored {
			t.Errorf("the good message behind a bad one: %v %v", results[1].Status, results[1].Err)
		}
	}
	if taken := b.take(t, "q", len(bad)); !bytes.Equal(taken[0].Payload, []byte("good")) {
		t.Errorf("payload is %q", taken[0].Payload)
	}
}

// A message for several topics is stored when the broker has it for all of them.
func TestSeveralTopics(t *testing.T) {
	b := startBroker(t, smftest.Options{})
	b.Queue("one", smftest.Queue{Topics: []string{"a/one"}})
	b.Queue("two", smftest.Queue{Topics: []string{"a/two"}})
	s := b.endpoint(t, &Solace{Producer: &Producer{Topics: []string{"a/one", "a/{x}"}}})
	p := publisherOf(t, s, values{"x": "two"})
	m := &message.Message{Payload: []byte("both")}
	if r := p.Publish(t.Context(), message.Auto, m)[0]; r.Status != message.Stored ||
		!slices.Contains(r.Metadata, message.Text("also_stored", "a/two")) {
		t.Errorf("%+v", r)
	}
	for _, queue := range []string{"one", "two"} {
		b.take(t, queue, 1)
	}
	b.OnFault(once(smftest.OpPublish, "a/two", smftest.Fault{Code: 403, Text: "Publish ACL Denied"}))
	if r := p.Publish(t.Context(), message.Auto, m)[0]; r.Status != message.Unknown || message.KindOf(r.Err) != message.OutcomeUnknown ||
		!strings.Contains(r.Err.Error(), "stored: [a/one]") {
		t.Errorf("refused for one of two topics: %+v", r)
	}
	b.OnFault(always(smftest.OpPublish, smftest.Fault{Code: 403, Text: "Publish ACL Denied"}))
	if r := p.Publish(t.Context(), message.Auto, m)[0]; r.Status != message.Refused || message.KindOf(r.Err) != message.Denied {
		t.Errorf("refused for both topics: %+v", r)
	}
}
