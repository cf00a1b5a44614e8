package smftest

import (
	"fmt"
	"time"
)

// Message is one message as a client of the broker sees it.
type Message struct {
	// Topic is where it was published to. For Put, the default leads to the queue alone.
	Topic   string
	Payload []byte
	// Text: the payload is marked as a string instead of bytes.
	Text bool
	// Persistent tells how it was published: with acknowledgement, or direct.
	Persistent bool

	// Properties are the user properties: string, []byte, bool, float64, float32 and all
	// kinds of integers (they come back as wide as they were sent); nil is a null.
	Properties map[string]any

	ApplicationMessageID   string
	ApplicationMessageType string
	CorrelationID          string
	SenderID               string
	HTTPContentType        string
	HTTPContentEncoding    string
	// SequenceNumber is absent if nil.
	SequenceNumber *int64
	// SenderTimestamp is absent if zero; it has milliseconds.
	SenderTimestamp time.Time
	// Expiration is absent if zero; it has milliseconds. It is for the receiver's
	// information only: what the broker heeds is TTL.
	Expiration time.Time
	// Priority is 4 if nil, as the client library has it.
	Priority *int
	// TTL is how long a queue with RespectTTL keeps it; 0: for ever.
	TTL time.Duration
	// DMQEligible: when a queue gives it up, it goes to the dead message queue.
	DMQEligible bool
	// Redelivered: it had been delivered before. Only Server.Take says so.
	Redelivered bool
}

// Classes of messages, by which receivers know how to read the payload.
const (
	classBytes = 0x80
	classText  = 0x07
)

// packet encodes a message. A property of a type that can't be sent is an error.
func (m *Message) packet() (*packet, error) {
	p := &packet{topic: m.Topic, guaranteed: m.Persistent, ttl: m.TTL, body: m.Payload}
	if m.Persistent {
		p.mode = modePersistent
	}
	if m.DMQEligible {
		p.flags |= flagDMQEligible
	}
	p.params = appendText(nil, 0x80|paramTopic, m.Topic)
	metadata, err := m.metadata()
	if err != nil {
		return nil, fmt.Errorf("message to %s: %w", m.Topic, err)
	}
	if metadata != nil {
		if m.Text {
			p.body = appendWide(nil, sdtString, append([]byte(string(m.Payload)), 0))
		}
		p.params = appendSummary(p.params, len(p.body), len(metadata))
		p.body = append(p.body[:len(p.body):len(p.body)], metadata...)
	}
	priority := 4
	if m.Priority != nil {
		priority = *m.Priority
	}
	p.params = append(p.params, paramPriority, 3, byte(priority))
	return p, nil
}

// metadata encodes what is neither payload nor header; nil if there is nothing.
func (m *Message) metadata() ([]byte, error) {
	var header, user []pair
	for _, p := range m.named() {
		if p.value != "" {
			header = append(header, p)
		}
	}
	for name, value := range m.Properties {
		user = append(user, pair{name, value})
	}
	if len(header) == 0 && len(user) == 0 && !m.Text {
		return nil, nil
	}
	var all []pair
	if len(header) > 0 {
		all = append(all, pair{"h", header})
	}
	if len(user) > 0 {
		all = append(all, pair{"p", user})
	}
	class := []byte{classBytes, 0}
	if m.Text {
		class[0] = classText
	}
	inner, err := appendMap(appendSized(nil, sdtBytes, class), all)
	if err != nil {
		return nil, err
	}
	block := appendWide(nil, sdtStream, inner)
	n := len(block)
	return append([]byte{1, 0, byte(n >> 16), byte(n >> 8), byte(n)}, block...), nil
}

// named is what stands in the header map, by the names that it has there. What is absent
// is "".
func (m *Message) named() []pair {
	number := func(absent bool, n int64) any {
		if absent {
			return ""
		}
		return n
	}
	var sequence int64
	if m.SequenceNumber != nil {
		sequence = *m.SequenceNumber
	}
	return []pair{
		{"ct", m.HTTPContentType}, {"ce", m.HTTPContentEncoding},
		{"mt", m.ApplicationMessageType}, {"mi", m.ApplicationMessageID},
		{"ci", m.CorrelationID}, {"si", m.SenderID},
		{"sn", number(m.SequenceNumber == nil, sequence)},
		{"ts", number(m.SenderTimestamp.IsZero(), m.SenderTimestamp.UnixMilli())},
		{"ex", number(m.Expiration.IsZero(), m.Expiration.UnixMilli())},
	}
}

// message decodes a packet.
func (p *packet) message() (Message, error) {
	m := Message{Topic: p.topic, Persistent: p.guaranteed, TTL: p.ttl, DMQEligible: p.flags&flagDMQEligible != 0}
	var summary []byte
	for rest := p.params; ; {
		var one param
		var err error
		if one, rest, err = nextParam(rest); err != nil {
			return m, err
		} else if one.raw == nil {
			break
		}
		switch {
		case one.light:
		case one.kind == paramPriority:
			n := int(number(one.value))
			m.Priority = &n
		case one.kind == paramSummary:
			summary = one.value
		}
	}
	payload, metadata, err := parts(summary, p.body)
	if err != nil {
		return m, err
	}
	m.Payload = payload
	return m, m.describe(metadata)
}

// describe takes in the metadata.
func (m *Message) describe(metadata []byte) error {
	if len(metadata) < 5 {
		return nil
	}
	size := number(metadata[2:5])
	if metadata[1] != 0 || size > uint64(len(metadata)-5) {
		return fmt.Errorf("%w: metadata %.20x", errMalformed, metadata)
	}
	_, stream, _, err := nextItem(metadata[5 : 5+size])
	if err != nil {
		return err
	}
	items, err := itemsOf(stream, 0)
	if err != nil {
		return err
	}
	for _, one := range items {
		switch v := one.(type) {
		case []byte:
			m.Text = len(v) > 0 && v[0] == classText
		case []pair:
			for _, p := range v {
				m.take(p)
			}
		}
	}
	if m.Text {
		_, value, _, err := nextItem(m.Payload)
		m.Payload = []byte(text(value))
		return err
	}
	return nil
}

// take takes in the header map, or that of the user properties.
func (m *Message) take(p pair) {
	entries, _ := p.value.([]pair)
	if p.name == "p" {
		m.Properties = make(map[string]any, len(entries))
		for _, e := range entries {
			m.Properties[e.name] = e.value
		}
		return
	}
	for _, e := range entries {
		switch v := e.value.(type) {
		case string:
			if field := m.text(e.name); field != nil {
				*field = v
			}
		case int64:
			switch e.name {
			case "sn":
				m.SequenceNumber = &v
			case "ts":
				m.SenderTimestamp = time.UnixMilli(v)
			case "ex":
				m.Expiration = time.UnixMilli(v)
			}
		}
	}
}

func (m *Message) text(name string) *string {
	return map[string]*string{
		"ct": &m.HTTPContentType, "ce": &m.HTTPContentEncoding,
		"mt": &m.ApplicationMessageType, "mi": &m.ApplicationMessageID,
		"ci": &m.CorrelationID, "si": &m.SenderID,
	}[name]
}
