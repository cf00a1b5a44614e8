package jwt

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/caddyfile/parse"
)

// UnmarshalCaddyfile reads
//
//	plan jwt {
//		discovery       <issuer>
//		jwks_url        <url>
//		key             <pem>
//		secret          <text>
//		allow_http      [on|off]
//		ca_file         <file>
//		max_stale       <duration>|off
//		algorithms      <name> [<name>…]
//		issuer          <text>|any
//		audience        <text> [<text>…]
//		typ             <text> [<text>…]
//		leeway          <duration>|off
//		max_lifetime    <duration>
//		client_id_claim <name>
//		query_parameter <name>|off
//	}
func (j *JWT) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if err := parse.NoArgs(d); err != nil {
		return err
	}
	return parse.Block(d, "plan jwt",
		parse.String("discovery", &j.Discovery),
		parse.String("jwks_url", &j.JWKSURL),
		parse.String("key", &j.Key),
		parse.String("secret", &j.Secret),
		parse.Flag("allow_http", &j.AllowHTTP),
		parse.String("ca_file", &j.CAFile),
		parse.OptionalDuration("max_stale", &j.MaxStale),
		parse.Strings("algorithms", &j.Algorithms),
		parse.String("issuer", &j.Issuer),
		parse.Strings("audience", &j.Audience),
		parse.Strings("typ", &j.Typ),
		parse.OptionalDuration("leeway", &j.Leeway),
		parse.Duration("max_lifetime", &j.MaxLifetime),
		parse.String("client_id_claim", &j.ClientIDClaim),
		parse.String("query_parameter", &j.QueryParameter),
	)
}

var _ caddyfile.Unmarshaler = (*JWT)(nil)
