//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/caddy-message-api/caddy-message-api/bench/kafka"
	"github.com/caddy-message-api/caddy-message-api/bench/load"
	"github.com/caddy-message-api/caddy-message-api/bench/plain"
)

// The plain clients that the gateway is compared with.
const (
	plainWriter  = "kafka-go Writer"
	plainProduce = "kafka-go Produce"
	plainReader  = "kafka-go Reader"
)

func kafkaBenchmarks() []*benchmark {
	record := []goal{forTheRecord(rate), forTheRecord(cpu)}
	list := []*benchmark{
		{
			"kafka/publish/64", "POST until Kafka has confirmed, beside plain kafka-go, 64 callers", "messages",
			[]goal{{metric: rate, kind: ratioAtLeast, bound: 0.5, against: plainProduce}, {metric: rate, kind: ratioAtLeast, bound: 0.5, against: plainWriter}, forTheRecord(cpu)},
			func(e *env) (*setup, error) { return startKafkaPublish(e, 64, "kafka-write", "kafka-produce") },
		},
		{
			"kafka/publish/1", "POST until Kafka has confirmed, beside plain kafka-go, 1 caller", "messages",
			[]goal{{metric: latency, kind: differenceAtMost, bound: 0.08}},
			func(e *env) (*setup, error) { return startKafkaPublish(e, 1, "kafka-produce") },
		},
	}
	for _, r := range []struct {
		name, what string
		read       func(*server, int) (side, error)
	}{
		{"sse", "one event stream", readBySSE},
		{"ws", "one WebSocket", readByWS},
		{"get", "GET with limit 500, from cursor to cursor", readByGET},
	} {
		list = append(list, &benchmark{
			"kafka/" + r.name, "a topic read from its beginning by " + r.what + ", beside plain kafka-go Readers", "messages", record,
			func(e *env) (*setup, error) { return startKafkaRead(e, r.read) },
		})
	}
	return list
}

// kafkaServer serves a topic.
func kafkaServer(e *env, b *kafka.Broker, topic string) (*server, error) {
	return startServer(e.opt, "", api("/kafka",
		"entrypoint http_post",
		"entrypoint http_get {", "from earliest", "}",
		"entrypoint sse {", "from earliest", "}",
		"entrypoint websocket {", "from earliest", "}",
		"endpoint kafka {", "brokers "+b.Addr,
		"producer {", "topics "+topic, "}",
		"consumer {", "topics "+topic, "}",
		"}"))
}

// kafkaSetup makes a topic and a server for it.
func kafkaSetup(e *env, name string, fill int) (*kafka.Broker, *server, string, error) {
	b, err := e.kafka()
	if err != nil {
		return nil, nil, "", err
	}
	topic, err := b.Topic(name)
	if err != nil {
		return nil, nil, "", err
	}
	if err := b.Fill(topic, fill); err != nil {
		return nil, nil, "", err
	}
	s, err := kafkaServer(e, b, topic)
	return b, s, topic, err
}

func startKafkaPublish(e *env, n int, ops ...string) (*setup, error) {
	b, s, topic, err := kafkaSetup(e, "publish", 0)
	if err != nil {
		return nil, err
	}
	post := load.Request(http.MethodPost, s.addr, "/kafka", "*/*", load.Content())
	set := &setup{close: s.Close, sides: []side{callers(s, "gateway", n, post, statusAccepted)}}
	names := map[string]string{"kafka-write": plainWriter, "kafka-produce": plainProduce}
	for _, op := range ops {
		set.sides = append(set.sides, plainPublish(s, names[op], op, func(d time.Duration) any {
			return kafka.PublishArgs{Addr: b.Addr, Topic: topic, Callers: n, For: d}
		}))
	}
	return set, nil
}

