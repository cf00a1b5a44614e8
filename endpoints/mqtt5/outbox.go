package mqtt5

import (
	"context"
	"errors"
	"fmt"

	"github.com/eclipse/paho.golang/packets"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// outbox is what is on its way to the server on one connection. Its fields are guarded by
// the connection's lock, so that one acquisition puts a message in and writes it.
type outbox struct {
	c *conn
	// quota holds a token per message in flight: the server says how many it takes.
	quota    chan struct{}
	inflight map[uint16]*pending
	lastID   uint16
	// zero counts the messages of QoS 0 that are to leave with zeroBatch.
	zero      int
	zeroBatch uint64
	lost      func(n int, err error)
}

// call is one Publish that waits for its messages.
type call struct {
	left int
	done chan struct{}
}

// pending is one message on its way. call is nil when nobody waits for it any more.
type pending struct {
	call    *call
	box     *outbox // where it went, nil if it did not get that far
	batch   uint64
	settled bool
	status  message.Status
	reason  byte
	text    string
	err     error
}

func newOutbox(c *conn, lost func(n int, err error)) *outbox {
	return &outbox{c: c, quota: make(chan struct{}, c.limits.receiveMaximum), inflight: make(map[uint16]*pending), lost: lost}
}

// put sends a message of QoS 1 or 2. An error means that it was certainly not sent.
func (o *outbox) put(ctx context.Context, p *pending, encode func(dst []byte, id uint16) []byte) error {
	select {
	case o.quota <- struct{}{}:
	default:
		select {
		case o.quota <- struct{}{}:
		case <-o.c.done:
			return o.c.reason()
		case <-ctx.Done():
			return fmt.Errorf("the server has %d unanswered messages, and takes no more: %w", cap(o.quota), context.Cause(ctx))
		}
	}
	if err := o.lockForRoom(ctx); err != nil {
		<-o.quota
		return err
	}
	defer o.c.mu.Unlock()
	id := o.nextID()
	p.box = o
	p.batch = o.c.sendLocked(func(dst []byte) []byte { return encode(dst, id) })
	o.inflight[id] = p
	return nil
}

// putZero sends a message of QoS 0.
func (o *outbox) putZero(ctx context.Context, encode func(dst []byte, id uint16) []byte) error {
	if err := o.lockForRoom(ctx); err != nil {
		return err
	}
	defer o.c.mu.Unlock()
	batch := o.c.sendLocked(func(dst []byte) []byte { return encode(dst, 0) })
	if batch != o.zeroBatch {
		o.zeroBatch, o.zero = batch, 0
	}
	o.zero++
	return nil
}

// lockForRoom takes the connection's lock as soon as not too much waits for the network.
func (o *outbox) lockForRoom(ctx context.Context) error {
	c := o.c
	c.mu.Lock()
	for c.err == nil && len(c.out) >= maxUnwritten {
		if c.drained == nil {
			c.drained = make(chan struct{})
		}
		drained := c.drained
		c.mu.Unlock()
		select {
		case <-drained:
		case <-c.done:
		case <-ctx.Done():
			return fmt.Errorf("the network takes no more: %w", context.Cause(ctx))
		}
		c.mu.Lock()
	}
	if c.err != nil {
		defer c.mu.Unlock()
		return c.err
	}
	return nil
}

// finish waits a moment for the answers to what is under way: a PINGRESP comes behind them.
func (o *outbox) finish() {
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	for range 3 { // QoS 2 goes back and forth
		o.c.mu.Lock()
		n := len(o.inflight)
		o.c.mu.Unlock()
		if n == 0 || o.c.barrier(ctx) != nil {
			return
		}
	}
}

// nextID finds an identifier that is not in use; quota has seen to it that there is one.
func (o *outbox) nextID() uint16 {
	for {
		o.lastID++
		if _, used := o.inflight[o.lastID]; !used && o.lastID != 0 {
			return o.lastID
		}
	}
}

// room implements handler: nothing is subscribed here.
func (o *outbox) room(*conn) {}

func (o *outbox) received(*conn, *publish) {}

// answered implements handler.
func (o *outbox) answered(c *conn, kind byte, id uint16, reason byte, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := o.inflight[id]
	if kind == packets.PUBREC && (p == nil || reason < reasonUnspecified) {
		var complaint byte
		if p == nil {
			complaint = unknownPacketIdentifier
		} else {
			p.reason = reason // it may tell that there are no subscribers
		}
		c.sendLocked(func(dst []byte) []byte { return appendAck(dst, packets.PUBREL, id, complaint) })
		return
	}
	if p == nil {
		return
	}
	delete(o.inflight, id)
	<-o.quota
	if kind != packets.PUBCOMP || reason >= reasonUnspecified {
		p.reason, p.text = reason, text
	}
	switch {
	case kind == packets.PUBCOMP && reason >= reasonUnspecified:
		p.settle(message.Unknown, &reasonError{reason, text})
	case reason >= reasonUnspecified:
		p.settle(message.Refused, nil)
	default:
		p.settle(message.Stored, nil)
	}
}

// gone implements handler: what was handed to the network may have arrived.
func (o *outbox) gone(c *conn, err error) {
	c.mu.Lock()
	for id, p := range o.inflight {
		delete(o.inflight, id)
		if p.batch > c.batch {
			p.settle(message.Refused, err)
		} else {
			p.settle(message.Unknown, err)
		}
	}
	lost := 0
	if o.zeroBatch > c.batch || o.zeroBatch == c.batch && c.flushing {
		lost = o.zero
	}
	c.mu.Unlock()
	if lost > 0 {
		o.lost(lost, err)
	}
}

// settle notes the outcome. The connection's lock is held.
func (p *pending) settle(status message.Status, err error) {
	if p.settled {
		return
	}
	p.settled, p.status, p.err = true, status, err
	if p.call == nil {
		return
	}
	if p.call.left--; p.call.left == 0 {
		close(p.call.done)
	}
}

// giveUp ends the waiting for what is not settled by now: it may have arrived.
func (p *pending) giveUp(why error) {
	if p.box == nil {
		return
	}
	p.box.c.mu.Lock()
	defer p.box.c.mu.Unlock()
	if !p.settled {
		p.settled, p.status, p.err = true, message.Unknown, why
	}
}

var errNoAnswer = errors.New("the server did not answer in time")

var _ handler = (*outbox)(nil)
