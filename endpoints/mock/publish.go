package mock

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// Publisher implements endpoints.Publishing.
func (m *Mock) Publisher(endpoints.Values) (message.Publisher, error) { return m, nil }

// Publish implements message.Publisher. The log tells how much was published and never
// what.
func (m *Mock) Publish(_ context.Context, qos message.QoS, messages ...*message.Message) []message.Result {
	if c := m.log.Check(zap.DebugLevel, "published"); c != nil {
		bytes := 0
		for _, msg := range messages {
			bytes += len(msg.Payload)
		}
		c.Write(zap.Int("messages", len(messages)), zap.Int("bytes", bytes))
	}
	status := message.Stored
	if qos == message.None {
		status = message.Handed
	}
	results := make([]message.Result, len(messages))
	var ids []string
	if m.hub != nil {
		ids = m.hub.publish(time.Now(), messages)
	}
	for i, msg := range messages {
		results[i] = message.Result{Status: status, ID: msg.ID}
		if ids != nil {
			results[i].ID = ids[i]
		}
	}
	return results
}
