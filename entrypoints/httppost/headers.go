package httppost

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// keptBack are the request headers, in canonical form, that belong to the connection.
var keptBack = map[string]bool{
	"Connection": true, "Keep-Alive": true, "Te": true, "Trailer": true, "Transfer-Encoding": true,
	"Upgrade": true, "Http2-Settings": true, "Content-Length": true, "Expect": true,
}

// requestHeaders are the request's headers for a message, sorted by name: a map has no
// order, and messages that look different each time help nobody.
func requestHeaders(h http.Header, withheld func(name string) bool) ([]message.Header, error) {
	var named []string // by Connection, as meant for this connection alone
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			named = append(named, http.CanonicalHeaderKey(strings.TrimSpace(name)))
		}
	}
	names := make([]string, 0, len(h))
	for name := range h {
		if !keptBack[name] && !withheld(name) && !strings.HasPrefix(name, "Proxy-") && !slices.Contains(named, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	headers := make([]message.Header, 0, len(names))
	for _, name := range names {
		for _, value := range h[name] {
			headers = append(headers, message.Header{Name: name, Value: value})
		}
	}
	if len(headers) > maxHeaders {
		return nil, &entrypoints.Problem{
			Status: http.StatusRequestHeaderFieldsTooLarge, Slug: "too-many-headers",
			Detail: fmt.Sprintf("the request has %d header fields for the message: %d is the most", len(headers), maxHeaders),
		}
	}
	return headers, nil
}

// batchHeaders are the request's headers for the messages of a batch, whose type is not
// that of the batch.
func batchHeaders(h http.Header, withheld func(name string) bool) ([]message.Header, error) {
	headers, err := requestHeaders(h, withheld)
	return slices.DeleteFunc(headers, func(h message.Header) bool { return h.Name == "Content-Type" }), err
}

// withDefaults adds those defaults whose name a message does not have itself.
func withDefaults(own, defaults []message.Header) []message.Header {
	n := len(own)
	for _, d := range defaults {
		if !slices.ContainsFunc(own[:n], func(h message.Header) bool { return strings.EqualFold(h.Name, d.Name) }) {
			own = append(own, d)
		}
	}
	return own
}
