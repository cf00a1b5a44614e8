// Package httpget is the entrypoint with which a client fetches messages by GET.
package httpget

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// Defaults and bounds of the options.
const (
	DefaultMessagesLimit = 500
	MaxMessagesLimit     = 10_000
	DefaultDurationLimit = 5 * time.Second
	MaxDurationLimit     = time.Hour
	DefaultAckWait       = 30 * time.Second
	MaxAckWait           = 10 * time.Minute
)

func init() { caddy.RegisterModule(new(Entrypoint)) }

// Entrypoint lets clients fetch messages by GET: what arrives until messages_limit or
// duration_limit is reached is answered in one response.
//
// Query parameters, each at most once:
//
//   - `limit`: fewer messages than messages_limit. More is cut down to it; 0, negative and
//     other than a whole number is a 400 `bad-limit`.
//   - `cursor`: the `nextCursor` of an earlier response, or the id of an SSE event. The
//     response begins with the message after it. Where the broker has no positions, a
//     nextCursor at `at_least_once` is a receipt: presenting it within `ack_wait`, at the same
//     node, confirms the response. What is not confirmed comes again.
//   - `from`: where to begin without a cursor, if `from client` is configured.
//
// The response is JSON, unless `Accept` prefers application/xml or text/plain by name and
// asks for nothing else more urgently: browsers and `*/*` get JSON. If none of the three is
// accepted, the answer is 406. JSON looks like this:
//
//	{"items":[{"id":"7","content":"…","headers":{"name":["value"]},"metadata":{"offset":7}}],
//	 "gap":{"reason":"expired","detail":"…","before":0},
//	 "error":{"type":"urn:message-api:problem:broker-unavailable","detail":"…"},
//	 "pagination":{"nextCursor":"…","limit":"10"}}
//
// Content that is not UTF-8 is in base64, with `"encoding":"base64"` beside it. `gap` is
// there when messages were missed, or may have been, before the item of that index; if that
// happened more than once, `gaps` holds all of them. `error` is there when reading failed
// after some items had come. `nextCursor` is there whenever the client can continue, also
// without items; `limit` is the limit in force, if the client sent one.
//
// text/plain is for people: line ends in contents are indented, so that nothing can
// imitate the frame around it. Programs use JSON or XML, which damage nothing.
type Entrypoint struct {
	entrypoints.Common
	entrypoints.Reading

	// MessagesLimit is how many messages one response holds at most, up to 10,000.
	// Default: 500.
	MessagesLimit int `json:"messages_limit,omitempty"`
	// DurationLimit is how long a request waits for messages, counted from its arrival, up
	// to one hour. Default: 5s.
	DurationLimit caddy.Duration `json:"duration_limit,omitempty"`
	// HeadersInPayload adds the messages' headers to the items. Default: false.
	HeadersInPayload bool `json:"headers_in_payload,omitempty"`
	// MetadataInPayload adds what the broker tells about the messages to the items.
	// Default: false.
	MetadataInPayload bool `json:"metadata_in_payload,omitempty"`
	// AckWait is how long a client may take, at `at_least_once` on a broker without
	// positions, to confirm a response by presenting its receipt; after that the messages
	// come again. At most 10 minutes. Default: 30s.
	AckWait caddy.Duration `json:"ack_wait,omitempty"`

	maxBytes int // of collected items, after which a response is full
}

// CaddyModule tells Caddy who we are.
func (*Entrypoint) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  entrypoints.Namespace + ".http_get",
		New: func() caddy.Module { return new(Entrypoint) },
	}
}

// Provision applies the defaults.
func (e *Entrypoint) Provision(caddy.Context) error {
	if e.MessagesLimit == 0 {
		e.MessagesLimit = DefaultMessagesLimit
	}
	if e.DurationLimit == 0 {
		e.DurationLimit = caddy.Duration(DefaultDurationLimit)
	}
	if e.AckWait == 0 {
		e.AckWait = caddy.Duration(DefaultAckWait)
	}
	e.maxBytes = maxResponse
	return nil
}

// Validate refuses what can't work.
func (e *Entrypoint) Validate() error {
	if e.MessagesLimit < 1 || e.MessagesLimit > MaxMessagesLimit {
		return fmt.Errorf("entrypoint http_get: messages_limit %d: use 1 to %d", e.MessagesLimit, MaxMessagesLimit)
	}
	if !slices.Contains([]string{"", "latest", "earliest", "client"}, e.From) {
		return fmt.Errorf("entrypoint http_get: from %q: use latest, earliest or client", e.From)
	}
	if err := inRange("ack_wait", e.AckWait, MaxAckWait); err != nil {
		return err
	}
	return inRange("duration_limit", e.DurationLimit, MaxDurationLimit)
}

func inRange(name string, d caddy.Duration, most time.Duration) error {
	if d <= 0 || time.Duration(d) > most {
		return fmt.Errorf("entrypoint http_get: %s %s: use more than nothing and at most %s", name, time.Duration(d), most)
	}
	return nil
}

// Match takes every GET that does not want to become a WebSocket.
func (*Entrypoint) Match(r *http.Request) int {
	if r.Method != http.MethodGet || entrypoints.IsWebSocket(r) {
		return 0
	}
	return 1
}

// Methods are the methods that can be served.
func (*Entrypoint) Methods() []string { return []string{http.MethodGet} }

// Needs tells what the entrypoint needs of an endpoint.
func (e *Entrypoint) Needs() entrypoints.Needs {
	return entrypoints.Needs{
		Type: "http_get", Subscribe: true,
		QoS: e.QoS, Levels: message.Levels[:], Resume: true, Acks: true,
		Hold: time.Duration(e.DurationLimit + e.AckWait), HoldFrom: "duration_limit and ack_wait",
		From: e.From, Via: e.Via, Fallback: e.Fallback,
	}
}

// Interface guards
var (
	_ entrypoints.Serving   = (*Entrypoint)(nil)
	_ caddy.Provisioner     = (*Entrypoint)(nil)
	_ caddy.Validator       = (*Entrypoint)(nil)
	_ caddyfile.Unmarshaler = (*Entrypoint)(nil)
)
