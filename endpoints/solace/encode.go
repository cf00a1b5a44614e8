//go:build cgo && (linux || darwin)

package solace

import (
	"strings"
	"time"
	"unicode/utf8"

	api "solace.dev/go/messaging/pkg/solace"
	"solace.dev/go/messaging/pkg/solace/config"
	apimessage "solace.dev/go/messaging/pkg/solace/message"
	"solace.dev/go/messaging/pkg/solace/message/sdt"

	"github.com/caddy-message-api/caddy-message-api/message"
)

const (
	// contentType is the header that is a property of its own in Solace.
	contentType = "content-type"
	// keyProperty is the user property that is a message's key.
	keyProperty = string(config.QueuePartitionKey)
	// reserved is how names begin that the library takes for its own properties.
	reserved = "solace.messaging."
	// maxProperty is how long ids and names may be, in bytes: more makes no sense.
	maxProperty = 32 << 10
)

// draft is what all messages of a publisher have in common.
type draft struct {
	key, id, correlation string
	// prompt asks the broker to acknowledge at once, and not when it has more to say.
	prompt bool
	fixed  config.MessagePropertyMap
}

// draft is what the configuration says.
func (p *Producer) draft() draft {
	fixed := config.MessagePropertyMap{config.MessagePropertyPersistentDMQEligible: on(p.DeadLetter)}
	if p.Priority != nil {
		fixed[config.MessagePropertyPriority] = *p.Priority
	}
	if p.TimeToLive > 0 {
		fixed[config.MessagePropertyPersistentTimeToLive] = time.Duration(p.TimeToLive).Milliseconds()
	}
	return draft{fixed: fixed}
}

// build makes what is published of a message.
func (d *draft) build(b api.OutboundMessageBuilder, m *message.Message) (apimessage.OutboundMessage, error) {
	p := make(config.MessagePropertyMap, len(d.fixed)+len(m.Headers)+4)
	for name, value := range d.fixed {
		p[name] = value
	}
	if d.prompt {
		p[config.MessagePropertyPersistentAckImmediately] = true
	}
	if err := addID(p, config.MessagePropertyApplicationMessageID, d.id); err != nil {
		return nil, err
	}
	if err := addID(p, config.MessagePropertyCorrelationID, d.correlation); err != nil {
		return nil, err
	}
	if err := addHeaders(p, m.Headers); err != nil {
		return nil, err
	}
	switch {
	case m.Key != nil:
		p[config.QueuePartitionKey] = property(string(m.Key))
	case d.key != "":
		p[config.QueuePartitionKey] = property(d.key)
	}
	out, err := b.FromConfigurationProvider(p).BuildWithByteArrayPayload(m.Payload)
	if err != nil {
		return nil, message.Errorf(message.BadInput, "Solace's client library does not take the message: %w", err)
	}
	return out, nil
}

func addID(p config.MessagePropertyMap, name config.MessageProperty, id string) error {
	if id == "" {
		return nil
	}
	if !isText(id) || len(id) > maxProperty {
		return message.Errorf(message.BadInput, "the id %.40q can't be one in Solace: an id is text without NUL, of up to %d bytes", id, maxProperty)
	}
	p[name] = id
	return nil
}

func addHeaders(p config.MessagePropertyMap, headers []message.Header) error {
	for i := range headers {
		h := &headers[i]
		if h.Name == "" || len(h.Name) > maxProperty || !isText(h.Name) {
			return message.Errorf(message.BadInput, "the header %.40q can't be a user property in Solace: "+
				"its name must be 1 to %d bytes of text without NUL", h.Name, maxProperty)
		}
		if strings.HasPrefix(h.Name, reserved) {
			return message.Errorf(message.BadInput, "the header %.60s can't be a user property: Solace's client library keeps names that begin with %s for itself", h.Name, reserved)
		}
		name := config.MessageProperty(h.Name)
		switch before := p[name].(type) {
		case nil:
			p[name] = property(h.Value)
		case sdt.Stream: // a map has each name once
			p[name] = append(before, property(h.Value))
		default:
			p[name] = sdt.Stream{before, property(h.Value)}
		}
		if strings.EqualFold(h.Name, contentType) && isText(h.Value) && p[config.MessagePropertyHTTPContentType] == nil {
			p[config.MessagePropertyHTTPContentType] = h.Value
		}
	}
	return nil
}

// property is a text, or bytes where it is none.
func property(value string) any {
	if isText(value) {
		return value
	}
	return []byte(value)
}

// isText: the library ends texts at the first NUL.
func isText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }
