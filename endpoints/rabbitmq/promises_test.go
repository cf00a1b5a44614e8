package rabbitmq

import (
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/goleak"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/endpointtest"
	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/test/brokers"
)

func promises(t *testing.T, rig func(t *testing.T) *endpointtest.Rig) {
	endpointtest.Run(t, endpointtest.Harness{
		New: rig, Headers: true, BinaryHeaders: true,
		Ignore: []goleak.Option{goleak.IgnoreAnyFunction("os.(*Process).Wait")}, // who restarted the broker
	})
}

// Every client has a queue of its own that is bound to an exchange. On a broker that can be
// killed.
func TestPromisesOfAnExchange(t *testing.T) {
	node := brokers.RabbitMQ(t)
	b := &broker{RabbitMQBroker: node.RabbitMQBroker, vhost: node.Vhost(t)}
	promises(t, func(t *testing.T) *endpointtest.Rig {
		rig := newRig(t, b, func(in string) *Consumer {
			return &Consumer{
				Exchange: &Exchange{Name: in, Type: "topic"}, RoutingKey: []string{"events.#"},
				DeadLetterExchange: in + "-dead",
			}
		})
		rig.Restart = func(*testing.T) { node.Kill(); node.Restart() }
		return rig
	})
}

func TestPromisesOfAnExchangeWithClassicQueues(t *testing.T) {
	b := onShared(t)
	promises(t, func(t *testing.T) *endpointtest.Rig {
		return newRig(t, b, func(in string) *Consumer {
			return &Consumer{Exchange: &Exchange{Name: in, Type: "topic"}, RoutingKey: []string{"events.#"}, QueueType: classic}
		})
	})
}

func TestPromisesOfASharedQueue(t *testing.T) {
	for _, kind := range []string{classic, quorum} {
		t.Run(kind, func(t *testing.T) {
			b := onShared(t)
			promises(t, func(t *testing.T) *endpointtest.Rig {
				return newRig(t, b, func(in string) *Consumer {
					b.queue(t, in, kind, amqp.Table{"x-dead-letter-exchange": in + "-dead"})
					b.bind(t, in, "events.#", in)
					return &Consumer{Queue: &Queue{Name: in}, Shared: true, DeadLetterExchange: in + "-dead"}
				})
			})
		})
	}
}

func TestPromisesOfAStream(t *testing.T) {
	b := onShared(t)
	promises(t, func(t *testing.T) *endpointtest.Rig {
		var name string
		declare := func(t *testing.T) {
			b.queue(t, name, stream, amqp.Table{"x-max-length-bytes": int64(500_000), "x-stream-max-segment-size-bytes": int64(10_000)})
			b.bind(t, name, "events.#", name)
		}
		rig := newRig(t, b, func(in string) *Consumer {
			name = in
			declare(t)
			return &Consumer{Queue: &Queue{Name: in, Type: stream, Declare: new(bool)}}
		})
		rig.Recreate = func(t *testing.T) {
			b.deleteQueue(t, name)
			declare(t)
		}
		// Old segments go when new ones are begun.
		rig.Truncate = func(t *testing.T) {
			filler := &message.Message{Payload: []byte("message 000000 " + strings.Repeat("x", 5000))}
			b.produce(t, name, "events.filler", slices.Repeat([]*message.Message{filler}, 200)...)
		}
		return rig
	})
}

// newRig is an endpoint that publishes to one exchange and reads from another, or from a
// queue that is bound to it.
func newRig(t *testing.T, b *broker, consumer func(in string) *Consumer) *endpointtest.Rig {
	in, out := unique(t, "in"), unique(t, "out")
	dead := in + "-dead"
	b.exchange(t, in, "topic")
	b.exchange(t, out, "direct")
	b.exchange(t, dead, "fanout")
	// Not a quorum queue: RabbitMQ 3.10 loses those that were made in the last second before
	// it is killed.
	b.queue(t, out, classic, nil)
	b.queue(t, dead, classic, nil)
	b.bind(t, out, "orders", out)
	b.bind(t, dead, "", dead)
	c := consumer(in)
	line := &line{}
	provision := func(t *testing.T, servers []string, c *Consumer, out string) endpoints.Endpoint {
		r := &RabbitMQ{
			Server: servers, Consumer: c, dial: line.dial,
			Producer: &Producer{Exchange: &Exchange{Name: out}, RoutingKey: "orders"},
		}
		return b.endpoint(t, r)
	}
	missing := *c
	if c.Queue != nil {
		missing.Queue = &Queue{Name: "no-" + in, Type: c.Queue.Type, Declare: new(bool)}
	} else {
		missing.Exchange = &Exchange{Name: "no-" + in}
	}
	return &endpointtest.Rig{
		Endpoint: provision(t, []string{b.Addr()}, c, out),
		Produce: func(t *testing.T, messages ...*message.Message) {
			b.produce(t, in, "events.test", messages...)
		},
		Consume:       func(t *testing.T, n int) []*message.Message { return b.consume(t, out, n) },
		DeadLetters:   func(t *testing.T, n int) []*message.Message { return b.consume(t, dead, n) },
		Again:         func(t *testing.T) endpoints.Endpoint { return provision(t, []string{b.Addr()}, c, out) },
		Missing:       func(t *testing.T) endpoints.Endpoint { return provision(t, []string{b.Addr()}, &missing, "no-"+out) },
		Unreachable:   func(t *testing.T) endpoints.Endpoint { return provision(t, []string{"127.0.0.1:1"}, c, out) },
		Cut:           func(*testing.T) { line.cut() },
		Restore:       func(*testing.T) { line.restore() },
		CutAfterWrite: func(*testing.T) { line.swallow.Store(true) },
		Refuse: func(t *testing.T) {
			if err := b.channel(t).QueueUnbind(out, "orders", out, nil); err != nil {
				t.Fatal(err)
			}
			bound := make(chan struct{})
			time.AfterFunc(time.Second, func() {
				defer close(bound)
				b.bind(t, out, "orders", out)
			})
			t.Cleanup(func() { <-bound })
		},
	}
}
