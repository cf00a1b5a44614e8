//go:build linux

package main

import (
	"net/http"
	"time"

	"github.com/caddy-message-api/caddy-message-api/bench/bare"
	"github.com/caddy-message-api/caddy-message-api/bench/child"
	"github.com/caddy-message-api/caddy-message-api/bench/load"
	"github.com/caddy-message-api/caddy-message-api/bench/mqtt"
)

// The plain clients that the gateway is compared with.
const (
	oneClient   = "paho, one client"
	manyClients = "paho, 8 clients"
	plainMQTT   = "paho, bare handler"
)

func mqttBenchmarks() []*benchmark {
	list := []*benchmark{
		{
			"mqtt/publish/64", "POST until the MQTT broker has confirmed (QoS 1), beside plain paho, 64 callers", "messages",
			[]goal{
				{metric: rate, kind: ratioAtLeast, bound: 0.4, against: oneClient},
				{metric: rate, kind: ratioForTheRecord, against: manyClients}, forTheRecord(cpu),
			},
			func(e *env) (*setup, error) { return startMQTTPublish(e, 64, true) },
		},
		{
			"mqtt/publish/1", "POST until the MQTT broker has confirmed (QoS 1), beside plain paho, 1 caller", "messages",
			[]goal{{metric: latency, kind: differenceAtMost, bound: 0.08}},
			func(e *env) (*setup, error) { return startMQTTPublish(e, 1, false) },
		},
	}
	return append(list, liveBenchmarks("mqtt", "an MQTT topic", openTopic)...)
}

// mqttOps are what the server's process does with plain clients.
func mqttOps(ops map[string]child.Op) {
	consumer := new(mqtt.Consumer)
	ops["mqtt-publish"] = child.Typed(mqtt.Publish)
	ops["mqtt-consume"] = child.Typed(func(args mqtt.ConsumeArgs) (struct{}, error) {
		return struct{}{}, consumer.Start(args, bare.Publish)
	})
	ops["mqtt-stop"] = child.Typed(func(struct{}) (struct{}, error) { return struct{}{}, consumer.Stop() })
}

// mqtt returns the broker, which is opened by the first that asks.
func (e *env) mqtt() (*mqtt.Broker, error) {
	return broker(e, "mqtt", func() (*mqtt.Broker, string, error) {
		b, err := mqtt.Open()
		if err != nil {
			return nil, "", err
		}
		return b, b.What, nil
	})
}

func startMQTTPublish(e *env, n int, many bool) (*setup, error) {
	b, err := e.mqtt()
	if err != nil {
		return nil, err
	}
	topic := b.Topic("publish")
	s, err := startServer(e.opt, "", api("/mqtt", "entrypoint http_post",
		"endpoint mqtt5 {", "server "+b.Addr, "producer {", "topic "+topic, "}", "}"))
	if err != nil {
		return nil, err
	}
	post := load.Request(http.MethodPost, s.addr, "/mqtt", "*/*", load.Content())
	set := &setup{close: s.Close, sides: []side{callers(s, "gateway", n, post, statusAccepted)}}
	plain := func(name string, clients int) {
		args := mqtt.PublishArgs{Addr: b.Addr, Topic: topic, Callers: n, Clients: clients}
		set.sides = append(set.sides, plainPublish(s, name, "mqtt-publish", func(d time.Duration) any {
			args.For = d
			return args
		}))
	}
	plain(oneClient, 1)
	if many {
		plain(manyClients, 8)
	}
	return set, nil
}

func openTopic(e *env) (*channel, error) {
	b, err := e.mqtt()
	if err != nil {
		return nil, err
	}
	topic, other := b.Topic("live"), b.Topic("live-plain")
	feed := func(topic string) func() (load.Feeder, error) {
		return func() (load.Feeder, error) { return mqtt.NewFeeder(b.Addr, topic) }
	}
	// The system topics tell of everybody; what was there before does not count.
	before, err := b.Counts()
	if err != nil {
		return nil, err
	}
	return &channel{
		endpoint: []string{"endpoint mqtt5 {", "server " + b.Addr, "consumer {", "topic " + topic, "}", "}"},
		feed:     feed(topic), feedPlain: feed(other),
		consume: func(s *server) (func() error, error) {
			err := s.Call("mqtt-consume", mqtt.ConsumeArgs{Addr: b.Addr, Topic: other}, nil)
			return func() error { return s.Call("mqtt-stop", nil, nil) }, err
		},
		readers: func() (int, error) {
			return eventually(1, func() (int, error) {
				now, err := b.Counts()
				// One connection more than subscriptions: the feeder's.
				return max(now.Subscriptions-before.Subscriptions, now.Connections-before.Connections-1), err
			})
		},
		plain: plainMQTT,
	}, nil
}
