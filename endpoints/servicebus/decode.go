package servicebus

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/go-amqp"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// decode makes a message of what was received.
func decode(in *azservicebus.ReceivedMessage, from *spec, into *message.Message) {
	into.ID = messageID(in)
	switch {
	case in.SessionID != nil && *in.SessionID != "":
		into.Key = []byte(*in.SessionID)
	case in.PartitionKey != nil && *in.PartitionKey != "":
		into.Key = []byte(*in.PartitionKey)
	}
	into.Payload = body(in)
	into.Headers = headers(in.ApplicationProperties)
	if in.EnqueuedTime != nil {
		into.Time = *in.EnqueuedTime
	}
	into.Metadata = metadata(in, from, into.ID)
}

// messageID is the sender's id, or else the service's number.
func messageID(in *azservicebus.ReceivedMessage) string {
	if in.MessageID != "" {
		return in.MessageID
	}
	if p := in.RawAMQPMessage; p != nil && p.Properties != nil && p.Properties.MessageID != nil {
		return text(p.Properties.MessageID)
	}
	if in.SequenceNumber != nil {
		return strconv.FormatInt(*in.SequenceNumber, 10)
	}
	return ""
}

// attempt counts deliveries from 1, or is 0 when the service does not say.
func attempt(in *azservicebus.ReceivedMessage) int {
	if in.DeliveryCount == 0 && in.RawAMQPMessage != nil && in.RawAMQPMessage.Header != nil {
		return int(in.RawAMQPMessage.Header.DeliveryCount) + 1
	}
	return int(in.DeliveryCount)
}

// body is the content as bytes, whatever kind of body the sender has given it.
func body(in *azservicebus.ReceivedMessage) []byte {
	raw := in.RawAMQPMessage
	if in.Body != nil || raw == nil {
		return in.Body
	}
	switch {
	case len(raw.Body.Data) > 0:
		return slices.Concat(raw.Body.Data...)
	case len(raw.Body.Sequence) > 0:
		var all []any
		for _, part := range raw.Body.Sequence {
			all = append(all, part...)
		}
		return []byte(text(all))
	case raw.Body.Value != nil:
		return []byte(text(raw.Body.Value))
	}
	return nil
}

// headers are the application's properties, sorted: they have no order.
func headers(properties map[string]any) []message.Header {
	if len(properties) == 0 {
		return nil
	}
	all := make([]message.Header, 0, len(properties))
	for name, value := range properties {
		all = append(all, message.Header{Name: name, Value: text(value)})
	}
	slices.SortFunc(all, func(a, b message.Header) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// text is a value as text: what has structure, as JSON.
func text(value any) string {
	switch v := value.(type) {
	case string:
		return v
	case []byte:
		return string(v)
	case nil:
		return ""
	case bool:
		return strconv.FormatBool(v)
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	case amqp.UUID:
		return v.String()
	case map[string]any, map[any]any, []any, []string:
		if b, err := json.Marshal(plain(v)); err == nil {
			return string(b)
		}
	}
	return fmt.Sprint(value)
}

// plain makes of a value what JSON can say.
func plain(value any) any {
	switch v := value.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for name, inner := range v {
			m[name] = plain(inner)
		}
		return m
	case map[any]any:
		m := make(map[string]any, len(v))
		for name, inner := range v {
			m[text(name)] = plain(inner)
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i, inner := range v {
			list[i] = plain(inner)
		}
		return list
	case []byte:
		return base64.StdEncoding.EncodeToString(v)
	case amqp.UUID, time.Time:
		return text(v)
	}
	return value
}

// metadata is what the service and the sender's properties say: the place always, the rest
// where it is set.
func metadata(in *azservicebus.ReceivedMessage, from *spec, id string) []message.Field {
	f := fields(make([]message.Field, 0, 10))
	f.text("queue", &from.queue)
	f.text("topic", &from.topic)
	f.text("subscription", &from.subscription)
	f.number("sequence_number", in.SequenceNumber)
	f.time("enqueued_time", in.EnqueuedTime)
	f.text("message_id", &id)
	f.text("session_id", in.SessionID)
	f.text("partition_key", in.PartitionKey)
	f.text("subject", in.Subject)
	f.text("content_type", in.ContentType)
	f.text("correlation_id", in.CorrelationID)
	f.text("to", in.To)
	f.text("reply_to", in.ReplyTo)
	f.text("reply_to_session_id", in.ReplyToSessionID)
	if in.DeliveryCount > 0 {
		f = append(f, message.Number("delivery_count", int64(in.DeliveryCount)))
	}
	if in.TimeToLive != nil && *in.TimeToLive > 0 {
		f = append(f, message.Number("time_to_live", in.TimeToLive.Milliseconds()))
		f.time("expires_at", in.ExpiresAt)
	}
	f.time("scheduled_enqueue_time", in.ScheduledEnqueueTime)
	f.number("enqueued_sequence_number", in.EnqueuedSequenceNumber)
	f.text("dead_letter_source", in.DeadLetterSource)
	f.text("dead_letter_reason", in.DeadLetterReason)
	f.text("dead_letter_error_description", in.DeadLetterErrorDescription)
	return f
}

// fields collects what is set.
type fields []message.Field

func (f *fields) text(name string, value *string) {
	if value != nil && *value != "" {
		*f = append(*f, message.Text(name, *value))
	}
}

func (f *fields) number(name string, value *int64) {
	if value != nil {
		*f = append(*f, message.Number(name, *value))
	}
}

func (f *fields) time(name string, value *time.Time) {
	if value != nil && !value.IsZero() {
		*f = append(*f, message.Number(name, value.UnixMilli()))
	}
}
