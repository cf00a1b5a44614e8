package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/endpointtest"
	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/test/brokers"
	"github.com/caddy-message-api/caddy-message-api/test/brokers/rabbitmq"
)

// A broker that does not answer about one queue is asked about it elsewhere from then on: in
// the end it closes the connection on which it was asked.
func TestAQueueThatIsStuck(t *testing.T) {
	p := startPeer(t)
	p.stuck = map[string]bool{"stuck": true}
	r := provision(t, &RabbitMQ{Server: []string{p.addr}, Consumer: &Consumer{Queue: &Queue{Name: "{queue}"}, Shared: true}})
	read := func(queue string) (message.Stream, error) {
		channel, err := r.Channel(replace{"{queue}": queue})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		return r.Subscribe(ctx, channel, message.Subscription{Mode: message.Shared})
	}
	good, err := read("good")
	if err != nil {
		t.Fatal(err)
	}
	defer good.Close(t.Context())
	for range 2 {
		if _, err := read("stuck"); message.KindOf(err) != message.Unavailable {
			t.Fatalf("got %v", err)
		}
	}
	doubtful := r.consumer.doubtful
	if doubtful == nil || doubtful.Status().Address == "" {
		t.Fatal("the stuck queue is asked for where others read")
	}
	p.set(func() { p.stuck = nil })
	s, err := read("stuck")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(t.Context())
	if len(r.consumer.doubts) != 0 {
		t.Error("it is still doubted")
	}
}

// How many messages the broker sends ahead depends on how large they are.
func TestThePrefetchFollowsTheSizes(t *testing.T) {
	b := onShared(t)
	for _, tc := range []struct {
		name        string
		size, n     int
		atLeast, up int
	}{
		{"small", 100, 1000, 400, 500},
		{"large", 512 << 10, 60, firstPrefetch, firstPrefetch + 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b.queue(t, tc.name, quorum, nil)
			all := numbered(0, tc.n)
			for _, m := range all {
				m.Payload = append(m.Payload, make([]byte, tc.size)...)
			}
			b.produce(t, "", tc.name, all...)
			e := b.endpoint(t, &RabbitMQ{Consumer: &Consumer{Queue: &Queue{Name: tc.name}, Shared: true}})
			s := subscribe(t, e, message.Subscription{Mode: message.Shared})
			// Nobody receives.
			b.AwaitQueue(t, b.vhost, tc.name, "sent ahead", func(q rabbitmq.QueueState) bool {
				return q.Unacked >= tc.atLeast && q.Unacked <= tc.up
			})
			for i := 0; i < tc.n; {
				for _, d := range receive(t, s, 1) {
					if got, want := string(d.Payload[:len(d.Payload)-tc.size]), string(numbered(i, 1)[0].Payload); got != want {
						t.Fatalf("%s came where %s was due", got, want)
					}
					if err := settle(t, s, message.Ack, d); err != nil {
						t.Fatal(err)
					}
					i++
				}
			}
			b.AwaitQueue(t, b.vhost, tc.name, "empty", func(q rabbitmq.QueueState) bool { return q.Messages == 0 })
		})
	}
}

