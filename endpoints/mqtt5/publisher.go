package mqtt5

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/caddy-message-api/caddy-message-api/endpoints/link"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// patience is how long a publish may take, and a subscription, whatever the caller allows:
// the promise to clients is five seconds.
const patience = 4500 * time.Millisecond

// publisher writes to one topic, on behalf of one request or of all.
type publisher struct {
	link        *link.Link[*sender]
	topic       string
	qos         byte
	retain      bool
	contentType string
	fixed       []byte // encoded properties
	// stored and unheard are the metadata of what was stored.
	stored, unheard []message.Field
}

// sender is the publishing connection.
type sender struct {
	*conn
	box *outbox
}

// draft is what a message needs on its way into a connection.
type draft struct{ properties []byte }

var drafts = sync.Pool{New: func() any { return new(draft) }}

// Publish implements message.Publisher.
func (p *publisher) Publish(ctx context.Context, qos message.QoS, messages ...*message.Message) []message.Result {
	results := make([]message.Result, len(messages))
	if len(messages) == 0 {
		return results
	}
	if err := ctx.Err(); err != nil {
		return fillResults(results, message.Refused, message.Errorf(message.Unavailable, "not sent: %w", err))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errNoAnswer)
	defer cancel()
	up, err := p.link.Get(ctx)
	if err != nil {
		return fillResults(results, message.Refused, err)
	}
	level := p.qos
	if qos == message.None {
		level = 0
	}
	if err := p.able(up.C, level); err != nil {
		return fillResults(results, message.Refused, err)
	}
	seen := up.C.reads.Load()
	c := &call{left: len(messages), done: make(chan struct{})}
	waits := p.enqueue(ctx, up.C, level, c, messages, results)
	if !p.wait(ctx, c, waits) && up.C.reads.Load() == seen && errors.Is(context.Cause(ctx), errNoAnswer) {
		p.link.Drop(up.Epoch, errQuiet) // it said nothing at all in all that time
	}
	p.conclude(waits, results)
	return results
}

func fillResults(results []message.Result, status message.Status, err error) []message.Result {
	for i := range results {
		results[i] = message.Result{Status: status, Err: err}
	}
	return results
}

// able says why the server can't take what is configured.
func (p *publisher) able(s *sender, level byte) error {
	switch {
	case level > s.limits.maxQoS:
		return message.Errorf(message.Mismatch, "the MQTT server takes QoS %d at most, and the producer's is %d", s.limits.maxQoS, level)
	case p.retain && !s.limits.retain:
		return message.Errorf(message.Mismatch, "the MQTT server has no retained messages, and the producer is configured to retain")
	}
	return nil
}

// enqueue sends the messages. Those that wait for an answer are returned by their place.
func (p *publisher) enqueue(
	ctx context.Context, s *sender, level byte, c *call, messages []*message.Message, results []message.Result,
) []pending {
	d, _ := drafts.Get().(*draft)
	defer drafts.Put(d)
	waits := make([]pending, len(messages))
	for i, m := range messages {
		err := p.send(ctx, s, level, d, m, &waits[i], c)
		switch {
		case err != nil:
			results[i] = message.Result{Status: message.Refused, Err: p.notSent(err)}
		case level == 0:
			results[i].Status = message.Handed
		default:
			continue
		}
		s.mu.Lock()
		waits[i].settled = true
		if c.left--; c.left == 0 {
			close(c.done)
		}
		s.mu.Unlock()
	}
	return waits
}

func (p *publisher) send(
	ctx context.Context, s *sender, level byte, d *draft, m *message.Message, w *pending, c *call,
) (err error) {
	d.properties, err = appendMessageProperties(append(d.properties[:0], p.fixed...), m, p.contentType)
	if err != nil {
		return err
	}
	length := publishLength(p.topic, level, len(d.properties), len(m.Payload))
	if size := length + 1 + varintSize(length); length > maxRemaining || size > s.limits.maxPacket {
		return message.Errorf(message.TooLarge, "the message needs %d bytes, and the MQTT server takes %d at most", size, s.limits.maxPacket)
	}
	encode := func(dst []byte, id uint16) []byte {
		return appendPublish(dst, p.topic, level, p.retain, id, d.properties, m.Payload)
	}
	if level == 0 {
		return s.box.putZero(ctx, encode)
	}
	w.call = c
	return s.box.put(ctx, w, encode)
}

// notSent is the error of a message that certainly did not leave.
func (p *publisher) notSent(err error) error {
	if known, ok := errors.AsType[*message.Error](err); ok {
		return known
	}
	e := message.Errorf(message.Unavailable, "not sent to the MQTT server at %s: %w", p.link.Address(), err)
	e.RetryAfter = retryAfter
	return e
}

// wait returns whether all messages have their outcome. Those that have none by the end of
// ctx are given up.
func (p *publisher) wait(ctx context.Context, c *call, waits []pending) bool {
	select {
	case <-c.done:
		return true
	case <-ctx.Done():
	}
	for i := range waits {
		waits[i].giveUp(context.Cause(ctx))
	}
	return false
}

func (p *publisher) conclude(waits []pending, results []message.Result) {
	for i := range waits {
		w := &waits[i]
		if w.box == nil { // it has its result
			continue
		}
		r := &results[i]
		r.Status = w.status
		switch w.status {
		case message.Stored:
			r.Metadata = p.stored
			if w.reason == reasonNoSubscribers {
				r.Metadata = p.unheard
			}
		case message.Refused:
			if w.err != nil {
				r.Err = p.notSent(w.err)
			} else {
				r.Err = refused(p.topic, &reasonError{w.reason, w.text})
			}
		default:
			r.Err = message.Errorf(message.OutcomeUnknown,
				"sent to topic %s of the MQTT server at %s, and not answered: %w", p.topic, w.box.c.server, w.err)
		}
	}
}

var _ message.Publisher = (*publisher)(nil)
