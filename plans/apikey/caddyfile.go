package apikey

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/caddyfile/parse"
)

// UnmarshalCaddyfile reads
//
//	plan api_key {
//		header          <name>|off
//		query_parameter <name>|off
//	}
func (a *APIKey) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if err := parse.NoArgs(d); err != nil {
		return err
	}
	return parse.Block(d, "plan api_key",
		parse.String("header", &a.Header),
		parse.String("query_parameter", &a.QueryParameter),
	)
}

var _ caddyfile.Unmarshaler = (*APIKey)(nil)
