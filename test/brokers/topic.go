package brokers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const adminTimeout = 20 * time.Second

// Topic creates a topic with a name that nobody else has, and deletes it when the test
// ends. configs are the topic's, as "retention.ms=1000".
func Topic(t testing.TB, addr string, partitions int, configs ...string) string {
	t.Helper()
	name := UniqueName(t)
	CreateTopic(t, addr, name, partitions, configs...)
	return name
}

// UniqueName is a name for a topic or group that tells which test made it.
func UniqueName(t testing.TB) string {
	clean := strings.Map(func(r rune) rune {
		if r < 128 && (r == '-' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z') {
			return r
		}
		return '-'
	}, t.Name())
	return fmt.Sprintf("%s-%08x", clean[:min(len(clean), 100)], rand.Uint32())
}

// CreateTopic creates a topic and deletes it when the test ends.
func CreateTopic(t testing.TB, addr, name string, partitions int, configs ...string) {
	t.Helper()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, int32(partitions), 1
	for _, config := range configs {
		key, value, ok := strings.Cut(config, "=")
		if !ok {
			t.Fatalf("topic config %q is not key=value", config)
		}
		entry := kmsg.NewCreateTopicsRequestTopicConfig()
		entry.Name, entry.Value = key, &value
		topic.Configs = append(topic.Configs, entry)
	}
	request := kmsg.NewPtrCreateTopicsRequest()
	request.TimeoutMillis = int32(adminTimeout.Milliseconds())
	request.Topics = append(request.Topics, topic)
	err := admin(addr, func(ctx context.Context, client *kgo.Client) error {
		response, err := request.RequestWith(ctx, client)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(response.Topics[0].ErrorCode)
	})
	if err != nil {
		t.Fatalf("creating the topic %s: %v", name, err)
	}
	t.Cleanup(func() {
		// The broker may have been stopped by then, and its data go with it.
		if err := DeleteTopic(addr, name); err != nil {
			t.Logf("the topic %s stays: %v", name, err)
		}
	})
}

// DeleteTopic deletes a topic. That it is gone already is no error.
func DeleteTopic(addr, name string) error {
	request := kmsg.NewPtrDeleteTopicsRequest()
	request.TimeoutMillis = int32(adminTimeout.Milliseconds())
	topic := kmsg.NewDeleteTopicsRequestTopic()
	topic.Topic = &name
	request.TopicNames, request.Topics = []string{name}, append(request.Topics, topic)
	return admin(addr, func(ctx context.Context, client *kgo.Client) error {
		response, err := request.RequestWith(ctx, client)
		if err != nil {
			return err
		}
		err = kerr.ErrorForCode(response.Topics[0].ErrorCode)
		if errors.Is(err, kerr.UnknownTopicOrPartition) {
			return nil
		}
		return err
	})
}

// AddPartitions raises the number of a topic's partitions to total.
func AddPartitions(t testing.TB, addr, name string, total int) {
	t.Helper()
	request := kmsg.NewPtrCreatePartitionsRequest()
	request.TimeoutMillis = int32(adminTimeout.Milliseconds())
	topic := kmsg.NewCreatePartitionsRequestTopic()
	topic.Topic, topic.Count = name, int32(total)
	request.Topics = append(request.Topics, topic)
	err := admin(addr, func(ctx context.Context, client *kgo.Client) error {
		response, err := request.RequestWith(ctx, client)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(response.Topics[0].ErrorCode)
	})
	if err != nil {
		t.Fatalf("adding partitions to %s: %v", name, err)
	}
}

// DeleteRecords deletes all records of a partition before an offset, as retention does.
func DeleteRecords(t testing.TB, addr, name string, partition int, before int64) {
	t.Helper()
	part := kmsg.NewDeleteRecordsRequestTopicPartition()
	part.Partition, part.Offset = int32(partition), before
	topic := kmsg.NewDeleteRecordsRequestTopic()
	topic.Topic, topic.Partitions = name, append(topic.Partitions, part)
	request := kmsg.NewPtrDeleteRecordsRequest()
	request.TimeoutMillis = int32(adminTimeout.Milliseconds())
	request.Topics = append(request.Topics, topic)
	err := admin(addr, func(ctx context.Context, client *kgo.Client) error {
		response, err := request.RequestWith(ctx, client)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(response.Topics[0].Partitions[0].ErrorCode)
	})
	if err != nil {
		t.Fatalf("deleting records of %s/%d: %v", name, partition, err)
	}
}

func admin(addr string, do func(context.Context, *kgo.Client) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		return err
	}
	defer client.Close()
	return do(ctx, client)
}
