//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/caddy-message-api/caddy-message-api/bench/child"
	"github.com/caddy-message-api/caddy-message-api/bench/kafka"
	"github.com/caddy-message-api/caddy-message-api/bench/rabbitmq"
	"github.com/caddy-message-api/caddy-message-api/bench/webhook"
)

// The plain loops that the gateway is compared with.
const (
	amqpLoop  = "amqp091 and http.Client"
	kafkaLoop = "kafka-go and http.Client"
)

// webhookSizes are those of the messages, by the rest of the benchmark's name.
var webhookSizes = []struct {
	name string
	size int
}{{"", 256}, {"/1k", 1024}}

func webhookBenchmarks(opt *options) []*benchmark {
	sizes := webhookSizes
	if opt.quick {
		sizes = sizes[:1]
	}
	var list []*benchmark
	for _, source := range []struct {
		name, title, plain string
		open               func(*env, int) (*source, error)
	}{
		{"rabbitmq", "a quorum queue of RabbitMQ", amqpLoop, openAMQPSource},
		{"kafka", "a topic of Kafka", kafkaLoop, openKafkaSource},
	} {
		for _, s := range sizes {
			list = append(list, &benchmark{
				"webhook/" + source.name + s.name,
				fmt.Sprintf("%s to a local receiver, signed, %d bytes, %d in flight, beside a plain loop", source.title, s.size, webhook.InFlight),
				"deliveries",
				[]goal{{metric: rate, kind: ratioAtLeast, bound: 0.9}, {metric: cpu, kind: ratioAtMost, bound: 1.3}},
				func(e *env) (*setup, error) { return startWebhook(e, source.plain, s.size, source.open) },
			})
		}
	}
	return list
}

// source is where messages to be delivered come from.
type source struct {
	// endpoint is the gateway's configuration for it.
	endpoint []string
	// fill sees to it that there is enough for one turn of a side, which has delivered so many
	// already.
	fill func(delivered int64, enough int) error
	// op is that of the plain loop, args are its arguments.
	op   string
	args func(receiver string) any
}

// webhookOps are what the server's process does with plain loops.
func webhookOps(ops map[string]child.Op) {
	loop := new(webhook.Loop)
	ops["webhook-rabbitmq"] = child.Typed(func(args rabbitmq.PushArgs) (struct{}, error) {
		return struct{}{}, loop.Start(func(ctx context.Context) error { return rabbitmq.Push(ctx, args) })
	})
	ops["webhook-kafka"] = child.Typed(func(args kafka.PushArgs) (struct{}, error) {
		return struct{}{}, loop.Start(func(ctx context.Context) error { return kafka.Push(ctx, args) })
	})
	ops["webhook-stop"] = child.Typed(func(struct{}) (struct{}, error) { return struct{}{}, loop.Stop() })
}

// pushing is one benchmark that can be measured.
type pushing struct {
	server   *server
	receiver *child.Process
	addr     string // of the receiver
	source   *source
	globals  string
	// delivered is how many messages each side has delivered in all turns.
	delivered [2]int64
}

func startWebhook(e *env, plain string, size int, open func(*env, int) (*source, error)) (_ *setup, err error) {
	src, err := open(e, size)
	if err != nil {
		return nil, err
	}
	// What the server of an earlier run kept would be looked at first.
	storage, err := os.MkdirTemp("", "message-api-bench-webhook-")
	if err != nil {
		return nil, err
	}
	p := &pushing{source: src, globals: fmt.Sprintf("storage file_system %q", storage)}
	closing := func() error {
		var errs []error
		if p.server != nil {
			errs = append(errs, p.server.Close())
		}
		if p.receiver != nil {
			errs = append(errs, p.receiver.Close())
		}
		return errors.Join(append(errs, os.RemoveAll(storage))...)
	}
	if p.receiver, err = child.Start(webhook.Role, e.opt.loadCPU); err == nil {
		err = p.receiver.Call("start", struct{}{}, &p.addr)
	}
	if err == nil {
		p.server, err = startServer(e.opt, p.globals, p.site(false))
	}
	if err != nil {
		return nil, errors.Join(err, closing())
	}
	return &setup{close: closing, sides: []side{
		p.side(0, "gateway", p.gateway),
		p.side(1, plain, p.plain),
	}}, nil
}

// site is the gateway's, with a subscription while it is its turn.
func (p *pushing) site(subscribed bool) string {
	lines := []string{
		"entrypoint webhook {", fmt.Sprintf("concurrency %d", webhook.InFlight), "order none", "allow_http", "allow_networks loopback", "}",
	}
	lines = append(lines, p.source.endpoint...)
	if subscribed {
		lines = append(lines, "subscription audit {", "callback http://"+p.addr+"/", "secret "+webhook.Secret, "}")
	}
	return "\tmessage_api /hooks {\n\t\t" + strings.Join(append(lines, "plan push"), "\n\t\t") + "\n\t}\n"
}

