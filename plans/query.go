package plans

import (
	"net/url"
	"strings"
)

// Parameter returns the last value of a parameter in a query, and how often it stands there.
// Unlike net/url it leaves out nothing that it can't decode: a broken credential is still a
// presented one.
func Parameter(query, name string) (value string, n int) {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		k, v, _ := strings.Cut(pair, "=")
		if k != name {
			decoded, err := url.QueryUnescape(k)
			if err != nil || decoded != name {
				continue
			}
		}
		n++
		value = v
		if decoded, err := url.QueryUnescape(v); err == nil {
			value = decoded
		}
	}
	return value, n
}
