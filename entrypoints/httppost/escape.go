package httppost

import (
	"errors"
	"unicode/utf16"
	"unicode/utf8"
)

var errEscape = errors.New("bad escape in a string")

// escape reads what follows a backslash. Half of a surrogate pair is an error: it
// stands for no character, and any replacement would damage the content.
func (s *scanner) escape(dst []byte) ([]byte, error) {
	if s.pos >= len(s.data) {
		return nil, errEscape
	}
	c := s.data[s.pos]
	s.pos++
	switch c {
	case '"', '\\', '/':
		return append(dst, c), nil
	case 'b':
		return append(dst, '\b'), nil
	case 'f':
		return append(dst, '\f'), nil
	case 'n':
		return append(dst, '\n'), nil
	case 'r':
		return append(dst, '\r'), nil
	case 't':
		return append(dst, '\t'), nil
	case 'u':
		r, ok := s.unicode()
		if !ok {
			return nil, errEscape
		}
		return utf8.AppendRune(dst, r), nil
	}
	return nil, errEscape
}

// unicode reads the digits after \u, and the second half of a surrogate pair.
func (s *scanner) unicode() (rune, bool) {
	first, ok := s.hex4()
	if !ok || !utf16.IsSurrogate(first) {
		return first, ok
	}
	if s.pos+2 > len(s.data) || s.data[s.pos] != '\\' || s.data[s.pos+1] != 'u' {
		return 0, false
	}
	s.pos += 2
	second, ok := s.hex4()
	r := utf16.DecodeRune(first, second)
	return r, ok && r != utf8.RuneError
}

func (s *scanner) hex4() (r rune, ok bool) {
	if s.pos+4 > len(s.data) {
		return 0, false
	}
	for _, c := range s.data[s.pos : s.pos+4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	s.pos += 4
	return r, true
}
