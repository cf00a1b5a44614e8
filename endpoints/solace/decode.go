//go:build cgo && (linux || darwin)

package solace

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	apimessage "solace.dev/go/messaging/pkg/solace/message"
	"solace.dev/go/messaging/pkg/solace/message/sdt"
	"solace.dev/go/messaging/pkg/solace/resource"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// decode makes a message of what was delivered. Nothing of it stays in the library's
// memory.
func decode(in apimessage.InboundMessage, raw bool, into *message.Message) {
	into.Payload = payload(in, raw)
	into.ID, _ = in.GetApplicationMessageID()
	into.Headers, into.Key = headers(in.GetProperties())
	sent, ok := in.GetSenderTimestamp()
	if ok && sent.UnixMilli() > 0 {
		into.Time = sent
	}
	into.Metadata = metadata(in, into.ID, into.Time)
}

// payload is the content. What other clients send as text is its bytes; maps and streams,
// which have types of Solace's own, become JSON.
func payload(in apimessage.InboundMessage, raw bool) []byte {
	b, _ := in.GetPayloadAsBytes() // an empty payload is none
	value, ok := typed(b)
	if raw || !ok {
		return b
	}
	if text, ok := value.(string); ok {
		return []byte(text)
	}
	return asJSON(value)
}

func asJSON(value any) []byte {
	b, err := json.Marshal(plain(value))
	if err != nil { // plain leaves nothing that JSON can't say
		return fmt.Append(nil, value)
	}
	return b
}

// plain makes a value of what JSON knows: bytes are text where they are UTF-8, else base64.
func plain(value any) any {
	switch v := value.(type) {
	case sdt.Map:
		return plainMap(v)
	case map[string]any:
		return plainMap(v)
	case sdt.Stream:
		return plainList(v)
	case []any:
		return plainList(v)
	case []byte:
		if utf8.Valid(v) {
			return string(v)
		}
		return v
	case sdt.WChar:
		return string(rune(v))
	case resource.Destination:
		return v.GetName()
	case float32:
		return plain(float64(v))
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Sprint(v)
		}
	}
	return value
}

func plainMap[V any](in map[string]V) map[string]any {
	out := make(map[string]any, len(in))
	for name, inner := range in {
		out[name] = plain(inner)
	}
	return out
}

func plainList[V any](in []V) []any {
	out := make([]any, len(in))
	for i, inner := range in {
		out[i] = plain(inner)
	}
	return out
}

// headers are the user properties, sorted: a map has no order. One of them is the key.
func headers(properties sdt.Map) (all []message.Header, key []byte) {
	for name, value := range properties {
		if name == keyProperty {
			key = append([]byte{}, text(value)...)
			continue
		}
		if list, ok := value.(sdt.Stream); ok && allTexts(list) {
			for _, v := range list {
				all = append(all, message.Header{Name: name, Value: text(v)})
			}
			continue
		}
		all = append(all, message.Header{Name: name, Value: text(value)})
	}
	slices.SortStableFunc(all, func(a, b message.Header) int { return strings.Compare(a.Name, b.Name) })
	return all, key
}

// allTexts reports whether a stream is what a name that repeats becomes.
func allTexts(list sdt.Stream) bool {
	for _, v := range list {
		switch v.(type) {
		case string, []byte:
		default:
			return false
		}
	}
	return len(list) > 0
}

// text is a property as text: what has structure, as JSON.
func text(value any) string {
	switch v := value.(type) {
	case string:
		return v
	case []byte:
		return string(v)
	case nil:
		return ""
	case sdt.Map, sdt.Stream:
		return string(asJSON(v))
	case resource.Destination:
		return v.GetName()
	case sdt.WChar:
		return string(rune(v))
	case int64:
		return strconv.FormatInt(v, 10)
	}
	return fmt.Sprint(value)
}

// metadata is what the broker and the publisher's properties say: the destination always,
// the rest where it is set.
func metadata(in apimessage.InboundMessage, id string, sent time.Time) []message.Field {
	fields := make([]message.Field, 0, 6)
	add := func(name, value string, ok bool) {
		if ok && value != "" {
			fields = append(fields, message.Text(name, value))
		}
	}
	fields = append(fields, message.Text("destination", in.GetDestinationName()))
	if in.IsRedelivered() {
		fields = append(fields, message.Flag("redelivered", true))
	}
	add("message_id", id, true)
	value, ok := in.GetCorrelationID()
	add("correlation_id", value, ok)
	value, ok = in.GetApplicationMessageType()
	add("type", value, ok)
	value, ok = in.GetSenderID()
	add("sender_id", value, ok)
	if n, ok := in.GetSequenceNumber(); ok {
		fields = append(fields, message.Number("sequence_number", n))
	}
	if !sent.IsZero() {
		fields = append(fields, message.Number("sender_timestamp", sent.UnixMilli()))
	}
	if at := in.GetExpiration().UnixMilli(); at > 0 {
		fields = append(fields, message.Number("expiration", at))
	}
	if n, ok := in.GetPriority(); ok {
		fields = append(fields, message.Number("priority", int64(n)))
	}
	value, ok = in.GetHTTPContentType()
	add("content_type", value, ok)
	value, ok = in.GetHTTPContentEncoding()
	add("content_encoding", value, ok)
	if place, ok := in.GetReplicationGroupMessageID(); ok {
		add("replication_group_message_id", place.String(), true)
	}
	return fields
}
