package endpointtest

import (
	"hash/fnv"
	"slices"
	"sync"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// FakeBroker is a partitioned log in memory, with consumer groups, dead letters, and
// switches for what brokers do on bad days. It is safe for concurrent use.
type FakeBroker struct {
	mu         sync.Mutex
	partitions int
	channels   map[string]*fakeChannel
	// wake is closed and replaced whenever a waiting Receive may have something to do.
	wake chan struct{}
	// epoch counts connections: loans of an earlier one are void.
	epoch   uint64
	down    time.Time
	stalled bool
	refuse  int // how many publishes to refuse, -1 for all
	lose    int // how many answers to lose, -1 for all
	failure error
}

// fakeChannel is one topic. born tells it from one of the same name that was deleted.
type fakeChannel struct {
	name      string
	born      int
	parts     []fakePartition
	stored    []*message.Message
	dead      []*message.Message
	groups    map[string]*fakeGroup
	bookmarks map[string]*message.Position
	turn      int
}

type fakePartition struct {
	low int64
	log []*message.Message
}

func (p *fakePartition) end() int64 { return p.low + int64(len(p.log)) }

func (p *fakePartition) at(offset int64) *message.Message {
	if offset < p.low || offset >= p.end() {
		return nil
	}
	return p.log[offset-p.low]
}

// NewFakeBroker makes a broker without channels.
func NewFakeBroker(partitions int) *FakeBroker {
	return &FakeBroker{partitions: partitions, channels: make(map[string]*fakeChannel), wake: make(chan struct{}), epoch: 1}
}

// Create makes an empty channel.
func (b *FakeBroker) Create(topic string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.create(topic, 0)
}

func (b *FakeBroker) create(topic string, born int) *fakeChannel {
	ch := &fakeChannel{
		name: topic, born: born, parts: make([]fakePartition, b.partitions),
		groups: make(map[string]*fakeGroup), bookmarks: make(map[string]*message.Position),
	}
	b.channels[topic] = ch
	return ch
}

// Produce puts messages into a channel, whatever the switches say, and creates it if
// need be.
func (b *FakeBroker) Produce(topic string, messages ...*message.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ch := b.channels[topic]
	if ch == nil {
		ch = b.create(topic, 0)
	}
	for _, m := range messages {
		ch.store(m)
	}
	b.changed()
}

// Messages are all messages that were ever stored in a channel, in their order.
func (b *FakeBroker) Messages(topic string) []*message.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	if ch := b.channels[topic]; ch != nil {
		return slices.Clone(ch.stored)
	}
	return nil
}

// DeadLetters are the messages of a channel that were rejected.
func (b *FakeBroker) DeadLetters(topic string) []*message.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	if ch := b.channels[topic]; ch != nil {
		return slices.Clone(ch.dead)
	}
	return nil
}

// store appends a copy of m that has a time. Equal keys go to the same partition.
func (ch *fakeChannel) store(m *message.Message) (partition int32, offset int64) {
	copied := *m
	copied.Metadata = nil
	if copied.Time.IsZero() {
		copied.Time = time.Now()
	}
	if copied.Key == nil {
		partition = int32(ch.turn % len(ch.parts))
		ch.turn++
	} else {
		h := fnv.New32a()
		_, _ = h.Write(copied.Key) // a hash takes everything
		partition = int32(h.Sum32() % uint32(len(ch.parts)))
	}
	p := &ch.parts[partition]
	offset = p.end()
	p.log = append(p.log, &copied)
	ch.stored = append(ch.stored, &copied)
	return partition, offset
}

// changed wakes every waiting Receive.
func (b *FakeBroker) changed() {
	close(b.wake)
	b.wake = make(chan struct{})
}

func (b *FakeBroker) downSince() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.down
}
