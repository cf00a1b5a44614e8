package servicebus

import (
	"context"
	"errors"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/go-amqp"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// once is the context of one attempt to send. When the service detaches a link, the library
// makes another and sends the message again, though it may be stored. To make a link it
// derives a context from the one it was given, which sending never does: and that ends the
// attempt.
type once struct {
	context.Context //nolint:containedctx // it is one
	cancel          context.CancelFunc
	detached        chan struct{} // has a value when the link was detached
}

func newOnce(ctx context.Context) *once {
	ctx, cancel := context.WithTimeout(ctx, patience)
	return &once{Context: ctx, cancel: cancel, detached: make(chan struct{}, 1)}
}

// Value implements context.Context.
func (o *once) Value(any) any {
	select {
	case o.detached <- struct{}{}:
	default:
	}
	o.cancel()
	return nil
}

// wasDetached reports whether the library wanted to send again.
func (o *once) wasDetached() bool { return len(o.detached) > 0 }

// send sends messages of one group, in their order, in as few batches as possible.
func (o *outlet) send(entries []*entry) {
	list := entries[:0]
	for _, e := range entries {
		if e.state.CompareAndSwap(waiting, flying) {
			list = append(list, e)
		}
	}
	for len(list) > 0 {
		list = list[o.sendSome(list):]
	}
}

// sendSome sends the first of the entries: as many as one batch takes. It says how many
// have an outcome now.
func (o *outlet) sendSome(list []*entry) int {
	ctx, cancel := context.WithTimeout(o.p.ctx, patience)
	defer cancel()
	s, err := o.open(ctx)
	if err != nil {
		o.outcome(list, message.Refused, err)
		return len(list)
	}
	broken := false
	defer func() { o.release(s, broken) }()
	if len(list) == 1 {
		broken = o.sendOne(s, list[0])
		return 1
	}
	batch, err := s.NewMessageBatch(ctx, nil)
	if err != nil {
		broken = true
		o.outcome(list, message.Refused, fault(o.what, err))
		return len(list)
	}
	n := 0
	for n < len(list) {
		if err = batch.AddMessage(list[n].msg, nil); err != nil {
			break
		}
		n++
	}
	switch {
	case n > 1:
		broken = o.sendBatch(s, batch, list[:n])
	case n == 1 || errors.Is(err, azservicebus.ErrMessageTooLarge):
		// Large messages may fit alone where they do not fit into a batch.
		n, broken = 1, o.sendOne(s, list[0])
	default:
		n = 1
		o.outcome(list[:1], message.Refused, message.Errorf(message.BadInput, "%s: the message can't be encoded: %w", o.what, err))
	}
	return n
}

// sendOne sends a message by itself. It is true when the link is of no further use.
func (o *outlet) sendOne(s *sender, e *entry) (broken bool) {
	ctx := newOnce(o.p.ctx)
	defer ctx.cancel()
	begun := time.Now()
	err := s.SendMessage(ctx, e.msg, nil)
	status, err, broken := o.judge(ctx, s, begun, err)
	o.outcome([]*entry{e}, status, err)
	return broken
}

// sendBatch sends messages together. A batch is stored as a whole or not at all. When it
// was certainly refused, for what one of its messages may be to blame for, halves of it are
// tried, so that only the guilty are refused.
func (o *outlet) sendBatch(s *sender, batch *azservicebus.MessageBatch, list []*entry) (broken bool) {
	ctx := newOnce(o.p.ctx)
	defer ctx.cancel()
	begun := time.Now()
	err := s.SendMessageBatch(ctx, batch, nil)
	status, err, broken := o.judge(ctx, s, begun, err)
	if status == message.Refused && !broken && blames(err) {
		half := len(list) / 2
		for _, part := range [][]*entry{list[:half], list[half:]} {
			for len(part) > 0 {
				part = part[o.sendSome(part):]
			}
		}
		return false
	}
	o.outcome(list, status, err)
	return broken
}

// blames reports whether a refusal is about what was sent, and not about everybody.
func blames(err error) bool {
	switch message.KindOf(err) {
	case message.Busy, message.Denied, message.NotFound, message.Unavailable:
		return false
	}
	return true
}

// judge decides what an attempt to send has come to, and whether the link is of no further
// use. In doubt the outcome is unknown.
func (o *outlet) judge(ctx *once, s *sender, begun time.Time, err error) (message.Status, error, bool) {
	switch {
	case err == nil:
		return message.Stored, nil, false
	case errors.Is(err, azservicebus.ErrMessageTooLarge):
		return message.Refused, fault(o.what, err), false
	case ctx.wasDetached():
		return message.Unknown, o.unknown("the service detached the link", err), true
	case ctx.Err() != nil:
		o.complain(ctx, s.conn, begun)
	}
	r := reason(err)
	switch {
	case r.condition == condNoCredit && r.text != "" && s.conn.C.wire.failure() == nil:
		// The library's own word for a message that it could not write.
		return message.Refused, fault(o.what, r), true
	case rejected(err, r) && s.conn.C.wire.failure() == nil:
		return message.Refused, fault(o.what, r), false
	case r.condition == condNotFound || r.condition == condDeleted:
		return message.Refused, fault(o.what, r), true // and the message with it
	}
	return message.Unknown, o.unknown(r.Error(), err), true
}

// rejected reports whether an error is the service's answer to a message, and not the end
// of what it was sent by. Some answers leave open what has become of the message.
func rejected(err error, r *reply) bool {
	if r.condition == "" || r.condition == condTimeout || r.condition == condInternal {
		return false
	}
	for _, end := range []string{"amqp:connection:", "amqp:session:", "amqp:link:detach-forced", "amqp:link:stolen", "amqp:link:redirect"} {
		if len(r.condition) >= len(end) && r.condition[:len(end)] == end {
			return false
		}
	}
	_, link := errors.AsType[*amqp.LinkError](err)
	_, session := errors.AsType[*amqp.SessionError](err)
	_, conn := errors.AsType[*amqp.ConnError](err)
	return !link && !session && !conn
}

func (o *outlet) unknown(why string, err error) error {
	return message.Errorf(message.OutcomeUnknown, "%s: Azure Service Bus may or may not have the message: %s%w", o.what, why, &quiet{err})
}

// quiet keeps a cause for errors.As whose text was told already.
type quiet struct{ cause error }

func (*quiet) Error() string   { return "" }
func (q *quiet) Unwrap() error { return q.cause }

// outcome tells all of them the same.
func (o *outlet) outcome(list []*entry, status message.Status, err error) {
	lost := 0
	for _, e := range list {
		if e.unwatched && status != message.Stored {
			lost++
		}
		e.finish(status, err)
	}
	if lost > 0 {
		o.p.lost(o.what, lost, err)
	}
}

// closeSoon closes a sender without waiting for it.
func closeSoon(s *azservicebus.Sender) {
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	go func() {
		defer cancel()
		_ = s.Close(ctx) // the connection may be gone
	}()
}
