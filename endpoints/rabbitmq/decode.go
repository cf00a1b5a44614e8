package rabbitmq

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// Headers in which the broker speaks. They are told as metadata, or as the attempt.
const (
	offsetHeader = "x-stream-offset"
	countHeader  = "x-delivery-count"
	// millisHeader is the broker's own time, where it is set to give one.
	millisHeader = "timestamp_in_ms"
)

// lent is a message together with what is needed to settle it.
type lent struct {
	message.Message
	session *session
	tag     uint64
	size    int    // as the gateway counts it
	wire    int    // as the flow does
	by      string // the consumer that it came by
}

// decode makes a message of what was delivered.
func decode(d *amqp.Delivery, into *message.Message) {
	into.ID, into.Payload, into.Time = d.MessageId, d.Body, d.Timestamp
	if millis, ok := integer(d.Headers[millisHeader]); ok && millis > 0 {
		into.Time = time.UnixMilli(millis)
	}
	into.Headers = headers(d.Headers)
	into.Metadata = metadata(d)
}

// headers are those that are not the broker's, sorted: a table has no order.
func headers(t amqp.Table) []message.Header {
	n := 0
	for name := range t {
		if name != offsetHeader && name != countHeader {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	all := make([]message.Header, 0, n)
	for name, value := range t {
		if name == offsetHeader || name == countHeader {
			continue
		}
		if list, ok := value.([]any); ok && allTexts(list) {
			for _, v := range list {
				all = append(all, message.Header{Name: name, Value: text(v)})
			}
			continue
		}
		all = append(all, message.Header{Name: name, Value: text(value)})
	}
	slices.SortStableFunc(all, func(a, b message.Header) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// allTexts reports whether a list is what a name that repeats becomes.
func allTexts(list []any) bool {
	for _, v := range list {
		switch v.(type) {
		case string, []byte:
		default:
			return false
		}
	}
	return len(list) > 0
}

// text is a value of a header as text: what has structure, as JSON.
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
		return v.UTC().Format(time.RFC3339)
	case amqp.Table, []any:
		if b, err := json.Marshal(plain(v)); err == nil {
			return string(b)
		}
	}
	if n, ok := integer(value); ok {
		return strconv.FormatInt(n, 10)
	}
	return fmt.Sprint(value)
}

// plain replaces the bytes in a value, which JSON would show in base64.
func plain(value any) any {
	switch v := value.(type) {
	case amqp.Table:
		m := make(map[string]any, len(v))
		for name, inner := range v {
			m[name] = plain(inner)
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i, inner := range v {
			list[i] = plain(inner)
		}
		return list
	case []byte:
		return string(v)
	}
	return value
}

func integer(value any) (int64, bool) {
	switch v := value.(type) {
	case int64:
		return v, true
	case int32:
		return int64(v), true
	case int16:
		return int64(v), true
	case int8:
		return int64(v), true
	case uint8:
		return int64(v), true
	case uint16:
		return int64(v), true
	case uint32:
		return int64(v), true
	}
	return 0, false
}

// metadata is what the broker and the publisher's properties say: the place always, the
// rest where it is set.
func metadata(d *amqp.Delivery) []message.Field {
	fields := make([]message.Field, 0, 6)
	add := func(name, value string) {
		if value != "" {
			fields = append(fields, message.Text(name, value))
		}
	}
	fields = append(fields, message.Text("exchange", d.Exchange), message.Text("routing_key", d.RoutingKey))
	if d.Redelivered {
		fields = append(fields, message.Flag("redelivered", true))
	}
	add("content_type", d.ContentType)
	add("content_encoding", d.ContentEncoding)
	if d.DeliveryMode != 0 {
		fields = append(fields, message.Number("delivery_mode", int64(d.DeliveryMode)))
	}
	if d.Priority != 0 {
		fields = append(fields, message.Number("priority", int64(d.Priority)))
	}
	add("correlation_id", d.CorrelationId)
	add("reply_to", d.ReplyTo)
	add("expiration", d.Expiration)
	add("message_id", d.MessageId)
	if !d.Timestamp.IsZero() {
		fields = append(fields, message.Number("timestamp", d.Timestamp.UnixMilli()))
	}
	add("type", d.Type)
	add("user_id", d.UserId)
	add("app_id", d.AppId)
	if offset, ok := offsetOf(d); ok {
		fields = append(fields, message.Number("stream_offset", offset))
	}
	return fields
}

// offsetOf is the message's place in a stream, if it comes from one.
func offsetOf(d *amqp.Delivery) (int64, bool) {
	value, ok := d.Headers[offsetHeader]
	if !ok {
		return 0, false
	}
	return integer(value)
}

// attempt counts deliveries: quorum queues count them, and classic queues know only
// whether there was one.
func attempt(d *amqp.Delivery) int {
	if n, ok := integer(d.Headers[countHeader]); ok {
		return int(n) + 1
	}
	if d.Redelivered {
		return 0
	}
	return 1
}
