// Package websocket is the entrypoint over which a client reads and publishes on one
// WebSocket connection (RFC 6455).
package websocket

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// Protocol is the sub-protocol in which messages travel with ids, headers, metadata,
// confirmations and acknowledgements. A client asks for it by Sec-WebSocket-Protocol.
const Protocol = "message-api.v1+json"

const (
	defaultMaxMessage = 256 << 10
	defaultPing       = 25 * time.Second
	matchUpgrade      = 4 // above what any plain GET can reach
)

func init() { caddy.RegisterModule(new(Entrypoint)) }

// Entrypoint lets clients read and publish over a WebSocket.
//
// Without a sub-protocol the connection carries raw frames: every message is one frame
// with its content, in both directions, and nothing else. Raw frames have no room for
// anything that must be said beside the messages, so the connection is closed then: 1011
// when a publish failed, 1013 when the broker is down or after a gap, each with a reason
// text. The levels of guarantee are none and auto.
//
// With the sub-protocol `message-api.v1+json` every frame is text with a JSON object whose
// `type` is, from the gateway, one of
//
//   - `message`: `id`, `content` (with `"encoding":"base64"` when it is not UTF-8), `headers`,
//     `metadata`, `cursor` where the session can be resumed, and `seq` at at_most_once and
//     at_least_once;
//   - `gap`: `reason` and `detail`: messages were missed, or may have been;
//   - `published`, `refused` or `unknown`: what became of a publish, with its `ref`;
//   - `error`: a frame was not understood, or an acknowledgement had no effect;
//   - `goaway`: `reason`, `detail`, `reconnect`, `retry_ms`: the connection closes now;
//
// and from the client one of
//
//   - `publish`: `content`, and if wanted `encoding` ("base64"), `ref` (the client's own name
//     for it, up to 128 bytes), `id`, `key`, `headers`;
//   - `ack`, `release`, `reject`: `seq` (a number or several) or `upto` (all up to a number).
//     At at_least_once a message that was not acknowledged comes again; release gives it back
//     at once, reject dead-letters it where the broker can.
//
// Publishes are sent on in order, and the client need not wait for one to send the next;
// when too many are under way, the gateway stops reading. A publish whose answer did not
// arrive has an unknown outcome.
//
// It runs on HTTP/1.1; HTTP/2 and HTTP/3 get a 501 that says so. Compression
// (permessage-deflate) is not offered: it costs each connection far more memory than the
// connection itself, and messages are encoded once for all clients.
type Entrypoint struct {
	entrypoints.Common
	entrypoints.Reading

	// Publisher lets clients publish. Default: true.
	Publisher *bool `json:"publisher,omitempty"`
	// Subscriber lets clients read. Default: true.
	Subscriber *bool `json:"subscriber,omitempty"`
	// Frames is the kind of raw frames that are sent: text, binary, or auto, which is
	// text when the content is UTF-8. A text frame can't hold anything else: with text,
	// content that is not UTF-8 is sent as binary all the same. Default: auto.
	Frames string `json:"frames,omitempty"`
	// MaxMessage is the largest message in bytes that a client may send, fragments
	// together; in the sub-protocol it bounds the JSON text. A larger one closes the
	// connection with 1009. Default: 262144 (256 KiB).
	MaxMessage int64 `json:"max_message,omitempty"`
	// Ping is the silence after which a client is asked for a sign of life; without one
	// for as long again the connection is taken for dead. 0 turns it off. Default: 25s.
	Ping *caddy.Duration `json:"ping,omitempty"`

	publisher  bool
	subscriber bool
	ping       time.Duration
	limits     limits
}

// limits are what tests tighten.
type limits struct {
	write   time.Duration // a write that makes no progress for this long ends the session
	closing time.Duration // patience for each step of saying goodbye
	finish  time.Duration // patience for publishes that are under way when the client is gone
}

// CaddyModule tells Caddy who we are.
func (*Entrypoint) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  entrypoints.Namespace + ".websocket",
		New: func() caddy.Module { return new(Entrypoint) },
	}
}

// Provision applies the defaults.
func (e *Entrypoint) Provision(caddy.Context) error {
	e.publisher = e.Publisher == nil || *e.Publisher
	e.subscriber = e.Subscriber == nil || *e.Subscriber
	if e.Frames == "" {
		e.Frames = framesAuto
	}
	if e.MaxMessage == 0 {
		e.MaxMessage = defaultMaxMessage
	}
	e.ping = defaultPing
	if e.Ping != nil {
		e.ping = time.Duration(*e.Ping)
	}
	e.limits = limits{write: 10 * time.Second, closing: time.Second, finish: 5 * time.Second}
	return nil
}

// Validate refuses what can't work.
func (e *Entrypoint) Validate() error {
	switch {
	case !e.publisher && !e.subscriber:
		return errors.New("entrypoint websocket: publisher and subscriber are both off: turn one on")
	case e.Frames != framesAuto && e.Frames != framesText && e.Frames != framesBinary:
		return fmt.Errorf("entrypoint websocket: frames %q: use auto, text or binary", e.Frames)
	case e.MaxMessage < 0:
		return fmt.Errorf("entrypoint websocket: max_message %d is not a size in bytes", e.MaxMessage)
	case e.ping < 0:
		return fmt.Errorf("entrypoint websocket: ping %s: use a positive duration, or off", e.ping)
	case !e.subscriber && e.needsProtocol():
		return fmt.Errorf("entrypoint websocket: qos %s is about reading, and subscriber is off: use none or auto", e.QoS)
	case !e.subscriber && e.From != "":
		return fmt.Errorf("entrypoint websocket: from %s is about reading, and subscriber is off: leave it out", e.From)
	}
	return nil
}

// needsProtocol says whether the level can't be kept on raw frames.
func (e *Entrypoint) needsProtocol() bool {
	return e.QoS == message.AtMostOnce || e.QoS == message.AtLeastOnce
}

// Methods are the methods of a WebSocket handshake.
func (*Entrypoint) Methods() []string { return []string{http.MethodGet} }

// Needs tells what the entrypoint needs of an endpoint.
func (e *Entrypoint) Needs() entrypoints.Needs {
	return entrypoints.Needs{
		Type:    "websocket",
		Publish: e.publisher, Subscribe: e.subscriber,
		QoS: e.QoS, Levels: message.Levels[:],
		Acks: true,
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