// A client that is done with each message at once gets all of them, in their order, also those that
// come while a consumer is replaced by another one.
func TestNothingIsStuckWhenTheConsumerIsReplaced(t *testing.T) {
	b := onShared(t)
	const messages = 500
	for i := range 10 {
		queue := fmt.Sprintf("work-%d", i)
		b.queue(t, queue, quorum, nil)
		b.produce(t, "", queue, numbered(0, messages)...)
		e := b.endpoint(t, &RabbitMQ{Consumer: &Consumer{Queue: &Queue{Name: queue}, Shared: true}})
		s := subscribe(t, e, message.Subscription{Mode: message.Shared, Window: message.Window{Messages: 64}})
		for n := 0; n < messages; {
			for _, d := range receive(t, s, 1) {
				if got, want := string(d.Payload), fmt.Sprintf("m%d", n); got != want {
					t.Fatalf("%s came and not %s", got, want)
				}
				if err := settle(t, s, message.Ack, d); err != nil {
					t.Fatal(err)
				}
				n++
			}
		}
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// A client that stops reading holds its window, and what is beyond it goes to another one
// of the same identity; all of it when the client goes.
func TestAClientThatStopsReading(t *testing.T) {
	b := onShared(t)
	b.exchange(t, "events", "topic")
	c := func() *Consumer { return &Consumer{Exchange: &Exchange{Name: "events"}, RoutingKey: []string{"#"}} }
	one, two := b.endpoint(t, &RabbitMQ{Consumer: c()}), b.endpoint(t, &RabbitMQ{Consumer: c()})
	sub := message.Subscription{Mode: message.Member, Name: "api.user", Window: message.Window{Messages: 10, Bytes: 1 << 20}}
	slow := subscribe(t, one, sub)
	b.produce(t, "events", "k", numbered(0, 10)...)
	receive(t, slow, 10)
	quick := subscribe(t, two, sub)
	b.produce(t, "events", "k", numbered(10, 90)...)
	for n := 0; n < 90; {
		d := receive(t, quick, 1)
		if err := settle(t, quick, message.Ack, d...); err != nil {
			t.Fatal(err)
		}
		n += len(d)
	}
	name := slow.(*queueStream).name
	b.AwaitQueue(t, b.vhost, name, "ten are held", func(q rabbitmq.QueueState) bool { return q.Messages == 10 && q.Unacked == 10 })
	if err := slow.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := receive(t, quick, 10)
	if err := settle(t, quick, message.Ack, again...); err != nil {
		t.Fatal(err)
	}
	b.AwaitQueue(t, b.vhost, name, "empty", func(q rabbitmq.QueueState) bool { return q.Messages == 0 })
}

// What Probe says is what a session would meet.
func TestProbe(t *testing.T) {
	b := onShared(t)
	b.queue(t, "there", classic, nil)
	for _, tc := range []struct {
		r    *RabbitMQ
		want message.Kind
	}{
		{&RabbitMQ{Producer: &Producer{RoutingKey: "there"}, Consumer: &Consumer{Queue: &Queue{Name: "there"}, Shared: true}}, 0},
		{&RabbitMQ{Consumer: &Consumer{Exchange: &Exchange{Name: "made-when-needed", Type: "topic"}}}, 0},
		{&RabbitMQ{Consumer: &Consumer{Exchange: &Exchange{Name: "none"}}}, message.NotFound},
		{&RabbitMQ{Consumer: &Consumer{Queue: &Queue{Name: "none"}, Shared: true}}, message.NotFound},
		{&RabbitMQ{Producer: &Producer{Exchange: &Exchange{Name: "none"}}}, message.NotFound},
		{&RabbitMQ{Server: []string{"127.0.0.1:1"}, Consumer: &Consumer{Exchange: &Exchange{Name: "x"}}}, message.Unavailable},
	} {
		err := b.endpoint(t, tc.r).Probe(t.Context())
		if tc.want == 0 && err != nil || tc.want != 0 && message.KindOf(err) != tc.want {
			t.Errorf("%+v: %v", tc.r, err)
		}
	}
}

// A publisher with placeholders finds each of its exchanges by itself.
func TestExchangesFromRequests(t *testing.T) {
	b := onShared(t)
	b.queue(t, "in", classic, nil)
	e := b.endpoint(t, &RabbitMQ{Producer: &Producer{Exchange: &Exchange{Name: "{x}"}, RoutingKey: "{k}"}})
	b.exchange(t, "there", "topic")
	b.bind(t, "in", "#", "there")
	for exchange, want := range map[string]message.Status{"there": message.Stored, "none": message.Refused} {
		p, err := e.Publisher(replace{"{x}": exchange, "{k}": "k"})
		if err != nil {
			t.Fatal(err)
		}
		if r := p.Publish(t.Context(), message.Auto, new(message.Message))[0]; r.Status != want {
			t.Errorf("%s: %s (%v)", exchange, r.Status, r.Err)
		}
	}
	if _, err := e.Channel(endpointtest.Verbatim{}); err == nil {
		t.Error("there is a channel, and no consumer")
	}
}

// A network that swallows everything is noticed by the heartbeats. Meanwhile nobody waits
// for longer than was promised, and afterwards everything goes on.
func TestABlackHole(t *testing.T) {
	b := onShared(t)
	b.queue(t, "work", quorum, nil)
	b.queue(t, "in", classic, nil)
	proxy := brokers.NewProxy(t, b.Addr())
	e := b.endpoint(t, &RabbitMQ{
		Server: []string{proxy.Addr()}, Heartbeat: caddy.Duration(time.Second),
		Producer: &Producer{RoutingKey: "in"}, Consumer: &Consumer{Queue: &Queue{Name: "work"}, Shared: true},
	})
	s := subscribe(t, e, message.Subscription{Mode: message.Shared})
	wantResult(t, publishOne(t, e), message.Stored, 0)
	b.produce(t, "", "work", numbered(1, 3)...)
	old := receive(t, s, 3)

	proxy.Mute()
	began := time.Now()
	wantResult(t, publishAll(t, e, time.Minute, message.Auto, new(message.Message))[0], message.Unknown, message.OutcomeUnknown)
	eventually(t, "the hole is noticed", func() bool { return e.Status().State != endpoints.Up })
	if r := publishAll(t, e, time.Minute, message.Auto, new(message.Message))[0]; r.Status.OK() {
		t.Errorf("%s, though nothing passes", r.Status)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("it took %v", took)
	}

	proxy.Restore()
	again := receive(t, s, 3)
	if got := texts(again); got != "m1 m2 m3" {
		t.Errorf("received %s", got)
	}
	if err := settle(t, s, message.Ack, old...); !errors.Is(err, message.ErrStale) {
		t.Errorf("settling what came before returned %v", err)
	}
	if err := settle(t, s, message.Ack, again...); err != nil {
		t.Error(err)
	}
	eventually(t, "publishing works again", func() bool { return publishOne(t, e).Status == message.Stored })
}

// An operator closes all connections. Whatever was being read goes on, and a copy says that
// it may have missed something.
func TestConnectionsThatAnOperatorCloses(t *testing.T) {
	b := onShared(t)
	b.exchange(t, "events", "topic")
	e := b.endpoint(t, &RabbitMQ{Consumer: &Consumer{Exchange: &Exchange{Name: "events"}, RoutingKey: []string{"#"}}})
	member := subscribe(t, e, message.Subscription{Mode: message.Member, Name: "api.user"})
	all := subscribe(t, e, message.Subscription{Mode: message.Broadcast})
	b.produce(t, "events", "k", numbered(1, 1)...)
	receive(t, member, 1)
	receive(t, all, 1)
	b.CloseConnections(t, b.vhost)
	batch, err := all.Receive(t.Context())
	if err != nil || batch.Gap == nil || batch.Gap.Reason != message.GapConnection {
		t.Errorf("got %+v, %v, want a gap", batch, err)
	}
	if got := texts(receive(t, member, 1)); got != "m1" {
		t.Errorf("received %s", got)
	}
	b.produce(t, "events", "k", numbered(2, 1)...)
	for _, s := range []message.Stream{member, all} {
		if got := texts(receive(t, s, 1)); got != "m2" {
			t.Errorf("received %s", got)
		}
	}
}
