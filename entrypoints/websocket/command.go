package websocket

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/caddy-message-api/caddy-message-api/message"
)

const (
	maxRef     = 128 // bytes of a client's own name for a publish
	maxHeaders = 256 // header values of one message
)

// kind is what a client's frame asks for.
type kind uint8

const (
	unknownKind kind = iota
	publishKind
	ackKind
	releaseKind
	rejectKind
)

var kinds = map[string]kind{"publish": publishKind, "ack": ackKind, "release": releaseKind, "reject": rejectKind}

func (k kind) settlement() message.Settlement {
	switch k {
	case releaseKind:
		return message.Release
	case rejectKind:
		return message.Reject
	default:
		return message.Ack
	}
}

// command is one frame of the sub-protocol from a client.
type command struct {
	kind kind
	// ref is the client's own name for the command; empty when it gave none.
	ref     string
	message message.Message
	// seqs are the numbers to settle; upTo, when not 0, settles all up to it.
	seqs []uint64
	upTo uint64
	// fault says what is wrong with a command that could be read.
	fault string

	encoding   string
	hasContent bool
	seen       fields
}

// fields is a set of the names that a command can have.
type fields uint16

const (
	fieldType fields = 1 << iota
	fieldRef
	fieldID
	fieldKey
	fieldContent
	fieldEncoding
	fieldHeaders
	fieldSeq
	fieldUpTo
)

var fieldNames = map[string]fields{
	"type": fieldType, "ref": fieldRef, "id": fieldID, "key": fieldKey, "content": fieldContent,
	"encoding": fieldEncoding, "headers": fieldHeaders, "seq": fieldSeq, "upto": fieldUpTo,
}

const (
	publishFields = fieldType | fieldRef | fieldID | fieldKey | fieldContent | fieldEncoding | fieldHeaders
	settleFields  = fieldType | fieldRef | fieldSeq | fieldUpTo
)

// parseCommand reads a frame, which must be UTF-8. An error means that it is not a JSON
// object at all; anything wrong inside one is told by fault. Nothing of data is kept.
func parseCommand(data []byte) (command, error) {
	var c command
	s := scanner{data: data}
	for more := s.open('{', '}'); more; more = s.more('}') {
		c.member(&s)
	}
	s.end()
	if s.err != nil {
		return command{}, fmt.Errorf("not a JSON object: %w", s.err)
	}
	c.check()
	return c, nil
}

func (c *command) blame(format string, args ...any) {
	if c.fault == "" {
		c.fault = fmt.Sprintf(format, args...)
	}
}

// member reads one name and value.
func (c *command) member(s *scanner) {
	name := s.key()
	field := fieldNames[string(name)]
	switch {
	case s.err != nil:
		return
	case field == 0:
		c.blame("unknown member %q", cut(string(name), 64))
		s.skip(1)
		return
	case c.seen&field != 0:
		c.blame("%q stands twice", name)
		s.skip(1)
		return
	case s.peek() == 'n': // null is as good as absent
		s.skip(1)
		return
	}
	c.seen |= field
	s.lone = false
	c.value(s, field, string(name))
	if s.lone {
		c.blame("%q holds half a surrogate pair, which is not text: send base64", name)
	}
}

func (c *command) value(s *scanner, field fields, name string) {
	switch field {
	case fieldType:
		word, _ := c.text(s, name)
		if c.kind = kinds[string(word)]; c.kind == unknownKind {
			c.blame("unknown type %q: use publish, ack, release or reject", cut(string(word), 64))
		}
	case fieldRef:
		ref, _ := c.text(s, name)
		if len(ref) > maxRef {
			c.blame("ref has %d bytes, and %d are allowed", len(ref), maxRef)
			return
		}
		c.ref = string(ref)
	case fieldID:
		id, _ := c.text(s, name)
		c.message.ID = string(id)
	case fieldKey:
		c.message.Key = []byte(c.bytesOf(s, name))
	case fieldContent:
		var content []byte
		if content, c.hasContent = c.text(s, name); c.hasContent {
			c.message.Payload = append(make([]byte, 0, len(content)), content...)
		}
	case fieldEncoding:
		encoding, _ := c.text(s, name)
		c.encoding = string(encoding)
	case fieldHeaders:
		c.headers(s)
	case fieldSeq:
		c.seq(s)
	case fieldUpTo:
		c.upTo, _ = c.count(s, name)
	}
}

