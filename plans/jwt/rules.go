package jwt

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
	josejwt "github.com/go-jose/go-jose/v4/jwt"
)

const (
	off       = "off"
	anyIssuer = "any"
	// maxClientID is how long a client id may be, in bytes.
	maxClientID = 256
)

// latest is as late as a time can be told in JSON.
var latest = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// rules are what a token's header and claims must keep to.
type rules struct {
	algorithms  []jose.SignatureAlgorithm
	types       []string // in lower case
	issuer      string   // "" is any
	audience    []string
	leeway      time.Duration
	maxStale    time.Duration
	maxLifetime time.Duration
	clientClaim string // "" is the usual ones
}

func (j *JWT) resolveRules() error {
	var errs []error
	fail := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	var err error
	j.rules = rules{maxLifetime: time.Duration(j.MaxLifetime), clientClaim: j.ClientIDClaim, types: []string{"", "jwt", "at+jwt"}}
	if len(j.Typ) > 0 {
		j.rules.types = nil
		for _, t := range j.Typ {
			j.rules.types = append(j.rules.types, mediaType(t))
		}
	}
	j.rules.algorithms, err = j.algorithmsOf()
	fail(err)
	j.rules.leeway, err = bounded("leeway", j.Leeway, defaultLeeway, mostLeeway)
	fail(err)
	j.rules.maxStale, err = bounded("max_stale", j.MaxStale, defaultMaxStale, mostMaxStale)
	fail(err)
	if j.MaxLifetime < 0 {
		fail(fmt.Errorf("max_lifetime %s is less than 0", time.Duration(j.MaxLifetime)))
	}
	fail(j.resolveIssuer())
	for _, text := range j.Audience {
		audience, err := resolved(text)
		if err != nil {
			fail(fmt.Errorf("audience: %w", err))
		}
		j.rules.audience = append(j.rules.audience, audience)
	}
	return errors.Join(errs...)
}

func (j *JWT) resolveIssuer() (err error) {
	switch {
	case j.Discovery != "" && j.Issuer != "":
		return errors.New("issuer: discovery names the issuer already: leave this out")
	case j.Discovery != "":
		j.rules.issuer, err = resolved(j.Discovery)
	case j.Issuer == "" && j.JWKSURL != "":
		return errors.New("issuer is missing: name what tokens have as iss, or say `issuer any`")
	case j.Issuer != "" && j.Issuer != anyIssuer:
		j.rules.issuer, err = resolved(j.Issuer)
	}
	if err != nil {
		return fmt.Errorf("issuer: %w", err)
	}
	return nil
}

func bounded(name string, d *caddy.Duration, preset, most time.Duration) (time.Duration, error) {
	if d == nil {
		return preset, nil
	}
	if *d < 0 || time.Duration(*d) > most {
		return 0, fmt.Errorf("%s %s: use 0 to %s", name, time.Duration(*d), most)
	}
	return time.Duration(*d), nil
}

// mediaType is a typ as it is compared: RFC 7515 §4.1.9.
func mediaType(typ string) string {
	return strings.TrimPrefix(strings.ToLower(typ), "application/")
}

// claims are those of a token whose signature is good.
type claims struct {
	josejwt.Claims
	all map[string]json.RawMessage
}

// check says which rule the claims break, if any.
func (r *rules) check(c *claims, now time.Time) error {
	if c.Expiry == nil {
		return refused("the token has no time at which it expires", "no exp")
	}
	err := c.ValidateWithLeeway(josejwt.Expected{Issuer: r.issuer, AnyAudience: r.audience, Time: now}, r.leeway)
	switch {
	case errors.Is(err, josejwt.ErrInvalidIssuer):
		return refused("the token is by another issuer", fmt.Sprintf("iss is %.128q", c.Issuer))
	case errors.Is(err, josejwt.ErrInvalidAudience):
		return refused("the token is for another audience", fmt.Sprintf("aud is %.128q", []string(c.Audience)))
	case errors.Is(err, josejwt.ErrExpired):
		return refused("the token has expired", "exp is "+c.Expiry.Time().UTC().Format(time.RFC3339))
	case errors.Is(err, josejwt.ErrNotValidYet):
		return refused("the token is not valid yet", "nbf is "+c.NotBefore.Time().UTC().Format(time.RFC3339))
	case errors.Is(err, josejwt.ErrIssuedInTheFuture):
		return refused("the token was issued in the future", "iat is "+c.IssuedAt.Time().UTC().Format(time.RFC3339))
	case err != nil:
		return refused("the token's claims do not hold", err.Error())
	}
	if r.maxLifetime > 0 {
		if c.IssuedAt == nil {
			return refused("the token does not tell when it was issued", "no iat, and max_lifetime is set")
		}
		if seconds := int64(*c.Expiry) - int64(*c.IssuedAt); seconds > int64(r.maxLifetime/time.Second) {
			return refused("the token lives longer than this API allows", fmt.Sprintf("%d s", seconds))
		}
	}
	if _, bound := c.all["cnf"]; bound {
		return refused("the token is bound to a key of the client, which can't be checked here", "cnf")
	}
	return nil
}

// client finds the client id.
func (r *rules) client(c *claims) (string, error) {
	names := []string{"azp", "client_id"}
	if r.clientClaim != "" {
		names = []string{r.clientClaim}
	}
	i := slices.IndexFunc(names, func(name string) bool { return c.all[name] != nil })
	if i < 0 {
		if r.clientClaim == "" && len(c.Audience) == 1 {
			return validClient("aud", c.Audience[0])
		}
		return "", refused("the token does not tell for which client it is", "none of the claims "+strings.Join(names, ", "))
	}
	var id string
	if err := json.Unmarshal(c.all[names[i]], &id); err != nil {
		return "", refused("the token's client id is no text", names[i])
	}
	return validClient(names[i], id)
}

func validClient(claim, id string) (string, error) {
	if id == "" || len(id) > maxClientID {
		return "", refused("the token's client id is empty or too long", fmt.Sprintf("%s has %d bytes", claim, len(id)))
	}
	return id, nil
}

// expires is when the token is no longer taken.
func (r *rules) expires(c *claims) time.Time {
	if t := c.Expiry.Time().Add(r.leeway); t.Before(latest) {
		return t
	}
	return latest
}

// notBefore is from when on the token is taken.
func (r *rules) notBefore(c *claims) time.Time {
	var t time.Time
	for _, d := range []*josejwt.NumericDate{c.NotBefore, c.IssuedAt} {
		if d != nil && d.Time().After(t) {
			t = d.Time()
		}
	}
	return t.Add(-r.leeway)
}
