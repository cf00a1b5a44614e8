package smftest

import (
	"strings"
	"time"
)

// flow is one client's consumption of a queue. All of it is under the server's lock.
type flow struct {
	id      uint32
	c       *conn
	q       *queue
	version byte
	// window is how many messages may be on their way: delivered, and not yet counted as
	// received by the client's last word.
	window int
	onWay  []uint64 // their ids
	last   uint64   // id of the last delivery
	held   int      // messages that are unacknowledged
	halted bool     // by a fault
	tells  bool     // the client wants to know when it becomes active
}

// wants says whether the next message can be delivered here.
func (f *flow) wants() bool {
	return !f.halted && len(f.onWay) < f.window && f.held < f.q.MaxUnacked
}

// hold notes that the client has a message.
func (f *flow) hold(m *stored) {
	m.flow = f
	f.held++
	f.q.unacked[m.id] = m
}

// deliver sends a message. Its id must be greater than any before on this flow, or the
// client library takes it for a duplicate; so one that failed gets a new id. One that
// comes again because a connection broke keeps its id: then a client that has it in hand
// drops it, and one that has acknowledged it does so again.
func (f *flow) deliver(m *stored) {
	fault := f.q.s.fault(OpDeliver, f.q.name)
	m.times++
	f.q.counts.Delivered++
	if m.times > 1 {
		f.q.counts.Redelivered++
	}
	if m.id <= f.last || f.q.s.options.RenumberAfterRebind {
		f.q.lastID++
		m.id = f.q.lastID
	}
	d := delivery{flow: f.id, id: m.id, previous: f.last, redelivered: m.times > 1}
	f.last = m.id
	f.onWay = append(f.onWay, m.id)
	f.hold(m)
	if !fault.Silent {
		f.c.write(func(b []byte) []byte { return m.p.appendGuaranteed(b, d) })
	}
	switch {
	case fault.Drop && fault.Silent:
		f.halted = true
		f.c.cut()
	case fault.Drop:
		f.halted = true // nothing more can go this way
		f.c.cutAfterWriting()
	}
	if fault.Delay > 0 {
		f.halt(fault.Delay)
	}
}

// halt delivers nothing for a while.
func (f *flow) halt(d time.Duration) {
	f.halted = true
	time.AfterFunc(d, func() {
		f.q.s.mu.Lock()
		defer f.q.s.mu.Unlock()
		f.halted = false
		f.q.pump()
	})
}

// activate tells the client that it gets messages from now on.
func (f *flow) activate() {
	if f.tells {
		f.c.write(func(b []byte) []byte {
			return appendAssured(b, f.version, ctlActive, nil, status{}, append(append32(nil, argFlow, f.id), argActive, 3, 1))
		})
	}
}

// settle takes in what a client tells of its messages: how many more it can take, and
// what became of some.
func (c *conn) settle(m control) error {
	c.s.mu.Lock()
	f := c.flows[m.flow]
	c.s.mu.Unlock()
	if f == nil {
		return nil // we ended it while this was on its way
	}
	var fault Fault
	if len(m.outcomes) > 0 {
		var err error
		if fault, err = c.fault(OpAck, f.q.name); err != nil {
			return err
		}
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	f.received(m)
	if !fault.Silent {
		for _, o := range m.outcomes {
			f.settle(o)
		}
	}
	f.q.pump()
	if fault.Drop {
		return errCut
	}
	return nil
}

func (f *flow) received(m control) {
	n := 0
	for n < len(f.onWay) && f.onWay[n] <= m.lastAcked {
		n++
	}
	f.onWay = append(f.onWay[:0], f.onWay[n:]...)
	if m.hasWindow {
		f.window = m.window
	}
}

// settle carries out one outcome. A range that is wider than what there is must not cost
// more than that.
func (f *flow) settle(o outcome) {
	q := f.q
	if o.from == 0 || o.to-o.from >= uint64(len(q.unacked)) {
		for id, m := range q.unacked {
			if id >= o.from && id <= o.to && m.flow.c == f.c && (o.from > 0 || m.flow == f) {
				q.settle(m, o.kind)
			}
		}
		return
	}
	for id := o.from; id <= o.to; id++ {
		if m := q.unacked[id]; m != nil && m.flow.c == f.c {
			q.settle(m, o.kind)
		}
	}
}

// temporary begins the names that clients make up for temporary queues.
const temporary = "#P2P/QTMP/"

// bind begins a flow.
func (c *conn) bind(m control, reply replier) error {
	fault, err := c.fault(OpBind, m.queue)
	if err != nil || fault.Silent {
		return err
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	answer := fault.status()
	var q *queue
	if answer.ok() {
		q, answer = c.s.bindable(c, m)
	}
	if !answer.ok() {
		return c.answer(fault, reply(answer, nil))
	}
	f := &flow{id: c.newID(), c: c, q: q, version: m.version, window: m.window, tells: m.wantsActive}
	c.flows[f.id] = f
	q.flows = append(q.flows, f)
	if err := c.answer(fault, reply(statusOK, f.describe())); err != nil {
		return err
	}
	q.pump()
	return nil
}

// bindable finds the queue that a client wants to bind to, or makes a temporary one.
func (s *Server) bindable(c *conn, m control) (*queue, status) {
	q := s.queues[m.queue]
	switch {
	case q == nil && m.durability == nonDurable && strings.HasPrefix(m.queue, temporary):
		q = s.newQueue(m.queue, Queue{NonExclusive: m.access == nonExclusive})
		q.owner = c.name
	case q == nil:
		return nil, status{503, "Unknown Queue"}
	case q.down:
		return nil, status{503, "Queue Shutdown"}
	case q.owner != "" && q.owner != c.name:
		return nil, status{403, "Permission Not Allowed"}
	}
	if q.expiry != nil {
		q.expiry.Stop()
		q.expiry = nil
	}
	return q, statusOK
}

// describe tells the client what it has bound to.
func (f *flow) describe() []byte {
	q := f.q
	args := append32(nil, argFlow, f.id)
	args = appendText(args, argQueue, q.name)
	args = append(args, argWindow, 3, byte(f.window))
	lasting, access, active, ttl := byte(durable), byte(exclusive), byte(1), byte(0)
	if q.owner != "" {
		lasting = nonDurable
	}
	if q.NonExclusive {
		access = nonExclusive
	} else if q.flows[0] != f {
		active = 0
	}
	if q.RespectTTL {
		ttl = 1
	}
	args = append(args, argDurability, 3, lasting, argAccess, 3, access)
	args = append64(args, argLastSent, 0)
	args = append32(args, argGranted, 0x0f)
	args = append32(args, argPermission, 0)
	args = append32(args, argQuota, 100)
	args = append32(args, argMaxSize, MaxPayload)
	args = append(args, argRespectTTL, 3, ttl, argRedeliveries, 3, byte(min(q.MaxRedeliveries, 255)))
	args = append32(args, argEndpoint, 1)
	if f.tells {
		args = append(args, argActive, 3, active)
	}
	return args
}

// unbind ends a flow at the client's wish. A temporary queue ends with it.
func (c *conn) unbind(m control, reply replier) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if f := c.flows[m.flow]; f != nil {
		f.q.leave(f)
		if f.q.owner != "" && len(f.q.flows) == 0 {
			c.s.dropQueue(f.q)
		}
	}
	c.write(reply(statusOK, append32(nil, argFlow, m.flow)))
}
