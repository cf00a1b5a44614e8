//go:build linux

package main

import (
	"errors"
	"net/http"
	"time"

	"github.com/caddy-message-api/caddy-message-api/bench/bare"
	"github.com/caddy-message-api/caddy-message-api/bench/child"
	"github.com/caddy-message-api/caddy-message-api/bench/load"
	"github.com/caddy-message-api/caddy-message-api/bench/rabbitmq"
	rabbitnode "github.com/caddy-message-api/caddy-message-api/test/brokers/rabbitmq"
)

// The plain clients that the gateway is compared with.
const (
	oneChannel   = "amqp091, one channel"
	manyChannels = "amqp091, 8 channels"
	plainAMQP    = "amqp091, bare handler"
)

func rabbitMQBenchmarks() []*benchmark {
	half := []goal{
		{metric: rate, kind: ratioAtLeast, bound: 0.5, against: oneChannel},
		{metric: rate, kind: ratioAtLeast, bound: 0.5, against: manyChannels}, forTheRecord(cpu),
	}
	list := []*benchmark{
		{
			"rabbitmq/publish/64", "POST until a classic queue has confirmed, beside plain amqp091, 64 callers", "messages", half,
			func(e *env) (*setup, error) { return startAMQPPublish(e, "classic", 64, true) },
		},
		{
			"rabbitmq/publish/quorum/64", "POST until a quorum queue has confirmed, beside plain amqp091, 64 callers", "messages", half,
			func(e *env) (*setup, error) { return startAMQPPublish(e, "quorum", 64, true) },
		},
		{
			"rabbitmq/publish/1", "POST until a classic queue has confirmed, beside plain amqp091, 1 caller", "messages",
			[]goal{{metric: latency, kind: differenceAtMost, bound: 0.08}},
			func(e *env) (*setup, error) { return startAMQPPublish(e, "classic", 1, false) },
		},
	}
	return append(list, liveBenchmarks("rabbitmq", "an exchange of RabbitMQ", openExchange)...)
}

// rabbitMQOps are what the server's process does with plain clients.
func rabbitMQOps(ops map[string]child.Op) {
	consumer := new(rabbitmq.Consumer)
	ops["amqp-publish"] = child.Typed(rabbitmq.Publish)
	ops["amqp-consume"] = child.Typed(func(args rabbitmq.ConsumeArgs) (struct{}, error) {
		return struct{}{}, consumer.Start(args, bare.Publish)
	})
	ops["amqp-stop"] = child.Typed(func(struct{}) (struct{}, error) { return struct{}{}, consumer.Stop() })
}

// rabbitMQ returns the broker, which is opened by the first that asks.
func (e *env) rabbitMQ() (*rabbitmq.Broker, error) {
	return broker(e, "rabbitmq", func() (*rabbitmq.Broker, string, error) {
		b, err := rabbitmq.Open()
		if err != nil {
			return nil, "", err
		}
		return b, b.What, nil
	})
}

func rabbitMQEndpoint(p rabbitmq.Place, lines ...string) []string {
	head := []string{
		"endpoint rabbitmq {", "server " + p.Addr, "virtual_host " + p.Vhost,
		"auth " + rabbitnode.Admin + " " + rabbitnode.AdminPassword,
	}
	return append(append(head, lines...), "}")
}

// startAMQPPublish publishes to a queue, which is emptied before each turn.
func startAMQPPublish(e *env, kind string, n int, many bool) (*setup, error) {
	b, err := e.rabbitMQ()
	if err != nil {
		return nil, err
	}
	queue := "publish-" + kind
	if err := b.Queue(queue, kind); err != nil {
		return nil, err
	}
	endpoint := rabbitMQEndpoint(b.Place, "producer {", "routing_key "+queue, "}")
	s, err := startServer(e.opt, "", api("/amqp", append([]string{"entrypoint http_post"}, endpoint...)...))
	if err != nil {
		return nil, err
	}
	empty := func(one side) side {
		return side{one.name, func(r *round) (sample, error) {
			if err := b.Purge(queue); err != nil {
				return sample{}, err
			}
			return one.run(r)
		}}
	}
	post := load.Request(http.MethodPost, s.addr, "/amqp", "*/*", load.Content())
	set := &setup{close: s.Close, sides: []side{empty(callers(s, "gateway", n, post, statusAccepted))}}
	plain := func(name string, channels int) {
		args := rabbitmq.PublishArgs{Place: b.Place, Queue: queue, Callers: n, Channels: channels}
		set.sides = append(set.sides, empty(plainPublish(s, name, "amqp-publish", func(d time.Duration) any {
			args.For = d
			return args
		})))
	}
	plain(oneChannel, 1)
	if many {
		plain(manyChannels, 8)
	}
	return set, nil
}

// openExchange makes a fanout exchange.
func openExchange(e *env) (*channel, error) {
	b, err := e.rabbitMQ()
	if err != nil {
		return nil, err
	}
	const exchange, other = "live", "live-plain"
	if err := errors.Join(b.Exchange(exchange), b.Exchange(other)); err != nil {
		return nil, err
	}
	feed := func(exchange string) func() (load.Feeder, error) {
		return func() (load.Feeder, error) { return rabbitmq.NewFeeder(b.Place, exchange) }
	}
	return &channel{
		endpoint: rabbitMQEndpoint(b.Place, "consumer {", "exchange "+exchange, "}"),
		feed:     feed(exchange), feedPlain: feed(other),
		consume: func(s *server) (func() error, error) {
			err := s.Call("amqp-consume", rabbitmq.ConsumeArgs{Place: b.Place, Exchange: other}, nil)
			return func() error { return s.Call("amqp-stop", nil, nil) }, err
		},
		readers: func() (int, error) { return eventually(1, b.Consumers) },
		plain:   plainAMQP,
	}, nil
}

// eventually asks until the answer is as wanted, or the patience is over: brokers are told
// of what has ended before by a network.
func eventually(want int, ask func() (int, error)) (got int, err error) {
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		got, err = ask()
		if got == want || time.Now().After(deadline) || err != nil {
			return got, err
		}
	}
}
