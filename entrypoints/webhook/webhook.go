// Package webhook is the entrypoint that calls the client: it reads from the broker on behalf
// of each subscription and POSTs every message to the subscription's callback.
package webhook

import (
	"crypto/tls"
	"math"
	"net/url"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/entrypoints/webhook/egress"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// Defaults and bounds of the options.
const (
	DefaultTimeout        = 10 * time.Second
	MaxTimeout            = 10 * time.Minute
	DefaultConnectTimeout = 3 * time.Second
	DefaultConcurrency    = 1
	MaxConcurrency        = 1024
	DefaultConnections    = 64
	MaxConnections        = 10_000
	DefaultMaxResponse    = 64 << 10
	MaxMaxResponse        = 16 << 20
	DefaultAttempts       = 5
	MaxAttempts           = 100
	Unlimited             = -1 // attempts without an end
	DefaultDelay          = time.Second
	DefaultMaxDelay       = time.Minute
	MaxDelay              = 24 * time.Hour
	DefaultJitter         = 0.2
)

// moduleName is the type by which the configuration names this entrypoint.
const moduleName = "webhook"

// endless is the Hold of a retry schedule without an end: longer than any endpoint that
// bounds it lends.
const endless = time.Duration(math.MaxInt64)

func init() {
	caddy.RegisterModule(new(Entrypoint))
	caddy.RegisterModule(new(Consumer))
}

// Entrypoint calls the client: for each subscription of a `push` plan one node of the
// gateway reads from the broker and POSTs every message to the subscription's callback,
// signed as Standard Webhooks say (webhook-id, webhook-timestamp, webhook-signature).
//
// A message is settled at the broker only after an answer with a 2xx status. What comes of
// any other answer:
//
//   - 410: the subscription ends; the message goes back to the broker.
//   - 429, and 503 with Retry-After: tried again, not before Retry-After is over.
//   - 5xx, 408, 425, a timeout, a broken or refused connection: tried again as `retry` says, and
//     when that is exhausted `on_exhausted` decides.
//   - other 4xx, and 3xx, which is never followed: `on_client_error` decides.
//
// Subscriptions say where to call and may ask for other values of `timeout`, `concurrency`,
// `order`, `retry`, `on_client_error`, `on_exhausted` and `cloudevents`; of the first two,
// of the attempts and of the total time of all attempts never for more than stands here.
//
// Only https to public addresses is called unless `allow_http` and `allow_networks` say
// otherwise. The address is checked when it is connected to, so that no name can lead
// elsewhere afterwards.
type Entrypoint struct {
	// QoS is the level of delivery guarantee: auto, at_most_once or at_least_once. auto is
	// at least once wherever the broker keeps account. Default: auto.
	QoS message.QoS `json:"qos,omitzero"`
	// Timeout is for a whole attempt, from the connection to the end of the response, up to
	// 10 minutes. Default: 10s.
	Timeout caddy.Duration `json:"timeout,omitempty"`
	// ConnectTimeout is for the connection, TLS included; at most the timeout. Default: 3s,
	// or the timeout if that is shorter.
	ConnectTimeout caddy.Duration `json:"connect_timeout,omitempty"`
	// Concurrency is how many calls are in flight per subscription, 1 to 1024, and what
	// subscriptions may ask for at most. Default: 1.
	Concurrency int `json:"concurrency,omitempty"`
	// Order is the scope within which a message is sent only when the one before it is done:
	// `key` (messages with the same key; those without one are in order within the broker's
	// lane), `lane` (a partition, a queue), or `none`. Default: key.
	Order string `json:"order,omitempty"`
	// Retry is how often and when a failed message is tried again. Default: exponential, 5
	// attempts.
	Retry *Retry `json:"retry,omitempty"`
	// OnClientError is what becomes of a message that the client refuses for good (4xx other
	// than 401, 408, 410, 425 and 429, and 3xx): dead_letter, stop or skip. stop stops the
	// worker until somebody has it retried; skip drops the message, and counts it. Default:
	// dead_letter if there is a dead_letter, else stop.
	OnClientError string `json:"on_client_error,omitempty"`
	// OnExhausted is what becomes of a message after its last attempt: dead_letter or stop.
	// Default: dead_letter if there is a dead_letter, else stop.
	OnExhausted string `json:"on_exhausted,omitempty"`
	// DeadLetter is the name of an endpoint of this API, with a producer that confirms, that
	// takes what can't be delivered. With a consumer, too, dead letters can be read and
	// delivered again. Default: none.
	DeadLetter string `json:"dead_letter,omitempty"`
	// MessageHeaders are the names of message headers that become HTTP headers, without
	// regard to case; `name*` is a prefix. Default: none but Content-Type and
	// Content-Encoding, which always do.
	MessageHeaders []string `json:"message_headers,omitempty"`
	// CloudEvents has every message sent as a CloudEvent in binary mode. Default: off.
	CloudEvents *CloudEvents `json:"cloudevents,omitempty"`
	// AllowHTTP lets callbacks begin with http://, by which everybody on the way can read and
	// change what is sent. Default: false.
	AllowHTTP bool `json:"allow_http,omitempty"`
	// AllowNetworks are networks that are not public and may be called all the same:
	// addresses, CIDRs, `private` or `loopback`. Default: none.
	AllowNetworks []string `json:"allow_networks,omitempty"`
	// AllowHosts are the only hosts that may be called: `hooks.example.com`, or
	// `*.example.com` for all below it. Default: all.
	AllowHosts []string `json:"allow_hosts,omitempty"`
	// Connections is how many connections there are at once to each host, 1 to 10,000.
	// Default: 64.
	Connections int `json:"connections,omitempty"`
	// MaxResponse is how much of a response's body is read, in bytes, up to 16 MiB. What is
	// longer is cut off, and costs the connection. Default: 64 KiB.
	MaxResponse int64 `json:"max_response,omitempty"`
	// Proxy is the URL of a proxy: http, https or socks5. It looks up the callbacks' names by
	// itself, so it has to check where they lead; and it is the operator's, so it may be
	// anywhere. May be a placeholder ({env.*}, {file.*}). Default: none.
	Proxy string `json:"proxy,omitempty"`
	// TLS is how callbacks are verified, and how the gateway identifies itself to them.
	TLS *TLS `json:"tls,omitempty"`
	// Via is the name of the endpoint to read from. Default: the API's first endpoint that
	// can do what this entrypoint needs.
	Via string `json:"via,omitempty"`

	logger      *zap.Logger
	defaults    settings // what stands above, with all defaults
	dialTimeout time.Duration
	connections int
	maxResponse int64
	policy      egress.Policy
	proxy       *url.URL
	tls         *tls.Config
	couriers    *couriers
	firstPause  time.Duration // before a broker is asked again
	letterWait  time.Duration // for the first dead letter
	letterIdle  time.Duration // for each one after it
}

// CaddyModule tells Caddy who we are.
func (*Entrypoint) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  entrypoints.Namespace + "." + moduleName,
		New: func() caddy.Module { return new(Entrypoint) },
	}
}

// Needs tells what the entrypoint needs of an endpoint.
func (e *Entrypoint) Needs() entrypoints.Needs {
	hold := e.defaults.retry.Total(e.defaults.timeout)
	if hold < 0 {
		hold = endless
	}
	return entrypoints.Needs{
		Type: moduleName, Subscribe: true, QoS: e.QoS,
		Levels: []message.QoS{message.Auto, message.AtMostOnce, message.AtLeastOnce},
		Acks:   true, Hold: hold, HoldFrom: "retry and timeout", Via: e.Via, DeadLetter: e.DeadLetter,
	}
}

// Interface guards
var (
	_ entrypoints.Pushing   = (*Entrypoint)(nil)
	_ caddy.Provisioner     = (*Entrypoint)(nil)
	_ caddy.CleanerUpper    = (*Entrypoint)(nil)
	_ caddyfile.Unmarshaler = (*Entrypoint)(nil)
)
