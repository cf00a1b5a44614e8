package kafka

import (
	"context"
	"errors"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/findcoordinator"
	"github.com/segmentio/kafka-go/protocol/listoffsets"
	"github.com/segmentio/kafka-go/protocol/offsetcommit"
	"github.com/segmentio/kafka-go/protocol/offsetfetch"
)

// The times that ListOffsets understands besides Unix milliseconds.
const (
	latest   int64 = -1
	earliest int64 = -2
)

// offsetsAt asks one broker which offsets its partitions have at a time. Partitions whose
// answer is an error are in failed.
func (c *client) offsetsAt(ctx context.Context, broker int32, of []partition, at int64) (
	offsets map[partition]int64, failed map[partition]kafkago.Error, err error,
) {
	req := &listoffsets.Request{ReplicaID: -1}
	index := make(map[string]int)
	for _, p := range of {
		i, ok := index[p.topic]
		if !ok {
			i = len(req.Topics)
			index[p.topic] = i
			req.Topics = append(req.Topics, listoffsets.RequestTopic{Topic: p.topic})
		}
		req.Topics[i].Partitions = append(req.Topics[i].Partitions,
			listoffsets.RequestPartition{Partition: p.id, CurrentLeaderEpoch: -1, Timestamp: at})
	}
	m, err := c.call(ctx, broker, req)
	if err != nil {
		return nil, nil, err
	}
	offsets, failed = make(map[partition]int64, len(of)), make(map[partition]kafkago.Error)
	for _, t := range m.(*listoffsets.Response).Topics {
		for _, p := range t.Partitions {
			at := partition{t.Topic, p.Partition}
			if p.ErrorCode != 0 {
				failed[at] = kafkago.Error(p.ErrorCode)
				continue
			}
			offsets[at] = p.Offset
		}
	}
	return offsets, failed, nil
}

// offsets asks all leaders of the partitions for their offsets at a time. For a time of
// the future, or after the last message, that is the end.
func (c *client) offsets(ctx context.Context, topics []*topicInfo, of []partition, at int64) (map[partition]int64, error) {
	all := make(map[partition]int64, len(of))
	err := c.eachLeader(topics, of, func(broker int32, led []partition) error {
		return c.settled(ctx, func() error {
			got, failed, err := c.offsetsAt(ctx, broker, led, at)
			if err != nil {
				return c.unavailable(err)
			}
			for p, code := range failed {
				return brokerError("topic "+p.topic, code)
			}
			for p, offset := range got {
				all[p] = offset
			}
			return nil
		})
	})
	if err != nil || at < 0 {
		return all, err
	}
	var behind []partition
	for _, p := range of {
		if all[p] < 0 {
			behind = append(behind, p)
		}
	}
	if len(behind) == 0 {
		return all, nil
	}
	ends, err := c.offsets(ctx, topics, behind, latest)
	for p, offset := range ends {
		all[p] = offset
	}
	return all, err
}

// eachLeader calls f once for every broker that leads some of the partitions.
func (c *client) eachLeader(topics []*topicInfo, of []partition, f func(broker int32, led []partition) error) error {
	leaders := make(map[string][]int32, len(topics))
	for _, t := range topics {
		leaders[t.name] = t.leaders
	}
	led := make(map[int32][]partition)
	for _, p := range of {
		if l := leaders[p.topic]; int(p.id) < len(l) {
			led[l[p.id]] = append(led[l[p.id]], p)
		}
	}
	for broker, parts := range led {
		if err := f(broker, parts); err != nil {
			return err
		}
	}
	return nil
}

// settled tries f again for a moment while what it reports may pass by itself.
func (c *client) settled(ctx context.Context, f func() error) error {
	for attempt := 0; ; attempt++ {
		err := f()
		if err == nil || attempt == 8 {
			return err
		}
		e, ok := errors.AsType[*codeError](err)
		if !ok || !transient(e.code) || memberOnly(e.code) || !pause(ctx, backoff(attempt, 20*time.Millisecond, 500*time.Millisecond)) {
			return err
		}
	}
}

