package jwt

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
	josejwt "github.com/go-jose/go-jose/v4/jwt"
)

// token is one whose signature is good and whose claims hold.
type token struct {
	keys      *keySet // that it was verified with
	client    string
	notBefore time.Time // with leeway
	expires   time.Time // with leeway
}

// verify finds out whether the token is good now.
func (j *JWT) verify(raw string, now time.Time) (*token, error) {
	keys, keysErr := j.keys(now)
	var sum digest
	if keysErr == nil {
		sum = sha256.Sum256([]byte(raw))
		if t := j.recent.get(sum, keys, now); t != nil {
			return t, nil
		}
	}
	h, err := j.rules.header(raw)
	switch {
	case err != nil:
		return nil, err
	case keysErr != nil:
		return nil, keysErr
	}
	if j.fixed != nil {
		h.KeyID = "" // there is but one
	}
	k, err := keys.find(h.KeyID, h.Algorithm)
	if err != nil {
		if errors.Is(err, errUnknownKey) && j.fetched != nil {
			j.fetched.refetch(now)
		}
		return nil, refused("the token is not signed by a known key", fmt.Sprintf("%v: kid %.128q, alg %s", err, h.KeyID, h.Algorithm))
	}
	c, err := k.claims(raw, h.Algorithm)
	if err != nil {
		return nil, err
	}
	t, err := j.rules.token(c, now)
	if err != nil {
		return nil, err
	}
	t.keys = keys
	j.recent.add(sum, t)
	return t, nil
}

// keys returns what tokens are verified with, if it is there.
func (j *JWT) keys(now time.Time) (*keySet, error) {
	if j.fixed != nil {
		return j.fixed, nil
	}
	if j.fetched == nil {
		return nil, errKeysAwaited // not provisioned, or cleaned up
	}
	return j.fetched.keys(now, j.rules.maxStale)
}

// header is what counts of a token's header. What leads to keys elsewhere (jku, x5u, x5c) is
// not read.
type header struct {
	Algorithm jose.SignatureAlgorithm `json:"alg"`
	KeyID     string                  `json:"kid"`
	Type      string                  `json:"typ"`
	JWK       json.RawMessage         `json:"jwk"`
	Critical  json.RawMessage         `json:"crit"`
	Base64    json.RawMessage         `json:"b64"`
}

// header decodes the header of a token, and refuses one that can't be good whatever its
// signature. A member that stands twice is an error of the JSON package.
func (r *rules) header(raw string) (*header, error) {
	const malformed = "that is no signed JSON Web Token"
	encoded, _, _ := strings.Cut(raw, ".")
	text, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return nil, refused(malformed, "header: "+err.Error())
	}
	h := new(header)
	if err := json.Unmarshal(text, h); err != nil {
		return nil, refused(malformed, "header: "+err.Error())
	}
	switch {
	case !slices.Contains(r.algorithms, h.Algorithm):
		return nil, refused("the token is not signed with an algorithm that this API takes", fmt.Sprintf("alg %.40q", string(h.Algorithm)))
	case h.JWK != nil:
		return nil, refused("the token brings its own key", "jwk in the header")
	case h.Critical != nil || h.Base64 != nil:
		return nil, refused("the token needs an extension that is not supported", "crit or b64 in the header")
	case !slices.Contains(r.types, mediaType(h.Type)):
		return nil, refused("the token is of another type", fmt.Sprintf("typ %.128q", h.Type))
	}
	return h, nil
}

// claims verifies the signature and returns what it covers.
func (k *key) claims(raw string, alg jose.SignatureAlgorithm) (*claims, error) {
	t, err := josejwt.ParseSigned(raw, []jose.SignatureAlgorithm{alg})
	if err != nil {
		return nil, refused("that is no signed JSON Web Token", err.Error())
	}
	c := new(claims)
	switch err := t.Claims(k.material, &c.Claims, &c.all); {
	case errors.Is(err, jose.ErrCryptoFailure):
		return nil, refused("the token's signature is wrong", "wrong signature")
	case err != nil:
		return nil, refused("the token's claims are malformed", err.Error())
	}
	return c, nil
}

// token applies the rules to the claims.
func (r *rules) token(c *claims, now time.Time) (*token, error) {
	if err := r.check(c, now); err != nil {
		return nil, err
	}
	client, err := r.client(c)
	if err != nil {
		return nil, err
	}
	return &token{client: client, notBefore: r.notBefore(c), expires: r.expires(c)}, nil
}
