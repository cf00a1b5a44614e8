package kafka

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

const (
	// laneMessages and laneBytes bound what waits in one lane, and what one request
	// carries. Callers wait for room.
	laneMessages = 1000
	laneBytes    = 1 << 20
	// recordOverhead is what the wire adds to a record, generously.
	recordOverhead = 32
)

// pending is one message on its way to one partition.
type pending struct {
	msg  *message.Message
	key  []byte
	null bool // a tombstone
	size int
	// deadline is until when it may be tried; a request that is under way is waited for.
	deadline time.Time
	call     *publishCall // nil: nobody waits (QoS none)

	// What follows is guarded by the lane.
	state  pendingState
	result outcome
}

// time is the timestamp that the record gets when the message has none.
func (p *pending) time(now time.Time) time.Time {
	if p.msg.Time.IsZero() {
		return now
	}
	return p.msg.Time
}

type pendingState uint8

const (
	queued   pendingState = iota // in the lane; nothing was sent
	inflight                     // in a request that is being written or was written
	settled                      // result holds
	dropped                      // the caller gave up
)

type outcome struct {
	status    message.Status
	partition int32
	offset    int64
	time      int64 // Unix milliseconds
	err       error
}

// publishCall is one Publish that waits for its messages.
type publishCall struct {
	left atomic.Int32
	done chan struct{}
}

func (c *publishCall) settle() {
	if c.left.Add(-1) == 0 {
		close(c.done)
	}
}

// lane is the way to one partition. One request is under way at a time, so order holds;
// what arrives meanwhile is the next request. It has a goroutine only while it is busy.
type lane struct {
	topic     *topicProducer
	partition int32

	mu    sync.Mutex
	queue []*pending
	bytes int
	// busy: the goroutine runs.
	busy bool
	// flight is what the goroutine has taken and not settled yet, launched when.
	flight   []*pending
	launched time.Time
	room     chan struct{} // closed when there is room again; nil when nobody waits for it
	timer    *time.Timer   // expires what waits behind a request that hangs
}

// add puts a message into the lane, waiting for room until its deadline or ctx ends.
func (l *lane) add(ctx context.Context, p *pending) error {
	l.mu.Lock()
	for len(l.queue) > 0 && (len(l.queue) >= laneMessages || l.bytes+p.size > laneBytes) {
		if l.room == nil {
			l.room = make(chan struct{})
		}
		room := l.room
		l.mu.Unlock()
		if err := p.await(ctx, room); err != nil {
			return err
		}
		l.mu.Lock()
	}
	l.queue = append(l.queue, p)
	l.bytes += p.size
	start := !l.busy
	l.busy = true
	l.mu.Unlock()
	if start {
		l.topic.p.lanes.Go(l.run)
	}
	return nil
}

func (p *pending) await(ctx context.Context, room <-chan struct{}) error {
	timer := time.NewTimer(time.Until(p.deadline))
	defer timer.Stop()
	select {
	case <-room:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return context.DeadlineExceeded
	}
}

// drop takes a message back whose caller gave up. It reports whether the message may
// have been sent. Afterwards nobody writes to p any more.
func (l *lane) drop(p *pending) (sent bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch p.state {
	case queued:
		p.state = dropped
		return false
	case inflight:
		p.state = dropped
		return true
	}
	return false // settled: the result holds
}

func (l *lane) isBusy() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.busy
}

// take moves the next batch from the queue into flight. It reports false, and the lane
// is idle, when there is none.
func (l *lane) take() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, size := 0, 0
	for n < len(l.queue) && n < laneMessages && (n == 0 || size+l.queue[n].size <= laneBytes) {
		size += l.queue[n].size
		n++
	}
	if n == 0 {
		l.busy = false
		l.queue, l.flight = nil, nil
		if l.timer != nil {
			l.timer.Stop()
		}
		return false
	}
	// A new slice each time: a connection that was given up on may still read the old one.
	l.flight = slices.Clone(l.queue[:n])
	rest := copy(l.queue, l.queue[n:])
	clear(l.queue[rest:])
	l.queue = l.queue[:rest]
	l.bytes -= size
	l.makeRoom()
	return true
}

// watch sees to it that nothing waits longer than it may behind a request that hangs.
func (l *lane) watch() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer == nil {
		l.timer = time.AfterFunc(patience, l.expire)
	} else {
		l.timer.Reset(patience)
	}
}

func (l *lane) expire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.busy {
		return
	}
	now, next, kept := time.Now(), patience, l.queue[:0]
	for _, p := range l.queue {
		if left := p.deadline.Sub(now); left > 0 {
			kept = append(kept, p)
			next = min(next, left)
			continue
		}
		l.bytes -= p.size
		l.settle(p, outcome{status: message.Refused, err: errBehind(l)})
	}
	clear(l.queue[len(kept):])
	l.queue = kept
	for _, p := range l.flight {
		if p.state != queued {
			continue // sent: only the answer, or its absence, can tell
		}
		if left := p.deadline.Sub(now); left > 0 {
			next = min(next, left)
			continue
		}
		l.settle(p, outcome{status: message.Refused, err: l.topic.p.c.unavailable(context.DeadlineExceeded)})
	}
	l.makeRoom()
	l.timer.Reset(next)
}

func (l *lane) makeRoom() {
	if l.room != nil {
		close(l.room)
		l.room = nil
	}
}

// settle gives a message its outcome. The lane is locked.
func (l *lane) settle(p *pending, o outcome) {
	if p.state == dropped || p.state == settled {
		return
	}
	o.partition = l.partition
	p.state, p.result = settled, o
	if p.call != nil {
		p.call.settle()
	} else if !o.status.OK() {
		l.topic.p.lost(l.topic.name, o.err)
	}
}

// settleAll gives messages the same outcome.
func (l *lane) settleAll(batch []*pending, o outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range batch {
		l.settle(p, o)
	}
}

// live returns, in place, what of a batch is still to be sent; the rest has run out of
// time for the reason given, or nobody waits for it any more.
func (l *lane) live(batch []*pending, why error, now time.Time) []*pending {
	l.mu.Lock()
	defer l.mu.Unlock()
	kept := batch[:0]
	for _, p := range batch {
		switch {
		case p.state == dropped || p.state == settled:
		case why != nil && !now.Before(p.deadline):
			l.settle(p, outcome{status: message.Refused, err: why})
		default:
			p.state = queued
			kept = append(kept, p)
		}
	}
	return kept
}

// launch marks what is still wanted of a batch as under way, at the moment in which the
// connection is about to write it.
func (l *lane) launch(batch []*pending, now time.Time) []*pending {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.launched = now
	kept := batch[:0]
	for _, p := range batch {
		// One that is in flight already is there by an earlier connection of the same
		// exchange, which turned out to be dead before anything was written.
		if p.state == queued || p.state == inflight {
			p.state = inflight
			kept = append(kept, p)
		}
	}
	return kept
}
