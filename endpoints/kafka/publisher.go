package kafka

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// publisher writes to fixed topics, on behalf of one request or of all.
type publisher struct {
	p      *producer
	topics []string
	// key is for messages that have none of their own; nil leaves them without.
	key []byte
}

// tombstoneField is the metadata flag that says "null", which deletes a key from a
// compacted topic, in both directions.
const tombstoneField = message.TombstoneField

// sent is one message on its way to one topic.
type sent struct {
	pending
	lane *lane // nil: it never got that far, and result holds
}

// Publish implements message.Publisher. Each message goes to every topic.
func (p *publisher) Publish(ctx context.Context, qos message.QoS, messages ...*message.Message) []message.Result {
	results := make([]message.Result, len(messages))
	if err := ctx.Err(); err != nil {
		for i := range results {
			results[i] = message.Result{Status: message.Refused, Err: message.Errorf(message.Unavailable, "not sent: %w", err)}
		}
		return results
	}
	deadline := time.Now().Add(patience)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	all := make([]sent, len(messages)*len(p.topics))
	var call *publishCall
	if qos != message.None {
		call = &publishCall{done: make(chan struct{})}
		call.left.Store(int32(len(all)))
	}
	for t, topic := range p.topics {
		p.enqueue(ctx, topic, deadline, call, messages, all[t*len(messages):(t+1)*len(messages)])
	}
	if call != nil && len(all) > 0 {
		p.wait(ctx, call, all)
	}
	for i := range results {
		results[i] = p.result(all, i, len(messages))
	}
	return results
}

// enqueue hands messages to the lanes of one topic.
func (p *publisher) enqueue(
	ctx context.Context, topic string, deadline time.Time, call *publishCall, messages []*message.Message, into []sent,
) {
	t, err := p.p.topic(topic)
	var leaders []int32
	if err == nil {
		defer t.release()
		leaders, err = t.ready(ctx, deadline)
	}
	for i, m := range messages {
		s := &into[i]
		s.fill(m, p.key, deadline, call)
		if err == nil {
			l := t.lane(s.key, s.size, leaders)
			if full := l.add(ctx, &s.pending); full == nil {
				s.lane = l
				continue
			}
			err = errBehind(l)
		}
		s.state, s.result = settled, outcome{status: message.Refused, err: err}
		if call != nil {
			call.settle()
		}
	}
}

func (s *sent) fill(m *message.Message, key []byte, deadline time.Time, call *publishCall) {
	s.msg, s.key, s.deadline, s.call = m, m.Key, deadline, call
	if s.key == nil {
		s.key = key
	}
	if f, ok := m.Field(tombstoneField); ok && f.Value() == true && len(m.Payload) == 0 {
		s.null = true
	}
	s.size = recordOverhead + len(s.key) + len(m.Payload)
	for i := range m.Headers {
		s.size += len(m.Headers[i].Name) + len(m.Headers[i].Value) + 4
	}
}

// wait waits for the outcomes, or for ctx; what has none by then is taken back, or given
// up as unknown where it may have been sent.
func (p *publisher) wait(ctx context.Context, call *publishCall, all []sent) {
	select {
	case <-call.done:
		return
	case <-ctx.Done():
	}
	for i := range all {
		s := &all[i]
		if s.lane == nil {
			continue
		}
		wasSent := s.lane.drop(&s.pending)
		if s.state == settled {
			continue
		}
		if wasSent {
			s.result = outcome{status: message.Unknown, err: s.lane.unknown(ctx.Err())}
		} else {
			e := message.Errorf(message.Unavailable, "not sent to topic %s in the time that was given: %w",
				s.lane.topic.name, ctx.Err())
			e.RetryAfter = retryAfter
			s.result = outcome{status: message.Refused, err: e}
		}
	}
}

// result adds up what became of message i in each topic.
func (p *publisher) result(all []sent, i, n int) message.Result {
	first := &all[i]
	if first.call == nil && first.lane != nil {
		return p.handed(all, i, n)
	}
	if len(p.topics) > 1 {
		return p.combined(all, i, n)
	}
	r := message.Result{Status: first.result.status, Err: first.result.err}
	if r.Status == message.Stored {
		r.ID, r.Metadata = place(p.topics[0], &first.result), facts(p.topics[0], &first.result)
	}
	return r
}

func (p *publisher) handed(all []sent, i, n int) message.Result {
	for t := range p.topics {
		if s := &all[t*n+i]; s.lane == nil {
			return message.Result{Status: s.result.status, Err: s.result.err}
		}
	}
	return message.Result{Status: message.Handed}
}

// combined is the outcome of a message that goes to several topics: stored when it is in
// all of them, refused when it is in none, and unknown when that can't be said.
func (p *publisher) combined(all []sent, i, n int) message.Result {
	var r message.Result
	var in, not []string
	refused := 0
	var errs []error
	for t, topic := range p.topics {
		o := &all[t*n+i].result
		switch o.status {
		case message.Stored:
			if len(in) == 0 {
				r.ID, r.Metadata = place(topic, o), facts(topic, o)
			}
			in = append(in, place(topic, o))
			continue
		case message.Refused:
			refused++
		}
		not = append(not, topic)
		errs = append(errs, o.err)
	}
	switch {
	case len(not) == 0:
		r.Status = message.Stored
		r.Metadata = append(r.Metadata, message.Text("also_stored", strings.Join(in[1:], " ")))
	case refused == len(p.topics):
		r = message.Result{Status: message.Refused, Err: errs[0]}
	default:
		r.Status = message.Unknown
		r.Err = message.Errorf(message.OutcomeUnknown, "stored: [%s]; not or not certainly stored: [%s]: %w",
			strings.Join(in, " "), strings.Join(not, " "), errors.Join(errs...))
	}
	return r
}

// place is the id of a record: topic@partition#offset.
func place(topic string, o *outcome) string {
	return string(appendPlace(nil, topic, o.partition, o.offset))
}

func appendPlace(dst []byte, topic string, partition int32, offset int64) []byte {
	dst = append(dst, topic...)
	dst = append(dst, '@')
	dst = strconv.AppendInt(dst, int64(partition), 10)
	dst = append(dst, '#')
	return strconv.AppendInt(dst, offset, 10)
}

func facts(topic string, o *outcome) []message.Field {
	return []message.Field{
		message.Text("topic", topic),
		message.Number("partition", int64(o.partition)),
		message.Number("offset", o.offset),
		message.Number("timestamp", o.time),
	}
}

// checkTopic refuses names that Kafka would refuse.
func checkTopic(name string) error {
	const longest = 249
	if name == "" || len(name) > longest || name == "." || name == ".." {
		return fmt.Errorf("topic %q: a topic's name has 1 to %d characters", name, longest)
	}
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-' {
			return fmt.Errorf("topic %q: a topic's name consists of a-z A-Z 0-9 . _ -", name)
		}
	}
	return nil
}

var _ message.Publisher = (*publisher)(nil)
