package apikey

import (
	"net/http"

	"github.com/caddy-message-api/caddy-message-api/plans"
)

// maxKey is how long a key may be, in bytes. What is longer is not even hashed.
const maxKey = 256

// Presents implements plans.Plan: an empty header or parameter is a credential too, and a
// bad one.
func (a *APIKey) Presents(r *http.Request) bool {
	if a.header != "" && len(r.Header[a.header]) > 0 {
		return true
	}
	if a.parameter == "" {
		return false
	}
	_, n := plans.Parameter(r.URL.RawQuery, a.parameter)
	return n > 0
}

// Check implements plans.Plan.
func (a *APIKey) Check(r *http.Request) plans.Verdict {
	key, detail := a.find(r)
	switch {
	case detail != "":
		return plans.Refuse(a.challenge, detail, detail)
	case a.directory == nil:
		return plans.Admit(plans.Holder{}, plans.Unknown, a.challenge)
	}
	holder, standing := a.directory.Key(key)
	return plans.Admit(holder, standing, a.challenge)
}

// find returns the one key of the request, or what is wrong with it.
func (a *APIKey) find(r *http.Request) (key, detail string) {
	const several = "the request presents more than one API key"
	found := false
	if a.header != "" {
		switch values := r.Header[a.header]; len(values) {
		case 0:
		case 1:
			key, found = values[0], true
		default:
			return "", several
		}
	}
	if a.parameter != "" {
		value, n := plans.Parameter(r.URL.RawQuery, a.parameter)
		if n > 1 || n == 1 && found && value != key {
			return "", several
		}
		if n == 1 {
			key, found = value, true
		}
	}
	switch {
	case !found:
		return "", "the request presents no API key"
	case key == "":
		return "", "the API key is empty"
	case len(key) > maxKey:
		return "", "the API key is too long to be one"
	case !wellFormed(key):
		return "", "the API key has characters that no key has"
	}
	return key, ""
}

// wellFormed says that a text has only characters that keys can have.
func wellFormed(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_', c == '~':
		default:
			return false
		}
	}
	return true
}
