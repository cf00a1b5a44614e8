package webhook

import (
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// The headers that a dead letter has beside those of the message.
const (
	headerID           = "dead-letter-id"
	headerSubscription = "dead-letter-subscription"
	headerAPI          = "dead-letter-api"
	headerReason       = "dead-letter-reason"
	headerAttempts     = "dead-letter-attempts"
	headerStatus       = "dead-letter-status"
	headerError        = "dead-letter-error"
	headerPosition     = "dead-letter-position"
	headerTime         = "dead-letter-time"
)

var letterHeaders = []string{
	headerID, headerSubscription, headerAPI, headerReason, headerAttempts, headerStatus, headerError, headerPosition, headerTime,
}

// maxLetterError bounds the last error in a dead letter, in bytes.
const maxLetterError = 512

// contentProperties are what brokers have as properties of their own. An endpoint that reads
// them as metadata publishes them only as headers.
var contentProperties = []struct{ field, header string }{
	{"content_type", "content-type"}, {"content_encoding", "content-encoding"},
}

// deadMessage is a letter as it is put to the dead ones: the message as it was, with what
// happened in headers. Its id and time are left to the endpoint: with an id that the broker
// has seen it may drop the message as a duplicate, and with an old time as expired.
func deadMessage(api string, l *entrypoints.Letter) *message.Message {
	m := l.Message
	headers := withoutLetter(m.Headers)
	for _, p := range contentProperties {
		f, has := m.Field(p.field)
		if text := f.String(); has && text != "" && !hasHeader(headers, p.header) {
			headers = append(headers, message.Header{Name: p.header, Value: text})
		}
	}
	add := func(name, value string) {
		if value != "" {
			headers = append(headers, message.Header{Name: name, Value: value})
		}
	}
	at := l.Time
	if at.IsZero() {
		at = time.Now()
	}
	add(headerID, l.ID)
	add(headerSubscription, l.Subscription)
	add(headerAPI, api)
	add(headerReason, l.Reason)
	add(headerAttempts, strconv.Itoa(l.Attempts))
	if l.Status != 0 {
		add(headerStatus, strconv.Itoa(l.Status))
	}
	add(headerError, oneLine(l.Error, maxLetterError))
	add(headerPosition, l.Position)
	add(headerTime, at.UTC().Format(time.RFC3339Nano))
	dead := &message.Message{Key: m.Key, Payload: m.Payload, Headers: headers}
	if f, ok := m.Field(message.TombstoneField); ok {
		dead.Metadata = []message.Field{f}
	}
	return dead
}

// letterOf reads a dead letter back. ok is false if it is none of the subscription.
func letterOf(api, subscription string, m *message.Message) (l entrypoints.Letter, ok bool) {
	if text, _ := m.Header(headerSubscription); text != subscription {
		return l, false
	}
	if text, has := m.Header(headerAPI); has && text != api {
		return l, false
	}
	value := func(name string) string {
		text, _ := m.Header(name)
		return text
	}
	l = entrypoints.Letter{
		ID: value(headerID), Subscription: subscription, Reason: value(headerReason),
		Error: value(headerError), Position: value(headerPosition),
	}
	// What others have written into these is not worth losing the message for.
	l.Attempts, _ = strconv.Atoi(value(headerAttempts))
	l.Attempts = max(l.Attempts, 0)
	l.Status, _ = strconv.Atoi(value(headerStatus))
	l.Time, _ = time.Parse(time.RFC3339Nano, value(headerTime))
	undead := *m
	undead.Headers = withoutLetter(m.Headers)
	l.Message = &undead
	return l, true
}

// withoutLetter is a copy without the headers of dead letters, with room for them.
func withoutLetter(headers []message.Header) []message.Header {
	rest := make([]message.Header, 0, len(headers)+len(letterHeaders)+len(contentProperties))
	for _, h := range headers {
		if !slices.ContainsFunc(letterHeaders, func(name string) bool { return strings.EqualFold(name, h.Name) }) {
			rest = append(rest, h)
		}
	}
	return rest
}

func hasHeader(headers []message.Header, name string) bool {
	return slices.ContainsFunc(headers, func(h message.Header) bool { return strings.EqualFold(h.Name, name) })
}

// oneLine is text that a header can carry, cut off at a character.
func oneLine(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
	if len(s) <= most {
		return s
	}
	for s = s[:most]; !utf8.ValidString(s); {
		s = s[:len(s)-1]
	}
	return s
}
