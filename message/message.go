package message

import (
	"encoding/json"
	"strconv"
	"time"
)

// Message is one unit of communication. It is immutable once it has been handed
// over: several sessions may read the same value at the same time.
type Message struct {
	// ID names the message for people and for deduplication. Endpoints that have
	// nothing better leave it empty. It is not a position.
	ID string
	// Key decides about order and placement where the broker knows keys; nil means
	// that there is none.
	Key []byte
	// Payload is the content, as bytes. The gateway never interprets it.
	Payload []byte
	// Headers are the application's own, in their order; a name may repeat.
	Headers []Header
	// Metadata is what the broker says about the message, in a stable order.
	Metadata []Field
	// Time is the broker's or the producer's timestamp; zero when unknown.
	Time time.Time
}

// Header is one application header of a message. Value may hold any bytes: brokers
// do not promise UTF-8.
type Header struct {
	Name  string
	Value string
}

// Field is one named fact that a broker tells about a message. It is a small
// tagged union, so that numbers cost no allocation on the way to the client.
type Field struct {
	Name string
	kind fieldKind
	text string
	num  int64
}

type fieldKind uint8

const (
	textField fieldKind = iota
	numberField
	flagField
)

// TombstoneField is the metadata flag of a message that has no content at all, which on a
// compacted channel deletes its key. Its payload is empty.
const TombstoneField = "tombstone"

// Text makes a field that holds a string.
func Text(name, value string) Field { return Field{Name: name, kind: textField, text: value} }

// Number makes a field that holds an integer.
func Number(name string, value int64) Field { return Field{Name: name, kind: numberField, num: value} }

// Flag makes a field that holds a boolean.
func Flag(name string, value bool) Field {
	f := Field{Name: name, kind: flagField}
	if value {
		f.num = 1
	}
	return f
}

// Value returns the field's value as a string, an int64 or a bool.
func (f Field) Value() any {
	switch f.kind {
	case numberField:
		return f.num
	case flagField:
		return f.num != 0
	default:
		return f.text
	}
}

// String returns the value as text, the way it stands in an SSE comment.
func (f Field) String() string {
	switch f.kind {
	case numberField:
		return strconv.FormatInt(f.num, 10)
	case flagField:
		return strconv.FormatBool(f.num != 0)
	default:
		return f.text
	}
}

// AppendJSON appends the value, without the name, as JSON.
func (f Field) AppendJSON(dst []byte) []byte {
	switch f.kind {
	case numberField:
		return strconv.AppendInt(dst, f.num, 10)
	case flagField:
		return strconv.AppendBool(dst, f.num != 0)
	default:
		return AppendJSONString(dst, f.text)
	}
}

// MarshalJSON renders the value alone; the name is the key beside it.
func (f Field) MarshalJSON() ([]byte, error) { return json.Marshal(f.Value()) }

// Size is the number of bytes that the message is accounted for in windows and
// logs: what the client sent, plus a flat share for the structures around it.
func (m *Message) Size() int {
	const overhead = 160
	n := overhead + len(m.ID) + len(m.Key) + len(m.Payload)
	for i := range m.Headers {
		n += len(m.Headers[i].Name) + len(m.Headers[i].Value)
	}
	for i := range m.Metadata {
		n += 24 + len(m.Metadata[i].text)
	}
	return n
}

// Header returns the first value of the named header and whether there is one.
// Names are compared exactly, as brokers do.
func (m *Message) Header(name string) (string, bool) {
	for i := range m.Headers {
		if m.Headers[i].Name == name {
			return m.Headers[i].Value, true
		}
	}
	return "", false
}

// Field returns the named metadata field and whether there is one.
func (m *Message) Field(name string) (Field, bool) {
	for i := range m.Metadata {
		if m.Metadata[i].Name == name {
			return m.Metadata[i], true
		}
	}
	return Field{}, false
}
