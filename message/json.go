package message

import (
	"encoding/base64"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// AppendJSONString appends s as a JSON string. Bytes that are not UTF-8 become
// U+FFFD, as in encoding/json; callers that must keep them use base64 instead.
// Only what RFC 8259 demands is escaped, and U+2028 and U+2029, which JavaScript
// once took for line ends.
func AppendJSONString[T string | []byte](dst []byte, s T) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		b := s[i]
		if b >= 0x20 && b != '"' && b != '\\' && b < utf8.RuneSelf {
			i++
			continue
		}
		if b < utf8.RuneSelf {
			dst = append(dst, s[start:i]...)
			dst = appendEscaped(dst, b)
			i++
			start = i
			continue
		}
		r, size := decodeRune(s[i:])
		if r == utf8.RuneError && size == 1 {
			dst = append(dst, s[start:i]...)
			dst = append(dst, `\ufffd`...)
			i++
			start = i
			continue
		}
		if r == '\u2028' || r == '\u2029' {
			dst = append(dst, s[start:i]...)
			dst = append(dst, `\u202`...)
			dst = append(dst, hexDigits[r&0xF])
			i += size
			start = i
			continue
		}
		i += size
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

func appendEscaped(dst []byte, b byte) []byte {
	switch b {
	case '"', '\\':
		return append(dst, '\\', b)
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	default:
		return append(dst, '\\', 'u', '0', '0', hexDigits[b>>4], hexDigits[b&0xF])
	}
}

func decodeRune[T string | []byte](s T) (rune, int) {
	n := min(len(s), utf8.UTFMax)
	var buf [utf8.UTFMax]byte
	copy(buf[:], s[:n])
	return utf8.DecodeRune(buf[:n])
}

// AppendJSONContent appends a payload as a pair of JSON members: "content" with the
// text, or, when the bytes are not UTF-8, "content" in standard base64 and
// "encoding":"base64" beside it, so that no byte is ever damaged.
func AppendJSONContent(dst, payload []byte) []byte {
	if utf8.Valid(payload) {
		dst = append(dst, `"content":`...)
		return AppendJSONString(dst, payload)
	}
	dst = append(dst, `"content":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, payload)
	return append(dst, `","encoding":"base64"`...)
}

// AppendJSONHeaders appends the headers as a JSON object of arrays, in the order of
// first appearance. A value that is not UTF-8 becomes {"base64":"…"}.
func AppendJSONHeaders(dst []byte, headers []Header) []byte {
	dst = append(dst, '{')
	first := true
	for i := range headers {
		if seenBefore(headers, i) {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = AppendJSONString(dst, headers[i].Name)
		dst = append(dst, ':', '[')
		for j := i; j < len(headers); j++ {
			if headers[j].Name != headers[i].Name {
				continue
			}
			if j > i {
				dst = append(dst, ',')
			}
			dst = appendHeaderValue(dst, headers[j].Value)
		}
		dst = append(dst, ']')
	}
	return append(dst, '}')
}

func seenBefore(headers []Header, i int) bool {
	for j := range i {
		if headers[j].Name == headers[i].Name {
			return true
		}
	}
	return false
}

func appendHeaderValue(dst []byte, value string) []byte {
	if utf8.ValidString(value) {
		return AppendJSONString(dst, value)
	}
	dst = append(dst, `{"base64":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, []byte(value))
	return append(dst, `"}`...)
}

// AppendJSONMetadata appends the metadata fields as a JSON object.
func AppendJSONMetadata(dst []byte, fields []Field) []byte {
	dst = append(dst, '{')
	for i := range fields {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendJSONString(dst, fields[i].Name)
		dst = append(dst, ':')
		dst = fields[i].AppendJSON(dst)
	}
	return append(dst, '}')
}
