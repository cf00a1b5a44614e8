package httpget

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/caddyfile/parse"
)

// UnmarshalCaddyfile reads
//
//	entrypoint http_get {
//		qos                 none|auto|at_most_once|at_least_once
//		messages_limit      <number>
//		duration_limit      <duration>
//		headers_in_payload  [on|off]
//		metadata_in_payload [on|off]
//		ack_wait            <duration>
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
		parse.Int("messages_limit", &e.MessagesLimit, 1),
		positive("duration_limit", &e.DurationLimit),
		positive("ack_wait", &e.AckWait),
		parse.Flag("headers_in_payload", &e.HeadersInPayload),
		parse.Flag("metadata_in_payload", &e.MetadataInPayload),
	)
	return parse.Block(d, "entrypoint http_get", options...)
}

// positive is parse.Duration without 0, which would silently mean the default.
func positive(name string, into *caddy.Duration) parse.Option {
	option := parse.Duration(name, into)
	set := option.Set
	option.Set = func(d *caddyfile.Dispenser) error {
		if err := set(d); err != nil {
			return err
		}
		if *into == 0 {
			return d.Errf("%s must be longer than 0", name)
		}
		return nil
	}
	return option
}
