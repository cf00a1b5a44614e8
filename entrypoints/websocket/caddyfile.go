package websocket

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/caddyfile/parse"
)

// UnmarshalCaddyfile reads
//
//	entrypoint websocket {
//		qos         none|auto|at_most_once|at_least_once
//		publisher   [on|off]
//		subscriber  [on|off]
//		frames      auto|text|binary
//		max_message <size>
//		ping        <duration>|off
//		from        latest|earliest|client
//		via         <endpoint>
//		fallback    <endpoint>
//	}
func (e *Entrypoint) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the name
	if err := parse.NoArgs(d); err != nil {
		return err
	}
	options := []parse.Option{
		parse.OptionalFlag("publisher", &e.Publisher),
		parse.OptionalFlag("subscriber", &e.Subscriber),
		parse.OneOf("frames", &e.Frames, framesAuto, framesText, framesBinary),
		parse.Size("max_message", &e.MaxMessage),
		parse.OptionalDuration("ping", &e.Ping),
	}
	options = append(options, e.Common.Options()...)
	options = append(options, e.Reading.Options()...)
	return parse.Block(d, "entrypoint websocket", options...)
}
