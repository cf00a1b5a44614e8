package kafka

import (
	"encoding/base64"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// chunk is how many messages share their allocations.
const chunk = 128

// builder makes deliveries out of records. Keys, payloads and header texts stay where
// they were read; what is new is allocated for many messages at a time. Nothing that was
// handed out is ever touched again.
type builder struct {
	messages []message.Message
	fields   []message.Field
	headers  []message.Header
	ids      []byte
}

// Facts per message: topic, partition, offset, timestamp, key, tombstone.
const maxFields = 6

// delivery makes a delivery of r. expect is how many more are likely to follow.
func (b *builder) delivery(p *part, r *record, expect int) (message.Delivery, error) {
	n := min(max(expect, 1), chunk)
	if len(b.messages) == cap(b.messages) {
		b.messages = make([]message.Message, 0, n)
	}
	b.messages = append(b.messages, message.Message{
		ID:       b.id(p, r.offset, n),
		Key:      r.key,
		Payload:  r.value,
		Metadata: b.metadata(p, r, n),
	})
	m := &b.messages[len(b.messages)-1]
	if m.Payload == nil {
		m.Payload = []byte{}
	}
	if r.headers > 0 {
		if err := b.addHeaders(m, r, n); err != nil {
			return message.Delivery{}, err
		}
	}
	d := message.Delivery{Message: m, Lane: p.lane, Epoch: p.epoch}
	d.Mark = message.Mark{Channel: p.topic, Partition: p.id, Next: r.offset + 1}
	if r.time >= 0 {
		m.Time = time.UnixMilli(r.time)
		d.Mark.Time = r.time
	}
	return d, nil
}

func (b *builder) id(p *part, offset int64, n int) string {
	const digits = 34 // both numbers and both signs
	need := len(p.topic) + digits
	if cap(b.ids)-len(b.ids) < need {
		b.ids = make([]byte, 0, n*need)
	}
	from := len(b.ids)
	b.ids = appendPlace(b.ids, p.topic, p.id, offset)
	return text(b.ids[from:])
}

func (b *builder) metadata(p *part, r *record, n int) []message.Field {
	if cap(b.fields)-len(b.fields) < maxFields {
		b.fields = make([]message.Field, 0, n*maxFields)
	}
	from := len(b.fields)
	b.fields = append(b.fields,
		message.Text("topic", p.topic),
		message.Number("partition", int64(p.id)),
		message.Number("offset", r.offset))
	if r.time >= 0 {
		b.fields = append(b.fields, message.Number("timestamp", r.time))
	}
	switch {
	case r.key == nil:
	case utf8.Valid(r.key):
		b.fields = append(b.fields, message.Text("key", text(r.key)))
	default:
		b.fields = append(b.fields, message.Text("key_base64", base64.StdEncoding.EncodeToString(r.key)))
	}
	if r.value == nil {
		b.fields = append(b.fields, message.Flag(tombstoneField, true))
	}
	return b.fields[from:len(b.fields):len(b.fields)]
}

func (b *builder) addHeaders(m *message.Message, r *record, n int) error {
	if cap(b.headers)-len(b.headers) < int(r.headers) {
		b.headers = make([]message.Header, 0, max(int(r.headers), min(n*int(r.headers), 8*chunk)))
	}
	from := len(b.headers)
	err := r.eachHeader(func(name, value []byte) {
		b.headers = append(b.headers, message.Header{Name: text(name), Value: text(value)})
	})
	m.Headers = b.headers[from:len(b.headers):len(b.headers)]
	return err
}

// text is a string over bytes that nobody changes any more.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
