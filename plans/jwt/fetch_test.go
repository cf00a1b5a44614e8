package jwt

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	gojwt "github.com/golang-jwt/jwt/v5"
)

// What an issuer, or who has taken its place, can answer; and that requests are refused
// meanwhile.
func TestAttackJWKS(t *testing.T) {
	genuine := keyDocument(jose.JSONWebKey{Key: &rsaKey().PublicKey, KeyID: "rsa"})
	padded := func(n int) string { return strings.TrimSuffix(genuine, "}") + `,"x":"` + strings.Repeat("x", n) + `"}` }
	many := func(n int) string {
		return `{"keys":[` + strings.TrimSuffix(strings.Repeat(`{"kty":"?"},`, n), ",") + "]}"
	}
	bomb := gzipBomb(50)
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"10 MB":           {text(padded(10 << 20)), "more than 1 MiB"},
		"just over 1 MiB": {text(padded(1 << 20)), "more than 1 MiB"},
		"a gzip bomb": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(bomb)
		}, "more than 1 MiB"},
		"slow to begin": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "deadline exceeded"},
		"slow drip": {func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = w.Write([]byte(" "))
				_ = http.NewResponseController(w).Flush()
				select {
				case <-time.After(10 * time.Millisecond):
				case <-r.Context().Done():
				}
			}
		}, "deadline exceeded"},
		"cut off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9999")
			text(genuine)(w, nil)
		}, "unexpected EOF"},
		"redirect": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }, "redirect to \"/elsewhere\""},
		"redirect 308": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://x.example/", http.StatusPermanentRedirect)
		}, "redirect"},
		"500":            {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }, "500"},
		"404":            {http.NotFound, "404"},
		"no content":     {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, "204"},
		"HTML":           {text("<html>"), "invalid character"},
		"empty":          {text(""), "unexpected end"},
		"no keys":        {text("{}"), "has no keys"},
		"keys null":      {text(`{"keys":null}`), "has no keys"},
		"keys no list":   {text(`{"keys":"rsa"}`), "no JSON Web Key Set"},
		"keys twice":     {text(`{"keys":[],` + genuine[1:]), "duplicate"},
		"a list":         {text("[]"), "no JSON Web Key Set"},
		"101 keys":       {text(many(101)), "101 keys"},
		"deeply nested":  {text(`{"keys":[],"x":` + strings.Repeat("[", 1<<19-100)), "depth"},
		"nested, closed": {text(`{"keys":[],"x":` + strings.Repeat("[", 1<<18) + strings.Repeat("]", 1<<18) + "}"), "depth"},
		"a huge header": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 1<<20))
			text(genuine)(w, nil)
		}, "exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := newIssuer(t, c.answer)
			p, d := i.plan(t)
			if strings.HasPrefix(name, "slow") {
				p.fetched.timeout = 500 * time.Millisecond
			}
			r := withToken(sign(gojwt.SigningMethodRS256, rsaKey(), good(), map[string]any{"kid": "rsa"}))
			want503(t, p, d, r, "not there yet")
			settled(t, p)
			want503(t, p, d, r, c.want)
			// The next answer is good: that one is kept when the issuer turns bad again.
			i.serve(text(genuine))
			if _, err := p.fetched.renew(); err != nil {
				t.Fatal(err)
			}
			i.serve(c.answer)
			if _, err := p.fetched.renew(); err == nil {
				t.Error("the bad answer is taken after a good one")
			}
			if v := p.Check(r); !v.Granted {
				t.Errorf("with keys that are there already: %+v", v)
			}
		})
	}
}

// gzipBomb is so many MiB of nothing, compressed: one, and all the others are its copies.
func gzipBomb(mib int) []byte {
	var one bytes.Buffer
	z := gzip.NewWriter(&one)
	_, _ = z.Write(make([]byte, 1<<20))
	_ = z.Close()
	return bytes.Repeat(one.Bytes(), mib)
}

// A server behind a redirect is never asked.
func TestAttackRedirectingJWKS(t *testing.T) {
	var asked atomic.Int64
	attacker := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		text(keyDocument(jose.JSONWebKey{Key: &otherRSA().PublicKey}))(w, r)
	}))
	defer attacker.Close()
	i := newIssuer(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, attacker.URL, http.StatusMovedPermanently)
	})
	p, d := i.plan(t)
	settled(t, p)
	want503(t, p, d, withToken(sign(gojwt.SigningMethodRS256, otherRSA(), good())), "redirect")
	if n := asked.Load(); n != 0 {
		t.Errorf("it was asked %d times", n)
	}
}

