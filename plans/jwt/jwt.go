// Package jwt is the plan that lets in who has a JSON Web Token (RFC 7519) of an issuer
// that the API trusts, and a subscription for the client that the token was issued to.
package jwt

import (
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/go-jose/go-jose/v4"

	"github.com/caddy-message-api/caddy-message-api/plans"
)

func init() {
	caddy.RegisterModule(new(JWT))
}

// JWT lets in requests with a signed JSON Web Token in `Authorization: Bearer`, if its
// signature is by a key of the issuer, its claims hold, and the application with the token's
// client id has a subscription. Signatures are verified with exactly one of: a public key, a
// secret, the key set at a URL, or the key set that OpenID Connect Discovery tells of.
//
// Key sets are fetched in the background, kept over reloads, and shared by all plans that
// name the same URL. A request never waits for them: until the first one is there, the
// answer is 503. What the token itself says of keys (`jku`, `x5u`, `x5c`) is ignored;
// tokens with `jwk` or `crit` are refused, and so are tokens that are bound to a key of
// the client (claim `cnf`), because this plan can't check that the client has it.
//
// A session ends when its token expires.
//
//	plan jwt {
//		discovery       <issuer>
//		jwks_url        <url>
//		key             <pem>
//		secret          <text>
//		allow_http
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
type JWT struct {
	// Discovery is the URL of an issuer that tells where its keys are (OpenID Connect
	// Discovery: <issuer>/.well-known/openid-configuration). Tokens must be by this
	// issuer. Placeholders like {env.ISSUER} are replaced.
	Discovery string `json:"discovery,omitempty"`
	// JWKSURL is where the issuer's keys are, as a JSON Web Key Set. Placeholders are
	// replaced.
	JWKSURL string `json:"jwks_url,omitempty"`
	// Key is the issuer's public key or certificate, PEM encoded: the text itself, or
	// {file./etc/issuer.pem}. A key id in the token is not looked at.
	Key string `json:"key,omitempty"`
	// Secret is the secret that issuer and gateway share, for HMAC: at least 32 bytes.
	// Write {env.SECRET} or {file./run/secrets/jwt}; line ends behind it are cut off.
	Secret string `json:"secret,omitempty"`
	// AllowHTTP lets discovery and jwks_url be http:// too. Who is on the way can then
	// replace the keys, and let in anybody.
	AllowHTTP bool `json:"allow_http,omitempty"`
	// CAFile is a PEM file with the authorities that sign the certificate of the server
	// that has the keys. Default: those that the system trusts.
	CAFile string `json:"ca_file,omitempty"`
	// MaxStale is how long a key set that can't be renewed is used beyond its time. At
	// most 30d. Default: 24h.
	MaxStale *caddy.Duration `json:"max_stale,omitempty"`
	// Algorithms are those that tokens may be signed with. Default: all that suit the
	// key: RS256 to RS512 and PS256 to PS512 for RSA, ES256, ES384 or ES512 by the curve,
	// EdDSA for Ed25519, HS256 to HS512 for a secret that is long enough.
	Algorithms []string `json:"algorithms,omitempty"`
	// Issuer is what tokens must have as `iss`; any takes every issuer. Required with
	// jwks_url, and not allowed with discovery. Placeholders are replaced.
	// Default: with key and secret, any
	Issuer string `json:"issuer,omitempty"`
	// Audience is who tokens are for: one of these must be in `aud`. Without it, tokens
	// that the issuer made for anything else let in too. Placeholders are replaced.
	// Default: not checked
	Audience []string `json:"audience,omitempty"`
	// Typ are the types that tokens may have in their header, in any case and without
	// "application/"; "" allows none to be there. Default: "", JWT and at+jwt
	Typ []string `json:"typ,omitempty"`
	// Leeway is by how much the clocks of issuer and gateway may differ. At most 5m.
	// Default: 30s.
	Leeway *caddy.Duration `json:"leeway,omitempty"`
	// MaxLifetime is how long after their `iat` tokens may at most expire.
	// Default: unlimited
	MaxLifetime caddy.Duration `json:"max_lifetime,omitempty"`
	// ClientIDClaim is the claim with the client id of the application. Default: the
	// first that is there of azp, client_id, and aud if that is only one.
	ClientIDClaim string `json:"client_id_claim,omitempty"`
	// QueryParameter is the parameter of the URL's query that may hold the token instead
	// of the header. The gateway takes it out of the request. While it is off, tokens in
	// queries are not looked at. Default: off
	QueryParameter string `json:"query_parameter,omitempty"`

	rules     rules
	fixed     *keySet  // of key or secret
	source    sourceID // of discovery or jwks_url
	fetched   *source
	leased    bool
	recent    recent
	parameter string // "" is none
	directory plans.Directory
}

const (
	defaultMaxStale = 24 * time.Hour
	mostMaxStale    = 30 * 24 * time.Hour
	defaultLeeway   = 30 * time.Second
	mostLeeway      = 5 * time.Minute
)

