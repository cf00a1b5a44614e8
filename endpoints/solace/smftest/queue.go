package smftest

import (
	"container/heap"
	"time"
)

// queue keeps messages until a consumer has settled them. All of it is under the server's
// lock.
type queue struct {
	once
	Queue
	s      *Server
	name   string
	topics map[string]bool
	down   bool
	// owner is the client of a temporary queue; "" if it is durable.
	owner string
	// expiry deletes a temporary queue whose client does not come back.
	expiry *time.Timer

	ready   backlog
	unacked map[uint64]*stored // by the id of their last delivery
	lastID  uint64
	flows   []*flow
	turn    int
	pumping bool
	counts  Counts
	// news is closed when a message comes while somebody waits in Take.
	news chan struct{}
}

// stored is a message in a queue.
type stored struct {
	p       *packet
	order   uint64 // in which the queue got it
	expires time.Time
	index   int    // in the backlog; -1: it is not there
	id      uint64 // of its last delivery; 0: none
	times   int    // that it was delivered
	flow    *flow  // that holds it
}

const (
	defaultUnacked = 10_000
	defaultDMQ     = "#DEAD_MSG_QUEUE"
	// temporaryLife is how long a temporary queue waits for its client.
	temporaryLife = 60 * time.Second
)

func (q *queue) set(settings Queue) {
	if settings.MaxUnacked == 0 {
		settings.MaxUnacked = defaultUnacked
	}
	if settings.DeadMessageQueue == "" {
		settings.DeadMessageQueue = defaultDMQ
	}
	q.Queue = settings
	for _, filter := range settings.Topics {
		q.topics[filter] = true
		q.s.topics.add(filter, q)
	}
	q.pump()
}

// refuses says why a message can't be put in.
func (q *queue) refuses() status {
	switch {
	case q.down:
		return status{503, "Queue Shutdown"}
	case q.MaxMessages > 0 && len(q.ready)+len(q.unacked) >= q.MaxMessages:
		return status{503, "Spool Over Quota"}
	default:
		return statusOK
	}
}

// put puts a message in.
func (q *queue) put(p *packet) {
	q.s.order++
	m := &stored{p: p, order: q.s.order}
	if q.RespectTTL && p.ttl > 0 {
		m.expires = time.Now().Add(p.ttl)
	}
	heap.Push(&q.ready, m)
	if q.news != nil {
		close(q.news)
		q.news = nil
	}
	q.pump()
}

// pump delivers as long as there are messages, and consumers that want them.
func (q *queue) pump() {
	if q.pumping { // what is given up may come back to us as to a dead message queue
		return
	}
	q.pumping = true
	defer func() { q.pumping = false }()
	for q.next() != nil {
		f := q.consumer()
		if f == nil {
			return
		}
		f.deliver(heap.Pop(&q.ready).(*stored))
	}
}

// next is the message whose turn it is; nil: there is none.
func (q *queue) next() *stored {
	for len(q.ready) > 0 && !q.down {
		m := q.ready[0]
		if m.expires.IsZero() || time.Now().Before(m.expires) {
			return m
		}
		heap.Pop(&q.ready)
		q.giveUp(m)
	}
	return nil
}

// consumer is the flow whose turn it is; nil: none can take anything.
func (q *queue) consumer() *flow {
	if !q.NonExclusive {
		if len(q.flows) > 0 && q.flows[0].wants() {
			return q.flows[0]
		}
		return nil
	}
	for range q.flows {
		q.turn++
		if f := q.flows[q.turn%len(q.flows)]; f.wants() {
			return f
		}
	}
	return nil
}

// back takes a message back that was delivered and not accepted.
func (q *queue) back(m *stored) {
	m.flow = nil
	if q.MaxRedeliveries > 0 && m.times > q.MaxRedeliveries {
		q.giveUp(m)
		return
	}
	heap.Push(&q.ready, m)
}

// giveUp moves a message to the dead message queue, if it wants to and there is one.
func (q *queue) giveUp(m *stored) {
	q.counts.GivenUp++
	dead := q.s.queues[q.DeadMessageQueue]
	if dead != nil && dead != q && m.p.flags&flagDMQEligible != 0 && dead.refuses().ok() {
		dead.put(m.p)
	}
}

// settle carries out the outcome of one message, if this client has it.
func (q *queue) settle(m *stored, kind byte) {
	delete(q.unacked, m.id)
	m.flow.held--
	switch kind {
	case failed, released:
		q.counts.Failed++
		q.back(m)
	case rejected:
		q.counts.Rejected++
		m.flow = nil
		q.giveUp(m)
	default:
		q.counts.Acked++
		m.flow = nil
	}
}

// leave unbinds a flow. What it holds becomes ready again, in its old place.
func (q *queue) leave(f *flow) {
	wasActive := false
	for i, other := range q.flows {
		if other == f {
			wasActive = i == 0
			q.flows = append(q.flows[:i], q.flows[i+1:]...)
			break
		}
	}
	delete(f.c.flows, f.id)
	for id, m := range q.unacked {
		if m.flow == f {
			delete(q.unacked, id)
			q.back(m)
		}
	}
	if wasActive && len(q.flows) > 0 && !q.NonExclusive {
		q.flows[0].activate()
	}
	q.pump()
}

// end ends all flows with a reason.
func (q *queue) end(why status) {
	q.pumping = true // none gets what another has left
	defer func() { q.pumping = false }()
	for len(q.flows) > 0 {
		f := q.flows[len(q.flows)-1] // the last first, so that none becomes active
		q.leave(f)
		f.c.write(func(b []byte) []byte {
			return appendAssured(b, f.version, ctlUnbind, nil, why, append32(nil, argFlow, f.id))
		})
	}
}

func (q *queue) count() Counts {
	c := q.counts
	c.Ready, c.Unacked, c.Flows = len(q.ready), len(q.unacked), len(q.flows)
	return c
}

// backlog is a heap of messages in the order in which the queue got them.
type backlog []*stored

func (b backlog) Len() int           { return len(b) }
func (b backlog) Less(i, j int) bool { return b[i].order < b[j].order }
func (b backlog) Swap(i, j int) {
	b[i], b[j] = b[j], b[i]
	b[i].index, b[j].index = i, j
}

// Push is for package heap.
func (b *backlog) Push(x any) {
	m := x.(*stored)
	m.index = len(*b)
	*b = append(*b, m)
}

// Pop is for package heap.
func (b *backlog) Pop() any {
	n := len(*b) - 1
	m := (*b)[n]
	(*b)[n] = nil
	*b = (*b)[:n]
	m.index = -1
	return m
}

var (
	_ target         = (*queue)(nil)
	_ heap.Interface = (*backlog)(nil)
)
