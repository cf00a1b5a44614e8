package rabbitmq

import (
	"encoding/binary"
	"strings"
	"time"
	"unicode/utf8"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// contentType is the header that is a property in AMQP.
const contentType = "content-type"

// headerRoom is what a frame of properties needs besides the headers. The protocol can't
// split that frame.
const headerRoom = 2 << 10

// encode makes what is published of a message. What the broker would close the connection
// for is refused here, because others use it too.
func encode(m *message.Message, id string, mode uint8, frame int) (amqp.Publishing, error) {
	p := amqp.Publishing{DeliveryMode: mode, MessageId: id, Timestamp: m.Time, Body: m.Payload}
	if p.Timestamp.IsZero() {
		p.Timestamp = time.Now()
	}
	if len(id) > maxShort {
		return p, message.Errorf(message.BadInput, "the message's id has %d bytes: RabbitMQ takes up to %d", len(id), maxShort)
	}
	if len(m.Headers) == 0 {
		return p, nil
	}
	size := headerRoom
	p.Headers = make(amqp.Table, len(m.Headers))
	for i := range m.Headers {
		h := &m.Headers[i]
		if len(h.Name) > maxShort {
			return p, message.Errorf(message.BadInput, "the header %.40s… has a name of %d bytes: RabbitMQ takes up to %d", h.Name, len(h.Name), maxShort)
		}
		size += len(h.Name) + len(h.Value) + 2*binary.MaxVarintLen32
		addHeader(p.Headers, h.Name, headerValue(h.Value))
		if p.ContentType == "" && len(h.Value) <= maxShort && strings.EqualFold(h.Name, contentType) && utf8.ValidString(h.Value) {
			p.ContentType = h.Value
		}
	}
	if size > frame {
		return p, message.Errorf(message.TooLarge, "the message's headers have about %d bytes: RabbitMQ takes up to %d", size-headerRoom, frame-headerRoom)
	}
	return p, nil
}

// headerValue is a text, or bytes where it is none.
func headerValue(value string) any {
	if utf8.ValidString(value) {
		return value
	}
	return []byte(value)
}

// addHeader makes an array of the values of a name that repeats: a table has each name
// once.
func addHeader(t amqp.Table, name string, value any) {
	switch before := t[name].(type) {
	case nil:
		t[name] = value
	case []any:
		t[name] = append(before, value)
	default:
		t[name] = []any{before, value}
	}
}