// memberOnly reports whether a code says that a membership is over, which does not pass.
func memberOnly(code kafkago.Error) bool {
	switch code {
	case kafkago.IllegalGeneration, kafkago.UnknownMemberId, kafkago.RebalanceInProgress, kafkago.FencedInstanceID:
		return true
	}
	return false
}

// coordinator finds the broker that keeps a group's offsets.
func (c *client) coordinator(ctx context.Context, group string) (int32, error) {
	if broker, ok := c.coordinators.Load(group); ok {
		return broker.(int32), nil
	}
	m, err := c.call(ctx, anyBroker, &findcoordinator.Request{Key: group})
	if err != nil {
		return 0, c.unavailable(err)
	}
	res := m.(*findcoordinator.Response)
	if res.ErrorCode != 0 {
		return 0, brokerError("group "+group, kafkago.Error(res.ErrorCode))
	}
	c.coordinators.Store(group, res.NodeID)
	return res.NodeID, nil
}

// forget makes the next call look for the group's coordinator again.
func (c *client) forget(group string) { c.coordinators.Delete(group) }

// committed is an offset that is stored for a group, and the note stored with it.
type committed struct {
	offset int64
	note   string
}

// committed returns all offsets that are stored for a group.
func (c *client) committed(ctx context.Context, group string) (map[partition]committed, error) {
	var all map[partition]committed
	err := c.settled(ctx, func() (err error) {
		all, err = c.fetchCommitted(ctx, group)
		if err != nil {
			c.forget(group)
		}
		return err
	})
	return all, err
}

func (c *client) fetchCommitted(ctx context.Context, group string) (map[partition]committed, error) {
	broker, err := c.coordinator(ctx, group)
	if err != nil {
		return nil, err
	}
	m, err := c.call(ctx, broker, &offsetfetch.Request{GroupID: group})
	if err != nil {
		return nil, c.unavailable(err)
	}
	res := m.(*offsetfetch.Response)
	all := make(map[partition]committed)
	switch code := kafkago.Error(res.ErrorCode); code {
	case 0:
	case kafkago.GroupIdNotFound:
		return all, nil
	default:
		return nil, brokerError("group "+group, code)
	}
	for _, t := range res.Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode != 0 {
				return nil, brokerError("group "+group, kafkago.Error(p.ErrorCode))
			}
			if p.CommittedOffset >= 0 {
				all[partition{t.Name, p.PartitionIndex}] = committed{p.CommittedOffset, p.Metadata}
			}
		}
	}
	return all, nil
}

// identity is how a commit proves its right: as a member of a generation, or as nobody,
// which is good for groups without members.
type identity struct {
	group      string
	generation int32
	member     string
}

func nobody(group string) identity { return identity{group: group, generation: -1} }

// commit stores offsets for a group.
func (c *client) commit(ctx context.Context, who identity, offsets map[partition]committed) error {
	if len(offsets) == 0 {
		return nil
	}
	return c.settled(ctx, func() error {
		err := c.commitOnce(ctx, who, offsets)
		if err != nil {
			c.forget(who.group)
		}
		return err
	})
}

func (c *client) commitOnce(ctx context.Context, who identity, offsets map[partition]committed) error {
	broker, err := c.coordinator(ctx, who.group)
	if err != nil {
		return err
	}
	req := &offsetcommit.Request{
		GroupID: who.group, GenerationID: who.generation, MemberID: who.member, RetentionTimeMs: -1,
	}
	index := make(map[string]int)
	for p, o := range offsets {
		i, ok := index[p.topic]
		if !ok {
			i = len(req.Topics)
			index[p.topic] = i
			req.Topics = append(req.Topics, offsetcommit.RequestTopic{Name: p.topic})
		}
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, offsetcommit.RequestPartition{
			PartitionIndex: p.id, CommittedOffset: o.offset, CommittedLeaderEpoch: -1, CommittedMetadata: o.note,
		})
	}
	m, err := c.call(ctx, broker, req)
	if err != nil {
		return c.unavailable(err)
	}
	for _, t := range m.(*offsetcommit.Response).Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode != 0 {
				return brokerError("committing offsets of group "+who.group, kafkago.Error(p.ErrorCode))
			}
		}
	}
	return nil
}