// text reads a string that is not kept; ok is false for any other kind of value.
func (c *command) text(s *scanner, name string) (_ []byte, ok bool) {
	if s.peek() != '"' {
		c.blame("%q must be a string", name)
		s.skip(1)
		return nil, false
	}
	text := s.str()
	return text, s.err == nil
}

// bytesOf reads a string or {"base64":"…"}, as values are that need not be text.
func (c *command) bytesOf(s *scanner, name string) string {
	switch s.peek() {
	case '"':
		return string(s.str())
	case '{':
		return c.base64Of(s, name)
	}
	c.blame(`%q must be a string or {"base64":"…"}`, name)
	s.skip(1)
	return ""
}

func (c *command) base64Of(s *scanner, name string) (value string) {
	members := 0
	for more := s.open('{', '}'); more; more = s.more('}') {
		members++
		if string(s.key()) != "base64" || s.peek() != '"' {
			members = math.MaxInt16
			s.skip(2)
			continue
		}
		raw, err := decodeBase64(s.str())
		if err != nil {
			c.blame("%q is not base64", name)
		}
		value = string(raw)
	}
	if members != 1 {
		c.blame(`%q must be a string or {"base64":"…"}`, name)
	}
	return value
}

// decodeBase64 takes standard base64, strictly.
func decodeBase64(text []byte) ([]byte, error) {
	if bytes.ContainsAny(text, "\r\n") { // the decoder would skip them
		return nil, errors.New("line break in base64")
	}
	return base64.StdEncoding.Strict().AppendDecode(make([]byte, 0, base64.StdEncoding.DecodedLen(len(text))), text)
}

// headers reads {"name":"value"} or {"name":["value",{"base64":"…"}]}, in their order.
func (c *command) headers(s *scanner) {
	if s.peek() != '{' {
		c.blame(`"headers" must be an object`)
		s.skip(1)
		return
	}
	for more := s.open('{', '}'); more; more = s.more('}') {
		name := string(s.key())
		if name == "" {
			c.blame("a header has no name")
		}
		if s.peek() != '[' {
			c.header(s, name)
			continue
		}
		for more := s.open('[', ']'); more; more = s.more(']') {
			c.header(s, name)
		}
	}
}

func (c *command) header(s *scanner, name string) {
	value := c.bytesOf(s, name)
	if len(c.message.Headers) == maxHeaders {
		c.blame("more than %d headers", maxHeaders)
		return
	}
	c.message.Headers = append(c.message.Headers, message.Header{Name: name, Value: value})
}

// seq reads a number or an array of numbers.
func (c *command) seq(s *scanner) {
	if s.peek() != '[' {
		if n, ok := c.count(s, "seq"); ok {
			c.seqs = []uint64{n}
		}
		return
	}
	for more := s.open('[', ']'); more; more = s.more(']') {
		if n, ok := c.count(s, "seq"); ok {
			c.seqs = append(c.seqs, n)
		}
	}
}

// count reads a whole number of at least 1.
func (c *command) count(s *scanner, name string) (uint64, bool) {
	if b := s.peek(); b == '-' || b >= '0' && b <= '9' {
		n, err := strconv.ParseUint(string(s.number()), 10, 64)
		if s.err == nil && err == nil && n > 0 {
			return n, true
		}
	} else {
		s.skip(2)
	}
	c.blame("%q must be a whole number from 1 on, as the messages have it in \"seq\"", name)
	return 0, false
}

// check looks at what the members mean together.
func (c *command) check() {
	if c.fault != "" {
		return
	}
	switch c.kind {
	case unknownKind:
		c.blame(`"type" is missing: use publish, ack, release or reject`)
	case publishKind:
		c.checkPublish()
	default:
		c.checkSettle()
	}
}

func (c *command) checkPublish() {
	switch {
	case c.seen&^publishFields != 0:
		c.blame(`"seq" and "upto" are not for publish`)
	case !c.hasContent:
		c.blame(`"content" is missing: an empty message has "content":""`)
	case c.seen&fieldEncoding == 0:
	case c.encoding != "base64":
		c.blame("unknown encoding %q: use base64, or none for text", cut(c.encoding, 64))
	default:
		raw, err := decodeBase64(c.message.Payload)
		if err != nil {
			c.blame(`"content" is not base64`)
		}
		c.message.Payload = raw
	}
}

func (c *command) checkSettle() {
	switch {
	case c.seen&^settleFields != 0:
		c.blame(`a settlement has "seq" or "upto", and maybe "ref", and nothing else`)
	case (len(c.seqs) > 0) == (c.upTo > 0):
		c.blame(`a settlement needs "seq" or "upto", and not both`)
	}
}
