// Package sse is the entrypoint that streams messages as Server-Sent Events.
package sse

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
	DefaultHeartbeat = 5 * time.Second
	MinHeartbeat     = time.Second
	MinRotate        = time.Second
)

const (
	mediaType = "text/event-stream"
	matchSSE  = 2 // above a plain GET
)

func init() { caddy.RegisterModule(new(Entrypoint)) }

// Entrypoint streams messages as Server-Sent Events, to clients that name
// text/event-stream in Accept. In a browser:
//
//	const source = new EventSource("/orders");
//	source.onmessage = (event) => console.log(event.lastEventId, event.data);
//
// Events, beside `message`:
//
//   - `message-base64`: a message whose content is not UTF-8, which SSE can't carry; `data`
//     is its standard base64. It has a name of its own so that nobody takes it for text.
//   - `gap`: messages were missed, or may have been; `data` is {"reason":"…","detail":"…"}.
//   - `goaway`: the gateway ends the stream; `data` is {"reason":"…","detail":"…"}.
//   - `error`: reading failed for good; `data` is {"type":"…","detail":"…"}. The stream ends.
//
// Where the endpoint has positions each event has an id, and a client that was cut off
// comes back with it in Last-Event-ID, as an EventSource does by itself, to continue
// exactly after that event. Clients that can't set headers say `?last-event-id=` or
// `?cursor=` (also with the nextCursor of a GET); the header wins. An id in the header
// that the gateway did not make leads to a `gap` event with reason `foreign`, because an
// EventSource would give up at an error; in the query it is a 400.
//
// The content is one `data` line per line. The format takes LF, CRLF and CR all for line
// ends, and the client sees each as LF; content in which that matters must be sent in
// another form, or be read by GET or WebSocket.
//
// A client that takes nothing for 10 seconds is cut off.
type Entrypoint struct {
	entrypoints.Common
	entrypoints.Reading

	// Heartbeat is the silence after which a comment is sent, so that nothing on the way
	// takes the connection for dead. At least 1s; 0 turns it off. Default: 5s.
	Heartbeat *caddy.Duration `json:"heartbeat,omitempty"`
	// MetadataAsComment adds what the broker tells about the message to each event, as
	// comments `:name: value`, which an EventSource does not show: sourceTimestamp in Unix
	// milliseconds, then the broker's own fields. Default: false.
	MetadataAsComment bool `json:"metadata_as_comment,omitempty"`
	// HeadersAsComment adds the message's headers to each event, in the same form; a name
	// with several values stands as often. Default: false.
	HeadersAsComment bool `json:"headers_as_comment,omitempty"`
	// Rotate is the age at which a stream is ended, with the reason `rotate`, so that
	// clients spread over the nodes again; each ends at random between 80 and 100 % of it.
	// At least 1s. Default: never.
	Rotate caddy.Duration `json:"rotate,omitempty"`

	heartbeat    time.Duration
	writeTimeout time.Duration // 0 is the default of entrypoints.Writer
}

// CaddyModule tells Caddy who we are.
func (*Entrypoint) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  entrypoints.Namespace + ".sse",
		New: func() caddy.Module { return new(Entrypoint) },
	}
}

// Provision applies the defaults.
func (e *Entrypoint) Provision(caddy.Context) error {
	e.heartbeat = DefaultHeartbeat
	if e.Heartbeat != nil {
		e.heartbeat = time.Duration(*e.Heartbeat)
	}
	return nil
}

// Validate refuses what can't work.
func (e *Entrypoint) Validate() error {
	if e.heartbeat != 0 && e.heartbeat < MinHeartbeat {
		return fmt.Errorf("entrypoint sse: heartbeat %s: use at least %s, or off", e.heartbeat, MinHeartbeat)
	}
	if rotate := time.Duration(e.Rotate); rotate != 0 && rotate < MinRotate {
		return fmt.Errorf("entrypoint sse: rotate %s: use at least %s, or leave it out", rotate, MinRotate)
	}
	if !slices.Contains([]string{"", "latest", "earliest", "client"}, e.From) {
		return fmt.Errorf("entrypoint sse: from %q: use latest, earliest or client", e.From)
	}
	return nil
}

// Match takes a GET that names text/event-stream.
func (*Entrypoint) Match(r *http.Request) int {
	if r.Method != http.MethodGet || entrypoints.IsWebSocket(r) {
		return 0
	}
	accept := r.Header["Accept"]
	if len(accept) == 1 && accept[0] == mediaType { // what an EventSource sends
		return matchSSE
	}
	quality, how := entrypoints.ParseAccept(accept).Match(mediaType)
	if quality == 0 || how != entrypoints.MatchNamed {
		return 0
	}
	return matchSSE
}

// Methods are the methods that can be served.
func (*Entrypoint) Methods() []string { return []string{http.MethodGet} }

// Needs tells what the entrypoint needs of an endpoint.
func (e *Entrypoint) Needs() entrypoints.Needs {
	return entrypoints.Needs{
		Type: "sse", Subscribe: true,
		QoS: e.QoS, Levels: message.Levels[:], Resume: true,
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
