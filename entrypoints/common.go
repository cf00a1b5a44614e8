package entrypoints

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/caddyfile/parse"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// Common are the options that every entrypoint has. Guests embed it.
type Common struct {
	// QoS is the level of delivery guarantee: none, auto, at_most_once or
	// at_least_once. What each means is told in docs/qos.md. Default: auto.
	QoS message.QoS `json:"qos,omitzero"`
	// Via is the name of the endpoint to use. Default: the API's first endpoint that can
	// do what this entrypoint needs.
	Via string `json:"via,omitempty"`
	// Fallback is the name of the endpoint to use while the first one is down. It is
	// taken only when nothing was sent yet: never in the middle of a stream, and never
	// for a message whose outcome is unknown. Default: none.
	Fallback string `json:"fallback,omitempty"`
}

// Options are the Caddyfile words for the common options.
func (c *Common) Options() []parse.Option {
	return []parse.Option{
		{Name: "qos", Set: func(d *caddyfile.Dispenser) error {
			var text string
			if err := parse.String("qos", &text).Set(d); err != nil {
				return err
			}
			level, err := message.ParseQoS(text)
			if err != nil {
				return d.Err(err.Error())
			}
			c.QoS = level
			return nil
		}},
		parse.String("via", &c.Via),
		parse.String("fallback", &c.Fallback),
	}
}

// Reading are the options that every subscribing entrypoint has. Guests embed it.
type Reading struct {
	// From is where a client begins that brings no cursor and has no bookmark: latest,
	// earliest, or client, which lets clients ask by ?from=latest, ?from=earliest or
	// ?from= and an RFC 3339 time. Default: where the endpoint's consumer says.
	From string `json:"from,omitempty"`
}

// Options are the Caddyfile words for the reading options.
func (r *Reading) Options() []parse.Option {
	return []parse.Option{parse.OneOf("from", &r.From, "latest", "earliest", "client")}
}
