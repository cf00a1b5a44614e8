package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/caddy-message-api/caddy-message-api/endpoints/endpointtest"
	"github.com/caddy-message-api/caddy-message-api/endpoints/options"
	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/test/brokers"
	"github.com/caddy-message-api/caddy-message-api/test/brokers/rabbitmq"
	"github.com/caddy-message-api/caddy-message-api/test/brokers/server"
)

func numbered(from, n int) []*message.Message {
	all := make([]*message.Message, n)
	for i := range all {
		all[i] = &message.Message{Payload: fmt.Appendf(nil, "m%d", from+i)}
	}
	return all
}

func receive(t *testing.T, s message.Stream, n int) []message.Delivery {
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

func settle(t *testing.T, s message.Stream, how message.Settlement, d ...message.Delivery) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return s.Settle(ctx, how, d...)
}

func texts(deliveries []message.Delivery) string {
	var all []string
	for _, d := range deliveries {
		all = append(all, string(d.Payload))
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// A channel counts its deliveries from 1, and so does the next one. An acknowledgement for
// the fifth of the old channel must not be taken for the fifth of the new one.
func TestAStaleAcknowledgementTouchesNothing(t *testing.T) {
	b := onShared(t)
	b.queue(t, "work", classic, nil)
	line := &line{}
	e := b.endpoint(t, &RabbitMQ{dial: line.dial, Consumer: &Consumer{Queue: &Queue{Name: "work"}, Shared: true}})
	s := subscribe(t, e, message.Subscription{Mode: message.Shared})
	b.produce(t, "", "work", numbered(1, 6)...)
	old := receive(t, s, 6)
	if err := settle(t, s, message.Ack, old[0]); err != nil {
		t.Fatal(err)
	}
	b.AwaitQueue(t, b.vhost, "work", "one acknowledged", func(q rabbitmq.QueueState) bool { return q.Messages == 5 })
	line.hiccup()
	again := receive(t, s, 5) // tag 5 is m6 now, and was m5
	if err := settle(t, s, message.Ack, old[4]); !errors.Is(err, message.ErrStale) {
		t.Errorf("settling an old delivery returned %v", err)
	}
	if again[0].Epoch == old[0].Epoch {
		t.Errorf("both channels are epoch %d", old[0].Epoch)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(payloads(b.consume(t, "work", 5)), " "); got != "m2 m3 m4 m5 m6" {
		t.Errorf("the queue holds %s", got)
	}
}

// Whoever declares something that clashes with what exists is told, and nobody else on the
// connection notices.
func TestAClashHarmsNobody(t *testing.T) {
	b := onShared(t)
	b.exchange(t, "events", "topic")
	b.queue(t, "taken", classic, nil)
	e := b.endpoint(t, &RabbitMQ{Consumer: &Consumer{Exchange: &Exchange{Name: "events"}, RoutingKey: []string{"#"}}})
	s := subscribe(t, e, message.Subscription{Mode: message.Member, Name: "api.user"})
	first := s.(*queueStream).cur

	for _, c := range []*Consumer{
		{Exchange: &Exchange{Name: "events", Type: "fanout"}},
		{Exchange: &Exchange{Name: "other", Type: "x-none"}},
		{Exchange: &Exchange{Name: "third", Type: "topic", Argument: map[string]any{"alternate-exchange": int64(7)}}},
		{Queue: &Queue{Name: "taken", Type: quorum}, Shared: true},
		{Queue: &Queue{Name: "bad", Type: quorum, Argument: map[string]any{"x-max-length": "many"}}, Shared: true},
	} {
		clash := b.endpoint(t, &RabbitMQ{Consumer: c})
		// The endpoint under test, with another one's configuration: they would share a
		// connection if they were one.
		theirs := clash.consumer
		theirs.links = e.consumer.links
		channel, err := clash.Channel(endpointtest.Verbatim{})
		if err != nil {
			t.Fatal(err)
		}
		mode := message.Member
		if c.Shared {
			mode = message.Shared
		}
		_, err = clash.Subscribe(t.Context(), channel, message.Subscription{Mode: mode, Name: "api.user"})
		if message.KindOf(err) != message.Mismatch {
			t.Errorf("%+v: %v, want an error of kind %s", c, err, message.Mismatch)
		}
		theirs.links = nil // which are not theirs to close
	}
	b.produce(t, "events", "k", numbered(1, 1)...)
	receive(t, s, 1)
	if s.(*queueStream).cur != first {
		t.Error("the stream lost its channel")
	}
}

func TestPublishingToExchanges(t *testing.T) {
	b := onShared(t)
	b.queue(t, "full", quorum, amqp.Table{"x-max-length": int64(2), "x-overflow": "reject-publish"})
	b.queue(t, "in", classic, nil)
	one := func(p *Producer) message.Result {
		t.Helper()
		return publishOne(t, b.endpoint(t, &RabbitMQ{Producer: p}))
	}
	wantResult(t, one(&Producer{RoutingKey: "in"}), message.Stored, 0)
	wantResult(t, one(&Producer{RoutingKey: "nowhere"}), message.Refused, message.NotFound)
	wantResult(t, one(&Producer{RoutingKey: "nowhere", Mandatory: new(bool)}), message.Stored, 0)
	wantResult(t, one(&Producer{Exchange: &Exchange{Name: "none"}, RoutingKey: "in"}), message.Refused, message.NotFound)
	wantResult(t, one(&Producer{Exchange: &Exchange{Name: "made", Type: "fanout"}, Mandatory: new(bool)}), message.Stored, 0)
	wantResult(t, one(&Producer{Exchange: &Exchange{Name: "made", Type: "topic"}}), message.Refused, message.Mismatch)
	wantResult(t, one(&Producer{Exchange: &Exchange{Name: "amq.topic"}, RoutingKey: "k"}), message.Refused, message.NotFound)

	full := b.endpoint(t, &RabbitMQ{Producer: &Producer{RoutingKey: "full"}})
	eventually(t, "the queue is full", func() bool { return publishOne(t, full).Status == message.Refused })
	wantResult(t, publishOne(t, full), message.Refused, message.Unavailable)
}

// An exchange that goes while it is published to is missed once, and found again.
func TestAnExchangeThatGoes(t *testing.T) {
	b := onShared(t)
	b.queue(t, "in", classic, nil)
	ready := func() {
		b.exchange(t, "orders", "fanout")
		b.bind(t, "in", "", "orders")
	}
	ready()
	e := b.endpoint(t, &RabbitMQ{Producer: &Producer{Exchange: &Exchange{Name: "orders"}}})
	wantResult(t, publishOne(t, e), message.Stored, 0)
	if err := b.channel(t).ExchangeDelete("orders", false, false); err != nil {
		t.Fatal(err)
	}
	wantResult(t, publishOne(t, e), message.Refused, message.NotFound)
	wantResult(t, publishOne(t, e), message.Refused, message.NotFound)
	ready()
	wantResult(t, publishOne(t, e), message.Stored, 0)
}

func TestWhatAPublishedMessageHolds(t *testing.T) {
	b := onShared(t)
	b.queue(t, "in", classic, nil)
	e := b.endpoint(t, &RabbitMQ{Producer: &Producer{RoutingKey: "in"}})
	at := time.Unix(1_700_000_000, 0)
	publishAll(t, e, 5*time.Second, message.Auto, &message.Message{ID: "id-1", Time: at, Payload: []byte{0, 255}, Headers: []message.Header{
		{Name: "Content-Type", Value: "application/json"}, {Name: "twice", Value: "a"}, {Name: "twice", Value: "b"}, {Name: "raw", Value: "\xff"},
	}})
	d, ok, err := b.channel(t).Get("in", true)
	if err != nil || !ok {
		t.Fatalf("%t %v", ok, err)
	}
	if d.MessageId != "id-1" || !d.Timestamp.Equal(at) || d.DeliveryMode != amqp.Persistent || d.ContentType != "application/json" {
		t.Errorf("the properties are %+v", d)
	}
	want := fmt.Sprint(amqp.Table{"Content-Type": "application/json", "twice": []any{"a", "b"}, "raw": []byte{255}})
	if got := fmt.Sprint(d.Headers); got != want {
		t.Errorf("the headers are %s, want %s", got, want)
	}
}

func TestWhatAReceivedMessageHolds(t *testing.T) {
	b := onShared(t)
	b.queue(t, "out", quorum, nil)
	e := b.endpoint(t, &RabbitMQ{Consumer: &Consumer{Queue: &Queue{Name: "out"}, Shared: true}})
	s := subscribe(t, e, message.Subscription{Mode: message.Shared})
	err := b.channel(t).Publish("", "out", false, false, amqp.Publishing{
		ContentType: "text/plain", ContentEncoding: "gzip", Priority: 3, CorrelationId: "c", ReplyTo: "r", Expiration: "60000",
		MessageId: "m", Timestamp: time.Unix(1_700_000_000, 0), Type: "t", UserId: b.User(), AppId: "a",
		Headers: amqp.Table{"z": "last", "n": int32(7), "a": []any{"x", "y"}, "t": amqp.Table{"k": []any{int64(1), "v"}}, "none": nil, "yes": true},
	})
	if err != nil {
		t.Fatal(err)
	}
	first := receive(t, s, 1)[0]
	var fields []string
	for _, f := range first.Metadata {
		fields = append(fields, f.Name+"="+f.String())
	}
	want := "exchange= routing_key=out content_type=text/plain content_encoding=gzip priority=3 correlation_id=c reply_to=r " +
		"expiration=60000 message_id=m timestamp=1700000000000 type=t user_id=guest app_id=a"
	if got := strings.Join(fields, " "); got != want {
		t.Errorf("metadata is\n%s, want\n%s", got, want)
	}
	if got, want := fmt.Sprint(first.Headers), `[{a x} {a y} {n 7} {none } {t {"k":[1,"v"]}} {yes true} {z last}]`; got != want {
		t.Errorf("headers are %s, want %s", got, want)
	}
	if first.ID != "m" || first.Attempt != 1 || first.Time.Unix() != 1_700_000_000 {
		t.Errorf("%+v", first)
	}
	if err := settle(t, s, message.Release, first); err != nil {
		t.Fatal(err)
	}
	if again := receive(t, s, 1)[0]; again.Attempt != 2 {
		t.Errorf("it comes again as attempt %d", again.Attempt)
	} else if f, _ := again.Field("redelivered"); f.Value() != true {
		t.Error("it is not marked as redelivered")
	}
}

func TestAQueueThatGoes(t *testing.T) {
	b := onShared(t)
	b.exchange(t, "events", "topic")
	b.queue(t, "work", quorum, nil)

	t.Run("an identity's is made anew, and the loss is told", func(t *testing.T) {
		e := b.endpoint(t, &RabbitMQ{Consumer: &Consumer{Exchange: &Exchange{Name: "events"}, RoutingKey: []string{"#"}}})
		s := subscribe(t, e, message.Subscription{Mode: message.Member, Name: "api.user"})
		b.produce(t, "events", "k", numbered(1, 1)...)
		old := receive(t, s, 1)
		b.deleteQueue(t, s.(*queueStream).name)
		batch, err := s.Receive(t.Context())
		if err != nil || batch.Gap == nil || batch.Gap.Reason != message.GapRecreated {
			t.Fatalf("got %+v, %v, want a gap", batch, err)
		}
		if err := settle(t, s, message.Ack, old...); !errors.Is(err, message.ErrStale) {
			t.Errorf("settling returned %v", err)
		}
		b.produce(t, "events", "k", numbered(2, 1)...)
		if got := texts(receive(t, s, 1)); got != "m2" {
			t.Errorf("received %s", got)
		}
	})
	t.Run("one that must exist ends the stream", func(t *testing.T) {
		e := b.endpoint(t, &RabbitMQ{Consumer: &Consumer{Queue: &Queue{Name: "work"}, Shared: true}})
		e.consumer.endurance = 100 * time.Millisecond
		s := subscribe(t, e, message.Subscription{Mode: message.Shared})
		b.deleteQueue(t, "work")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := s.Receive(ctx); message.KindOf(err) != message.NotFound {
			t.Errorf("got %v", err)
		}
	})
}

func TestAStreamMustBeCalledSo(t *testing.T) {
	b := onShared(t)
	b.queue(t, "log", stream, nil)
	b.queue(t, "work", classic, nil)
	e := b.endpoint(t, &RabbitMQ{Consumer: &Consumer{Queue: &Queue{Name: "log"}, Shared: true}})
	s := subscribe(t, e, message.Subscription{Mode: message.Shared})
	b.produce(t, "", "log", numbered(1, 1)...)
	if _, err := s.Receive(t.Context()); message.KindOf(err) != message.Mismatch {
		t.Errorf("reading a stream as a queue: %v", err)
	}
	e = b.endpoint(t, &RabbitMQ{Consumer: &Consumer{Queue: &Queue{Name: "work", Type: stream, Declare: new(bool)}}})
	channel, _ := e.Channel(endpointtest.Verbatim{})
	if _, err := e.Subscribe(t.Context(), channel, message.Subscription{Mode: message.Assigned}); message.KindOf(err) != message.Mismatch {
		t.Errorf("reading a queue as a stream: %v", err)
	}
}

// One identity that reads with two routing keys has two queues, which expire.
func TestIdentityQueues(t *testing.T) {
	b := onShared(t)
	b.exchange(t, "events", "topic")
	e := b.endpoint(t, &RabbitMQ{Consumer: &Consumer{
		Exchange: &Exchange{Name: "events"}, RoutingKey: []string{"{key}"}, DeliveryLimit: 3, Prefetch: 7,
	}})
	streams := make(map[string]message.Stream)
	for _, key := range []string{"one", "two"} {
		channel, err := e.Channel(replace{"{key}": key})
		if err != nil {
			t.Fatal(err)
		}
		s, err := e.Subscribe(t.Context(), channel, message.Subscription{Mode: message.Member, Name: "api.user"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close(context.Background()) })
		streams[key] = s
	}
	b.produce(t, "events", "one", numbered(1, 20)...)
	b.produce(t, "events", "two", numbered(101, 1)...)
	if got := texts(receive(t, streams["two"], 1)); got != "m101" {
		t.Errorf("received %s", got)
	}
	// Nothing is settled, so no more than the prefetch comes.
	receive(t, streams["one"], 7)
	name := streams["one"].(*queueStream).name
	if !strings.HasPrefix(name, "api.user.") || name == streams["two"].(*queueStream).name {
		t.Errorf("the queue's name is %s", name)
	}
	b.AwaitQueue(t, b.vhost, name, "7 unacknowledged, 13 ready", func(q rabbitmq.QueueState) bool {
		return q.Unacked == 7 && q.Ready == 13
	})
	_, err := b.channel(t).QueueDeclare(name, true, false, false, false, amqp.Table{
		"x-queue-type": "quorum", "x-expires": int64(24 * time.Hour / time.Millisecond), "x-delivery-limit": int64(3),
	})
	if err != nil {
		t.Errorf("the queue was made in another way: %v", err)
	}
}

// replace are placeholder values.
type replace map[string]string

func (r replace) Text(s string) (string, error) {
	for from, to := range r {
		s = strings.ReplaceAll(s, from, to)
	}
	return s, nil
}

func (r replace) Name(s string) (string, error) { return r.Text(s) }

// A copy is one queue and one consumer, and both go with it.
func TestACopyLeavesNothing(t *testing.T) {
	b := onShared(t)
	b.exchange(t, "events", "topic")
	e := b.endpoint(t, &RabbitMQ{Consumer: &Consumer{Exchange: &Exchange{Name: "events"}, RoutingKey: []string{"#"}}})
	s := subscribe(t, e, message.Subscription{Mode: message.Broadcast})
	b.produce(t, "events", "k", numbered(1, 2000)...) // more than the window
	receive(t, s, 2000)
	queue := s.(*queueStream).cur.queue
	b.AwaitQueue(t, b.vhost, queue, "one consumer", func(q rabbitmq.QueueState) bool { return q.Consumers == 1 })
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.AwaitQueue(t, b.vhost, queue, "gone", func(q rabbitmq.QueueState) bool { return q.Name == "" })
}

func TestTLS(t *testing.T) {
	b := onShared(t)
	if b.TLSAddr() == "" {
		t.Fatal("RABBITMQ_TLS_ADDR is not set: run `make brokers-up` and export what it prints")
	}
	b.queue(t, "in", classic, nil)
	certs := b.Certificates()
	try := func(tls *options.TLS, auth *options.Auth) message.Result {
		t.Helper()
		r := &RabbitMQ{Server: []string{b.TLSAddr()}, TLS: tls, Auth: auth, Producer: &Producer{RoutingKey: "in"}}
		return publishOne(t, b.endpoint(t, r))
	}
	login := &options.Auth{User: b.User(), Password: b.Password()}
	wantResult(t, try(&options.TLS{CAFile: certs.CA}, login), message.Stored, 0)
	wantResult(t, try(&options.TLS{CAFile: certs.CA, Cert: certs.ClientCert, Key: certs.ClientKey}, nil), message.Stored, 0)
	wantResult(t, try(&options.TLS{CAFile: certs.CA}, &options.Auth{User: b.User(), Password: "wrong"}), message.Refused, message.Unavailable)
	wantResult(t, try(&options.TLS{}, login), message.Refused, message.Unavailable)
	plain := publishOne(t, b.endpoint(t, &RabbitMQ{Server: []string{b.TLSAddr()}, Producer: &Producer{RoutingKey: "in"}}))
	wantResult(t, plain, message.Refused, message.Unavailable)
}

// Who may log in and nothing else is told so.
func TestDenied(t *testing.T) {
	b := &broker{RabbitMQBroker: brokers.SharedRabbitMQ(t), vhost: "/"}
	queue := unique(t, "queue")
	b.queue(t, queue, classic, nil)
	t.Cleanup(func() { b.deleteQueue(t, queue) })
	e := b.endpoint(t, &RabbitMQ{
		Auth:     &options.Auth{User: server.Stranger, Password: server.Password},
		Producer: &Producer{RoutingKey: queue}, Consumer: &Consumer{Queue: &Queue{Name: queue}, Shared: true},
	})
	wantResult(t, publishOne(t, e), message.Refused, message.Denied)
	for _, r := range publishAll(t, e, 5*time.Second, message.Auto, numbered(1, 5)...) {
		wantResult(t, r, message.Refused, message.Denied)
	}
	channel, err := e.Channel(endpointtest.Verbatim{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Subscribe(t.Context(), channel, message.Subscription{Mode: message.Shared}); message.KindOf(err) != message.Denied {
		t.Errorf("got %v", err)
	}
}
