package webhook

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/entrypoints/webhook/egress"
)

// ConsumerNamespace is where the consumer configurations of static subscriptions are
// registered, under the name of the entrypoint that they are for.
const ConsumerNamespace = "message_api.consumers"

// Consumer is where and how the messages of one subscription are delivered. It is what the
// admin API takes as `consumer` of a subscription, and what stands in the block of a
// subscription in the Caddyfile.
//
// What is left out is as the entrypoint says. In the text of a subscription that is part of the
// configuration {env.*} and {file.*} are replaced; in that of others nothing is.
type Consumer struct {
	// Callback is the URL that is called. Required.
	Callback string `json:"callback"`
	// Secrets are what deliveries are signed with: `whsec_` and the standard base64 of 24 to
	// 64 bytes; up to two, for a rotation. An empty list leaves deliveries unsigned. Default:
	// one is made, or in the configuration none.
	Secrets []string `json:"secrets,omitzero"`
	// Headers are added to each delivery: up to 20 values, of no header that HTTP, the
	// signature or auth uses.
	Headers http.Header `json:"headers,omitempty"`
	// Auth is how the gateway logs in at the callback. Default: it does not.
	Auth *egress.AuthConfig `json:"auth,omitempty"`
	// Concurrency is how many calls are in flight, up to the entrypoint's.
	Concurrency int `json:"concurrency,omitempty"`
	// Order is key, lane or none.
	Order string `json:"order,omitempty"`
	// Timeout is for a whole attempt, up to the entrypoint's.
	Timeout Duration `json:"timeout,omitempty"`
	// Retry is how often and when a failed message is tried again, up to the attempts and the
	// total time of the entrypoint.
	Retry *ConsumerRetry `json:"retry,omitempty"`
	// OnClientError is what becomes of a message that is refused for good: dead_letter, stop
	// or skip.
	OnClientError string `json:"on_client_error,omitempty"`
	// OnExhausted is what becomes of a message after its last attempt: dead_letter or stop.
	OnExhausted string `json:"on_exhausted,omitempty"`
	// CloudEvents has every message sent as a CloudEvent in binary mode.
	CloudEvents *CloudEvents `json:"cloudevents,omitempty"`
	// TLS is how the callback is verified.
	TLS *ConsumerTLS `json:"tls,omitempty"`
}

// ConsumerRetry is Retry as a subscription asks for it.
type ConsumerRetry struct {
	// Strategy is exponential, linear or none.
	Strategy string `json:"strategy,omitempty"`
	// Attempts is how often a message is sent in all, up to what the entrypoint has; -1 is
	// unlimited, where the entrypoint is.
	Attempts int `json:"attempts,omitempty"`
	// Delay is before the second attempt.
	Delay Duration `json:"delay,omitempty"`
	// MaxDelay is what a delay grows to.
	MaxDelay Duration `json:"max_delay,omitempty"`
	// Jitter is the share of each delay that is random, 0 to 1.
	Jitter *float64 `json:"jitter,omitempty"`
}

// ConsumerTLS is how a callback is verified.
type ConsumerTLS struct {
	// CA is the authorities that may have signed the callback's certificate, as PEM text.
	// Default: those of the entrypoint.
	CA string `json:"ca,omitempty"`
	// ServerName is the name that the callback's certificate must have. Default: its host.
	ServerName string `json:"server_name,omitempty"`
}

// Duration is a time span that is written like 500ms, 10s or 1h30m.
type Duration time.Duration

// MarshalJSON writes the duration as it is read.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON reads a duration; a bare number, which would have no unit, is refused.
func (d *Duration) UnmarshalJSON(raw []byte) error {
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return errors.New(`not a duration: write it in quotes, like "500ms", "10s" or "1h30m"`)
	}
	parsed, err := caddy.ParseDuration(text)
	if err != nil || parsed <= 0 {
		return fmt.Errorf(`%q is not a duration longer than nothing: write it like "500ms", "10s" or "1h30m"`, text)
	}
	*d = Duration(parsed)
	return nil
}

// String is the shortest form: 1h and not 1h0m0s.
func (d Duration) String() string {
	text := time.Duration(d).String()
	for _, zero := range []string{"m0s", "h0m"} {
		if n := len(text) - len(zero); n > 0 && text[n:] == zero {
			text = text[:n+1]
		}
	}
	return text
}

// CaddyModule tells Caddy who we are.
func (*Consumer) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  ConsumerNamespace + "." + moduleName,
		New: func() caddy.Module { return new(Consumer) },
	}
}

// Interface guards
var (
	_ caddy.Module          = (*Consumer)(nil)
	_ caddyfile.Unmarshaler = (*Consumer)(nil)
)
