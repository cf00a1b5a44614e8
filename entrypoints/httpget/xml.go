package httpget

import (
	"encoding/base64"
	"strconv"
	"unicode/utf8"

	"github.com/caddy-message-api/caddy-message-api/message"
)

var xmlFormat = &format{
	name: "http_get/xml", mediaType: "application/xml", contentType: "application/xml",
	head: []byte(`<?xml version="1.0" encoding="UTF-8"?>` + "\n<response><items>"), item: appendXMLItem, tail: appendXMLTail,
}

func appendXMLItem(dst []byte, d *message.Delivery, parts parts) []byte {
	dst = append(dst, `<item>`...)
	if d.ID != "" {
		dst = appendXMLElement(dst, "id", d.ID)
	}
	dst = appendXMLValue(dst, "content", "", d.Payload)
	if parts.headers {
		dst = append(dst, `<headers>`...)
		for i := range d.Headers {
			dst = appendXMLValue(dst, "header", d.Headers[i].Name, d.Headers[i].Value)
		}
		dst = append(dst, `</headers>`...)
	}
	if parts.metadata {
		dst = append(dst, `<metadata>`...)
		for i := range d.Metadata {
			dst = appendXMLField(dst, &d.Metadata[i])
		}
		dst = append(dst, `</metadata>`...)
	}
	return append(dst, `</item>`...)
}

// appendXMLValue appends an element, with a name attribute if name is not empty. What XML
// can't hold (control characters, and what is not UTF-8) is in base64 and says so.
func appendXMLValue[T string | []byte](dst []byte, element, name string, value T) []byte {
	dst = append(dst, '<')
	dst = append(dst, element...)
	if name != "" {
		dst = append(dst, ` name="`...)
		dst = appendXMLText(dst, name)
		dst = append(dst, '"')
	}
	if isXMLText(value) {
		dst = append(dst, '>')
		dst = appendXMLText(dst, value)
	} else {
		dst = append(dst, ` encoding="base64">`...)
		dst = base64.StdEncoding.AppendEncode(dst, []byte(value))
	}
	dst = append(dst, '<', '/')
	dst = append(dst, element...)
	return append(dst, '>')
}

func appendXMLField(dst []byte, f *message.Field) []byte {
	if text, ok := f.Value().(string); ok {
		return appendXMLValue(dst, "field", f.Name, text)
	}
	dst = append(dst, `<field name="`...)
	dst = appendXMLText(dst, f.Name)
	dst = append(dst, '"', '>')
	dst = f.AppendJSON(dst) // numbers and booleans look the same in both
	return append(dst, `</field>`...)
}

func appendXMLElement[T string | []byte](dst []byte, element string, text T) []byte {
	dst = append(dst, '<')
	dst = append(dst, element...)
	dst = append(dst, '>')
	dst = appendXMLText(dst, text)
	dst = append(dst, '<', '/')
	dst = append(dst, element...)
	return append(dst, '>')
}

func appendXMLTail(dst []byte, c *collected, cursor []byte, ask ask) []byte {
	dst = append(dst, `</items>`...)
	for i := range c.gaps {
		dst = append(dst, `<gap reason="`...)
		dst = appendXMLText(dst, string(c.gaps[i].Reason))
		dst = append(dst, `" before="`...)
		dst = strconv.AppendInt(dst, int64(c.gaps[i].Before), 10)
		dst = append(dst, `">`...)
		dst = appendXMLText(dst, c.gaps[i].Detail)
		dst = append(dst, `</gap>`...)
	}
	if c.err != nil {
		kind, detail := problemOf(c.err)
		dst = append(dst, `<error type="`...)
		dst = appendXMLText(dst, kind)
		dst = append(dst, `">`...)
		dst = appendXMLText(dst, detail)
		dst = append(dst, `</error>`...)
	}
	if len(cursor) > 0 || ask.limited {
		dst = append(dst, `<pagination>`...)
		if len(cursor) > 0 {
			dst = appendXMLElement(dst, "nextCursor", cursor)
		}
		if ask.limited {
			dst = appendXMLElement(dst, "limit", ask.limitText())
		}
		dst = append(dst, `</pagination>`...)
	}
	return append(dst, "</response>\n"...)
}

// isXMLText reports whether XML 1.0 can hold s as characters.
func isXMLText[T string | []byte](s T) bool {
	for i := 0; i < len(s); {
		if s[i] < utf8.RuneSelf {
			if !isXMLChar(rune(s[i])) {
				return false
			}
			i++
			continue
		}
		r, size := decodeRune(s[i:])
		if r == utf8.RuneError && size == 1 || !isXMLChar(r) {
			return false
		}
		i += size
	}
	return true
}

func isXMLChar(r rune) bool {
	return r >= 0x20 && r != 0xFFFE && r != 0xFFFF || r == '\t' || r == '\n' || r == '\r'
}

// appendXMLText escapes for text and attributes alike. White space that a parser would
// change is a reference, and what XML can't hold becomes U+FFFD.
func appendXMLText[T string | []byte](dst []byte, s T) []byte {
	start := 0 // of what is not yet appended
	for i := 0; i < len(s); {
		if s[i] < utf8.RuneSelf {
			if escape := xmlEscapes[s[i]]; escape != "" {
				dst = append(dst, s[start:i]...)
				dst = append(dst, escape...)
				start = i + 1
			}
			i++
			continue
		}
		r, size := decodeRune(s[i:])
		if r == utf8.RuneError && size == 1 || !isXMLChar(r) {
			dst = append(dst, s[start:i]...)
			dst = append(dst, "\ufffd"...)
			start = i + size
		}
		i += size
	}
	return append(dst, s[start:]...)
}

// xmlEscapes are what stands for ASCII characters that can't stand for themselves.
var xmlEscapes = func() (table [utf8.RuneSelf]string) {
	for c := range table {
		if !isXMLChar(rune(c)) {
			table[c] = "\ufffd"
		}
	}
	table['&'], table['<'], table['>'], table['"'] = "&amp;", "&lt;", "&gt;", "&quot;"
	table['\t'], table['\n'], table['\r'] = "&#9;", "&#10;", "&#13;"
	return table
}()

func decodeRune[T string | []byte](s T) (rune, int) {
	var buf [utf8.UTFMax]byte
	return utf8.DecodeRune(buf[:copy(buf[:], s)])
}
