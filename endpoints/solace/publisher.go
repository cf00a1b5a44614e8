//go:build cgo && (linux || darwin)

package solace

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/caddy-message-api/caddy-message-api/endpoints/link"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// publisher writes to fixed topics, on behalf of one request or of all.
type publisher struct {
	p      *producer
	topics []string
	draft  draft
	facts  []message.Field // of each message that was stored
}

func (p *producer) publisher(topics []string, key, id, correlation string) *publisher {
	d := p.draft
	d.key, d.id, d.correlation = key, id, correlation
	facts := []message.Field{message.Text("destination", topics[0])}
	if len(topics) > 1 {
		facts = append(facts, message.Text("also_stored", strings.Join(topics[1:], " ")))
	}
	return &publisher{p: p, topics: topics, draft: d, facts: facts}
}

// Publish implements message.Publisher. All messages are handed to the library, in their
// order, before the first acknowledgement is waited for. Each goes to every topic.
func (p *publisher) Publish(ctx context.Context, qos message.QoS, messages ...*message.Message) []message.Result {
	results := make([]message.Result, len(messages))
	if len(messages) == 0 {
		return results
	}
	if err := ctx.Err(); err != nil {
		return refuseAll(results, message.Errorf(message.Unavailable, "not sent: %w", err))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errSilent)
	defer cancel()
	conn, err := p.p.connection(ctx)
	if err != nil {
		return refuseAll(results, err)
	}
	var c *call
	if qos != message.None && !p.p.direct {
		c = newCall(len(messages) * len(p.topics))
	}
	all := make([]publication, len(messages)*len(p.topics))
	seen := conn.C.receipts.Load()
	p.handAll(ctx, conn, c, messages, all)
	if c != nil && !c.wait(ctx) && errors.Is(context.Cause(ctx), errSilent) && conn.C.receipts.Load() == seen {
		p.p.drop(conn, errSilent) // in all that time
	}
	for i := range results {
		results[i] = p.result(all[i*len(p.topics):(i+1)*len(p.topics)], c)
	}
	return results
}

var errSilent = errors.New("the broker acknowledged nothing for " + patience.String())

func refuseAll(results []message.Result, err error) []message.Result {
	for i := range results {
		results[i] = message.Result{Status: message.Refused, Err: err}
	}
	return results
}

// handAll hands all messages to the library. What is wrong with one message harms no
// other; when the connection or the time is gone, the rest is not tried.
func (p *publisher) handAll(
	ctx context.Context, conn link.Conn[*sender], c *call, messages []*message.Message, all []publication,
) {
	var gone *message.Error
	for i, m := range messages {
		d := p.draft
		d.prompt = c != nil && i == len(messages)-1
		if d.id == "" || m.ID != "" {
			d.id = p.p.idOf(m)
		}
		for t, topic := range p.topics {
			u := &all[i*len(p.topics)+t]
			u.call, u.id, u.topic = c, d.id, topic
			if gone != nil {
				u.resolve(message.Refused, gone)
				continue
			}
			status, err := conn.C.hand(ctx, &d, m, u)
			if err == nil {
				continue
			}
			e := p.failure(status, err)
			u.resolve(status, e)
			switch e.Kind {
			case message.BadInput, message.TooLarge, message.NotFound, message.Denied:
			default:
				gone = p.notSent(err)
			}
			if isBroken(err) {
				p.p.drop(conn, err)
			}
		}
	}
}

// failure is what is told of a message that the library did not take.
func (p *publisher) failure(status message.Status, err error) *message.Error {
	if status == message.Unknown {
		return message.Errorf(message.OutcomeUnknown, "the message may have left for Solace at %s before the connection broke: %w", p.p.link.Address(), err)
	}
	if known, ok := refusals[codeOf(err)]; ok {
		e := message.Errorf(known, "Solace's client library refused the message: %w", err)
		if known == message.Busy || known == message.Unavailable {
			e.RetryAfter = retryAfter
		}
		return e
	}
	return p.notSent(err)
}

// notSent is the error of a message that certainly did not leave.
func (p *publisher) notSent(err error) *message.Error {
	if known, ok := errors.AsType[*message.Error](err); ok {
		return known
	}
	e := message.Errorf(message.Unavailable, "not sent to Solace at %s: %w", p.p.link.Address(), err)
	e.RetryAfter = time.Second
	return e
}

// result adds up what became of one message in each topic: stored when it is in all of
// them, refused when it is in none, and unknown when that can't be said.
func (p *publisher) result(all []publication, c *call) message.Result {
	r := message.Result{Status: message.Stored, ID: all[0].id}
	if c == nil {
		r.Status = message.Handed
	}
	var in, not []string
	var errs []error
	refused := 0
	for i := range all {
		u := &all[i]
		status, err := u.outcome()
		switch status {
		case message.Stored, message.Handed:
			in = append(in, u.topic)
			continue
		case message.Refused:
			refused++
		}
		not = append(not, u.topic)
		errs = append(errs, p.told(u, err))
	}
	switch {
	case len(not) == 0:
		if c != nil {
			r.Metadata = p.facts
		}
	case refused == len(all):
		r.Status, r.Err = message.Refused, errs[0]
	case len(all) == 1:
		r.Status, r.Err = message.Unknown, errs[0]
	default:
		r.Status = message.Unknown
		r.Err = message.Errorf(message.OutcomeUnknown, "stored: [%s]; not or not certainly stored: [%s]: %w",
			strings.Join(in, " "), strings.Join(not, " "), errors.Join(errs...))
	}
	return r
}

// told makes what the broker answered into what clients are told.
func (p *publisher) told(u *publication, err error) error {
	if known, ok := errors.AsType[*message.Error](err); ok {
		return known
	}
	if kind, ok := refusals[codeOf(err)]; ok {
		e := message.Errorf(kind, "Solace refused the message for topic %s: %w", u.topic, err)
		if kind == message.Busy || kind == message.Unavailable {
			e.RetryAfter = retryAfter
		}
		return e
	}
	if err == nil {
		err = context.DeadlineExceeded
	}
	return message.Errorf(message.OutcomeUnknown,
		"Solace at %s did not acknowledge the message for topic %s, and may have it: %w", p.p.link.Address(), u.topic, err)
}

var _ message.Publisher = (*publisher)(nil)
