package mqtt5

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/eclipse/paho.golang/packets"
)

// The packets that flow with every message are written and read here, without an
// allocation for each field; all others by paho's codec, against which this one is tested.

// maxPacket is the largest packet in bytes that we tell the server we take. Without a bound
// one packet could claim 256 MiB.
const maxPacket = 64 << 20

// maxRemaining is what fits into the protocol's length field.
const maxRemaining = 268_435_455

var errMalformed = errors.New("the server sent a packet that can't be read")

// header is the fixed header of a packet.
type header struct {
	kind   byte
	flags  byte
	length int
}

// readHeader reads a fixed header.
func readHeader(r *bufio.Reader) (header, error) {
	first, err := r.ReadByte()
	if err != nil {
		return header{}, err
	}
	h := header{kind: first >> 4, flags: first & 0xf}
	for shift := 0; ; shift += 7 {
		b, err := r.ReadByte()
		if err != nil {
			return h, unexpected(err)
		}
		h.length |= int(b&0x7f) << shift
		if b < 0x80 {
			break
		}
		if shift == 21 {
			return h, fmt.Errorf("%w: its length has more than four bytes", errMalformed)
		}
	}
	if h.length > maxPacket {
		return h, fmt.Errorf("%w: it has %d bytes, more than the %d that we take", errMalformed, h.length, maxPacket)
	}
	return h, nil
}

// unexpected tells an end in the middle of a packet from one between two.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// appendVarint appends a number as MQTT writes lengths.
func appendVarint(dst []byte, n int) []byte {
	for n > 0x7f {
		dst = append(dst, byte(n)|0x80)
		n >>= 7
	}
	return append(dst, byte(n))
}

func varintSize(n int) int {
	switch {
	case n < 1<<7:
		return 1
	case n < 1<<14:
		return 2
	case n < 1<<21:
		return 3
	}
	return 4
}

func appendString[T string | []byte](dst []byte, s T) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(s))) //nolint:gosec // checked when the message was prepared
	return append(dst, s...)
}

// appendPublish appends a PUBLISH whose properties are encoded already.
func appendPublish(dst []byte, topic string, qos byte, retain bool, id uint16, properties, payload []byte) []byte {
	first := packets.PUBLISH<<4 | qos<<1
	if retain {
		first |= 1
	}
	dst = append(dst, first)
	dst = appendVarint(dst, publishLength(topic, qos, len(properties), len(payload)))
	dst = appendString(dst, topic)
	if qos > 0 {
		dst = binary.BigEndian.AppendUint16(dst, id)
	}
	dst = appendVarint(dst, len(properties))
	dst = append(dst, properties...)
	return append(dst, payload...)
}

// publishLength is the remaining length of a PUBLISH.
func publishLength(topic string, qos byte, properties, payload int) int {
	n := 2 + len(topic) + varintSize(properties) + properties + payload
	if qos > 0 {
		n += 2
	}
	return n
}

// appendAck appends a PUBACK, PUBREC, PUBREL or PUBCOMP.
func appendAck(dst []byte, kind byte, id uint16, reason byte) []byte {
	first := kind << 4
	if kind == packets.PUBREL {
		first |= 2
	}
	if reason == 0 {
		return append(dst, first, 2, byte(id>>8), byte(id))
	}
	return append(dst, first, 3, byte(id>>8), byte(id), reason)
}

// readAck reads what is in a PUBACK, PUBREC, PUBREL or PUBCOMP; text is the server's reason.
func readAck(kind byte, body []byte) (id uint16, reason byte, text string, err error) {
	switch {
	case len(body) < 2:
		return 0, 0, "", fmt.Errorf("%w: an acknowledgement without a packet identifier", errMalformed)
	case len(body) > 2:
		reason = body[2]
	}
	if len(body) > 3 {
		if text, err = reasonString(kind, body[3:]); err != nil {
			return 0, 0, "", err
		}
	}
	return binary.BigEndian.Uint16(body), reason, text, nil
}

// cursor takes a packet apart; bad sticks, so that callers check once.
type cursor struct {
	rest []byte
	bad  bool
}