// gateway delivers by the gateway until stop.
func (p *pushing) gateway() (stop func() error, err error) {
	return func() error { return p.server.load(p.globals, p.site(false)) }, p.server.load(p.globals, p.site(true))
}

// plain delivers by a plain loop, in the server's process, until stop.
func (p *pushing) plain() (stop func() error, err error) {
	stop = func() error { return p.server.Call("webhook-stop", struct{}{}, nil) }
	return stop, p.server.Call(p.source.op, p.source.args(p.addr), nil)
}

// side delivers a backlog for a while. What comes before the first hundreds, and after the time
// is over, is not counted.
func (p *pushing) side(number int, name string, deliver func() (stop func() error, err error)) side {
	return side{name, func(r *round) (one sample, err error) {
		length := r.length(1500 * time.Millisecond)
		enough := int(20_000 * (length + time.Second).Seconds()) // of what is delivered in a second, twice
		if err := p.source.fill(p.delivered[number], enough); err != nil {
			return one, err
		}
		before, err := p.seen()
		if err != nil {
			return one, err
		}
		stop, err := deliver()
		if err != nil {
			return one, err
		}
		defer func() {
			err = errors.Join(err, stop())
			after, seenErr := p.seen()
			p.delivered[number] += after.Requests - before.Requests
			err = errors.Join(err, seenErr)
		}()
		if err := p.awaitFirst(before); err != nil {
			return one, err
		}
		err = r.profiled(p.server, name, func() error {
			one, err = p.measure(length)
			return err
		})
		return one, err
	}}
}

// awaitFirst waits until deliveries are under way, which takes a broker's group some seconds.
func (p *pushing) awaitFirst(before webhook.Seen) error {
	const first = 500
	for deadline := time.Now().Add(3 * patience); ; time.Sleep(20 * time.Millisecond) {
		now, err := p.seen()
		if err != nil {
			return err
		}
		if now.Requests-before.Requests >= first {
			time.Sleep(warmUp)
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d messages were delivered within %s", now.Requests-before.Requests, 3*patience)
		}
	}
}

func (p *pushing) measure(length time.Duration) (sample, error) {
	before, err := p.seen()
	if err != nil {
		return sample{}, err
	}
	m, err := p.server.meter()
	if err != nil {
		return sample{}, err
	}
	time.Sleep(length)
	took := time.Since(m.start)
	after, err := p.seen()
	if err != nil {
		return sample{}, err
	}
	if after.Connections > 2*webhook.InFlight { // net/http dials for a request that then finds another
		return sample{}, fmt.Errorf("there are %d connections, and %d requests should be under way at once", after.Connections, webhook.InFlight)
	}
	return m.endAfter(took, after.Requests-before.Requests, after.Bytes-before.Bytes)
}

// seen asks the receiver, and makes sure that it has seen nothing but signed messages.
func (p *pushing) seen() (webhook.Seen, error) {
	var s webhook.Seen
	if err := p.receiver.Call("seen", struct{}{}, &s); err != nil {
		return s, err
	}
	if s.Unsigned > 0 || s.Wrong > 0 {
		return s, fmt.Errorf("the receiver got %d requests without signature, and %d that are no POST with a length", s.Unsigned, s.Wrong)
	}
	return s, nil
}

func openAMQPSource(e *env, size int) (*source, error) {
	b, err := e.rabbitMQ()
	if err != nil {
		return nil, err
	}
	queue := fmt.Sprintf("webhook-%d", size)
	if err := b.Queue(queue, "quorum"); err != nil {
		return nil, err
	}
	return &source{
		endpoint: rabbitMQEndpoint(b.Place, "consumer {", "queue "+queue, "shared", "}"),
		fill:     func(_ int64, enough int) error { return b.Backlog(queue, webhook.Content(size), enough) },
		op:       "webhook-rabbitmq",
		args: func(receiver string) any {
			return rabbitmq.PushArgs{Place: b.Place, Queue: queue, Receiver: receiver, Prefetch: 500}
		},
	}, nil
}

func openKafkaSource(e *env, size int) (*source, error) {
	b, err := e.kafka()
	if err != nil {
		return nil, err
	}
	topic, err := b.Topic(fmt.Sprintf("webhook-%d", size))
	if err != nil {
		return nil, err
	}
	var filled int64
	return &source{
		endpoint: strings.Split(fmt.Sprintf("endpoint kafka {\nbrokers %s\nconsumer {\ntopics %s\nauto_offset_reset earliest\n}\n}", b.Addr, topic), "\n"),
		// Both sides read all of the topic, each as a group of its own.
		fill: func(delivered int64, enough int) error {
			n := delivered + int64(enough) - filled
			if n <= 0 {
				return nil
			}
			filled += n
			return b.FillWith(topic, webhook.Content(size), int(n))
		},
		op: "webhook-kafka",
		args: func(receiver string) any {
			return kafka.PushArgs{Addr: b.Addr, Topic: topic, Group: topic + "-plain", Receiver: receiver}
		},
	}, nil
}
