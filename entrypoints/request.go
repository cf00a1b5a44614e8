package entrypoints

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// IsWebSocket reports whether the request asks to become a WebSocket on HTTP/1.1. Other
// upgrades do not count: some clients offer h2c on every request and expect an answer.
func IsWebSocket(r *http.Request) bool {
	for _, v := range r.Header["Upgrade"] {
		for token := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(token), "websocket") {
				return true
			}
		}
	}
	return false
}

// Query are a request's query parameters, of which each that is asked for may be given once.
type Query struct{ values url.Values }

// ParseQuery reads the query. What can't be read is an error, because a client that
// believes to have sent a cursor must not be served as one that has none.
func ParseQuery(r *http.Request) (Query, error) {
	if r.URL.RawQuery == "" {
		return Query{}, nil
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return Query{}, &Problem{
			Status: http.StatusBadRequest, Slug: "bad-query", Detail: "the query string can't be read: " + err.Error(), Err: err,
		}
	}
	return Query{values}, nil
}

// Get returns the value of a parameter and whether it was given.
func (q Query) Get(name string) (value string, given bool, err error) {
	switch values := q.values[name]; len(values) {
	case 0:
		return "", false, nil
	case 1:
		return values[0], true, nil
	default:
		return "", true, &Problem{
			Status: http.StatusBadRequest, Slug: "bad-query",
			Detail: fmt.Sprintf("query parameter %q is given %d times: give it once", name, len(values)),
		}
	}
}