func (c *cursor) take(n int) []byte {
	if c.bad || n > len(c.rest) {
		c.bad = true
		return nil
	}
	b := c.rest[:n:n]
	c.rest = c.rest[n:]
	return b
}

func (c *cursor) byte() byte {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) uint16() uint16 {
	if b := c.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (c *cursor) uint32() uint32 {
	if b := c.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) binary() []byte { return c.take(int(c.uint16())) }

func (c *cursor) varint() int {
	n := 0
	for shift := 0; shift <= 21; shift += 7 {
		b := c.byte()
		n |= int(b&0x7f) << shift
		if b < 0x80 {
			return n
		}
	}
	c.bad = true
	return 0
}

// publish is a PUBLISH that came in. Its slices and strings are its own.
type publish struct {
	topic       []byte
	id          uint16
	qos         byte
	dup, retain bool
	payload     []byte

	contentType   string
	responseTopic string
	correlation   []byte
	expiry        uint32
	hasExpiry     bool
	format        byte
	hasFormat     bool
	user          []userProperty
}

type userProperty struct{ name, value string }

// readPublish takes a PUBLISH apart. It keeps body.
func readPublish(flags byte, body []byte, p *publish) error {
	*p = publish{qos: flags >> 1 & 3, dup: flags&8 != 0, retain: flags&1 != 0, user: p.user[:0]}
	c := cursor{rest: body}
	p.topic = c.binary()
	if p.qos > 0 {
		p.id = c.uint16()
	}
	properties := cursor{rest: c.take(c.varint())}
	p.payload = c.rest
	p.readProperties(&properties)
	switch {
	case c.bad || properties.bad:
		return fmt.Errorf("%w: a PUBLISH ends too early or has a property that does not belong there", errMalformed)
	case p.qos > 2:
		return fmt.Errorf("%w: a PUBLISH with QoS 3", errMalformed)
	case p.qos > 0 && p.id == 0:
		return fmt.Errorf("%w: a PUBLISH with packet identifier 0", errMalformed)
	case len(p.topic) == 0: // we allow no aliases
		return fmt.Errorf("%w: a PUBLISH without a topic", errMalformed)
	}
	return nil
}

func (p *publish) readProperties(c *cursor) {
	if len(c.rest) == 0 {
		return
	}
	text := string(c.rest) // one allocation, of which all strings are parts
	all := c.rest
	str := func() string {
		b := c.binary()
		end := len(all) - len(c.rest)
		return text[end-len(b) : end]
	}
	for len(c.rest) > 0 && !c.bad {
		switch c.byte() {
		case packets.PropPayloadFormat:
			p.format, p.hasFormat = c.byte(), true
		case packets.PropMessageExpiry:
			p.expiry, p.hasExpiry = c.uint32(), true
		case packets.PropContentType:
			p.contentType = str()
		case packets.PropResponseTopic:
			p.responseTopic = str()
		case packets.PropCorrelationData:
			p.correlation = c.binary()
		case packets.PropSubscriptionIdentifier:
			c.varint()
		case packets.PropUser:
			name := str()
			p.user = append(p.user, userProperty{name, str()})
		default:
			c.bad = true
		}
	}
}

// reasonString finds the server's own words in the properties of an acknowledgement.
func reasonString(kind byte, properties []byte) (string, error) {
	c := cursor{rest: properties}
	c = cursor{rest: c.take(c.varint()), bad: c.bad}
	text := ""
	for len(c.rest) > 0 && !c.bad {
		switch c.byte() {
		case packets.PropReasonString:
			text = string(c.binary())
		case packets.PropUser:
			c.binary()
			c.binary()
		default:
			c.bad = true
		}
	}
	if c.bad {
		return "", fmt.Errorf("%w: an acknowledgement of type %d with properties that do not belong there", errMalformed, kind)
	}
	return text, nil
}

// isText reports whether MQTT takes s for a string: UTF-8 without U+0000, at most 65,535
// bytes.
func isText(s string) bool {
	if len(s) > 0xffff || !utf8.ValidString(s) {
		return false
	}
	for i := range len(s) {
		if s[i] == 0 {
			return false
		}
	}
	return true
}