// plainPublish runs a plain client in the server's process, on the server's CPU. args are
// the operation's for so long a time.
func plainPublish(s *server, name, op string, args func(time.Duration) any) side {
	return side{name, func(r *round) (one sample, err error) {
		if err := s.Call(op, args(warmUp), nil); err != nil {
			return one, err
		}
		err = r.profiled(s, name, func() error {
			m, err := s.meter()
			if err != nil {
				return err
			}
			var calls plain.Calls
			if err := s.Call(op, args(r.length(1500*time.Millisecond)), &calls); err != nil {
				return err
			}
			one, err = m.end(int64(len(calls.Took)), 0)
			one.took(calls.Took)
			return err
		})
		return one, err
	}}
}

// startKafkaRead compares a way to read a topic with plain readers.
func startKafkaRead(e *env, ours func(*server, int) (side, error)) (*setup, error) {
	n := 200_000
	if e.opt.quick {
		n = 30_000
	}
	b, s, topic, err := kafkaSetup(e, "read", n)
	if err != nil {
		return nil, err
	}
	gateway, err := ours(s, n)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	args := kafka.ReadArgs{Addr: b.Addr, Topic: topic, Messages: n}
	return &setup{close: s.Close, sides: []side{gateway, plainRead(s, args)}}, nil
}

// plainRead reads with plain clients, whose end is not part of the time.
func plainRead(s *server, args kafka.ReadArgs) side {
	return side{plainReader, func(r *round) (one sample, err error) {
		err = r.profiled(s, plainReader, func() error {
			m, err := s.meter()
			if err != nil {
				return err
			}
			var took time.Duration
			if err := s.Call("kafka-read", args, &took); err != nil {
				return err
			}
			one, err = m.endAfter(took, int64(args.Messages), 0)
			return err
		})
		return one, err
	}}
}

// reading is a side that reads n messages and tells how many bytes came for that.
func reading(s *server, name string, n int, read func() (int64, error)) side {
	return side{name, func(r *round) (one sample, err error) {
		err = r.profiled(s, name, func() error {
			m, err := s.meter()
			if err != nil {
				return err
			}
			bytes, err := read()
			if err != nil {
				return err
			}
			one, err = m.end(int64(n), bytes)
			return err
		})
		return one, err
	}}
}

func readBySSE(s *server, n int) (side, error) { return readStream(s, n, load.SSE), nil }
func readByWS(s *server, n int) (side, error)  { return readStream(s, n, load.WS), nil }

func readStream(s *server, n int, kind load.Kind) side {
	return reading(s, "gateway", n, func() (bytes int64, err error) {
		sub, err := load.Connect(load.Target{Addr: s.addr, Path: "/kafka", Kind: kind}, 1, patience)
		if err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, sub.Close()) }()
		if err := sub.Collect(int64(n), time.Minute); err != nil {
			return 0, err
		}
		return sub.Bytes(), sub.Each(int64(n))
	})
}

func readByGET(s *server, n int) (side, error) {
	return reading(s, "gateway", n, func() (total int64, err error) {
		c, err := load.NewConn(s.addr, patience)
		if err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, c.Close()) }()
		for got, cursor := 0, ""; got < n; {
			body, err := c.Do(load.Request(http.MethodGet, s.addr, "/kafka?limit=500"+cursor, acceptJSON, nil), statusOK)
			if err != nil {
				return total, err
			}
			total += int64(len(body))
			messages, next, err := scanPage(body)
			if err != nil {
				return total, err
			}
			if messages == 0 {
				return total, fmt.Errorf("after %d of %d messages a GET had none", got, n)
			}
			if got += messages; got > n {
				return total, fmt.Errorf("%d messages came, and the topic has %d", got, n)
			}
			cursor = "&cursor=" + next
		}
		return total, nil
	}), nil
}

// scanPage finds what matters of a page without parsing all of it.
func scanPage(body []byte) (messages int, cursor string, err error) {
	const member = `"nextCursor":"`
	at := bytes.LastIndex(body, []byte(member))
	if at < 0 {
		return 0, "", fmt.Errorf("the answer has no cursor: %.500s", body)
	}
	rest := body[at+len(member):]
	end := bytes.IndexByte(rest, '"')
	if end < 0 {
		return 0, "", fmt.Errorf("the answer's cursor has no end: %.500s", rest)
	}
	return load.Count(body), string(rest[:end]), nil
}
