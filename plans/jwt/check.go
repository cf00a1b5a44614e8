package jwt

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/caddy-message-api/caddy-message-api/plans"
)

const (
	authorization = "Authorization"
	challenge     = `Bearer realm="message-api"`

	// maxToken is how long a token may be, in bytes. A longer one is not even decoded.
	maxToken = 16 << 10
	// maxCause bounds what the log is told.
	maxCause = 300
)

// refusal is why a token lets nobody in: what its holder is told, and what the log is told.
type refusal struct {
	code          string // RFC 6750 §3.1
	detail, cause string
}

func (r *refusal) Error() string { return r.cause }

// refused is the refusal of a token that is no good.
func refused(detail, cause string) error {
	return &refusal{code: "invalid_token", detail: detail, cause: cause}
}

var (
	errSeveral     = &refusal{code: "invalid_request", detail: "the request presents more than one credential", cause: "more than one credential"}
	errKeysAwaited = errors.New("the keys of the issuer are not there yet: try again")
	errKeysStale   = errors.New("the keys of the issuer could not be renewed for too long: try again")
)

// Presents implements plans.Plan: a scheme without a token, or a parameter without a value,
// is a credential too, and a bad one.
func (j *JWT) Presents(r *http.Request) bool {
	for _, value := range r.Header[authorization] {
		if _, ok := bearer(value); ok {
			return true
		}
	}
	if j.parameter == "" {
		return false
	}
	_, n := plans.Parameter(r.URL.RawQuery, j.parameter)
	return n > 0
}

// Check implements plans.Plan.
func (j *JWT) Check(r *http.Request) plans.Verdict {
	raw, err := j.find(r)
	if err != nil {
		return j.verdict(err)
	}
	t, err := j.verify(raw, time.Now())
	if err != nil {
		return j.verdict(err)
	}
	const unknown = challenge + `, error="invalid_token", error_description="the client has no subscription"`
	if j.directory == nil {
		return plans.Admit(plans.Holder{}, plans.Unknown, unknown)
	}
	holder, standing := j.directory.Client(t.client)
	v := plans.Admit(holder, standing, unknown)
	if !v.Granted {
		return v
	}
	if p := &v.Principal; p.Expires.IsZero() || t.expires.Before(p.Expires) {
		p.Expires = t.expires
	}
	return v
}

// verdict tells why not.
func (j *JWT) verdict(err error) plans.Verdict {
	no, ok := errors.AsType[*refusal](err)
	if !ok {
		cause := err.Error()
		if j.fetched != nil {
			if failure := j.fetched.failure.Load(); failure != nil {
				cause += ": " + (*failure).Error()
			}
		}
		return plans.Verdict{Status: http.StatusServiceUnavailable, Detail: err.Error(), Cause: short(cause)}
	}
	full := challenge + `, error="` + no.code + `", error_description="` + no.detail + `"`
	return plans.Refuse(full, no.detail, short(no.cause))
}

func short(text string) string {
	if len(text) > maxCause {
		return text[:maxCause] + "…"
	}
	return text
}

// find returns the one token of the request, as far as it can be one.
func (j *JWT) find(r *http.Request) (string, error) {
	token, found := "", false
	switch values := r.Header[authorization]; len(values) {
	case 0:
	case 1:
		token, found = bearer(values[0])
	default:
		return "", errSeveral
	}
	if j.parameter != "" {
		value, n := plans.Parameter(r.URL.RawQuery, j.parameter)
		if n > 1 || n == 1 && found {
			return "", errSeveral
		}
		if n == 1 {
			token, found = value, true
		}
	}
	switch {
	case !found:
		return "", &refusal{code: "invalid_request", detail: "the request presents no token", cause: "no token"}
	case token == "":
		return "", refused("the token is empty", "empty token")
	case len(token) > maxToken:
		return "", refused("the token is too long", "a token of more than 16 KiB")
	case strings.Count(token, ".") != 2 || !plain(token, "._-"):
		return "", refused("that is no signed JSON Web Token", "not three parts in base64url")
	}
	return token, nil
}

// bearer returns what stands behind the scheme Bearer.
func bearer(value string) (token string, ok bool) {
	const scheme = "Bearer"
	value = strings.TrimLeft(value, " \t")
	if len(value) < len(scheme) || !strings.EqualFold(value[:len(scheme)], scheme) {
		return "", false
	}
	rest := value[len(scheme):]
	token = strings.TrimLeft(rest, " \t")
	return token, rest == "" || len(token) < len(rest)
}

// plain says that a text has only letters, digits and the given others.
func plain(s, others string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte(others, c) < 0:
			return false
		}
	}
	return true
}
