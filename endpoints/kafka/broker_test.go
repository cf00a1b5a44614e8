package kafka

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/test/brokers"
)

// broker is what the tests talk to: a kfake cluster of their own or, when KAFKA_ADDR is
// set and nothing special is asked for, that broker.
type broker struct {
	addrs   []string
	cluster *kfake.Cluster // nil for a real broker
	opts    []kfake.Opt
	prefix  string
	kgo     []kgo.Opt
}

// eachBroker runs a test on kfake and on the real broker.
func eachBroker(t *testing.T, f func(t *testing.T, b *broker)) {
	t.Run("kfake", func(t *testing.T) { f(t, fakeBroker(t)) })
	t.Run("real", func(t *testing.T) { f(t, realBroker(brokers.SharedKafka(t).Plain)) })
}

func prefix() string { return "t" + strconv.FormatUint(rand.Uint64(), 36) + "-" }

func realBroker(addr string) *broker {
	return &broker{addrs: strings.Split(addr, ","), prefix: prefix()}
}

// fakeBroker starts a cluster of one broker, unless the options say otherwise.
func fakeBroker(t testing.TB, opts ...kfake.Opt) *broker {
	t.Helper()
	b := &broker{prefix: prefix(), opts: append([]kfake.Opt{kfake.NumBrokers(1), kfake.ClusterID("test")}, opts...)}
	b.start(t)
	t.Cleanup(func() { b.cluster.Close() })
	return b
}

func (b *broker) start(t testing.TB) {
	t.Helper()
	c, err := kfake.NewCluster(b.opts...)
	if err != nil {
		t.Fatalf("kfake: %v", err)
	}
	b.cluster, b.addrs = c, c.ListenAddrs()
}

