package feed

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// own is a session on a stream of its own.
type own struct {
	opt  Options
	pump *pump
	seq  uint64

	batch message.Batch // what is left of the batch being polled
	owes  bool          // settling is due: not so when reading by position
	pos   *message.Position
	buf   []byte
	frame [1][]byte

	pending []message.Delivery // polled, and settled by Written
	lent    []lent             // polled, and settled by the client, in order
	marks   *bookmarks
}

// lent is a delivery that the client will settle.
type lent struct {
	seq      uint64
	delivery message.Delivery
	settled  bool
}

// Lender is a feed whose deliveries can stay with the client after the session.
type Lender interface {
	entrypoints.Feed
	// Hold ends reading, and gives back what was not polled, if the endpoint can do that
	// while it still lends the rest. Poll must not be called any more; Settle may.
	Hold(ctx context.Context) error
}

// Own makes a feed of a stream that belongs to the session alone.
func Own(stream message.Stream, opt Options) Lender { return newOwn(stream, opt, 0) }

func newOwn(stream message.Stream, opt Options, seq uint64) *own {
	o := &own{opt: opt, seq: seq, owes: opt.Mode == message.Member || opt.Mode == message.Shared}
	if p, ok := stream.(message.Positioned); ok && (opt.Mode == message.Assigned || opt.Mode == message.Broadcast) {
		pos := p.Position()
		o.pos = &pos
		if b, ok := stream.(message.Bookmarker); ok && opt.Bookmark {
			o.marks = newBookmarks(b, pos)
		}
	}
	o.pump = newPump(stream, &o.opt)
	return o
}

// Poll implements entrypoints.Feed.
func (o *own) Poll(limit int) (entrypoints.Burst, error) {
	burst := entrypoints.Burst{First: o.seq + 1}
	if len(o.batch.Deliveries) == 0 {
		batch, ok, err := o.pump.take()
		if !ok {
			return burst, err
		}
		o.batch = batch
		burst.Gap = batch.Gap
		o.forget(batch.Revoked)
	}
	n := len(o.batch.Deliveries)
	if limit > 0 {
		n = min(n, limit)
	}
	o.buf = o.buf[:0]
	var cursor []byte
	for i := range n {
		d := &o.batch.Deliveries[i]
		if i > 0 && len(o.buf) >= burstBytes {
			n = i
			break
		}
		if o.pos != nil {
			move(o.pos, d.Mark, o.batch.Gap != nil)
			if o.opt.Encoder.WantsCursor() {
				cursor = o.pos.AppendCursor(cursor[:0])
			}
		}
		o.buf = o.opt.Encoder.Append(o.buf, d, cursor)
		o.owe(d)
	}
	o.batch.Deliveries = o.batch.Deliveries[n:]
	if n > 0 {
		o.frame[0] = o.buf
		burst.Frames = o.frame[:]
	}
	burst.Messages, burst.Bytes = n, len(o.buf)
	return burst, nil
}

// owe remembers that d must be settled.
func (o *own) owe(d *message.Delivery) {
	o.seq++
	switch {
	case o.opt.QoS == message.AtMostOnce: // settled before it came here
	case o.opt.ClientAcks:
		o.lent = append(o.lent, lent{seq: o.seq, delivery: *d})
	case o.owes:
		o.pending = append(o.pending, *d)
	}
}

// forget drops what belongs to lanes that went to another consumer: it comes again there.
func (o *own) forget(revoked []string) {
	if len(revoked) == 0 {
		return
	}
	gone := func(d *message.Delivery) bool { return slices.Contains(revoked, d.Lane) }
	o.pending = slices.DeleteFunc(o.pending, func(d message.Delivery) bool { return gone(&d) })
	o.lent = slices.DeleteFunc(o.lent, func(l lent) bool { return gone(&l.delivery) })
}

// Written implements entrypoints.Feed.
func (o *own) Written(ctx context.Context) error {
	if o.marks != nil && !o.opt.ClientAcks {
		o.marks.set(*o.pos)
	}
	if len(o.pending) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	err := o.pump.stream.Settle(ctx, message.Ack, o.pending...)
	clear(o.pending)
	o.pending = o.pending[:0]
	if errors.Is(err, message.ErrStale) {
		return nil // it comes again, which this level allows
	}
	return err
}

// Settle implements entrypoints.Feed.
func (o *own) Settle(ctx context.Context, how message.Settlement, seqs ...uint64) error {
	var (
		deliveries []message.Delivery
		unknown    []uint64
	)
	for _, seq := range seqs {
		i, ok := slices.BinarySearchFunc(o.lent, seq, func(l lent, seq uint64) int {
			switch {
			case l.seq < seq:
				return -1
			case l.seq > seq:
				return 1
			}
			return 0
		})
		if !ok || o.lent[i].settled {
			unknown = append(unknown, seq)
			continue
		}
		o.lent[i].settled = true
		deliveries = append(deliveries, o.lent[i].delivery)
	}
	err := o.settle(ctx, how, deliveries)
	o.compact()
	if len(unknown) > 0 {
		err = errors.Join(err, message.Errorf(message.BadInput, "nothing to settle under %v: unknown, settled before, or gone to another consumer", unknown))
	}
	return err
}

func (o *own) settle(ctx context.Context, how message.Settlement, deliveries []message.Delivery) error {
	if len(deliveries) == 0 {
		return nil
	}
	if !o.owes { // only the bookmark moves
		if how != message.Ack {
			return message.Errorf(message.BadInput, "reading by position: messages can be acknowledged, but not given back")
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	if err := o.pump.stream.Settle(ctx, how, deliveries...); err != nil {
		return fmt.Errorf("settling %d messages: %w", len(deliveries), err)
	}
	return nil
}

// compact forgets the settled head of what is lent, and moves the bookmark behind it.
func (o *own) compact() {
	n := 0
	for n < len(o.lent) && o.lent[n].settled {
		n++
	}
	if n == 0 {
		return
	}
	if o.marks != nil {
		o.marks.advance(o.lent[:n])
	}
	o.lent = slices.Delete(o.lent, 0, n)
}

// position is behind everything that was polled, if the stream has positions.
func (o *own) position() (message.Position, bool) {
	if o.pos == nil {
		return message.Position{}, false
	}
	return o.pos.Clone(), true
}

// Cursor implements entrypoints.Feed.
func (o *own) Cursor(dst []byte) []byte {
	if o.pos == nil {
		return dst
	}
	return o.pos.AppendCursor(dst)
}

// Hold implements Lender.
func (o *own) Hold(ctx context.Context) error {
	o.pump.stop()
	stopper, ok := o.pump.stream.(message.Stopper)
	if !ok {
		return nil // what comes meanwhile waits in the window
	}
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	err := stopper.Stop(ctx)
	rest := append(o.batch.Deliveries, o.pump.left()...)
	o.batch.Deliveries = nil
	if len(rest) > 0 && o.owes {
		err = errors.Join(err, o.pump.stream.Settle(ctx, message.Release, rest...))
	}
	return err
}

// Close implements entrypoints.Feed.
func (o *own) Close(ctx context.Context) error {
	o.pump.stop()
	if o.owes || o.marks != nil { // the broker has a part in it
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, settleTimeout)
		defer cancel()
	}
	if o.marks != nil {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		if err := o.marks.flush(ctx); err != nil {
			return errors.Join(fmt.Errorf("storing the position: %w", err), o.pump.stream.Close(ctx))
		}
	}
	return o.pump.stream.Close(ctx)
}
