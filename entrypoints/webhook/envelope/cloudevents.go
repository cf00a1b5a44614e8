package envelope

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// CloudEvents has messages sent as CloudEvents 1.0 in binary mode: the payload stays what it
// is, and the attributes are headers.
//
// A message that is a CloudEvent in binary mode at the broker already keeps its attributes:
// those of Kafka's binding (ce_id), of AMQP's (cloudEvents:id, cloudEvents_id), of HTTP's (ce-id),
// and of MQTT's (id, where specversion, id, source and type are all there; extensions, whose
// names can't be told from others there, go out only as the message headers that they are). One
// in structured mode (application/cloudevents+json) goes out as it is, without attributes
// around it. Of any other message id is the webhook-id and time that of the message, if it has
// one.
type CloudEvents struct {
	// Source is the attribute source: a URI or a part of one, like /orders.
	Source string `json:"source"`
	// Type is the attribute type, like com.example.order.changed.
	Type string `json:"type"`
}

const (
	eventPrefix      = "Ce-"
	eventVersionKey  = "Ce-Specversion"
	eventIDKey       = "Ce-Id"
	eventSourceKey   = "Ce-Source"
	eventTypeKey     = "Ce-Type"
	eventTimeKey     = "Ce-Time"
	eventVersion     = "1.0"
	structuredPrefix = "application/cloudevents"
	maxAttribute     = 1024
)

// check tells what is wrong with the configuration.
func (c *CloudEvents) check() error {
	switch {
	case c.Source == "":
		return errors.New("cloudevents: source is missing: a URI that tells where the events come from, like /orders")
	case c.Type == "":
		return errors.New("cloudevents: type is missing: it tells what the events are, like com.example.order.changed")
	case len(encodeAttribute(c.Source)) > maxAttribute || len(encodeAttribute(c.Type)) > maxAttribute:
		return errors.New("cloudevents: source and type have at most 1,024 bytes each, in percent-encoding")
	case !isAttribute(c.Source) || !isAttribute(c.Type):
		return errors.New("cloudevents: source and type are text without control characters")
	}
	if _, err := url.Parse(c.Source); err != nil {
		return errors.New("cloudevents: source is no URI, nor a part of one")
	}
	return nil
}

// spelling is how a header names an attribute.
type spelling uint8

const (
	none     spelling = iota
	prefixed          // in the manner of Kafka, AMQP or HTTP
	bare              // in the manner of MQTT
)

// attribute is what a message header is in a CloudEvent. key is empty where it can't go out.
type attribute struct {
	spelling spelling
	key      string
	encoded  bool // the value is percent-encoded already
}

var attributePrefixes = []struct {
	text    string
	encoded bool
}{{"ce_", false}, {"cloudevents:", false}, {"cloudevents_", false}, {"ce-", true}}

func attributeOf(name string) attribute {
	for _, p := range attributePrefixes {
		if len(name) <= len(p.text) || !strings.EqualFold(name[:len(p.text)], p.text) {
			continue
		}
		a := attribute{spelling: prefixed, encoded: p.encoded}
		switch short := strings.ToLower(name[len(p.text):]); {
		case short == "data" || short == "data_base64" || short == "datacontenttype" || !isAttributeName(short):
			// The content is the body, and its type is Content-Type.
		default:
			a.key = eventPrefix + strings.ToUpper(short[:1]) + short[1:]
		}
		return a
	}
	switch name {
	case "specversion", "id", "source", "type", "time", "subject", "dataschema":
		return attribute{spelling: bare, key: eventPrefix + strings.ToUpper(name[:1]) + name[1:]}
	}
	return attribute{}
}

func isAttributeName(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// isAttribute reports whether a value is one that CloudEvents allow in a text.
func isAttribute(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r < 0x20 || r >= 0x7f && r < 0xa0 || r&0xfffe == 0xfffe || r >= 0xfdd0 && r <= 0xfdef {
			return false
		}
	}
	return true
}

// eventIn tells whether a message is a CloudEvent 1.x in binary mode, and how it spells that.
func eventIn(m *message.Message, allow *allowList) spelling {
	var found [4]bool
	for i := range m.Headers {
		switch a := allow.of(m.Headers[i].Name).attribute; {
		case a.spelling == none:
		case a.key == eventVersionKey && !strings.HasPrefix(m.Headers[i].Value, "1."):
		case a.spelling == prefixed && a.key == eventVersionKey:
			return prefixed
		case a.spelling == bare && m.Headers[i].Value != "" && isRequired(a.key):
			found[slices.Index(requiredKeys[:], a.key)] = true
		}
	}
	if found == [4]bool{true, true, true, true} {
		return bare
	}
	return none
}

var requiredKeys = [4]string{eventVersionKey, eventIDKey, eventSourceKey, eventTypeKey}

func isRequired(key string) bool { return slices.Contains(requiredKeys[:], key) }

// isStructured reports whether a body of this type is a CloudEvent, or a batch of them.
func isStructured(contentType string) bool {
	return len(contentType) >= len(structuredPrefix) && strings.EqualFold(contentType[:len(structuredPrefix)], structuredPrefix)
}

const hexDigits = "0123456789ABCDEF"

// encodeAttribute writes a value as §3.1.3.2 of the HTTP binding says: in percent-encoding is
// what is not visible ASCII, and space, '"' and '%'.
func encodeAttribute(s string) string {
	more := 0
	for i := range len(s) {
		if escapes(s[i]) {
			more += 2
		}
	}
	if more == 0 {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + more)
	for i := range len(s) {
		if c := s[i]; escapes(c) {
			b.WriteByte('%')
			b.WriteByte(hexDigits[c>>4])
			b.WriteByte(hexDigits[c&15])
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func escapes(c byte) bool { return c <= ' ' || c >= 0x7f || c == '"' || c == '%' }

// decodeAttribute undoes the percent-encoding of a value that came by HTTP. What is not
// encoded rightly is taken as it stands.
func decodeAttribute(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	if raw, err := url.PathUnescape(s); err == nil {
		return raw
	}
	return s
}