// durableBroker is a fake broker that keeps its data on disk, and its ports.
func durableBroker(t testing.TB, opts ...kfake.Opt) *broker {
	t.Helper()
	return fakeBroker(t, append(opts, kfake.Ports(freePort(t)), kfake.DataDir(t.TempDir()), kfake.SyncWrites())...)
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// stop and start again, with what is on the disk.
func (b *broker) restart(t testing.TB) {
	t.Helper()
	b.cluster.Close()
	b.start(t)
}

// foreign is a client that is not ours, for the length of one call.
func (b *broker) foreign(t testing.TB, f func(ctx context.Context, cl *kgo.Client), opts ...kgo.Opt) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cl, err := kgo.NewClient(append(append([]kgo.Opt{
		kgo.SeedBrokers(b.addrs...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(50 * time.Millisecond),
	}, b.kgo...), opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	f(ctx, cl)
}

// topic makes a fresh topic.
func (b *broker) topic(t testing.TB, partitions int32, configs ...string) string {
	t.Helper()
	name := fmt.Sprintf("%stopic-%d", b.prefix, rand.Uint32())
	b.createTopic(t, name, partitions, configs...)
	return name
}

func (b *broker) createTopic(t testing.TB, name string, partitions int32, configs ...string) {
	t.Helper()
	b.foreign(t, func(ctx context.Context, cl *kgo.Client) {
		req := kmsg.NewPtrCreateTopicsRequest()
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, partitions, 1
		for i := 0; i+1 < len(configs); i += 2 {
			c := kmsg.NewCreateTopicsRequestTopicConfig()
			c.Name, c.Value = configs[i], &configs[i+1]
			topic.Configs = append(topic.Configs, c)
		}
		req.Topics = append(req.Topics, topic)
		eventually(t, "create topic "+name, func() bool {
			res, err := req.RequestWith(ctx, cl)
			if err != nil {
				t.Fatalf("create topic: %v", err)
			}
			err = kerr.ErrorForCode(res.Topics[0].ErrorCode)
			if err != nil && err != kerr.TopicAlreadyExists { //nolint:errorlint // these are values
				t.Fatalf("create topic: %v", err)
			}
			return err == nil
		})
		eventually(t, "a broker that serves the new topic "+name, func() bool { return serves(ctx, cl, name, partitions) })
	})
}

// serves says that the brokers answer for all partitions of a topic. They say that a topic was
// made a little before they know of it.
func serves(ctx context.Context, cl *kgo.Client, name string, partitions int32) bool {
	req := kmsg.NewPtrListOffsetsRequest()
	topic := kmsg.NewListOffsetsRequestTopic()
	topic.Topic = name
	for id := range partitions {
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.Timestamp = id, -1
		topic.Partitions = append(topic.Partitions, p)
	}
	req.Topics = append(req.Topics, topic)
	res, err := req.RequestWith(ctx, cl)
	if err != nil || len(res.Topics) != 1 || len(res.Topics[0].Partitions) != int(partitions) {
		return false
	}
	for _, p := range res.Topics[0].Partitions {
		if p.ErrorCode != 0 {
			return false
		}
	}
	return true
}

func (b *broker) deleteTopic(t testing.TB, name string) {
	t.Helper()
	b.foreign(t, func(ctx context.Context, cl *kgo.Client) {
		req := kmsg.NewPtrDeleteTopicsRequest()
		req.TopicNames = []string{name}
		topic := kmsg.NewDeleteTopicsRequestTopic()
		topic.Topic = &name
		req.Topics = append(req.Topics, topic)
		res, err := req.RequestWith(ctx, cl)
		if err == nil {
			err = kerr.ErrorForCode(res.Topics[0].ErrorCode)
		}
		if err != nil {
			t.Fatalf("delete topic: %v", err)
		}
	})
}

func (b *broker) addPartitions(t testing.TB, name string, total int32) {
	t.Helper()
	b.foreign(t, func(ctx context.Context, cl *kgo.Client) {
		req := kmsg.NewPtrCreatePartitionsRequest()
		topic := kmsg.NewCreatePartitionsRequestTopic()
		topic.Topic, topic.Count = name, total
		req.Topics = append(req.Topics, topic)
		res, err := req.RequestWith(ctx, cl)
		if err == nil {
			err = kerr.ErrorForCode(res.Topics[0].ErrorCode)
		}
		if err != nil {
			t.Fatalf("add partitions: %v", err)
		}
	})
}

// truncate deletes everything before an offset; -1 means everything.
func (b *broker) truncate(t testing.TB, name string, partitions int32, before int64) {
	t.Helper()
	b.foreign(t, func(ctx context.Context, cl *kgo.Client) {
		req := kmsg.NewPtrDeleteRecordsRequest()
		req.TimeoutMillis = 5000
		topic := kmsg.NewDeleteRecordsRequestTopic()
		topic.Topic = name
		for i := range partitions {
			p := kmsg.NewDeleteRecordsRequestTopicPartition()
			p.Partition, p.Offset = i, before
			topic.Partitions = append(topic.Partitions, p)
		}
		req.Topics = append(req.Topics, topic)
		for _, shard := range cl.RequestSharded(ctx, req) {
			if shard.Err != nil {
				t.Fatalf("delete records: %v", shard.Err)
			}
			for _, p := range shard.Resp.(*kmsg.DeleteRecordsResponse).Topics[0].Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					t.Fatalf("delete records: %v", err)
				}
			}
		}
	})
}

// produce stores records, each in the partition that it names.
func (b *broker) produce(t testing.TB, records []*kgo.Record, opts ...kgo.Opt) {
	t.Helper()
	b.foreign(t, func(ctx context.Context, cl *kgo.Client) {
		if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
			t.Fatalf("produce: %v", err)
		}
	}, opts...)
}

// numbered makes records whose values are the numbers from first on, spread evenly.
func numbered(topic string, partitions int32, first, n int) []*kgo.Record {
	records := make([]*kgo.Record, n)
	for i := range records {
		records[i] = &kgo.Record{
			Topic: topic, Partition: int32(first+i) % partitions, Value: strconv.AppendInt(nil, int64(first+i), 10),
		}
	}
	return records
}

