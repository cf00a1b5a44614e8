//go:build linux && cgo

package main

import (
	"net/http"
	"time"

	"github.com/caddy-message-api/caddy-message-api/bench/bare"
	"github.com/caddy-message-api/caddy-message-api/bench/child"
	"github.com/caddy-message-api/caddy-message-api/bench/load"
	"github.com/caddy-message-api/caddy-message-api/bench/solace"
	_ "github.com/caddy-message-api/caddy-message-api/endpoints/solace" // it is not in the default set
)

// plainSolace is the plain client that the gateway is compared with.
const plainSolace = "solace.dev/go/messaging"

func solaceBenchmarks() []*benchmark {
	list := []*benchmark{
		{
			"solace/publish/64", "POST until Solace has acknowledged, beside Solace's library, 64 callers", "messages",
			[]goal{forTheRecord(rate), forTheRecord(cpu)},
			func(e *env) (*setup, error) { return startSolacePublish(e, 64) },
		},
		{
			"solace/publish/1", "POST until Solace has acknowledged, beside Solace's library, 1 caller", "messages",
			[]goal{{metric: latency, kind: differenceAtMost, bound: 0.15}},
			func(e *env) (*setup, error) { return startSolacePublish(e, 1) },
		},
	}
	return append(list, liveBenchmarks("solace", "a Solace topic", openSolaceTopic)...)
}

// solaceOps are what the server's process does with plain clients.
func solaceOps(ops map[string]child.Op) {
	consumer := new(solace.Consumer)
	ops["solace-publish"] = child.Typed(solace.Publish)
	ops["solace-consume"] = child.Typed(func(args solace.ConsumeArgs) (struct{}, error) {
		return struct{}{}, consumer.Start(args, bare.Publish)
	})
	ops["solace-stop"] = child.Typed(func(struct{}) (struct{}, error) { return struct{}{}, consumer.Stop() })
}

func (e *env) solace() (*solace.Broker, error) {
	return broker(e, "solace", func() (*solace.Broker, string, error) {
		b, err := solace.Open()
		return b, solace.What, err
	})
}

func startSolacePublish(e *env, n int) (*setup, error) {
	b, err := e.solace()
	if err != nil {
		return nil, err
	}
	topic := b.Topic("publish")
	s, err := startServer(e.opt, "", api("/solace", "entrypoint http_post",
		"endpoint solace {", "url "+b.URL(), "producer {", "topics "+topic, "}", "}"))
	if err != nil {
		return nil, err
	}
	post := load.Request(http.MethodPost, s.addr, "/solace", "*/*", load.Content())
	args := solace.PublishArgs{URL: b.URL(), Topic: topic, Callers: n}
	return &setup{close: s.Close, sides: []side{
		callers(s, "gateway", n, post, statusAccepted),
		plainPublish(s, plainSolace, "solace-publish", func(d time.Duration) any {
			args.For = d
			return args
		}),
	}}, nil
}

func openSolaceTopic(e *env) (*channel, error) {
	b, err := e.solace()
	if err != nil {
		return nil, err
	}
	topic, other := b.Topic("live"), b.Topic("live-plain")
	feed := func(topic string) func() (load.Feeder, error) {
		return func() (load.Feeder, error) { return solace.NewFeeder(b, topic), nil }
	}
	return &channel{
		endpoint: []string{"endpoint solace {", "url " + b.URL(), "consumer {", "topics " + topic, "}", "}"},
		feed:     feed(topic), feedPlain: feed(other),
		consume: func(s *server) (func() error, error) {
			err := s.Call("solace-consume", solace.ConsumeArgs{URL: b.URL(), Topic: other}, nil)
			return func() error { return s.Call("solace-stop", nil, nil) }, err
		},
		readers: func() (int, error) {
			return eventually(1, func() (int, error) { return len(b.Subscriptions()), nil })
		},
		plain: plainSolace,
	}, nil
}