// Keys that can't verify are left out, and the others are used.
func TestMixedKeySet(t *testing.T) {
	small := `{"kty":"RSA","kid":"small","e":"AQAB","n":"` + strings.Repeat("_", 171) + `"}`
	usable := strings.TrimSuffix(strings.TrimPrefix(keyDocument(
		jose.JSONWebKey{Key: &rsaKey().PublicKey, KeyID: "rsa", Use: "sig"}, jose.JSONWebKey{Key: edKey().Public(), KeyID: "ed"},
	), `{"keys":[`), "]}")
	one := func(k jose.JSONWebKey, more string) string {
		return strings.TrimSuffix(string(must(k.MarshalJSON())), "}") + more + "}"
	}
	document := `{"keys":[` + strings.Join([]string{
		one(jose.JSONWebKey{Key: []byte(aSecret), KeyID: "oct"}, ""), one(jose.JSONWebKey{Key: rsaKey(), KeyID: "private"}, ""),
		one(jose.JSONWebKey{Key: &rsaKey().PublicKey, KeyID: "enc", Use: "enc"}, ""),
		one(jose.JSONWebKey{Key: &rsaKey().PublicKey, KeyID: "ops"}, `,"key_ops":["encrypt"]`),
		one(jose.JSONWebKey{Key: &rsaKey().PublicKey, KeyID: "oaep", Algorithm: "RSA-OAEP"}, ""),
		one(jose.JSONWebKey{Key: &p256().PublicKey, KeyID: "hs", Algorithm: "HS256"}, ""),
		one(jose.JSONWebKey{Key: &p256().PublicKey, KeyID: "twice"}, `,"kid":"twice"`),
		`{"kty":"OKP","crv":"X25519","x":"AA"}`, `{"kty":"AKP"}`, `{}`, `7`, small, usable,
	}, ",") + "]}"
	set, leftOut, err := parseJWKS([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	if len(set.keys) != 2 || len(set.byID["rsa"]) != 1 || len(set.byID["ed"]) != 1 || len(leftOut) != 12 {
		t.Errorf("%d keys; left out: %v", len(set.keys), leftOut)
	}
	for _, want := range []string{"is a secret", "private key", "not for signatures", `"RSA-OAEP"`, `"HS256"`, "duplicate", "bits"} {
		if !strings.Contains(fmt.Sprint(leftOut), want) {
			t.Errorf("%v do not say %q", leftOut, want)
		}
	}
	if strings.Contains(fmt.Sprint(leftOut), aSecret) {
		t.Error("the secret is told")
	}
}

// A token without a key id is good if only one key can be meant.
func TestNoKid(t *testing.T) {
	for document, want := range map[string]string{
		keyDocument(jose.JSONWebKey{Key: &rsaKey().PublicKey, KeyID: "a"}, jose.JSONWebKey{Key: &p256().PublicKey, KeyID: "b"}):     "",
		keyDocument(jose.JSONWebKey{Key: &rsaKey().PublicKey, KeyID: "a"}, jose.JSONWebKey{Key: &otherRSA().PublicKey, KeyID: "b"}): "more than one key",
		keyDocument(jose.JSONWebKey{Key: &p256().PublicKey, KeyID: "b"}):                                                            "known key",
		keyDocument(): "known key",
	} {
		i := newIssuer(t, text(document))
		p, d := i.plan(t)
		settled(t, p)
		r := withToken(sign(gojwt.SigningMethodRS256, rsaKey(), good()))
		if want != "" {
			wantRefused(t, p, d, r, want)
		} else if v := p.Check(r); !v.Granted {
			t.Errorf("%+v", v)
		}
	}
}

func TestDiscovery(t *testing.T) {
	keys := text(keyDocument(jose.JSONWebKey{Key: &rsaKey().PublicKey, KeyID: "rsa"}))
	for name, c := range map[string]struct {
		path, issuer, keys, want string
	}{
		"good":                     {"", "{}", "{}/k", ""},
		"a realm":                  {"/realms/shop", "{}/realms/shop", "{}/k", ""},
		"a slash at the end":       {"/", "{}/", "{}/k", ""},
		"another issuer":           {"", "https://other.example", "{}/k", "calls itself"},
		"a slash too much":         {"", "{}/", "{}/k", "to the last slash"},
		"keys without encryption":  {"", "{}", "http://127.0.0.1/k", "not encrypted"},
		"keys in a file":           {"", "{}", "file:///etc/passwd", "no URL for keys"},
		"no keys":                  {"", "{}", "", "no URL for keys"},
		"keys with user":           {"", "{}", "https://u:p@127.0.0.1/", "no URL for keys"},
		"keys that are not there":  {"", "{}", "{}/x", "404"},
		"no configuration, a path": {"/x/y", "", "", "404"},
	} {
		t.Run(name, func(t *testing.T) {
			i := newIssuer(t, http.NotFound)
			fill := func(s string) string { return strings.ReplaceAll(s, "{}", i.URL) }
			i.serve(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == strings.TrimSuffix(c.path, "/")+"/.well-known/openid-configuration" && c.issuer != "":
					_, _ = fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q,"x":1}`, fill(c.issuer), fill(c.keys))
				case r.URL.Path == "/k":
					keys(w, r)
				default:
					http.NotFound(w, r)
				}
			})
			p, d := newPlan(t, &JWT{Discovery: i.URL + c.path, CAFile: i.ca, Audience: []string{"orders"}})
			settled(t, p)
			r := withToken(sign(gojwt.SigningMethodRS256, rsaKey(), good(map[string]any{"iss": i.URL + c.path}), map[string]any{"kid": "rsa"}))
			if c.want != "" {
				want503(t, p, d, r, c.want)
				return
			}
			if v := p.Check(r); !v.Granted {
				t.Errorf("%+v", v)
			}
			d.asked = nil
			wantRefused(t, p, d, withToken(sign(gojwt.SigningMethodRS256, rsaKey(), good(), map[string]any{"kid": "rsa"})), "another issuer")
		})
	}
}

// allow_http is for experiments, and works.
func TestAllowHTTP(t *testing.T) {
	server := httptest.NewServer(text(keyDocument(jose.JSONWebKey{Key: &rsaKey().PublicKey})))
	defer server.Close()
	p, _ := newPlan(t, &JWT{JWKSURL: server.URL, AllowHTTP: true, Issuer: "any", Audience: []string{"orders"}})
	settled(t, p)
	for _, iss := range []any{issuerName, "https://anybody.example", nil} {
		if v := p.Check(withToken(sign(gojwt.SigningMethodRS256, rsaKey(), good(map[string]any{"iss": iss})))); !v.Granted {
			t.Errorf("iss %v: %+v", iss, v)
		}
	}
}
