package module

import (
	"net/http"
	"slices"
	"strings"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/plans/limits"
)

// corsExpose are the response headers that pages may read, besides the identity headers.
var corsExpose = "Retry-After, Preference-Applied, WWW-Authenticate, " + strings.Join(limits.HeaderNames, ", ") + ", "

// cors does what the browser of another origin's page must be told. done says that the
// request was a preflight and is answered.
func (u *unit) cors(w http.ResponseWriter, r *http.Request, names *identityNames) (done bool, err error) {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false, nil
	}
	h := w.Header()
	h.Add("Vary", "Origin")
	allowed := u.allows(origin, r)
	if allowed {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Expose-Headers", corsExpose+names.request+", "+names.transaction+", "+names.client)
	}
	if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
		if allowed {
			h.Set("Access-Control-Allow-Methods", strings.Join(u.methods(), ", "))
			if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
				h.Set("Access-Control-Allow-Headers", asked)
			}
			h.Set("Access-Control-Max-Age", "600")
		}
		w.WriteHeader(http.StatusNoContent)
		return true, nil
	}
	// A page of a foreign origin must not publish or open a socket in its visitor's name,
	// even where it could not read the answer.
	if !allowed && (r.Method != http.MethodGet || r.Header.Get("Upgrade") != "") {
		return false, &entrypoints.Problem{Status: http.StatusForbidden, Slug: "origin-refused",
			Detail: "pages of " + origin + " may not use this API; its owner can allow them with `origins`"}
	}
	return false, nil
}

// allows says whether pages of the origin may use the API. The API's own origin always may.
func (u *unit) allows(origin string, r *http.Request) bool {
	origin = strings.ToLower(origin)
	if slices.Contains(u.def.Origins, "*") || slices.Contains(u.def.Origins, origin) {
		return true
	}
	_, host, ok := strings.Cut(origin, "://")
	return ok && host == strings.ToLower(r.Host)
}

// methods are all that the API's entrypoints can serve, sorted.
func (u *unit) methods() []string {
	var list []string
	for _, w := range u.ways {
		if w.guest != nil {
			list = append(list, w.guest.Methods()...)
		}
	}
	slices.Sort(list)
	return append(slices.Compact(list), http.MethodOptions)
}
