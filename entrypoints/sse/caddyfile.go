package sse

import (
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/caddyfile/parse"
)

// UnmarshalCaddyfile reads
//
//	entrypoint sse {
//		qos                 none|auto|at_most_once|at_least_once
//		heartbeat           <duration>|off
//		metadata_as_comment [on|off]
//		headers_as_comment  [on|off]
//		rotate              <duration>
//		from                latest|earliest|client
//		via                 <endpoint>
//		fallback            <endpoint>
//	}
func (e *Entrypoint) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the type name
	if err := parse.NoArgs(d); err != nil {
		return err
	}
	options := append(e.Common.Options(), e.Reading.Options()...)
	options = append(options,
		parse.OptionalDuration("heartbeat", &e.Heartbeat),
		parse.Flag("metadata_as_comment", &e.MetadataAsComment),
		parse.Flag("headers_as_comment", &e.HeadersAsComment),
		e.rotateOption(),
	)
	return parse.Block(d, "entrypoint sse", options...)
}

// rotateOption refuses a 0 that would silently mean never.
func (e *Entrypoint) rotateOption() parse.Option {
	option := parse.Duration("rotate", &e.Rotate)
	set := option.Set
	option.Set = func(d *caddyfile.Dispenser) error {
		if err := set(d); err != nil {
			return err
		}
		if time.Duration(e.Rotate) < MinRotate {
			return d.Errf("rotate must be at least %s: leave it out for streams that live on", MinRotate)
		}
		return nil
	}
	return option
}
