package websocket

import (
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth bounds the nesting of what a client sends; a command needs four levels.
const maxDepth = 32

// scanner walks through a JSON text (RFC 8259), which must be UTF-8. It exists beside
// encoding/json because commands keep the order of headers, tell a field of the wrong
// type from a broken text, and do not get their content damaged in silence: encoding/json
// replaces half a surrogate pair by U+FFFD.
//
// The first error sticks, and all methods do nothing after it.
type scanner struct {
	data []byte
	pos  int
	err  error
	// lone says that a string since the last reset had half a surrogate pair.
	lone bool
}

func (s *scanner) fail(want string) {
	if s.err == nil {
		s.err = fmt.Errorf("at byte %d: %s expected", s.pos, want)
		s.pos = len(s.data)
	}
}

// peek returns the next byte that is not space; 0 is the end.
func (s *scanner) peek() byte {
	for ; s.pos < len(s.data); s.pos++ {
		switch c := s.data[s.pos]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

func (s *scanner) expect(c byte) {
	if s.peek() != c || s.pos == len(s.data) {
		s.fail(strconv.QuoteRune(rune(c)))
		return
	}
	s.pos++
}

// open enters an object or array and says whether there is something in it; more says
// whether there is something left, and leaves it otherwise.
func (s *scanner) open(begin, end byte) bool {
	s.expect(begin)
	if s.err == nil && s.peek() == end {
		s.pos++
		return false
	}
	return s.err == nil
}

func (s *scanner) more(end byte) bool {
	switch c := s.peek(); {
	case s.err != nil:
		return false
	case c == ',':
		s.pos++
		return true
	case c == end && c != 0:
		s.pos++
		return false
	}
	s.fail("',' or " + strconv.QuoteRune(rune(end)))
	return false
}

// key reads a member's name and the colon.
func (s *scanner) key() []byte {
	name := s.str()
	s.expect(':')
	return name
}

// end checks that nothing follows.
func (s *scanner) end() {
	if s.err == nil && s.peek() == 0 && s.pos == len(s.data) {
		return
	}
	s.fail("the end")
}

// str reads a string. What it returns may be a part of the input.
func (s *scanner) str() []byte {
	s.expect('"')
	start := s.pos
	for ; s.pos < len(s.data); s.pos++ {
		switch c := s.data[s.pos]; {
		case c == '"':
			s.pos++
			return s.data[start : s.pos-1]
		case c == '\\':
			return s.escaped(start)
		case c < 0x20:
			s.fail("an escape instead of a control character")
			return nil
		}
	}
	s.fail("'\"'")
	return nil
}

// escaped reads the rest of a string that has escapes.
func (s *scanner) escaped(start int) []byte {
	out := append([]byte(nil), s.data[start:s.pos]...)
	for s.pos < len(s.data) {
		c := s.data[s.pos]
		s.pos++
		switch {
		case c == '"':
			return out
		case c == '\\':
			out = s.escape(out)
		case c < 0x20:
			s.fail("an escape instead of a control character")
		default:
			out = append(out, c)
		}
	}
	s.fail("'\"'")
	return nil
}

func (s *scanner) escape(out []byte) []byte {
	if s.pos == len(s.data) {
		s.fail("an escape")
		return out
	}
	c := s.data[s.pos]
	s.pos++
	switch c {
	case '"', '\\', '/':
		return append(out, c)
	case 'b':
		return append(out, '\b')
	case 'f':
		return append(out, '\f')
	case 'n':
		return append(out, '\n')
	case 'r':
		return append(out, '\r')
	case 't':
		return append(out, '\t')
	case 'u':
		return s.unicode(out)
	}
	s.pos--
	s.fail("an escape that JSON has")
	return out
}

// unicode reads \uXXXX, and its second half where there is one.
func (s *scanner) unicode(out []byte) []byte {
	r := s.hex4()
	if !utf16.IsSurrogate(r) {
		return utf8.AppendRune(out, r)
	}
	if s.pos+1 < len(s.data) && s.data[s.pos] == '\\' && s.data[s.pos+1] == 'u' {
		before := s.pos
		s.pos += 2
		if pair := utf16.DecodeRune(r, s.hex4()); pair != utf8.RuneError {
			return utf8.AppendRune(out, pair)
		}
		if s.err == nil {
			s.pos = before // the second is a character of its own
		}
	}
	s.lone = true
	return utf8.AppendRune(out, utf8.RuneError)
}

func (s *scanner) hex4() rune {
	if len(s.data)-s.pos < 4 {
		s.fail("four hexadecimal digits")
		return 0
	}
	n, err := strconv.ParseUint(string(s.data[s.pos:s.pos+4]), 16, 16)
	if err != nil {
		s.fail("four hexadecimal digits")
		return 0
	}
	s.pos += 4
	return rune(n)
}

// number reads a number and returns its text.
func (s *scanner) number() []byte {
	s.peek()
	start := s.pos
	s.one("-")
	if !s.one("0") && !s.digits() {
		s.fail("a digit")
	}
	if s.one(".") && !s.digits() {
		s.fail("a digit")
	}
	if s.one("eE") {
		s.one("+-")
		if !s.digits() {
			s.fail("a digit")
		}
	}
	if s.err != nil {
		return nil
	}
	return s.data[start:s.pos]
}

// one consumes a byte if it is one of set.
func (s *scanner) one(set string) bool {
	if s.pos < len(s.data) {
		for i := range len(set) {
			if s.data[s.pos] == set[i] {
				s.pos++
				return true
			}
		}
	}
	return false
}

func (s *scanner) digits() bool {
	start := s.pos
	for s.pos < len(s.data) && s.data[s.pos] >= '0' && s.data[s.pos] <= '9' {
		s.pos++
	}
	return s.pos > start
}

// skip reads over one value of any kind.
func (s *scanner) skip(depth int) {
	if depth > maxDepth {
		s.fail("less nesting")
		return
	}
	switch c := s.peek(); {
	case s.err != nil:
	case c == '{':
		for more := s.open('{', '}'); more; more = s.more('}') {
			s.key()
			s.skip(depth + 1)
		}
	case c == '[':
		for more := s.open('[', ']'); more; more = s.more(']') {
			s.skip(depth + 1)
		}
	case c == '"':
		s.str()
	case c == '-' || c >= '0' && c <= '9':
		s.number()
	case c == 't':
		s.word("true")
	case c == 'f':
		s.word("false")
	case c == 'n':
		s.word("null")
	default:
		s.fail("a value")
	}
}

func (s *scanner) word(w string) {
	if len(s.data)-s.pos < len(w) || string(s.data[s.pos:s.pos+len(w)]) != w {
		s.fail(w)
		return
	}
	s.pos += len(w)
}
