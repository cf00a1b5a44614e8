package mqtt5

import (
	"encoding/base64"
	"encoding/binary"
	"strings"
	"unicode/utf8"

	"github.com/eclipse/paho.golang/packets"

	"github.com/caddy-message-api/caddy-message-api/message"
)

const (
	// idProperty is the user property that carries a message's id.
	idProperty = "message-id"
	// binarySuffix marks the name of a user property whose value MQTT could not carry, and
	// that is therefore in base64. ';' stands in no name of an HTTP header.
	binarySuffix      = ";base64"
	contentTypeHeader = "content-type"
)

// appendMessageProperties appends the properties that come from the message itself.
func appendMessageProperties(dst []byte, m *message.Message, contentType string) ([]byte, error) {
	given := m.ID != ""
	for i := range m.Headers {
		h := &m.Headers[i]
		if len(h.Name) == len(contentTypeHeader) && strings.EqualFold(h.Name, contentTypeHeader) && isText(h.Value) {
			contentType = h.Value
		}
		if h.Name == idProperty {
			given = false
		}
	}
	if contentType != "" {
		dst = appendString(append(dst, packets.PropContentType), contentType)
	}
	var err error
	if given {
		if dst, err = appendUser(dst, idProperty, m.ID); err != nil {
			return dst, err
		}
	}
	for i := range m.Headers {
		if dst, err = appendUser(dst, m.Headers[i].Name, m.Headers[i].Value); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

func appendUser(dst []byte, name, value string) ([]byte, error) {
	if !isText(value) {
		name += binarySuffix
		value = base64.StdEncoding.EncodeToString([]byte(value))
	}
	switch {
	case len(name) > 0xffff || len(value) > 0xffff:
		return dst, message.Errorf(message.TooLarge, "header %.40q is longer than the 65,535 bytes that MQTT can carry", name)
	case !isText(name):
		return dst, message.Errorf(message.BadInput, "header name %.40q is not UTF-8 text, as MQTT wants it", name)
	}
	return appendString(appendString(append(dst, packets.PropUser), name), value), nil
}

// appendFixed appends the properties that are the same for all messages of a publisher.
func appendFixed(dst []byte, expiry uint32, responseTopic, correlation string) []byte {
	if expiry > 0 {
		dst = binary.BigEndian.AppendUint32(append(dst, packets.PropMessageExpiry), expiry)
	}
	if responseTopic != "" {
		dst = appendString(append(dst, packets.PropResponseTopic), responseTopic)
	}
	if correlation != "" {
		dst = appendString(append(dst, packets.PropCorrelationData), correlation)
	}
	return dst
}

// fill makes a message of a PUBLISH. topic is p's, as a string.
func fill(m *message.Message, p *publish, topic string) {
	m.Payload = p.payload
	if len(p.user) > 0 {
		m.Headers = make([]message.Header, len(p.user))
		for i := range p.user {
			m.Headers[i] = header5(p.user[i])
			if p.user[i].name == idProperty {
				m.ID = p.user[i].value
			}
		}
	}
	fields := make([]message.Field, 4, 10)
	fields[0] = message.Text("topic", topic)
	fields[1] = message.Number("qos", int64(p.qos))
	fields[2] = message.Flag("retain", p.retain)
	fields[3] = message.Flag("redelivered", p.dup)
	if p.contentType != "" {
		fields = append(fields, message.Text("content_type", p.contentType))
	}
	if p.responseTopic != "" {
		fields = append(fields, message.Text("response_topic", p.responseTopic))
	}
	if len(p.correlation) > 0 {
		if utf8.Valid(p.correlation) {
			fields = append(fields, message.Text("correlation_data", string(p.correlation)))
		} else {
			fields = append(fields, message.Text("correlation_data_base64", base64.StdEncoding.EncodeToString(p.correlation)))
		}
	}
	if p.hasExpiry {
		fields = append(fields, message.Number("message_expiry", int64(p.expiry)))
	}
	if p.hasFormat {
		fields = append(fields, message.Number("payload_format", int64(p.format)))
	}
	m.Metadata = fields
}

// header5 undoes what appendUser did to values that MQTT can't carry, and to those only.
func header5(u userProperty) message.Header {
	if name, marked := strings.CutSuffix(u.name, binarySuffix); marked {
		if raw, err := base64.StdEncoding.Strict().DecodeString(u.value); err == nil && !isText(string(raw)) {
			return message.Header{Name: name, Value: string(raw)}
		}
	}
	return message.Header{Name: u.name, Value: u.value}
}
