package kafka

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/caddy-message-api/caddy-message-api/message"
)

const (
	// metadataAge is how old the leaders of a topic may be that nobody complains about.
	metadataAge = 10 * time.Second
	// maxTopics is how many topics a producer remembers before it forgets idle ones.
	maxTopics = 512
)

// producer writes to any topic of the cluster.
type producer struct {
	c           *client
	compression kafkago.Compression
	// lost is told of messages that nobody waited for and that were not stored.
	lost func(topic string, err error)

	lanes sync.WaitGroup

	mu     sync.RWMutex
	closed bool
	topics map[string]*topicProducer
}

func newProducer(c *client, compression kafkago.Compression, lost func(topic string, err error)) *producer {
	return &producer{c: c, compression: compression, lost: lost, topics: make(map[string]*topicProducer)}
}

// close takes no more messages, and waits a moment for those that are on their way.
func (p *producer) close(wait time.Duration) {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	done := make(chan struct{})
	go func() {
		p.lanes.Wait()
		close(done)
	}()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// topic returns what is known of a topic, which may be nothing yet. The caller must
// release it when its messages are in their lanes.
func (p *producer) topic(name string) (*topicProducer, error) {
	p.mu.RLock()
	t, closed := p.topics[name], p.closed
	if t != nil && !closed {
		t.hold()
	}
	p.mu.RUnlock()
	if t != nil && !closed {
		return t, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, message.Errorf(message.Unavailable, "the Kafka endpoint was closed by a new configuration")
	}
	if t = p.topics[name]; t == nil {
		if len(p.topics) >= maxTopics {
			p.forget()
		}
		t = &topicProducer{p: p, name: name}
		p.topics[name] = t
	}
	t.hold()
	return t, nil
}

// hold keeps the topic, and closing waits for it.
func (t *topicProducer) hold() {
	t.users.Add(1)
	t.p.lanes.Add(1)
}

func (t *topicProducer) release() {
	t.users.Add(-1)
	t.p.lanes.Done()
}

// forget drops topics that nothing is on its way to: their names may come from clients,
// and memory must not grow with them.
func (p *producer) forget() {
	for name, t := range p.topics {
		if t.users.Load() == 0 && !t.isBusy() {
			delete(p.topics, name)
		}
	}
}

// topicProducer is one topic: its leaders and its lanes.
type topicProducer struct {
	p    *producer
	name string
	// users counts publishes that are choosing a lane.
	users atomic.Int32

	view      atomic.Pointer[topicView]
	refreshMu sync.Mutex
	stale     atomic.Bool // a refresh in the background runs

	mu     sync.Mutex
	lanes  []*lane // by partition
	sticky sticky
}

// topicView is what the cluster said of a topic at a time.
type topicView struct {
	leaders []int32
	at      time.Time
	err     *message.Error // why the topic can't be written, if so
	missing time.Time      // since when it is unknown
}

func (t *topicProducer) isBusy() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range t.lanes {
		if l != nil && l.isBusy() {
			return true
		}
	}
	return false
}

func (t *topicProducer) leader(partition int32) int32 {
	v := t.view.Load()
	if v == nil || int(partition) >= len(v.leaders) {
		return noLeader
	}
	return v.leaders[partition]
}

func (t *topicProducer) missingFor() time.Duration {
	if v := t.view.Load(); v != nil && !v.missing.IsZero() {
		return time.Since(v.missing)
	}
	return 0
}

// refresh asks the cluster who leads the topic's partitions. Callers that come while it
// asks wait for that answer and share it.
func (t *topicProducer) refresh(ctx context.Context) error {
	came := time.Now()
	t.refreshMu.Lock()
	defer t.refreshMu.Unlock()
	old := t.view.Load()
	if old != nil && old.at.After(came) {
		return old.problem()
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	asked := time.Now()
	top, err := t.p.c.metadata(ctx, []string{t.name}, false)
	if err != nil {
		return t.p.c.unavailable(err)
	}
	next := &topicView{at: time.Now()}
	info := top.topics[t.name]
	switch {
	case info == nil || info.code == kafkago.UnknownTopicOrPartition:
		next.err = brokerError("topic "+t.name, kafkago.UnknownTopicOrPartition)
		next.missing = asked
		if old != nil && !old.missing.IsZero() {
			next.missing = old.missing
		}
	case info.code != 0:
		next.err = brokerError("topic "+t.name, info.code)
	default:
		next.leaders = info.leaders
	}
	t.view.Store(next)
	return next.problem()
}

func (v *topicView) problem() error {
	if v.err != nil {
		return v.err
	}
	return nil
}

// ready returns the topic's leaders, asking the cluster if need be. While a good view
// ages, it is used, and renewed in the background.
func (t *topicProducer) ready(ctx context.Context, deadline time.Time) ([]int32, error) {
	if v := t.view.Load(); v != nil && len(v.leaders) > 0 {
		if time.Since(v.at) > metadataAge && t.stale.CompareAndSwap(false, true) {
			t.p.lanes.Go(func() {
				defer t.stale.Store(false)
				_ = t.refresh(t.p.c.ctx) // the view says what is wrong, and the next message meets it
			})
		}
		return v.leaders, nil
	}
	// Waiting must not outlast the promise, nor the caller.
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	for attempt := 0; ; attempt++ {
		err := t.refresh(ctx)
		v := t.view.Load()
		if err == nil && v != nil && len(v.leaders) > 0 {
			return v.leaders, nil
		}
		if err == nil {
			err = t.p.c.unavailable(errNoLeader)
		}
		wait := backoff(attempt, 20*time.Millisecond, 300*time.Millisecond)
		if !t.worthWaiting(err, time.Now().Add(wait), deadline) || !pause(ctx, wait) {
			return nil, err
		}
	}
}

func (t *topicProducer) worthWaiting(err error, now, deadline time.Time) bool {
	switch message.KindOf(err) {
	case message.NotFound:
		return t.missingFor() <= unknownFor && now.Before(deadline)
	case message.Unavailable:
		return t.p.c.health.downFor() <= givenUp && now.Before(deadline)
	}
	return false
}

// lane chooses where a message goes.
func (t *topicProducer) lane(key []byte, size int, leaders []int32) *lane {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lanes) < len(leaders) {
		t.lanes = append(t.lanes, make([]*lane, len(leaders)-len(t.lanes))...)
	}
	var n int32
	if key != nil {
		n = partitionOf(key, len(leaders))
	} else {
		n = t.sticky.next(size, len(leaders),
			func(i int32) bool { return t.lanes[i] != nil && t.lanes[i].isBusy() },
			func(i int32) bool { return leaders[i] != noLeader })
	}
	if t.lanes[n] == nil {
		t.lanes[n] = &lane{topic: t, partition: n}
	}
	return t.lanes[n]
}
