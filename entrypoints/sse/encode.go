package sse

import (
	"bytes"
	"encoding/base64"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// encoder makes events of messages.
type encoder struct {
	metadata, headers bool
	format            string
}

func newEncoder(e *Entrypoint) encoder {
	enc := encoder{metadata: e.MetadataAsComment, headers: e.HeadersAsComment, format: "sse"}
	if enc.metadata {
		enc.format += "+metadata"
	}
	if enc.headers {
		enc.format += "+headers"
	}
	return enc
}

// Format implements entrypoints.Encoder.
func (e encoder) Format() string { return e.format }

// WantsCursor implements entrypoints.Encoder.
func (encoder) WantsCursor() bool { return true }

// Append implements entrypoints.Encoder.
func (e encoder) Append(dst []byte, d *message.Delivery, cursor []byte) []byte {
	if len(cursor) > 0 {
		dst = append(dst, "id: "...)
		dst = appendInline(dst, cursor)
		dst = append(dst, '\n')
	}
	if utf8.Valid(d.Payload) {
		dst = append(dst, "event: message\n"...)
		dst = appendData(dst, d.Payload)
	} else {
		dst = append(dst, "event: message-base64\ndata: "...)
		dst = base64.StdEncoding.AppendEncode(dst, d.Payload)
		dst = append(dst, '\n')
	}
	if e.metadata {
		dst = appendMetadata(dst, d.Message)
	}
	if e.headers {
		for i := range d.Headers {
			dst = appendComment(dst, d.Headers[i].Name)
			dst = appendInline(dst, d.Headers[i].Value)
			dst = append(dst, '\n')
		}
	}
	return append(dst, '\n')
}

func appendMetadata(dst []byte, m *message.Message) []byte {
	if !m.Time.IsZero() {
		dst = appendComment(dst, "sourceTimestamp")
		dst = strconv.AppendInt(dst, m.Time.UnixMilli(), 10)
		dst = append(dst, '\n')
	}
	for i := range m.Metadata {
		dst = appendComment(dst, m.Metadata[i].Name)
		switch v := m.Metadata[i].Value().(type) {
		case int64:
			dst = strconv.AppendInt(dst, v, 10)
		case bool:
			dst = strconv.AppendBool(dst, v)
		case string:
			dst = appendInline(dst, v)
		}
		dst = append(dst, '\n')
	}
	return dst
}

func appendComment(dst []byte, name string) []byte {
	dst = append(dst, ':')
	dst = appendInline(dst, name)
	return append(dst, ": "...)
}

// appendData appends one data line per line of the text, LF, CRLF and CR ending one.
func appendData(dst, text []byte) []byte {
	hasCR := bytes.IndexByte(text, '\r') >= 0
	for {
		dst = append(dst, "data: "...)
		end := bytes.IndexByte(text, '\n')
		if hasCR {
			end = bytes.IndexAny(text, "\r\n")
		}
		if end < 0 {
			dst = append(dst, text...)
			return append(dst, '\n')
		}
		next := end + 1
		if text[end] == '\r' && next < len(text) && text[next] == '\n' {
			next++
		}
		dst = append(dst, text[:end]...)
		dst = append(dst, '\n')
		text = text[next:]
	}
}

// appendInline appends what must stay on one line: CR, LF and NUL are left out, and what
// is not UTF-8 becomes U+FFFD.
func appendInline[T string | []byte](dst []byte, s T) []byte {
	start := len(dst)
	dst = append(dst, s...)
	added := dst[start:]
	if !utf8.Valid(added) {
		text := strings.ToValidUTF8(string(s), "\ufffd")
		dst = append(dst[:start], text...)
		added = dst[start:]
	}
	kept := added[:0]
	for _, c := range added {
		if c != '\r' && c != '\n' && c != 0 {
			kept = append(kept, c)
		}
	}
	return dst[:start+len(kept)]
}

// appendEvent appends an event of the gateway's own, whose data is a JSON object of two
// members, with an optional retry before it.
func appendEvent(dst []byte, event string, retryMillis int64, key, value, detail string) []byte {
	if retryMillis > 0 {
		dst = appendRetry(dst, retryMillis)
	}
	dst = append(dst, "event: "...)
	dst = append(dst, event...)
	dst = append(dst, "\ndata: {\""...)
	dst = append(dst, key...)
	dst = append(dst, `":`...)
	dst = message.AppendJSONString(dst, value)
	dst = append(dst, `,"detail":`...)
	dst = message.AppendJSONString(dst, detail)
	return append(dst, "}\n\n"...)
}

func appendRetry(dst []byte, millis int64) []byte {
	dst = append(dst, "retry: "...)
	dst = strconv.AppendInt(dst, millis, 10)
	return append(dst, '\n')
}

func appendGap(dst []byte, gap *message.Gap) []byte {
	return appendEvent(dst, "gap", 0, "reason", string(gap.Reason), gap.Detail)
}

func appendGoaway(dst []byte, end *entrypoints.End) []byte {
	return appendEvent(dst, "goaway", end.Retry.Milliseconds(), "reason", string(end.Reason), end.Detail)
}

func appendError(dst []byte, err error) []byte {
	p := entrypoints.AsProblem(err)
	return appendEvent(dst, "error", p.RetryAfter.Milliseconds(), "type", entrypoints.ProblemPrefix+p.Slug, p.Detail)
}
