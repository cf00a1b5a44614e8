package httpget

import (
	"encoding/base64"
	"strconv"
	"unicode/utf8"

	"github.com/caddy-message-api/caddy-message-api/message"
)

var textFormat = &format{
	name: "http_get/text", mediaType: "text/plain", contentType: "text/plain; charset=utf-8",
	head: []byte("items\n"), item: appendTextItem, tail: appendTextTail,
}

func appendTextItem(dst []byte, d *message.Delivery, parts parts) []byte {
	dst = append(dst, "item\n"...)
	if d.ID != "" {
		dst = appendTextLine(dst, "id", d.ID)
	}
	if utf8.Valid(d.Payload) {
		dst = appendTextLine(dst, "content", d.Payload)
	} else {
		dst = append(dst, "content: "...)
		dst = base64.StdEncoding.AppendEncode(dst, d.Payload)
		dst = append(dst, "\nencoding: base64\n"...)
	}
	if parts.headers {
		dst = append(dst, "headers: "...)
		dst = message.AppendJSONHeaders(dst, d.Headers)
		dst = append(dst, '\n')
	}
	if parts.metadata {
		dst = append(dst, "metadata: "...)
		dst = message.AppendJSONMetadata(dst, d.Metadata)
		dst = append(dst, '\n')
	}
	return append(dst, '\n')
}

// appendTextLine appends "name: value". Lines after the first are indented, so that a
// value can't imitate the lines around it.
func appendTextLine[T string | []byte](dst []byte, name string, value T) []byte {
	dst = append(dst, name...)
	dst = append(dst, ": "...)
	for i := 0; i < len(value); i++ {
		switch c := value[i]; c {
		case '\r':
			if i+1 < len(value) && value[i+1] == '\n' {
				continue
			}
			fallthrough
		case '\n':
			dst = append(dst, "\n  "...)
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '\n')
}

func appendTextTail(dst []byte, c *collected, cursor []byte, ask ask) []byte {
	if c.messages == 0 {
		dst = append(dst, '\n')
	}
	for i := range c.gaps {
		dst = append(dst, "gap\n"...)
		dst = appendTextLine(dst, "reason", string(c.gaps[i].Reason))
		dst = appendTextLine(dst, "detail", c.gaps[i].Detail)
		dst = appendTextLine(dst, "before", strconv.Itoa(c.gaps[i].Before))
		dst = append(dst, '\n')
	}
	if c.err != nil {
		kind, detail := problemOf(c.err)
		dst = append(dst, "error\n"...)
		dst = appendTextLine(dst, "type", kind)
		dst = appendTextLine(dst, "detail", detail)
		dst = append(dst, '\n')
	}
	if len(cursor) > 0 || ask.limited {
		dst = append(dst, "pagination\n"...)
		if len(cursor) > 0 {
			dst = appendTextLine(dst, "nextCursor", cursor)
		}
		if ask.limited {
			dst = appendTextLine(dst, "limit", ask.limitText())
		}
	}
	return dst
}
