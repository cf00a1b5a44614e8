package kafka

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/endpointtest"
	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/test/brokers"
)

func TestPromises(t *testing.T) {
	run := func(start func(t *testing.T) *broker) func(t *testing.T) {
		return func(t *testing.T) {
			endpointtest.Run(t, endpointtest.Harness{
				New:  func(t *testing.T) *endpointtest.Rig { return newRig(t, start(t)) },
				Keys: true, Headers: true, HeaderOrder: true, BinaryHeaders: true,
			})
		}
	}
	t.Run("kfake", run(func(t *testing.T) *broker { return durableBroker(t) }))
	t.Run("real", func(t *testing.T) {
		addr := brokers.SharedKafka(t).Plain
		run(func(*testing.T) *broker { return realBroker(addr) })(t)
	})
}

// newRig is an endpoint that writes to one topic and reads another.
func newRig(t *testing.T, b *broker) *endpointtest.Rig {
	// What is published is compared in order, so that goes to one partition.
	suitePartitions := int32(3)
	if strings.Contains(t.Name(), "slow-reader/broadcast") {
		suitePartitions = 1 // this promise is put in terms of one lane
	}
	in, out := b.topic(t, suitePartitions), b.topic(t, 1)
	line := &line{}
	provision := func(t *testing.T, brokers []string, in, out string) *Kafka {
		return b.endpoint(t, &Kafka{
			Brokers: brokers, dial: line.dial,
			Producer: &Producer{Topics: []string{out}}, Consumer: &Consumer{Topics: []string{in}},
		})
	}
	consumed := 0
	rig := &endpointtest.Rig{
		Endpoint: provision(t, b.addrs, in, out),
		Produce: func(t *testing.T, messages ...*message.Message) {
			b.produce(t, foreignRecords(in, suitePartitions, messages))
		},
		Consume: func(t *testing.T, n int) []*message.Message {
			records := b.consume(t, consumed+n, out)[consumed:]
			consumed += n
			return fromForeign(records)
		},
		Again:   func(t *testing.T) endpoints.Endpoint { return provision(t, b.addrs, in, out) },
		Missing: func(t *testing.T) endpoints.Endpoint { return provision(t, b.addrs, in+"-no", out+"-no") },
		Unreachable: func(t *testing.T) endpoints.Endpoint {
			return provision(t, []string{"127.0.0.1:1"}, in, out)
		},
		Cut:           func(*testing.T) { line.cut() },
		Restore:       func(*testing.T) { line.restore() },
		CutAfterWrite: func(*testing.T) { line.swallow.Store(true) },
		Truncate:      func(t *testing.T) { b.truncate(t, in, suitePartitions, -1) },
		Recreate: func(t *testing.T) {
			b.deleteTopic(t, in)
			b.createTopic(t, in, suitePartitions)
		},
	}
	if b.cluster != nil {
		rig.Restart = func(t *testing.T) { b.restart(t) }
		rig.Refuse = func(*testing.T) {
			b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: out, Err: kerr.PolicyViolation})
		}
	}
	return rig
}

func foreignRecords(topic string, partitions int32, messages []*message.Message) []*kgo.Record {
	records := make([]*kgo.Record, len(messages))
	for i, m := range messages {
		r := &kgo.Record{Topic: topic, Key: m.Key, Value: m.Payload}
		if m.Key != nil {
			r.Partition = partitionOf(m.Key, int(partitions))
		}
		for _, h := range m.Headers {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Name, Value: []byte(h.Value)})
		}
		records[i] = r
	}
	return records
}

func fromForeign(records []*kgo.Record) []*message.Message {
	messages := make([]*message.Message, len(records))
	for i, r := range records {
		m := &message.Message{Key: r.Key, Payload: r.Value}
		for _, h := range r.Headers {
			m.Headers = append(m.Headers, message.Header{Name: h.Key, Value: string(h.Value)})
		}
		messages[i] = m
	}
	return messages
}