// consume reads the first n records of topics, from their start.
func (b *broker) consume(t testing.TB, n int, topics ...string) []*kgo.Record {
	t.Helper()
	var all []*kgo.Record
	b.foreign(t, func(ctx context.Context, cl *kgo.Client) {
		for len(all) < n {
			fetches := cl.PollFetches(ctx)
			if err := ctx.Err(); err != nil {
				t.Fatalf("consumed %d of %d records: %v", len(all), n, err)
			}
			all = append(all, fetches.Records()...)
		}
	}, kgo.ConsumeTopics(topics...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	return all
}

// committedOffsets returns what a group has committed.
func (b *broker) committedOffsets(t testing.TB, group string) map[partition]int64 {
	t.Helper()
	all := make(map[partition]int64)
	b.foreign(t, func(ctx context.Context, cl *kgo.Client) {
		req := kmsg.NewPtrOffsetFetchRequest()
		req.Group = group
		g := kmsg.NewOffsetFetchRequestGroup()
		g.Group = group
		req.Groups = append(req.Groups, g)
		res, err := req.RequestWith(ctx, cl)
		if err != nil {
			t.Fatalf("offset fetch: %v", err)
		}
		for _, top := range res.Topics {
			for _, p := range top.Partitions {
				all[partition{top.Topic, p.Partition}] = p.Offset
			}
		}
		for _, g := range res.Groups {
			for _, top := range g.Topics {
				for _, p := range top.Partitions {
					all[partition{top.Topic, p.Partition}] = p.Offset
				}
			}
		}
	})
	return all
}

// endpoint provisions an endpoint on the broker. It is cleaned up with the test.
func (b *broker) endpoint(t testing.TB, k *Kafka) *Kafka {
	t.Helper()
	if k.Brokers == nil {
		k.Brokers = b.addrs
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	if err := k.Provision(ctx); err != nil {
		t.Fatalf("provision: %v", err)
	}
	if err := k.Validate(); err != nil {
		t.Fatalf("validate: %v", err)
	}
	t.Cleanup(func() {
		if err := k.Cleanup(); err != nil {
			t.Errorf("cleanup: %v", err)
		}
	})
	return k
}

// both is an endpoint that writes to and reads from one topic.
func (b *broker) both(t testing.TB, topic string) *Kafka {
	t.Helper()
	return b.endpoint(t, &Kafka{
		Producer: &Producer{Topics: []string{topic}}, Consumer: &Consumer{Topics: []string{topic}},
	})
}

// eventually polls until f is true.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in time", what)
		}
	}
}

// subscribe opens a stream that is closed with the test.
func subscribe(t testing.TB, k *Kafka, sub message.Subscription) message.Stream {
	t.Helper()
	s, err := trySubscribe(k, sub)
	if err != nil {
		t.Fatalf("subscribe: %v", err)
	}
	t.Cleanup(func() { closeStream(t, s) })
	return s
}

func trySubscribe(k *Kafka, sub message.Subscription) (message.Stream, error) {
	channel, err := k.Channel(verbatim{})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return k.Subscribe(ctx, channel, sub)
}

func closeStream(t testing.TB, s message.Stream) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

// receive returns what comes until there are n messages, and the gaps on the way.
func receive(t testing.TB, s message.Stream, n int) (all []message.Delivery, gaps []message.Gap) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for len(all) < n {
		b, err := s.Receive(ctx)
		if err != nil {
			t.Fatalf("received %d of %d messages: %v", len(all), n, err)
		}
		if b.Gap != nil {
			gaps = append(gaps, *b.Gap)
		}
		all = append(all, b.Deliveries...)
	}
	return all, gaps
}

// quiet checks that nothing comes for a while.
func quiet(t testing.TB, s message.Stream) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if b, err := s.Receive(ctx); err == nil {
		t.Errorf("received %d messages, gap %v, revoked %v; want silence", len(b.Deliveries), b.Gap, b.Revoked)
	}
}

func number(t testing.TB, d message.Delivery) int {
	t.Helper()
	n, err := strconv.Atoi(string(d.Payload))
	if err != nil {
		t.Fatalf("payload %q is no number", d.Payload)
	}
	return n
}

func publish(t testing.TB, k *Kafka, messages ...*message.Message) []message.Result {
	t.Helper()
	p, err := k.Publisher(verbatim{})
	if err != nil {
		t.Fatalf("publisher: %v", err)
	}
	return p.Publish(context.Background(), message.Auto, messages...)
}

func wantStored(t testing.TB, results []message.Result) {
	t.Helper()
	for i, r := range results {
		if r.Status != message.Stored || r.Err != nil {
			t.Fatalf("message %d is %s: %v", i, r.Status, r.Err)
		}
	}
}

// verbatim expands nothing.
type verbatim struct{}

func (verbatim) Text(s string) (string, error) { return s, nil }
func (verbatim) Name(s string) (string, error) { return s, nil }
