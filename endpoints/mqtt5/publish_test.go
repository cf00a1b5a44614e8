package mqtt5

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/eclipse/paho.golang/packets"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/endpointtest"
	"github.com/caddy-message-api/caddy-message-api/endpoints/link"
	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/test/brokers"
)

func publisherOf(t testing.TB, m *MQTT5) message.Publisher {
	t.Helper()
	p, err := m.Publisher(endpointtest.Verbatim{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func toPeer(t testing.TB, p *peer, change func(*Producer)) (*MQTT5, message.Publisher) {
	producer := &Producer{Topic: "out"}
	if change != nil {
		change(producer)
	}
	m := provision(t, &MQTT5{Servers: []string{p.addr()}, Producer: producer})
	return m, publisherOf(t, m)
}

func wantResult(t testing.TB, what string, r message.Result, status message.Status, kind message.Kind) {
	t.Helper()
	if r.Status != status || (r.Err == nil) != status.OK() || r.Err != nil && message.KindOf(r.Err) != kind {
		t.Errorf("%s: %s (%v), want %s, %s", what, r.Status, r.Err, status, kind)
	}
}

// Each reason code is what a client can do about it.
func TestReasonCodes(t *testing.T) {
	for _, qos := range []int{1, 2} {
		p := newPeer(t)
		_, publisher := toPeer(t, p, func(pr *Producer) { pr.QoS = &qos })
		for _, c := range []struct {
			code byte
			kind message.Kind
		}{
			{0x80, message.Unavailable}, {0x83, message.Unavailable}, {0x87, message.Denied}, {0x90, message.BadInput},
			{0x91, message.Unavailable}, {0x97, message.Busy}, {0x99, message.BadInput}, {0xEE, message.Unavailable},
		} {
			p.with(func() { p.puback = func(*packets.Publish) (byte, bool) { return c.code, true } })
			r := publisher.Publish(context.Background(), message.Auto, &message.Message{})[0]
			what := fmt.Sprintf("0x%02X at QoS %d", c.code, qos)
			wantResult(t, what, r, message.Refused, c.kind)
			if e, _ := errors.AsType[*message.Error](r.Err); e == nil || !strings.Contains(e.Detail, "the test says no") ||
				(e.RetryAfter > 0) != (c.kind == message.Busy || c.kind == message.Unavailable) {
				t.Errorf("%s: %+v", what, e)
			}
		}
		p.with(func() { p.puback = nil })
		r := publisher.Publish(context.Background(), message.Auto, &message.Message{})[0]
		wantResult(t, "no subscribers", r, message.Stored, 0)
		if got := string(message.AppendJSONMetadata(nil, r.Metadata)); got != `{"topic":"out","subscribers":false}` {
			t.Errorf("without subscribers the metadata is %s", got)
		}
	}
}

// The server's limits are kept, and told before anything is sent.
func TestLimitsOfTheServer(t *testing.T) {
	p := newPeer(t)
	two, most, no, one := uint16(2), uint32(200), byte(0), byte(1)
	p.connack = packets.Properties{ReceiveMaximum: &two, MaximumPacketSize: &most, MaximumQOS: &one, RetainAvailable: &no}
	_, publisher := toPeer(t, p, nil)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { // the peer complains if more than two are under way
			for _, r := range publisher.Publish(context.Background(), message.Auto, numbered(0, 20)...) {
				wantResult(t, "within Receive Maximum", r, message.Stored, 0)
			}
		})
	}
	wg.Wait()
	size := 200 - publishLength("out", 1, 0, 0) - 3
	results := publisher.Publish(context.Background(), message.Auto,
		&message.Message{Payload: make([]byte, size)}, &message.Message{Payload: make([]byte, size+1)}, &message.Message{})
	wantResult(t, "as large as allowed", results[0], message.Stored, 0)
	wantResult(t, "one byte more", results[1], message.Refused, message.TooLarge)
	wantResult(t, "beside it", results[2], message.Stored, 0)

	q := 2
	_, publisher = toPeer(t, p, func(pr *Producer) { pr.QoS = &q })
	wantResult(t, "QoS 2", publisher.Publish(context.Background(), message.Auto, &message.Message{})[0], message.Refused, message.Mismatch)
	_, publisher = toPeer(t, p, func(pr *Producer) { pr.Retained = true })
	wantResult(t, "retained", publisher.Publish(context.Background(), message.Auto, &message.Message{})[0], message.Refused, message.Mismatch)
}

// What MQTT can't carry is refused, and nothing beside it.
func TestHeadersThatMQTTCannotCarry(t *testing.T) {
	p := newPeer(t)
	_, publisher := toPeer(t, p, nil)
	results := publisher.Publish(context.Background(), message.Auto,
		&message.Message{Headers: []message.Header{{Name: "long", Value: strings.Repeat("x", 70_000)}}},
		&message.Message{Headers: []message.Header{{Name: "\xff", Value: "x"}}},
		&message.Message{Headers: []message.Header{{Name: "long and binary", Value: strings.Repeat("\xff", 50_000)}}},
		&message.Message{Headers: []message.Header{{Name: "fine", Value: strings.Repeat("x", 65_535)}}})
	wantResult(t, "long value", results[0], message.Refused, message.TooLarge)
	wantResult(t, "binary name", results[1], message.Refused, message.BadInput)
	wantResult(t, "long binary value", results[2], message.Refused, message.TooLarge)
	wantResult(t, "as long as can be", results[3], message.Stored, 0)
}

// An answer that does not come is unknown, at the caller's time or ours, and is never sent
// again. Its late coming harms nobody.
func TestLostAnswers(t *testing.T) {
	p := newPeer(t)
	var answer atomic.Bool
	var came atomic.Int64
	p.puback = func(*packets.Publish) (byte, bool) { came.Add(1); return 0, answer.Load() }
	_, publisher := toPeer(t, p, nil)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	begun := time.Now()
	for _, r := range publisher.Publish(ctx, message.Auto, numbered(0, 3)...) {
		wantResult(t, "until ctx", r, message.Unknown, message.OutcomeUnknown)
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("it took %v", took)
	}
	begun = time.Now()
	r := publisher.Publish(context.Background(), message.Auto, &message.Message{})[0]
	wantResult(t, "without ctx", r, message.Unknown, message.OutcomeUnknown)
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	answer.Store(true)
	waitFor(t, "publishing works again", func() bool {
		return publisher.Publish(context.Background(), message.Auto, &message.Message{})[0].Status == message.Stored
	})
	// A connection that breaks ends the waiting at once.
	answer.Store(false)
	done := make(chan message.Result, 1)
	before := came.Load()
	go func() { done <- publisher.Publish(context.Background(), message.Auto, &message.Message{})[0] }()
	waitFor(t, "the message arrives", func() bool { return came.Load() > before })
	begun = time.Now()
	p.cut()
	wantResult(t, "cut", <-done, message.Unknown, message.OutcomeUnknown)
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
}

// A server that takes nothing any more delays nobody beyond the promise, at any level.
func TestAStalledNetwork(t *testing.T) {
	p := newPeer(t)
	_, publisher := toPeer(t, p, nil)
	wantResult(t, "before", publisher.Publish(context.Background(), message.Auto, &message.Message{})[0], message.Stored, 0)
	p.with(func() { p.mute = true })
	defer p.with(func() { p.mute = false })
	large := &message.Message{Payload: make([]byte, 4<<20)}
	var wg sync.WaitGroup
	for _, qos := range []message.QoS{message.Auto, message.None, message.Auto, message.None} {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
			defer cancel()
			begun := time.Now()
			for _, r := range publisher.Publish(ctx, qos, large, large) {
				if r.Status == message.Stored {
					t.Errorf("stored at a server that reads nothing")
				}
			}
			if took := time.Since(begun); took > 2*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
	wg.Wait()
}

// While the server refuses connections, publishing says so, with its reason.
func TestAServerThatLetsNobodyIn(t *testing.T) {
	for code, kind := range map[byte]message.Kind{0x86: message.Unavailable, 0x87: message.Unavailable, 0x84: message.Mismatch, 0x05: message.Mismatch} {
		p := newPeer(t)
		p.refuse = code
		m, publisher := toPeer(t, p, nil)
		r := publisher.Publish(context.Background(), message.Auto, &message.Message{})[0]
		wantResult(t, fmt.Sprintf("0x%02X", code), r, message.Refused, kind)
		if status := m.Status(); status.State != endpoints.Down || !strings.Contains(status.Error, fmt.Sprintf("(0x%02X)", code)) {
			t.Errorf("0x%02X: the status is %+v", code, status)
		}
		if err := m.Probe(context.Background()); err == nil {
			t.Errorf("0x%02X: the probe finds nothing wrong", code)
		}
	}
}

// Placeholders of the request make topics and properties; wildcards in them are refused.
func TestPlaceholders(t *testing.T) {
	p := newPeer(t)
	box := newInbox(t, p.addr(), "orders/#")
	m := provision(t, &MQTT5{
		Servers: []string{p.addr()}, Consumer: &Consumer{Topics: []string{"orders/{x}/+", "more/{x}"}},
		Producer: &Producer{
			Topic: "orders/{x}", ResponseTopic: "replies/{x}", CorrelationData: "c {x}", ContentType: "text/{x}",
			MessageExpiry: caddy.Duration(90 * time.Second), Retained: true,
		},
	})
	publisher, err := m.Publisher(replace{"{x}", "eu"})
	if err != nil {
		t.Fatal(err)
	}
	wantResult(t, "placeholders", publisher.Publish(context.Background(), message.Auto, &message.Message{ID: "id-1"})[0], message.Stored, 0)
	got := box.take(t, 1)[0]
	pr := got.Properties
	if got.Topic != "orders/eu" || pr.ResponseTopic != "replies/eu" || string(pr.CorrelationData) != "c eu" || pr.ContentType != "text/eu" ||
		pr.MessageExpiry == nil || *pr.MessageExpiry != 90 || pr.User.Get("message-id") != "id-1" {
		t.Errorf("it came as %v", got)
	}
	channel, err := m.Channel(replace{"{x}", "eu"})
	if err != nil || channel.Key != "orders/eu/+\nmore/eu" {
		t.Errorf("the channel is %q, %v", channel.Key, err)
	}
	for _, bad := range []string{"+", "a+", "\x00", "\xff"} {
		if _, err := m.Publisher(replace{"{x}", bad}); message.KindOf(err) != message.BadInput {
			t.Errorf("%q became a topic: %v", bad, err)
		}
		if _, err := m.Channel(replace{"{x}", bad}); bad != "+" && message.KindOf(err) != message.BadInput {
			t.Errorf("%q became a filter: %v", bad, err)
		}
	}
}

// replace are values in which one text stands for another, without any check.
type replace [2]string

func (r replace) Text(s string) (string, error) { return strings.ReplaceAll(s, r[0], r[1]), nil }
func (r replace) Name(s string) (string, error) { return r.Text(s) }

// The content type of a message is its header's, else the producer's.
func TestContentType(t *testing.T) {
	p := newPeer(t)
	box := newInbox(t, p.addr(), "out")
	_, publisher := toPeer(t, p, func(pr *Producer) { pr.ContentType = "text/plain" })
	publisher.Publish(context.Background(), message.Auto,
		&message.Message{Headers: []message.Header{{Name: "Content-Type", Value: "application/json"}}},
		&message.Message{Headers: []message.Header{{Name: "content-type", Value: "\xff"}}}, &message.Message{})
	for i, want := range []string{"application/json", "text/plain", "text/plain"} {
		if got := box.take(t, 1)[0].Properties.ContentType; got != want {
			t.Errorf("message %d has the content type %q, want %q", i, got, want)
		}
	}
}

// The will is published when the connection breaks, and not when it is ended.
func TestWill(t *testing.T) {
	addr := brokers.SharedMosquitto(t).Plain
	topic := brokers.UniqueName(t)
	box := newInbox(t, addr, topic+"/#")
	for _, breaks := range []bool{false, true} {
		l := &line{}
		m := provision(t, &MQTT5{
			Servers: []string{addr}, dial: l.dial, Producer: &Producer{Topic: topic + "/out"},
			Will: &Will{Topic: topic + "/will", Payload: "gone", QoS: 1, Retained: true},
		})
		wantResult(t, "publish", publisherOf(t, m).Publish(context.Background(), message.Auto, &message.Message{})[0], message.Stored, 0)
		box.take(t, 1)
		if breaks {
			l.cut()
			if will := box.take(t, 1)[0]; will.Topic != topic+"/will" || string(will.Payload) != "gone" || will.QoS != 1 {
				t.Errorf("the will is %v", will)
			}
		}
		_ = m.Cleanup()
	}
	retain(t, box.f, topic+"/will", "")
}

// Messages that are under way when the endpoint ends get their answers.
func TestCleanupWaitsForAnswers(t *testing.T) {
	p := newPeer(t)
	for _, qos := range []int{1, 2} {
		m, publisher := toPeer(t, p, func(pr *Producer) { pr.QoS = &qos })
		publisher.Publish(context.Background(), message.Auto, &message.Message{})
		arrived := make(chan struct{}, 1000)
		p.with(func() {
			p.puback = func(*packets.Publish) (byte, bool) {
				arrived <- struct{}{}
				time.Sleep(time.Millisecond)
				return 0, true
			}
		})
		done := make(chan []message.Result, 1)
		go func() { done <- publisher.Publish(context.Background(), message.Auto, numbered(0, 100)...) }()
		<-arrived
		if err := m.Cleanup(); err != nil {
			t.Fatal(err)
		}
		for _, r := range <-done {
			wantResult(t, fmt.Sprint("QoS ", qos), r, message.Stored, 0)
		}
	}
}

// Messages of QoS 0 that go down with the connection are counted and logged.
func TestLossesAreLogged(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	l := link.NewLosses(zap.New(core), "lost")
	p := newPeer(t)
	m, publisher := toPeer(t, p, nil)
	wantResult(t, "handed", publisher.Publish(context.Background(), message.None, &message.Message{})[0], message.Handed, 0)
	up, _ := m.client.publishing.Up()
	up.C.box.lost = func(n int, err error) { l.Note(n, err) }
	p.with(func() { p.mute = true })
	for range 3 { // the network takes some, and then no more
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		publisher.Publish(ctx, message.None, &message.Message{Payload: make([]byte, 8<<20)})
		cancel()
	}
	p.with(func() { p.mute = false })
	p.cut()
	waitFor(t, "the losses are counted", func() bool { return l.Count() > 0 && logs.Len() > 0 })
}

// Foreign clients see what was published, and publish what we read.
func TestForeignClients(t *testing.T) {
	addr := brokers.SharedMosquitto(t).Plain
	topic := brokers.UniqueName(t)
	two := 2
	m := provision(t, &MQTT5{
		Servers:  []string{addr},
		Producer: &Producer{Topic: topic, QoS: &two, ResponseTopic: "replies", CorrelationData: "c1", MessageExpiry: caddy.Duration(time.Minute)},
		Consumer: &Consumer{Topics: []string{topic}, QoS: &two}, SessionExpiry: caddy.Duration(time.Minute),
	})
	sub := brokers.MosquittoSub(t, addr, topic, "-q", "2")
	s := subscribe(t, m, message.Subscription{Mode: message.Member, QoS: message.AtLeastOnce, Name: "api.foreign"})
	wantResult(t, "publish", publisherOf(t, m).Publish(context.Background(), message.Auto, &message.Message{
		Payload: []byte("from us\x00"),
		Headers: []message.Header{{Name: "b", Value: "1"}, {Name: "a", Value: "2"}, {Name: "b", Value: "3"}, {Name: "Content-Type", Value: "text/x"}},
	})[0], message.Stored, 0)
	got := sub.Next()
	if string(got.Payload) != "from us\x00" || got.QoS != 2 || got.ContentType != "text/x" || got.ResponseTopic != "replies" ||
		got.CorrelationData != "c1" || got.UserProperties != "b:1 a:2 b:3 Content-Type:text/x" || got.MessageExpiry == "" {
		t.Errorf("mosquitto_sub has %+v", got)
	}
	ack(t, s, receive(t, s, 1)...)
	brokers.MosquittoPub(t, addr, topic, []byte("from them"), "-q", "2", "-D", "publish", "user-property", "x", "1",
		"-D", "publish", "user-property", "message-id", "m7", "-D", "publish", "content-type", "text/y",
		"-D", "publish", "response-topic", "there", "-D", "publish", "correlation-data", "c2",
		"-D", "publish", "message-expiry-interval", "100", "-D", "publish", "payload-format-indicator", "1")
	d := receive(t, s, 1)[0]
	want := fmt.Sprintf(`{"topic":%q,"qos":2,"retain":false,"redelivered":false,"content_type":"text/y","response_topic":"there",`+
		`"correlation_data":"c2","message_expiry":100,"payload_format":1}`, topic)
	if meta := string(message.AppendJSONMetadata(nil, d.Metadata)); string(d.Payload) != "from them" || d.ID != "m7" || meta != want {
		t.Errorf("it came as %s with %s, want %s", d.Payload, meta, want)
	}
	ack(t, s, d)
}
