package kafka

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/caddy-message-api/caddy-message-api/message"
)

var errClosed = errors.New("the stream is closed")

// smallestFetch keeps fetches efficient when a window is tiny or the brokers are many.
const smallestFetch = 16 << 10

// reader fetches a set of partitions and keeps what it fetched until it is read. It has
// one goroutine, and one request under way, per broker that leads any of them.
type reader struct {
	c     *client
	limit int // bytes: what may be buffered
	//nolint:containedctx // the life of the stream, which outlives the call that made it
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	// wake says that something is ready to be read, or that the reader has ended.
	wake chan struct{}

	mu       sync.Mutex
	parts    map[partition]*part
	order    []*part
	loops    map[int32]chan struct{} // by broker, with a bell that makes it look again
	queue    []segment
	buffered int
	turn     int
	err      error

	reading reading
}

// part is one partition of a reader. Fields without a remark are guarded by the reader.
type part struct {
	partition
	lane  string
	epoch uint64
	gone  atomic.Bool // taken away: nothing of it is delivered any more

	leader  int32
	fetchAt int64
	ticket  uint64    // names the last fetch, so that answers to others are ignored
	hold    time.Time // until when it is not fetched
	need    int       // bytes that its next batch needs, if that is more than usual
	// fresh: it is read from its start, wherever that is.
	fresh bool
	// missing: the cluster did not know the topic when it was last asked.
	missing bool
	// last is what was read last, for the check when a topic comes back.
	last message.Mark

	// pos, mark, unread and track belong to whoever reads: what to decode next, what was
	// handed out last, and whether nothing was read of a partition that begins at its
	// start, wherever that is.
	pos    int64
	mark   message.Mark
	unread bool
	track  *tracker
}

// segment is what one fetch brought of one partition, or a gap in it.
type segment struct {
	p    *part
	data []byte
	gap  *message.Gap
	next int64 // after a gap: where reading goes on
}

func newReader(c *client, window message.Window) *reader {
	r := &reader{
		c: c, limit: window.Bytes,
		wake:  make(chan struct{}, 1),
		parts: make(map[partition]*part),
		loops: make(map[int32]chan struct{}),
	}
	r.ctx, r.cancel = context.WithCancel(c.ctx)
	return r
}

// add begins to read a partition. The reader is locked.
func (r *reader) add(at partition, leader int32, offset int64, fresh bool, epoch uint64) *part {
	p := &part{
		partition: at, lane: at.topic + "/" + strconv.Itoa(int(at.id)), epoch: epoch,
		leader: leader, fetchAt: offset, pos: offset, fresh: fresh, unread: fresh,
	}
	p.mark = message.Mark{Channel: at.topic, Partition: at.id, Next: offset}
	p.last = p.mark
	r.parts[at] = p
	r.order = append(r.order, p)
	return p
}

// remove ends reading a partition. The reader is locked.
func (r *reader) remove(p *part) {
	p.gone.Store(true)
	delete(r.parts, p.partition)
	r.order = slices.DeleteFunc(r.order, func(o *part) bool { return o == p })
	r.queue = slices.DeleteFunc(r.queue, func(s segment) bool {
		if s.p == p {
			r.buffered -= len(s.data)
		}
		return s.p == p
	})
}

// staff sees to it that every leader has its goroutine, and makes them look at what
// changed. The reader is locked.
func (r *reader) staff() {
	if r.err != nil {
		return
	}
	for _, p := range r.order {
		if p.leader == noLeader || r.loops[p.leader] != nil {
			continue
		}
		broker, bell := p.leader, make(chan struct{}, 1)
		r.loops[broker] = bell
		r.wg.Go(func() { r.run(broker, bell) })
	}
	r.ring()
}

func (r *reader) ring() {
	for _, bell := range r.loops {
		signal(bell)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// fail ends the reader for good.
func (r *reader) fail(err error) {
	r.mu.Lock()
	if r.err == nil {
		r.err = err
	}
	r.mu.Unlock()
	r.cancel()
	signal(r.wake)
}

// close ends the reader and waits for its goroutines.
func (r *reader) close() {
	r.fail(errClosed)
	r.wg.Wait()
}

// relead takes over what the cluster says about leaders.
func (r *reader) relead(t *topology) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return
	}
	var back []*part
	for _, p := range r.order {
		info := t.topics[p.topic]
		if info == nil || info.code != 0 || int(p.id) >= len(info.leaders) {
			p.leader = noLeader
			p.missing = p.missing || info == nil || info.code == kafkago.UnknownTopicOrPartition
			continue
		}
		if leader := info.leaders[p.id]; leader != p.leader {
			p.leader, p.hold = leader, time.Time{}
		}
		if p.missing && p.leader != noLeader {
			p.missing = false
			p.hold = time.Now().Add(time.Hour) // until it is known to be the same topic
			back = append(back, p)
		}
	}
	if len(back) > 0 {
		r.wg.Go(func() { r.recheck(t, back) })
	}
	r.staff()
}

// recheck finds out whether partitions whose topic was away for a while are those that
// they were, or were made anew.
func (r *reader) recheck(t *topology, back []*part) {
	r.mu.Lock()
	marks := make([]message.Mark, len(back))
	for i, p := range back {
		marks[i] = p.last
	}
	r.mu.Unlock()
	var topics []*topicInfo
	for _, info := range t.topics {
		topics = append(topics, info)
	}
	ctx, cancel := context.WithTimeout(r.ctx, connectTimeout)
	defer cancel()
	findings, err := r.c.verify(ctx, topics, marks)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range back {
		f, ok := findings[p.partition]
		p.hold = time.Time{}
		if err != nil || !ok {
			p.missing = true // the next look at the cluster tries again
			p.hold = time.Now().Add(watchInterval)
			continue
		}
		if f.reason != "" && !p.gone.Load() {
			r.queue = append(r.queue, segment{p: p, gap: gapAt(f.reason, p.partition, p.fetchAt, f.next), next: f.next})
			p.fetchAt = f.next
			p.ticket++
			signal(r.wake)
		}
	}
	r.staff()
}
