package webhook

import (
	"crypto/tls"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/entrypoints/webhook/egress"
)

// Retry is how often and when a message is tried again. How long all attempts take together
// must be within what the endpoint can hold a message for.
type Retry struct {
	// Strategy is how the delay grows: exponential (it doubles), linear (it grows by itself),
	// or none, which is one attempt alone. Default: exponential.
	Strategy string `json:"strategy,omitempty"`
	// Attempts is how often a message is sent in all, the first time included: 1 to 100, or
	// -1 for unlimited. Default: 5.
	Attempts int `json:"attempts,omitempty"`
	// Delay is before the second attempt, up to 24 hours. Default: 1s.
	Delay caddy.Duration `json:"delay,omitempty"`
	// MaxDelay is what a delay grows to, up to 24 hours. Default: 1m, or the delay if that is
	// longer.
	MaxDelay caddy.Duration `json:"max_delay,omitempty"`
	// Jitter is the share of each delay that is random, 0 to 1. Default: 0.2.
	Jitter *float64 `json:"jitter,omitempty"`
}

// CloudEvents are the attributes of the CloudEvents that messages are sent as, in binary
// mode: the payload stays the body, and the attributes are HTTP headers.
type CloudEvents struct {
	// Source tells where events come from: a URI reference, like /shop/orders. Required.
	Source string `json:"source"`
	// Type tells what has happened, like com.example.order.created. Required.
	Type string `json:"type"`
}

// TLS is how callbacks are verified, and how the gateway identifies itself to them.
type TLS struct {
	// CA are PEM files with the authorities that sign callbacks' certificates. Default: those
	// that the system trusts.
	CA []string `json:"ca,omitempty"`
	// ClientCertificate is by what the gateway identifies itself. Default: it does not.
	ClientCertificate *ClientCertificate `json:"client_certificate,omitempty"`
	// ServerName is the name that callbacks' certificates must have. Default: the host of
	// each callback.
	ServerName string `json:"server_name,omitempty"`
	// InsecureSkipVerify accepts any certificate. Everybody on the way can then read and
	// change everything: for experiments only. It does not hold for subscriptions with a ca
	// of their own.
	InsecureSkipVerify bool `json:"insecure_skip_verify,omitempty"`
}

// ClientCertificate are PEM files.
type ClientCertificate struct {
	// Certificate is the file with the certificate, those that sign it behind it.
	Certificate string `json:"certificate"`
	// Key is the file with its private key.
	Key string `json:"key"`
}

// config reads the files. None at all, which is nil, yields nil.
func (t *TLS) config() (*tls.Config, error) {
	if t == nil {
		return nil, nil //nolint:nilnil // no TLS options are no error
	}
	opt := egress.TLSOptions{ServerName: t.ServerName, Insecure: t.InsecureSkipVerify}
	for _, file := range t.CA {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		if _, err = egress.NewTLS(egress.TLSOptions{CA: []string{string(text)}}); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		opt.CA = append(opt.CA, string(text))
	}
	if c := t.ClientCertificate; c != nil {
		certificate, err := os.ReadFile(c.Certificate)
		if err != nil {
			return nil, fmt.Errorf("client_certificate: %w", err)
		}
		key, err := os.ReadFile(c.Key)
		if err != nil {
			return nil, fmt.Errorf("client_certificate: %w", err)
		}
		opt.Certificate, opt.Key = string(certificate), string(key)
	}
	return egress.NewTLS(opt)
}

// global replaces the placeholders of a text, whose value is not to be told, or says which is
// unknown or empty. Files of secrets usually end with a newline that belongs to nobody's
// secret, so that is cut off.
func global(text string) (string, error) {
	value, err := caddy.NewReplacer().ReplaceOrErr(text, true, true)
	return strings.TrimRight(value, "\r\n"), err
}

func within(name string, d, least, most time.Duration) error {
	if d < least || d > most {
		return fmt.Errorf("%s %s: use %s to %s", name, d, least, most)
	}
	return nil
}
