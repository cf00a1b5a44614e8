package servicebus

import (
	"context"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// publisher sends to one queue or topic, on behalf of one request or of all.
type publisher struct {
	p     *producer
	props properties
	// facts are told of each message that was stored.
	facts []message.Field
}

func (p *producer) publisher(props properties) *publisher {
	facts := message.Text("queue", props.queue)
	if props.topic != "" {
		facts = message.Text("topic", props.topic)
	}
	return &publisher{p: p, props: props, facts: []message.Field{facts}}
}

// Publish implements message.Publisher.
func (p *publisher) Publish(ctx context.Context, qos message.QoS, messages ...*message.Message) []message.Result {
	results := make([]message.Result, len(messages))
	if len(messages) == 0 {
		return results
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	if err := p.ready(ctx); err != nil {
		return refuseAll(results, err)
	}
	c := &call{done: make(chan struct{}), entries: make([]entry, 0, len(messages))}
	of := make([]int, len(messages)) // which entry a message has become
	for i, m := range messages {
		msg, err := encode(m, &p.props)
		if err != nil {
			results[i] = message.Result{Status: message.Refused, Err: err}
			of[i] = -1
			continue
		}
		of[i] = len(c.entries)
		c.entries = append(c.entries, entry{call: c, msg: msg, size: sizeOf(msg), unwatched: qos == message.None})
	}
	if err := p.p.outlet(&p.props).add(c); err != nil {
		return refuseAll(results, err)
	}
	if qos != message.None {
		p.wait(ctx, timer.C, c)
	}
	for i := range results {
		if of[i] >= 0 {
			results[i] = p.result(ctx, qos, &c.entries[of[i]])
		}
	}
	return results
}

// ready sees to it that there is a connection: what can't be sent is refused now, at every
// level.
func (p *publisher) ready(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return message.Errorf(message.Unavailable, "not sent: %w", err)
	}
	if _, ok := p.p.link.Up(); ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := p.p.link.Get(ctx)
	return err
}

// wait waits until everything has an outcome, or time is over.
func (p *publisher) wait(ctx context.Context, late <-chan time.Time, c *call) {
	if len(c.entries) == 0 {
		return
	}
	select {
	case <-c.done:
	case <-ctx.Done():
	case <-late:
	}
}

// result is what is known about a message now.
func (p *publisher) result(ctx context.Context, qos message.QoS, e *entry) message.Result {
	id := *e.msg.MessageID
	if qos == message.None {
		return message.Result{Status: message.Handed, ID: id}
	}
	switch e.giveUp() {
	case finished:
		r := message.Result{Status: e.status, ID: id, Err: e.err}
		if e.status == message.Stored {
			r.Metadata = p.facts
		}
		return r
	case waiting:
		err := message.Errorf(message.Unavailable, "not sent to %s at %s: Azure Service Bus takes messages too slowly%s",
			p.props.what(), p.p.link.Address(), cause(ctx))
		err.RetryAfter = retryAfter
		return message.Result{Status: message.Refused, ID: id, Err: err}
	}
	return message.Result{Status: message.Unknown, ID: id, Err: message.Errorf(message.OutcomeUnknown,
		"%s at %s: Azure Service Bus did not confirm the message in time, and may have it%s", p.props.what(), p.p.link.Address(), cause(ctx))}
}

// cause adds why a caller does not wait any longer, if it is the caller's own doing.
func cause(ctx context.Context) string {
	if err := ctx.Err(); err != nil {
		return " (" + err.Error() + ")"
	}
	return ""
}

func refuseAll(results []message.Result, err error) []message.Result {
	for i := range results {
		if results[i].Err == nil {
			results[i] = message.Result{Status: message.Refused, Err: err}
		}
	}
	return results
}

var _ message.Publisher = (*publisher)(nil)
