package envelope

import (
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/caddy-message-api/caddy-message-api/message"
)

const defaultType = "application/octet-stream"

// writer writes the headers of one request.
type writer struct {
	e      *Envelope
	m      *message.Message
	header http.Header
	values []string // room for the values in header
	size   budget

	// What survey found.
	media, coding, parent, state string
	tombstone, twice             bool
	plain                        int // headers that may go out
	event                        spelling
}

// survey looks at the message once for all that is needed of it.
func (w *writer) survey() {
	for i := range w.m.Headers {
		h := &w.m.Headers[i]
		v := w.e.allow.of(h.Name)
		switch {
		case v.kind == mediaType && w.media == "":
			w.media = w.mediaType(h.Name, h.Value)
		case v.kind == coding && w.coding == "":
			w.coding = w.codings(h.Name, h.Value)
		case v.kind == traceparent:
			w.twice = w.twice || w.parent != "" // two parents are none
			w.parent = textproto.TrimString(h.Value)
		case v.kind == tracestate && w.state == "":
			w.state = h.Value
		case v.kind == tracestate:
			if len(w.state) <= maxTracestate { // or it is none already
				w.state += "," + h.Value // it may come in pieces
			}
		case v.key != "" || v.attribute.key != "":
			w.plain++
		}
	}
	w.surveyMetadata()
	if w.e.opt.CloudEvents != nil && w.plain > 0 {
		w.event = eventIn(w.m, w.e.allow)
	}
}

// surveyMetadata looks at what brokers keep apart from the headers.
func (w *writer) surveyMetadata() {
	for i := range w.m.Metadata {
		switch f := &w.m.Metadata[i]; f.Name {
		case "content_type":
			if w.media == "" {
				w.media = w.mediaType(f.Name, f.String())
			}
		case "content_encoding":
			if w.coding == "" {
				w.coding = w.codings(f.Name, f.String())
			}
		case message.TombstoneField:
			w.tombstone = f.Value() == true
		}
	}
}

// mediaType returns a Content-Type, if it is one. The last one is remembered: messages of a
// channel are mostly of one type, and to parse it costs more than all else here.
func (w *writer) mediaType(name, value string) string {
	value = textproto.TrimString(value)
	if last := w.e.media.Load(); last != nil && *last == value {
		return *last
	}
	if value == "" {
		return ""
	}
	if len(value) > maxAttribute || !isMediaType(value) {
		w.drop(name)
		return ""
	}
	value = strings.Clone(value) // out of the broker's buffer
	w.e.media.Store(&value)
	return value
}

func (w *writer) codings(name, value string) string {
	value = textproto.TrimString(value)
	if value == "" {
		return ""
	}
	if len(value) > maxAttribute || !isCoding(value) {
		w.drop(name)
		return ""
	}
	return value
}

func (w *writer) drop(name string) {
	if f := w.e.opt.Dropped; f != nil {
		f(name)
	}
}

// write makes the headers: ours, fixed ones, and the message's, in the order in which they go
// before each other.
func (w *writer) write(id string, attempt int, now time.Time) http.Header {
	const ours = 8
	n := ours + w.plain
	if w.e.opt.CloudEvents != nil {
		n += 5
	}
	w.header = make(http.Header, n+len(w.e.fixed))
	w.values = make([]string, 0, n)
	for key, values := range w.e.fixed {
		w.header[key] = values
	}
	w.size.take(agentHeader, w.e.opt.UserAgent)
	w.header[agentHeader] = w.e.agent
	w.writeOurs(id, attempt, now)
	w.writeContent()
	if w.e.opt.CloudEvents != nil && !isStructured(w.header[typeHeader][0]) {
		w.writeEvent(id)
	}
	w.writePlain()
	return w.header
}

