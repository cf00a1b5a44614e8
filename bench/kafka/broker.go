//go:build linux

package kafka

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/caddy-message-api/caddy-message-api/bench/child"
	"github.com/caddy-message-api/caddy-message-api/bench/load"
)

// Role is the name under which this program runs a broker in a process of its own.
const Role = "broker"

// Partitions is how many partitions the topics have.
const Partitions = 6

const adminTimeout = 30 * time.Second

// Ops are what the broker's process can be asked.
func Ops() map[string]child.Op {
	ops := child.CommonOps()
	ops["start"] = child.Typed(func(port int) (struct{}, error) {
		_, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(port))
		return struct{}{}, err
	})
	return ops
}

// Broker is the broker that everything in one run talks to.
type Broker struct {
	// Addr is where it is, What says what it is.
	Addr, What string

	process *child.Process // nil for one that was there already
	client  *kafkago.Client
	topics  []string
}

// Open uses the Kafka at KAFKA_ADDR, or else runs kfake on the CPU.
func Open(cpu, port int) (*Broker, error) {
	b := &Broker{Addr: os.Getenv("KAFKA_ADDR")}
	if b.Addr != "" {
		b.What = "Kafka at KAFKA_ADDR=" + b.Addr
	} else {
		process, err := child.Start(Role, cpu)
		if err != nil {
			return nil, err
		}
		if err := process.Call("start", port, nil); err != nil {
			return nil, errors.Join(err, process.Close())
		}
		b.process, b.Addr = process, fmt.Sprintf("127.0.0.1:%d", port)
		b.What = "kfake, an imitation of Kafka in a process of its own, because KAFKA_ADDR is not set"
	}
	b.client = &kafkago.Client{Addr: kafkago.TCP(b.Addr), Timeout: adminTimeout}
	return b, nil
}

// Topic makes a topic, which is deleted by Close.
func (b *Broker) Topic(name string) (string, error) {
	name = fmt.Sprintf("bench-%s-%08x", name, rand.Uint32())
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	answer, err := b.client.CreateTopics(ctx, &kafkago.CreateTopicsRequest{Topics: []kafkago.TopicConfig{
		{Topic: name, NumPartitions: Partitions, ReplicationFactor: 1},
	}})
	if err == nil {
		err = answer.Errors[name]
	}
	if err != nil {
		return "", fmt.Errorf("making topic %s at %s: %w", name, b.Addr, err)
	}
	b.topics = append(b.topics, name)
	return name, b.awaitLeaders(ctx, name)
}

// awaitLeaders waits until the topic can be used.
func (b *Broker) awaitLeaders(ctx context.Context, topic string) error {
	for {
		meta, err := b.client.Metadata(ctx, &kafkago.MetadataRequest{Topics: []string{topic}})
		if err != nil {
			return fmt.Errorf("waiting for topic %s: %w", topic, err)
		}
		if led(meta.Topics) {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("waiting for topic %s: %w", topic, ctx.Err())
		}
	}
}

func led(topics []kafkago.Topic) bool {
	for _, t := range topics {
		if t.Error != nil || len(t.Partitions) != Partitions {
			return false
		}
		for _, p := range t.Partitions {
			if p.Error != nil || p.Leader.Host == "" {
				return false
			}
		}
	}
	return len(topics) == 1
}

// Fill stores n messages in a topic, spread over its partitions, with a client that has
// nothing to do with what is measured.
func (b *Broker) Fill(topic string, n int) error { return b.FillWith(topic, load.Content(), n) }

// FillWith is Fill with another content.
func (b *Broker) FillWith(topic string, content []byte, n int) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Addr), kgo.DefaultProduceTopic(topic),
		kgo.RecordPartitioner(kgo.RoundRobinPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		return fmt.Errorf("filling topic %s: %w", topic, err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	first := kgo.AbortingFirstErrPromise(client)
	for range n {
		client.Produce(ctx, &kgo.Record{Value: content}, first.Promise())
	}
	if err := client.Flush(ctx); err != nil {
		return fmt.Errorf("filling topic %s: %w", topic, err)
	}
	if err := first.Err(); err != nil {
		return fmt.Errorf("filling topic %s: %w", topic, err)
	}
	return nil
}

// Close deletes the topics, and ends the broker if it is ours.
func (b *Broker) Close() error {
	if b.process != nil {
		return b.process.Close()
	}
	if len(b.topics) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	answer, err := b.client.DeleteTopics(ctx, &kafkago.DeleteTopicsRequest{Topics: b.topics})
	if err != nil {
		return fmt.Errorf("deleting topics at %s: %w", b.Addr, err)
	}
	var errs []error
	for name, err := range answer.Errors {
		if err != nil {
			errs = append(errs, fmt.Errorf("deleting topic %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}
