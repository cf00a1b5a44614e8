package webhooks

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/caddy-message-api/caddy-message-api/test/webhooks/ledger"
)

// keptHeader is a header of every message, with its number.
const keptHeader = "x-history"

// kafkaTopic is a topic, and where its messages lie.
type kafkaTopic struct {
	addr, topic string

	mu     sync.Mutex
	places map[int]string // message → partition/offset
}

// produce writes all messages of the ledger, each key in its order, and no more ahead of what is
// known than so many.
func (k *kafkaTopic) produce(ctx context.Context, l *ledger.Ledger, ahead int) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(k.addr), kgo.DefaultProduceTopic(k.topic))
	if err != nil {
		return err
	}
	defer client.Close()
	k.places = make(map[int]string)
	return inBatches(ctx, l, ahead, func(batch []ledger.Message) error {
		records := make([]*kgo.Record, len(batch))
		for i, m := range batch {
			records[i] = &kgo.Record{
				Key: []byte(m.Key), Value: m.Payload(),
				Headers: []kgo.RecordHeader{{Key: keptHeader, Value: []byte(strconv.Itoa(m.N))}},
			}
		}
		results := client.ProduceSync(ctx, records...) // tries again for as long as it takes, and never twice
		k.mu.Lock()
		defer k.mu.Unlock()
		for _, r := range results { // in the order of their confirmations
			if m, err := ledger.Parse(r.Record.Value); err == nil && r.Err == nil {
				k.places[m.N] = fmt.Sprintf("%d/%d", r.Record.Partition, r.Record.Offset)
			}
		}
		return results.FirstErr()
	})
}

// at checks that a dead letter tells where the message lay: the partition and the offset.
func (k *kafkaTopic) at(m ledger.Message, position string) error {
	k.mu.Lock()
	place := k.places[m.N]
	k.mu.Unlock()
	if place == "" {
		return nil // it was never confirmed, and so nobody knows
	}
	partition, offset, _ := strings.Cut(place, "/")
	digits := strings.FieldsFunc(strings.ReplaceAll(position, k.topic, ""), func(r rune) bool { return r < '0' || r > '9' })
	if len(digits) != 2 || digits[0] != partition || digits[1] != offset {
		return fmt.Errorf("it lay in partition %s at %s", partition, offset)
	}
	return nil
}

// letters reads a topic of dead letters until ctx ends.
func (k *kafkaTopic) letters(ctx context.Context, l *ledger.Ledger) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(k.addr), kgo.ConsumeTopics(k.topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(200*time.Millisecond))
	if err != nil {
		return err
	}
	defer client.Close()
	for ctx.Err() == nil {
		client.PollFetches(ctx).EachRecord(func(r *kgo.Record) { // errors are those of a broker that is away
			letter := ledger.Letter{Key: string(r.Key), Payload: r.Value, Headers: make(map[string]string)}
			for _, h := range r.Headers {
				letter.Headers[h.Key] = string(h.Value)
			}
			l.Died(letter)
		})
	}
	return nil
}

// left is how many messages of the topic are not settled by the group whose name contains
// something.
func (k *kafkaTopic) left(t *testing.T, group string) int64 {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(k.addr))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ends, err := k.ends(ctx, client)
	if err != nil {
		t.Fatalf("the ends of %s: %v", k.topic, err)
	}
	groups, err := kmsg.NewPtrListGroupsRequest().RequestWith(ctx, client)
	if err != nil {
		t.Fatalf("listing groups: %v", err)
	}
	var names []string
	for _, g := range groups.Groups {
		names = append(names, g.Group)
		if strings.Contains(g.Group, group) {
			left, err := k.lag(ctx, client, g.Group, ends)
			if err != nil {
				t.Fatalf("what group %s has settled: %v", g.Group, err)
			}
			return left
		}
	}
	t.Fatalf("there is no group of %s among %q", group, names)
	return 0
}

// ends are the offsets behind the last message of each partition.
func (k *kafkaTopic) ends(ctx context.Context, client *kgo.Client) (map[int32]int64, error) {
	meta := kmsg.NewPtrMetadataRequest()
	topic := kmsg.NewMetadataRequestTopic()
	topic.Topic = &k.topic
	meta.Topics = append(meta.Topics, topic)
	found, err := meta.RequestWith(ctx, client)
	if err != nil {
		return nil, err
	}
	request := kmsg.NewPtrListOffsetsRequest()
	asked := kmsg.NewListOffsetsRequestTopic()
	asked.Topic = k.topic
	for _, p := range found.Topics[0].Partitions {
		partition := kmsg.NewListOffsetsRequestTopicPartition()
		partition.Partition, partition.Timestamp = p.Partition, -1
		asked.Partitions = append(asked.Partitions, partition)
	}
	request.Topics = append(request.Topics, asked)
	answer, err := request.RequestWith(ctx, client)
	if err != nil {
		return nil, err
	}
	ends := make(map[int32]int64)
	for _, p := range answer.Topics[0].Partitions {
		err = errors.Join(err, kerr.ErrorForCode(p.ErrorCode))
		ends[p.Partition] = p.Offset
	}
	return ends, err
}

func (k *kafkaTopic) lag(ctx context.Context, client *kgo.Client, group string, ends map[int32]int64) (int64, error) {
	request := kmsg.NewPtrOffsetFetchRequest()
	request.Group = group
	topic := kmsg.NewOffsetFetchRequestTopic()
	topic.Topic = k.topic
	one := kmsg.NewOffsetFetchRequestGroup()
	one.Group = group
	grouped := kmsg.NewOffsetFetchRequestGroupTopic()
	grouped.Topic = k.topic
	var left int64
	for p, end := range ends {
		left += end
		topic.Partitions = append(topic.Partitions, p)
		grouped.Partitions = append(grouped.Partitions, p)
	}
	request.Topics, one.Topics = append(request.Topics, topic), append(one.Topics, grouped)
	request.Groups = append(request.Groups, one)
	answer, err := request.RequestWith(ctx, client)
	if err != nil {
		return 0, err
	}
	for _, t := range answer.Topics { // the client fills them in when the broker answers by group
		for _, p := range t.Partitions {
			left -= max(p.Offset, 0)
		}
	}
	return left, nil
}
