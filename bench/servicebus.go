//go:build linux

package main

import (
	"net/http"
	"time"

	"github.com/caddy-message-api/caddy-message-api/bench/bare"
	"github.com/caddy-message-api/caddy-message-api/bench/child"
	"github.com/caddy-message-api/caddy-message-api/bench/load"
	"github.com/caddy-message-api/caddy-message-api/bench/servicebus"
)

// The plain clients that the gateway is compared with.
const (
	oneSender       = "azservicebus, one client"
	manySenders     = "azservicebus, 8 clients"
	plainServiceBus = "azservicebus, bare handler"
)

func serviceBusBenchmarks() []*benchmark {
	return []*benchmark{
		{
			"servicebus/publish/64", "POST until Service Bus has accepted, beside plain azservicebus, 64 callers", "messages",
			[]goal{
				{metric: rate, kind: ratioForTheRecord, against: oneSender},
				{metric: rate, kind: ratioForTheRecord, against: manySenders}, forTheRecord(cpu),
			},
			func(e *env) (*setup, error) { return startServiceBusPublish(e, 64, true) },
		},
		{
			"servicebus/publish/1", "POST until Service Bus has accepted, beside plain azservicebus, 1 caller", "messages",
			[]goal{{metric: latency, kind: differenceAtMost, bound: 0.15}},
			func(e *env) (*setup, error) { return startServiceBusPublish(e, 1, false) },
		},
		{
			"servicebus/sse/1", "a queue of Service Bus to 1 SSE client, 100 messages in flight, each completed", "deliveries",
			[]goal{{metric: rate, kind: ratioAtLeast, bound: 0.5}, forTheRecord(cpu)},
			func(e *env) (*setup, error) { return startLive(e, openBusQueue, 1, servicebusWindow) },
		},
	}
}

// servicebusWindow is the endpoint's default prefetch.
const servicebusWindow = 100

// serviceBusOps are what the server's process does with plain clients.
func serviceBusOps(ops map[string]child.Op) {
	consumer := new(servicebus.Consumer)
	ops["servicebus-publish"] = child.Typed(servicebus.Publish)
	ops["servicebus-consume"] = child.Typed(func(args servicebus.ConsumeArgs) (struct{}, error) {
		return struct{}{}, consumer.Start(args, bare.Publish)
	})
	ops["servicebus-stop"] = child.Typed(func(struct{}) (struct{}, error) { return struct{}{}, consumer.Stop() })
}

func (e *env) serviceBus() (*servicebus.Broker, error) {
	return broker(e, "servicebus", func() (*servicebus.Broker, string, error) {
		b, err := servicebus.Open()
		return b, servicebus.What, err
	})
}

func serviceBusEndpoint(b *servicebus.Broker, lines ...string) []string {
	head := []string{"endpoint azure_service_bus {", `connection_string "` + b.ConnectionString() + `"`}
	return append(append(head, lines...), "}")
}

func startServiceBusPublish(e *env, n int, many bool) (*setup, error) {
	b, err := e.serviceBus()
	if err != nil {
		return nil, err
	}
	queue := b.NewQueue("publish")
	s, err := startServer(e.opt, "", api("/bus", append([]string{"entrypoint http_post"},
		serviceBusEndpoint(b, "producer {", "queue "+queue, "}")...)...))
	if err != nil {
		return nil, err
	}
	post := load.Request(http.MethodPost, s.addr, "/bus", "*/*", load.Content())
	set := &setup{close: s.Close, sides: []side{callers(s, "gateway", n, post, statusAccepted)}}
	plain := func(name string, clients int) {
		args := servicebus.PublishArgs{ConnectionString: b.ConnectionString(), Queue: queue, Callers: n, Clients: clients}
		set.sides = append(set.sides, plainPublish(s, name, "servicebus-publish", func(d time.Duration) any {
			args.For = d
			return args
		}))
	}
	plain(oneSender, 1)
	if many {
		plain(manySenders, 8)
	}
	return set, nil
}

func openBusQueue(e *env) (*channel, error) {
	b, err := e.serviceBus()
	if err != nil {
		return nil, err
	}
	queue, other := b.NewQueue("live"), b.NewQueue("live-plain")
	feed := func(queue string) func() (load.Feeder, error) {
		return func() (load.Feeder, error) { return servicebus.NewFeeder(b, queue), nil }
	}
	return &channel{
		endpoint: serviceBusEndpoint(b, "consumer {", "queue "+queue, "shared", "}"),
		feed:     feed(queue), feedPlain: feed(other),
		consume: func(s *server) (func() error, error) {
			args := servicebus.ConsumeArgs{ConnectionString: b.ConnectionString(), Queue: other, Window: servicebusWindow}
			err := s.Call("servicebus-consume", args, nil)
			return func() error { return s.Call("servicebus-stop", nil, nil) }, err
		},
		readers: func() (int, error) {
			return eventually(1, func() (int, error) { return b.Counts(queue).Receivers, nil })
		},
		plain: plainServiceBus,
	}, nil
}
