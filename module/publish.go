package module

import (
	"context"
	"slices"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// publishing are a session's publishers: made by the first Publish, because most sessions
// never need one, and then kept, because placeholders are expanded once per request.
type publishing struct {
	first, fallback message.Publisher
}

// Publish implements entrypoints.Session. The way of a message: bound and identity headers
// here, then the endpoint, then the fallback for what certainly did not leave.
func (s *session) Publish(ctx context.Context, messages ...*message.Message) ([]message.Result, error) {
	if s.pub.first == nil {
		p, err := s.way.pub.pub.Publisher(valuesOf(s.request))
		if err != nil {
			return nil, err
		}
		s.pub.first = p
	}
	if s.unit.def.PropagateIdentity {
		for i, m := range messages {
			messages[i] = s.withIdentity(m)
		}
	}
	results, rest := s.bounded(messages)
	results, rest = s.rated(results, rest)
	if len(rest) > 0 {
		sent := s.publishBy(ctx, s.pub.first, rest)
		if s.way.pubFallback != nil {
			s.publishFallback(ctx, rest, sent)
		}
		results = merge(results, sent)
	}
	s.countResults(results)
	return results, nil
}

// publishBy asks a publisher. If it panics, that costs these messages and not the process: a
// WebSocket publishes in a goroutine that nobody else guards.
func (s *session) publishBy(ctx context.Context, p message.Publisher, messages []*message.Message) (results []message.Result) {
	defer func() {
		if cause := recover(); cause != nil {
			s.Logger().Error("the endpoint panicked while publishing", zap.Any("panic", cause), zap.Stack("stack"))
			err := message.Errorf(message.OutcomeUnknown, "publishing failed within the gateway, whose log says why")
			results = slices.Repeat([]message.Result{{Status: message.Unknown, Err: err}}, len(messages))
		}
	}()
	return p.Publish(ctx, s.way.needs.QoS, messages...)
}

// bounded refuses messages that are over the endpoint's bound. results is nil when none is.
func (s *session) bounded(messages []*message.Message) (results []message.Result, rest []*message.Message) {
	limit := s.way.pub.caps.MaxPayload
	if limit <= 0 {
		return nil, messages
	}
	for i, m := range messages {
		if len(m.Payload) <= limit {
			if results != nil {
				rest = append(rest, m)
			}
			continue
		}
		if results == nil {
			results = make([]message.Result, len(messages))
			rest = append(rest, messages[:i]...)
		}
		results[i] = message.Result{Status: message.Refused, Err: message.Errorf(message.TooLarge,
			"%d bytes are more than the %d that endpoint %s takes", len(m.Payload), limit, s.way.pub.name)}
	}
	if results == nil {
		return nil, messages
	}
	return results, rest
}

// rated refuses the messages that are over the rate at which this client may publish. The
// first ones go, so that what a client sends again is the rest.
func (s *session) rated(results []message.Result, rest []*message.Message) ([]message.Result, []*message.Message) {
	if s.account == nil || len(rest) == 0 {
		return results, rest
	}
	allowed, retry := s.account.Publish(len(rest))
	over := len(rest) - allowed
	if over == 0 {
		return results, rest
	}
	s.app.metrics.limited.WithLabelValues(s.unit.def.ID, s.principal.Plan, "publish_rate").Add(float64(over))
	if results == nil {
		results = make([]message.Result, len(rest))
	}
	open := 0
	for i := range results {
		if results[i].Err != nil {
			continue
		}
		if open++; open > allowed {
			err := message.Errorf(message.Busy, "more messages than this plan allows to publish")
			err.RetryAfter = retry
			results[i] = message.Result{Status: message.Refused, Err: err}
		}
	}
	return results, rest[:allowed]
}

// merge puts what was sent into the places that were not refused before.
func merge(results, sent []message.Result) []message.Result {
	if results == nil {
		return sent
	}
	next := 0
	for i := range results {
		if results[i].Err == nil {
			results[i] = sent[next]
			next++
		}
	}
	return results
}

// publishFallback tries the messages again that are certainly not at the first broker,
// because it could not be reached.
func (s *session) publishFallback(ctx context.Context, messages []*message.Message, results []message.Result) {
	var (
		again []*message.Message
		at    []int
	)
	for i := range results {
		if results[i].Status == message.Refused && message.KindOf(results[i].Err) == message.Unavailable {
			again, at = append(again, messages[i]), append(at, i)
		}
	}
	if len(again) == 0 {
		return
	}
	for i, r := range s.tryFallback(ctx, again) {
		if !r.Status.OK() {
			r.Err = message.Errorf(message.Unavailable, "%w; the fallback failed too: %w", results[at[i]].Err, r.Err)
		}
		results[at[i]] = r
	}
}

// tryFallback gives messages to the fallback. That it has no publisher for this request is
// an outcome for these messages alone: others may be at the first broker.
func (s *session) tryFallback(ctx context.Context, messages []*message.Message) []message.Result {
	if s.pub.fallback == nil {
		p, err := s.way.pubFallback.pub.Publisher(valuesOf(s.request))
		if err != nil {
			return slices.Repeat([]message.Result{{Status: message.Refused, Err: err}}, len(messages))
		}
		s.pub.fallback = p
	}
	return s.publishBy(ctx, s.pub.fallback, messages)
}

// withIdentity returns the message with the ids of the exchange as headers. The client's
// message stays as it is; headers of those names that it set itself are replaced.
func (s *session) withIdentity(m *message.Message) *message.Message {
	names := &s.app.names
	own := *m
	own.Headers = make([]message.Header, 0, len(m.Headers)+3)
	for _, h := range m.Headers {
		if !names.is(h.Name) {
			own.Headers = append(own.Headers, h)
		}
	}
	own.Headers = append(own.Headers,
		message.Header{Name: names.request, Value: s.identity.RequestID},
		message.Header{Name: names.transaction, Value: s.identity.TransactionID},
		message.Header{Name: names.client, Value: s.identity.Client})
	return &own
}

func (s *session) countResults(results []message.Result) {
	var n [4]int
	for i := range results {
		n[results[i].Status]++
	}
	for status, count := range n {
		if count > 0 {
			s.counters.published[status].Add(float64(count))
		}
	}
}
