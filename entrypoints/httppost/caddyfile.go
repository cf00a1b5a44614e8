package httppost

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/caddyfile/parse"
)

// UnmarshalCaddyfile reads
//
//	entrypoint http_post {
//		qos                        none|auto
//		request_headers_to_message [on|off]
//		max_body                   <size>
//		via                        <endpoint>
//		fallback                   <endpoint>
//	}
func (e *Entrypoint) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the type name
	if err := parse.NoArgs(d); err != nil {
		return err
	}
	options := append(e.Common.Options(),
		parse.Flag("request_headers_to_message", &e.RequestHeadersToMessage),
		parse.Size("max_body", &e.MaxBody),
	)
	return parse.Block(d, "entrypoint http_post", options...)
}
