package servicebus

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/google/uuid"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// contentType is the header that is a property in AMQP.
const contentType = "content-type"

// Application properties in which the service says why a message was dead-lettered. Clients
// of the service expect text there, and some die of anything else.
const (
	deadLetterReason      = "DeadLetterReason"
	deadLetterDescription = "DeadLetterErrorDescription"
)

// encode makes what is sent of a message.
func encode(m *message.Message, props *properties) (*azservicebus.Message, error) {
	id := props.messageID
	if id == "" {
		id = m.ID
	}
	if id == "" {
		id = uuid.NewString()
	} else if err := checkLength("the message's id", id, maxID); err != nil {
		return nil, badInput(err)
	}
	out := &azservicebus.Message{Body: m.Payload, MessageID: &id}
	if props.subject != "" {
		out.Subject = &props.subject
	}
	if err := place(out, m, props); err != nil {
		return nil, err
	}
	if props.ttl > 0 {
		out.TimeToLive = &props.ttl
	}
	if props.delay > 0 {
		at := time.Now().Add(props.delay).UTC()
		out.ScheduledEnqueueTime = &at
	}
	return out, encodeHeaders(out, m.Headers)
}

// place says what order the message belongs to.
func place(out *azservicebus.Message, m *message.Message, props *properties) error {
	if props.sessionID != "" {
		out.SessionID = &props.sessionID
	}
	switch {
	case props.partitionKey != "":
		out.PartitionKey = &props.partitionKey
	case len(m.Key) > 0 && props.sessionID == "":
		key := string(m.Key)
		if err := checkLength("the message's key", key, maxID); err != nil {
			return badInput(err)
		}
		out.PartitionKey = &key
	}
	return nil
}

func encodeHeaders(out *azservicebus.Message, headers []message.Header) error {
	if len(headers) == 0 {
		return nil
	}
	out.ApplicationProperties = make(map[string]any, len(headers))
	for i := range headers {
		h := &headers[i]
		if !utf8.ValidString(h.Name) {
			return message.Errorf(message.BadInput, "the header %.40q has a name that is not UTF-8", h.Name)
		}
		value := headerValue(out.ApplicationProperties[h.Name], h.Value)
		if _, text := value.(string); !text && (h.Name == deadLetterReason || h.Name == deadLetterDescription) {
			return message.Errorf(message.BadInput, "the header %s must be text", h.Name)
		}
		out.ApplicationProperties[h.Name] = value
		if out.ContentType == nil && strings.EqualFold(h.Name, contentType) && utf8.ValidString(h.Value) {
			out.ContentType = &h.Value
		}
	}
	return nil
}

// headerValue is a text, or bytes where it is none. Properties are no lists, so the values
// of a name that repeats are joined as in HTTP.
func headerValue(before any, value string) any {
	switch b := before.(type) {
	case string:
		value = b + ", " + value
	case []byte:
		value = string(b) + ", " + value
	}
	if utf8.ValidString(value) {
		return value
	}
	return []byte(value)
}

func badInput(err error) error {
	return &message.Error{Kind: message.BadInput, Detail: err.Error(), Err: err}
}
