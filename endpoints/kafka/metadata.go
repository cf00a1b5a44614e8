package kafka

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"regexp"
	"slices"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/metadata"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// topology is what the cluster said about itself at one moment.
type topology struct {
	cluster string
	topics  map[string]*topicInfo
}

type topicInfo struct {
	name     string
	code     kafkago.Error
	internal bool
	// leaders holds the leader of each partition, by partition; noLeader where there is
	// none at the moment.
	leaders []int32
}

const noLeader int32 = -1

// metadata asks the cluster about the named topics, or about all of them.
func (c *client) metadata(ctx context.Context, names []string, all bool) (*topology, error) {
	req := &metadata.Request{TopicNames: names}
	if all {
		req.TopicNames = nil
	} else if names == nil {
		req.TopicNames = []string{}
	}
	m, err := c.call(ctx, anyBroker, req)
	if err != nil {
		return nil, err
	}
	res := m.(*metadata.Response)
	t := &topology{cluster: res.ClusterID, topics: make(map[string]*topicInfo, len(res.Topics))}
	for i := range res.Topics {
		t.topics[res.Topics[i].Name] = newTopicInfo(&res.Topics[i])
	}
	return t, nil
}

func newTopicInfo(t *metadata.ResponseTopic) *topicInfo {
	slices.SortFunc(t.Partitions, func(a, b metadata.ResponsePartition) int {
		return cmp.Compare(a.PartitionIndex, b.PartitionIndex)
	})
	info := &topicInfo{name: t.Name, code: kafkago.Error(t.ErrorCode), internal: t.IsInternal}
	for i, p := range t.Partitions {
		if int(p.PartitionIndex) != i {
			break // partitions count from 0 without holes; a hole is half of an answer
		}
		leader := p.LeaderID
		if p.ErrorCode != 0 && kafkago.Error(p.ErrorCode) != kafkago.ReplicaNotAvailable {
			leader = noLeader
		}
		info.leaders = append(info.leaders, leader)
	}
	return info
}

// spec is what a channel of this endpoint reads: topics by name, or by pattern.
type spec struct {
	topics  []string // sorted, without repeats
	pattern *regexp.Regexp
}

func (s *spec) key() string {
	if s.pattern != nil {
		return "/" + s.pattern.String() + "/"
	}
	key := ""
	for i, t := range s.topics {
		if i > 0 {
			key += ","
		}
		key += t
	}
	return key
}

// matching returns the topics of t that the spec reads, sorted.
func (s *spec) matching(t *topology) []*topicInfo {
	var found []*topicInfo
	if s.pattern == nil {
		for _, name := range s.topics {
			if info := t.topics[name]; info != nil {
				found = append(found, info)
			}
		}
		return found
	}
	for name, info := range t.topics {
		// Kafka's own topics are not messages.
		if !info.internal && s.pattern.MatchString(name) {
			found = append(found, info)
		}
	}
	slices.SortFunc(found, func(a, b *topicInfo) int { return cmp.Compare(a.name, b.name) })
	return found
}

// unknownFor is how long a topic is looked for before it counts as missing: one that
// was just made takes a moment to be known to every broker.
const unknownFor = time.Second

// discover finds the topics of a spec and their leaders, all of them usable. It waits a
// little for topics that are being made and leaders that are being elected.
func (c *client) discover(ctx context.Context, s *spec) (*topology, []*topicInfo, error) {
	began := time.Now()
	for attempt := 0; ; attempt++ {
		t, err := c.metadata(ctx, s.topics, s.pattern != nil)
		if err != nil {
			return nil, nil, c.unavailable(err)
		}
		found := s.matching(t)
		problem, wait := s.problem(t, found)
		if problem == nil {
			return t, found, nil
		}
		if time.Since(began) > wait || !pause(ctx, backoff(attempt, 50*time.Millisecond, 500*time.Millisecond)) {
			return nil, nil, problem
		}
	}
}

// problem says what is wrong with the topics, and for how long that may pass by itself.
func (s *spec) problem(t *topology, found []*topicInfo) (*message.Error, time.Duration) {
	for _, name := range s.topics {
		if t.topics[name] == nil {
			return brokerError("topic "+name, kafkago.UnknownTopicOrPartition), unknownFor
		}
	}
	partitions := 0
	for _, info := range found {
		if info.code != 0 {
			e := brokerError("topic "+info.name, info.code)
			switch {
			case e.Kind == message.NotFound:
				return e, unknownFor
			case transient(info.code):
				return e, patience
			}
			return e, 0
		}
		if i := slices.Index(info.leaders, noLeader); i >= 0 {
			e := message.Errorf(message.Unavailable, "partition %d of topic %s has no leader at the moment", i, info.name)
			e.RetryAfter = retryAfter
			return e, patience
		}
		partitions += len(info.leaders)
	}
	if partitions > message.MaxPartitions {
		return tooManyPartitions(partitions), 0
	}
	return nil, 0
}

// compareMarks is the order of a position's marks.
func compareMarks(a, b message.Mark) int {
	return cmp.Or(cmp.Compare(a.Channel, b.Channel), cmp.Compare(a.Partition, b.Partition))
}

func tooManyPartitions(n int) *message.Error {
	return message.Errorf(message.Mismatch,
		"the channel has %d partitions, and one subscription can hold %d: read fewer topics", n, message.MaxPartitions)
}

// backoff is how long to wait before attempt n+1: it doubles from least to most, and
// half of it is chance, so that many streams do not come back in step.
func backoff(n int, least, most time.Duration) time.Duration {
	d := most
	if n < 16 {
		d = min(least<<n, most)
	}
	return d/2 + rand.N(d/2+1)
}

// pause waits, and reports whether ctx let it.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// isCode reports whether err is the given error of Kafka.
func isCode(err error, codes ...kafkago.Error) bool {
	e, ok := errors.AsType[kafkago.Error](err)
	return ok && slices.Contains(codes, e)
}
