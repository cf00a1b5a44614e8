package httppost

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/caddy-message-api/caddy-message-api/message"
)

const (
	// maxID bounds the id of a message: it is a name, and comes back in the answer.
	maxID = 1024
	// maxHeaders bounds the header values of a message.
	maxHeaders = 256
)

// members are what a line can hold.
var members = [...]string{"content", "id", "key", "encoding", "headers"}

// decodeLine reads one line of a batch. It is stricter than encoding/json, which would
// take a misspelt or repeated member and damage text that is not UTF-8 without a word.
func decodeLine(line []byte) (*message.Message, error) {
	var e envelope
	s := scanner{data: line}
	if err := s.object("the line", func(name []byte) error { return e.member(&s, name) }); err != nil {
		return nil, err
	}
	s.space()
	if s.pos < len(s.data) {
		return nil, errors.New("something follows the object: write one object per line")
	}
	return e.message()
}

// envelope is a line's object while it is read.
type envelope struct {
	seen    [len(members)]bool
	id      []byte
	key     []byte
	content []byte
	// tombstone: the content is null.
	tombstone bool
	encoding  []byte
	headers   []message.Header
}

func (e *envelope) member(s *scanner, name []byte) (err error) {
	i := slices.Index(members[:], string(name))
	if i < 0 {
		return fmt.Errorf("unknown member %.40q: use %s", name, strings.Join(members[:], ", "))
	}
	if e.seen[i] {
		return fmt.Errorf("member %q stands twice", name)
	}
	e.seen[i] = true
	switch members[i] {
	case "id":
		if e.id, err = s.text("id"); err == nil && len(e.id) > maxID {
			err = fmt.Errorf("id is longer than %d bytes", maxID)
		}
	case "key":
		e.key, err = s.bytes("key")
	case "content":
		if s.null() {
			e.tombstone = true
			return nil
		}
		e.content, err = s.text("content")
	case "encoding":
		if e.encoding, err = s.text("encoding"); err == nil && string(e.encoding) != "base64" {
			err = fmt.Errorf("encoding %.20q is unknown: use base64, or leave it out for text", e.encoding)
		}
	case "headers":
		err = s.object("headers", func(name []byte) error { return e.header(s, string(name)) })
	}
	return err
}

func (e *envelope) header(s *scanner, name string) error {
	if name == "" {
		return errors.New("a header has an empty name")
	}
	add := func() error {
		if len(e.headers) == maxHeaders {
			return fmt.Errorf("more than %d header values", maxHeaders)
		}
		value, err := s.bytes("the value of a header")
		e.headers = append(e.headers, message.Header{Name: name, Value: string(value)})
		return err
	}
	if !s.next('[') {
		return add()
	}
	return s.rest(']', add)
}

func (e *envelope) message() (*message.Message, error) {
	if !e.seen[0] {
		return nil, errors.New("content is missing")
	}
	m := &message.Message{ID: string(e.id), Key: e.key, Payload: e.content, Headers: e.headers}
	if e.tombstone {
		m.Metadata = []message.Field{message.Flag(message.TombstoneField, true)}
	}
	if e.encoding != nil {
		n, err := base64.StdEncoding.Strict().Decode(m.Payload, m.Payload)
		if err != nil {
			return nil, errors.New("content is not standard base64 with padding")
		}
		m.Payload = m.Payload[:n]
	}
	return m, nil
}

// scanner reads the JSON of one line.
type scanner struct {
	data []byte
	pos  int
}

func (s *scanner) space() {
	for s.pos < len(s.data) && (s.data[s.pos] == ' ' || s.data[s.pos] == '\t' || s.data[s.pos] == '\r') {
		s.pos++
	}
}

// next takes c, if it comes next.
func (s *scanner) next(c byte) bool {
	s.space()
	if s.pos < len(s.data) && s.data[s.pos] == c {
		s.pos++
		return true
	}
	return false
}

func (s *scanner) null() bool {
	s.space()
	if bytes.HasPrefix(s.data[s.pos:], []byte("null")) {
		s.pos += len("null")
		return true
	}
	return false
}

// object reads an object; member reads the value of each member.
func (s *scanner) object(what string, member func(name []byte) error) error {
	if !s.next('{') {
		return fmt.Errorf("%s is not a JSON object", what)
	}
	return s.rest('}', func() error {
		name, err := s.text("the name of a member")
		if err != nil {
			return err
		}
		if !s.next(':') {
			return s.unexpected("a colon")
		}
		return member(name)
	})
}

// rest reads the elements up to the closing bracket.
func (s *scanner) rest(closing byte, element func() error) error {
	if s.next(closing) {
		return nil
	}
	for {
		if err := element(); err != nil {
			return err
		}
		if s.next(closing) {
			return nil
		}
		if !s.next(',') {
			return s.unexpected("a comma or " + string(closing))
		}
	}
}

func (s *scanner) unexpected(wanted string) error {
	if s.pos >= len(s.data) {
		return fmt.Errorf("the line ends where %s should stand", wanted)
	}
	return fmt.Errorf("column %d: %s should stand here", s.pos+1, wanted)
}

// bytes reads a string, or {"base64":"…"}.
func (s *scanner) bytes(what string) ([]byte, error) {
	s.space()
	if s.pos >= len(s.data) || s.data[s.pos] != '{' {
		return s.text(what)
	}
	var value []byte
	err := s.object(what, func(name []byte) error {
		if string(name) != "base64" || value != nil {
			return fmt.Errorf(`%s must be a string or {"base64":"…"}`, what)
		}
		text, err := s.text(what)
		if err != nil {
			return err
		}
		value = make([]byte, base64.StdEncoding.DecodedLen(len(text)))
		n, err := base64.StdEncoding.Strict().Decode(value, text)
		if err != nil {
			return fmt.Errorf("%s is not standard base64 with padding", what)
		}
		value = value[:n]
		return nil
	})
	if err == nil && value == nil {
		err = fmt.Errorf(`%s must be a string or {"base64":"…"}`, what)
	}
	return value, err
}

// text reads a string into memory of its own; it is never nil without an error.
func (s *scanner) text(what string) ([]byte, error) {
	if !s.next('"') {
		return nil, fmt.Errorf("%s must be a string", what)
	}
	end := bytes.IndexByte(s.data[s.pos:], '"')
	if end < 0 {
		return nil, fmt.Errorf("%s is a string without end", what)
	}
	value := make([]byte, 0, end)
	for {
		run := bytes.IndexAny(s.data[s.pos:], `"\`)
		if run < 0 {
			return nil, fmt.Errorf("%s is a string without end", what)
		}
		plain := s.data[s.pos : s.pos+run]
		if !isPlain(plain) {
			return nil, fmt.Errorf("%s holds control characters or is not UTF-8: escape them, or use base64", what)
		}
		value = append(value, plain...)
		s.pos += run + 1
		if s.data[s.pos-1] == '"' {
			return value, nil
		}
		var err error
		if value, err = s.escape(value); err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
	}
}

func isPlain(b []byte) bool {
	for _, c := range b {
		if c < 0x20 {
			return false
		}
	}
	return utf8.Valid(b)
}