// sources are the key sets of the process, by where they come from.
var sources = caddy.NewUsagePool()

// CaddyModule implements caddy.Module.
func (*JWT) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: plans.Namespace + ".jwt", New: func() caddy.Module { return new(JWT) }}
}

// Provision implements caddy.Provisioner. It reads files, and talks to nobody.
func (j *JWT) Provision(ctx caddy.Context) error {
	if err := j.resolve(); err != nil {
		return fmt.Errorf("plan jwt: %w", err)
	}
	if len(j.Audience) == 0 {
		ctx.Logger().Warn("a jwt plan without audience takes tokens that the issuer made for other services; name those of this API with audience")
	}
	if j.Issuer == anyIssuer {
		ctx.Logger().Warn("a jwt plan with issuer any takes tokens of every issuer whose keys are among its own")
	}
	if j.AllowHTTP {
		ctx.Logger().Warn("a jwt plan with allow_http may fetch its keys unprotected: who can change them on the way can let in anybody")
	}
	if j.source == (sourceID{}) {
		return nil
	}
	val, _, err := sources.LoadOrNew(j.source, func() (caddy.Destructor, error) { return newSource(j.source) })
	if err != nil {
		return fmt.Errorf("plan jwt: %w", err)
	}
	j.fetched, j.leased = val.(*source), true //nolint:forcetypeassert // the pool holds nothing else
	return nil
}

// Start begins to fetch the keys. Who does not call it has it done by the first request,
// which then finds none yet.
func (j *JWT) Start() {
	if j.fetched != nil {
		j.fetched.start()
	}
}

// Cleanup implements caddy.CleanerUpper: it gives the key set back.
func (j *JWT) Cleanup() error {
	if !j.leased {
		return nil
	}
	j.leased = false
	_, err := sources.Delete(j.source)
	return err
}

// SetDirectory implements plans.Subscribed.
func (j *JWT) SetDirectory(d plans.Directory) { j.directory = d }

// Kind implements plans.Plan.
func (*JWT) Kind() string { return "jwt" }

// Anonymous implements plans.Plan.
func (*JWT) Anonymous() bool { return false }

// Challenge implements plans.Challenger.
func (*JWT) Challenge() string { return challenge }

// CredentialHeaders implements plans.Carrier.
func (*JWT) CredentialHeaders() []string { return []string{authorization} }

// QueryParameters implements plans.Carrier.
func (j *JWT) QueryParameters() []string {
	if j.parameter == "" {
		return nil
	}
	return []string{j.parameter}
}

// resolve replaces placeholders, reads files and collects everything that is wrong.
func (j *JWT) resolve() error {
	errs := []error{j.resolveKeys(), j.resolveRules()}
	if j.QueryParameter != off {
		j.parameter = j.QueryParameter
	}
	if !plain(j.parameter, "._~-") {
		errs = append(errs, fmt.Errorf("query_parameter %q: use letters, digits, '.', '_', '~' and '-'", j.QueryParameter))
	}
	return errors.Join(errs...)
}

// resolveKeys finds out where the keys are, and loads those that are configured.
func (j *JWT) resolveKeys() error {
	ways := 0
	for _, way := range []string{j.Discovery, j.JWKSURL, j.Key, j.Secret} {
		if way != "" {
			ways++
		}
	}
	if ways != 1 {
		return fmt.Errorf("%d of discovery, jwks_url, key and secret are given: give exactly one", ways)
	}
	remote := j.Discovery != "" || j.JWKSURL != ""
	if !remote && (j.AllowHTTP || j.CAFile != "" || j.MaxStale != nil) {
		return errors.New("allow_http, ca_file and max_stale are for keys that are fetched: with key or secret leave them out")
	}
	var err error
	if remote {
		j.source, err = j.resolveSource()
		return err
	}
	var k *key
	if j.Secret != "" {
		k, err = secretKey(j.Secret)
	} else {
		k, err = pemKey(j.Key)
	}
	if err != nil {
		return err
	}
	j.fixed = newKeySet([]*key{k})
	return nil
}

// algorithmsOf turns the names into algorithms, all of which some key of this plan can have.
func (j *JWT) algorithmsOf() ([]jose.SignatureAlgorithm, error) {
	possible := asymmetric
	switch {
	case j.fixed != nil:
		possible = j.fixed.keys[0].algorithms
	case j.Secret != "":
		possible = symmetric
	}
	if len(j.Algorithms) == 0 {
		return possible, nil
	}
	chosen := make([]jose.SignatureAlgorithm, 0, len(j.Algorithms))
	for _, name := range j.Algorithms {
		a, err := algorithm(name, possible)
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, a)
	}
	return chosen, nil
}

// Interface guards.
var (
	_ caddy.Provisioner  = (*JWT)(nil)
	_ caddy.CleanerUpper = (*JWT)(nil)
	_ plans.Plan         = (*JWT)(nil)
	_ plans.Challenger   = (*JWT)(nil)
	_ plans.Subscribed   = (*JWT)(nil)
	_ plans.Carrier      = (*JWT)(nil)
)