// writeOurs makes one text of all values that are new, and cuts it up.
func (w *writer) writeOurs(id string, attempt int, now time.Time) {
	var stack [320]byte
	b := strconv.AppendInt(stack[:0], now.Unix(), 10)
	stamp := len(b)
	b = w.e.sign.append(b, id, b[:stamp], w.m.Payload)
	signature := len(b)
	parent := w.parent
	if w.twice {
		parent = ""
	}
	b, kept := appendTrace(b, parent)
	trace := len(b)
	b = strconv.AppendInt(b, int64(attempt), 10)
	text := string(b)

	w.set(idHeader, id)
	w.set(timestampHeader, text[:stamp])
	if signature > stamp {
		w.set(signatureHeader, text[stamp:signature])
	}
	w.set(traceHeader, text[signature:trace])
	w.set(attemptHeader, text[trace:])
	if w.tombstone {
		w.set(tombstoneHeader, "true")
	}
	if state := textproto.TrimString(w.state); kept && state != "" {
		if isTracestate(state) {
			w.set(stateHeader, state)
		} else {
			w.drop(stateHeader)
		}
	}
}

func (w *writer) writeContent() {
	if w.header[typeHeader] == nil {
		if w.media == "" {
			w.media = defaultType
		}
		w.set(typeHeader, w.media)
	}
	if w.coding != "" {
		w.set(encodingHeader, w.coding)
	}
}

// writeEvent writes the attributes: those that the message has, and ours where it must have
// some.
func (w *writer) writeEvent(id string) {
	w.writeAttributes(true)
	w.require(eventVersionKey, eventVersion)
	w.require(eventIDKey, id)
	w.require(eventSourceKey, w.e.source)
	w.require(eventTypeKey, w.e.kind)
	if at := w.m.Time.UTC(); w.event == none && !at.IsZero() && at.Year() >= 0 && at.Year() <= 9999 {
		w.set(eventTimeKey, at.Format(time.RFC3339Nano))
	}
	w.writeAttributes(false)
}

// writeAttributes writes those that every event must have, or the others: so that the others
// never take the room of those.
func (w *writer) writeAttributes(required bool) {
	if w.event == none {
		return
	}
	for i := range w.m.Headers {
		h := &w.m.Headers[i]
		if a := w.e.allow.of(h.Name).attribute; a.spelling == w.event && isRequired(a.key) == required {
			w.writeAttribute(h, a, required)
		}
	}
}

func (w *writer) writeAttribute(h *message.Header, a attribute, required bool) {
	value := h.Value
	if a.encoded {
		value = decodeAttribute(value)
	}
	switch encoded := encodeAttribute(value); {
	case value == "": // which means that it is not there
	case a.key == "" || !isAttribute(value) || w.header[a.key] != nil,
		required && len(encoded) > maxAttribute, !w.size.fits(a.key, encoded):
		w.drop(h.Name)
	default:
		w.set(a.key, encoded)
	}
}

func (w *writer) require(key, value string) {
	if w.header[key] == nil {
		w.set(key, value)
	}
}

// writePlain writes what the list allows.
func (w *writer) writePlain() {
	for i := range w.m.Headers {
		h := &w.m.Headers[i]
		v := w.e.allow.of(h.Name)
		switch {
		case v.dropped && (v.attribute.spelling != prefixed || w.event != prefixed):
			w.drop(h.Name)
			continue
		case v.key == "" || w.e.fixed[v.key] != nil:
			continue
		}
		// HTTP/2 knows no blanks around values.
		value := textproto.TrimString(h.Value)
		if !httpguts.ValidHeaderFieldValue(value) || !w.size.fits(v.key, value) {
			w.drop(h.Name)
			continue
		}
		w.add(v.key, value)
	}
}

// set takes a value into the room that was made, at the end of which others may append only
// to a copy.
func (w *writer) set(key, value string) {
	w.size.take(key, value)
	n := len(w.values)
	w.values = append(w.values, value)
	w.header[key] = w.values[n : n+1 : n+1]
}

func (w *writer) add(key, value string) {
	if before := w.header[key]; before != nil {
		w.size.take(key, value)
		w.header[key] = append(before, value)
		return
	}
	w.set(key, value)
}
