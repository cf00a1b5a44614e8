package mock

import (
	"context"
	"fmt"
	"strconv"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// publisher takes what is published, and drops it or hands it to the hub.
type publisher struct{ *Mock }

// Publisher implements endpoints.Publishing.
func (m *Mock) Publisher(endpoints.Values) (message.Publisher, error) { return publisher{m}, nil }

// Publish implements message.Publisher. It never waits.
func (p publisher) Publish(ctx context.Context, qos message.QoS, messages ...*message.Message) []message.Result {
	results := make([]message.Result, len(messages))
	if err := ctx.Err(); err != nil {
		for i := range results {
			results[i] = message.Result{Status: message.Refused, Err: fmt.Errorf("publish: %w", err)}
		}
		return results
	}
	status := message.Stored
	if qos == message.None {
		status = message.Handed
	}
	first := p.published.Add(uint64(len(messages))) - uint64(len(messages))
	if p.Loopback {
		first = p.hub.publish(messages)
	}
	for i, m := range messages {
		results[i] = message.Result{Status: status, ID: idOf(m, first+uint64(i))}
	}
	p.log(results, messages)
	return results
}

// idOf is the id that a published message has: its own, or its number.
func idOf(m *message.Message, number uint64) string {
	if m.ID != "" {
		return m.ID
	}
	return strconv.FormatUint(number, 10)
}

// log tells that messages came, and never what is in them.
func (p publisher) log(results []message.Result, messages []*message.Message) {
	c := p.logger.Check(zap.DebugLevel, "published")
	if c == nil || len(messages) == 0 {
		return
	}
	bytes := 0
	for _, m := range messages {
		bytes += len(m.Payload)
	}
	c.Write(
		zap.String("first_id", results[0].ID), zap.Int("messages", len(messages)),
		zap.Int("payload_bytes", bytes), zap.Uint64("total", p.published.Load()),
	)
}

var _ message.Publisher = publisher{}
