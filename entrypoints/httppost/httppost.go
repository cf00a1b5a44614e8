// Package httppost is the entrypoint with which a client publishes messages by POST.
package httppost

import (
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// Defaults and bounds.
const (
	DefaultMaxBody = 1 << 20
	// MaxBatch is how many messages one batch can hold.
	MaxBatch = 10_000
	// PublishTimeout is how long one publish waits for the broker's confirmation.
	PublishTimeout = 30 * time.Second
)

func init() { caddy.RegisterModule(new(Entrypoint)) }

// Entrypoint lets clients publish by POST: the body is the message.
//
// The answer is 202 without a body, given when the broker has confirmed the message (with
// `qos none`: when the broker's client library has taken it). With `Prefer:
// return=representation` it tells where the message is:
//
//	{"items":[{"status":202,"id":"…","metadata":{"topic":"orders","partition":3,"offset":71}}]}
//
// An empty body is refused with 400, a Content-Encoding with 415, and a body over
// max_body with 413. When the broker can't be reached the answer is 503 with
// Retry-After, and nothing was published. 504 means that the outcome is unknown: the
// message may be stored, and sending it again may store it twice.
//
// A publish that has begun is carried to its end, for up to 30 seconds, also when the
// client hangs up meanwhile: what becomes of a message does not depend on its sender's patience.
//
// With `Content-Type: application/x-ndjson` the body is a batch of up to 10,000 messages,
// one JSON object per line, each line not longer than max_body:
//
//	{"id":"7","key":"customer-1","content":"text","headers":{"trace":"a1","tag":["x","y"]}}
//	{"content":"3q2+7w==","encoding":"base64"}
//
// `content` is required; null stands for a message without content, which is a tombstone
// to brokers that have such. `key` and header values may be {"base64":"…"} when they are not
// text. Nothing else may stand in a line. The answer has one item per line, in order, and
// blank lines do not count. It is 202 when all messages are published, and 207 when any is
// not, or none: a line that can't be read is answered in its place by `status`, `type` and
// `detail`, and does not keep the others from being published.
//
//	{"items":[{"status":202,"id":"7"},{"status":400,"type":"urn:message-api:problem:bad-line","detail":"…"}]}
//
// Batches are published in parts while they are being read, so a batch that breaks off
// has been published in part; the items say which part. If nothing was published when it
// broke off, the answer is 400 or 408, and if the broker is down from the start, 503.
type Entrypoint struct {
	entrypoints.Common

	// RequestHeadersToMessage copies the request's headers into every message. Left out is
	// what belongs to the connection (Connection and what it names, Keep-Alive, Proxy-*, TE,
	// Trailer, Transfer-Encoding, Upgrade, Content-Length, Expect), what is secret
	// (Authorization, Cookie, and the headers in which the API's plans look for keys), and
	// the gateway's own ids (X-Gravitee-Request-Id, -Transaction-Id and -Client-Identifier,
	// or as headers_prefix has them, which `propagate_identity` sends). In a batch a line's own header wins over the request's of
	// the same name, and Content-Type is left out as well. Default: false.
	RequestHeadersToMessage bool `json:"request_headers_to_message,omitempty"`
	// MaxBody is the largest message in bytes: a body, or a line of a batch.
	// Default: 1048576 (1 MiB).
	MaxBody int64 `json:"max_body,omitempty"`
}

// CaddyModule tells Caddy who we are.
func (*Entrypoint) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  entrypoints.Namespace + ".http_post",
		New: func() caddy.Module { return new(Entrypoint) },
	}
}

// Provision applies the defaults.
func (e *Entrypoint) Provision(caddy.Context) error {
	if e.MaxBody == 0 {
		e.MaxBody = DefaultMaxBody
	}
	return nil
}

// Validate refuses what can't work.
func (e *Entrypoint) Validate() error {
	if e.MaxBody < 0 || e.MaxBody > 1<<30 {
		return fmt.Errorf("entrypoint http_post: max_body %d: use 1 to %d bytes", e.MaxBody, 1<<30)
	}
	return nil
}

// Match takes every POST that does not want to become a WebSocket.
func (*Entrypoint) Match(r *http.Request) int {
	if r.Method != http.MethodPost || entrypoints.IsWebSocket(r) {
		return 0
	}
	return 1
}

// Methods are the methods that can be served.
func (*Entrypoint) Methods() []string { return []string{http.MethodPost} }

// Needs tells what the entrypoint needs of an endpoint.
func (e *Entrypoint) Needs() entrypoints.Needs {
	return entrypoints.Needs{
		Type: "http_post", Publish: true,
		QoS: e.QoS, Levels: []message.QoS{message.None, message.Auto},
		Via: e.Via, Fallback: e.Fallback,
	}
}

// Interface guards
var (
	_ entrypoints.Serving   = (*Entrypoint)(nil)
	_ caddy.Provisioner     = (*Entrypoint)(nil)
	_ caddy.Validator       = (*Entrypoint)(nil)
	_ caddyfile.Unmarshaler = (*Entrypoint)(nil)
)
