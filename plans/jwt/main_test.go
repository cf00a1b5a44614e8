package jwt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/go-jose/go-jose/v4"
	gojwt "github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"

	"github.com/caddy-message-api/caddy-message-api/plans"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// must is for what only a broken machine can make fail.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// The keys of the issuer, and those of somebody else.
var (
	rsaKey   = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	otherRSA = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	p256     = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	p384     = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)) })
	p521     = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)) })
	edKey    = sync.OnceValue(func() ed25519.PrivateKey {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return must(private, err)
	})
)

const (
	issuerName = "https://issuer.example"
	aSecret    = "a secret that is long enough for every one of the HMAC algorithms"
)

func publicPEM(public crypto.PublicKey) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(public))}))
}

// keyDocument is a key set as an issuer publishes it.
func keyDocument(keys ...jose.JSONWebKey) string {
	return string(must(json.Marshal(jose.JSONWebKeySet{Keys: append([]jose.JSONWebKey{}, keys...)})))
}

// directory knows clients, and notes who it is asked for.
type directory struct {
	clients map[string]plans.Standing
	asked   []string
}

var subscriptionEnds = time.Now().Add(24 * time.Hour).Truncate(time.Second)

func (d *directory) Client(id string) (plans.Holder, plans.Standing) {
	d.asked = append(d.asked, id)
	return plans.Holder{Application: "app", Subscription: "sub", Credential: id, Expires: subscriptionEnds}, d.clients[id]
}

func (*directory) Key(string) (plans.Holder, plans.Standing) {
	panic("a jwt plan asks for clients alone")
}

// newPlan provisions a plan that knows the client shop.
func newPlan(t testing.TB, j *JWT) (*JWT, *directory) {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	t.Cleanup(cancel)
	t.Cleanup(func() {
		if err := j.Cleanup(); err != nil {
			t.Error(err)
		}
	})
	if err := j.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	d := &directory{clients: map[string]plans.Standing{"shop": plans.Good}}
	j.SetDirectory(d)
	return j, d
}

// rsaPlan has one public key, and an issuer and an audience to check.
func rsaPlan(t testing.TB) (*JWT, *directory) {
	return newPlan(t, &JWT{Key: publicPEM(&rsaKey().PublicKey), Issuer: issuerName, Audience: []string{"orders"}})
}

// good are claims that nothing is wrong with, and changes to them; nil takes one away.
func good(changes ...map[string]any) gojwt.MapClaims {
	now := time.Now()
	c := gojwt.MapClaims{
		"iss": issuerName, "aud": "orders", "sub": "somebody", "azp": "shop",
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	for _, change := range changes {
		maps.Copy(c, change)
	}
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// sign makes a token with a library that is not ours. header adds to the token's header.
func sign(method gojwt.SigningMethod, key any, claims gojwt.Claims, header ...map[string]any) string {
	t := gojwt.NewWithClaims(method, claims)
	for _, h := range header {
		maps.Copy(t.Header, h)
	}
	maps.DeleteFunc(t.Header, func(_ string, v any) bool { return v == nil })
	return must(t.SignedString(key))
}

func withToken(token string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

// wantRefused checks that a request is presented, refused with 401 and a challenge, and that
// neither the directory nor the log is told too much.
func wantRefused(t *testing.T, p *JWT, d *directory, r *http.Request, why string) {
	t.Helper()
	if !p.Presents(r) {
		t.Error("is not said to present a token")
	}
	v := p.Check(r)
	if v.Granted || v.Status != http.StatusUnauthorized || v.Principal != (plans.Principal{}) {
		t.Errorf("%+v", v)
	}
	if !strings.Contains(v.Detail+" | "+v.Cause, why) {
		t.Errorf("%q, %q do not say %q", v.Detail, v.Cause, why)
	}
	if !strings.HasPrefix(v.Challenge, `Bearer realm="message-api", error="invalid_`) || !strings.HasSuffix(v.Challenge, `error_description="`+v.Detail+`"`) {
		t.Errorf("challenge %s", v.Challenge)
	}
	if strings.ContainsFunc(v.Challenge, func(c rune) bool { return c < ' ' || c > '~' || c == '\\' }) || len(v.Cause) > maxCause+3 {
		t.Errorf("challenge %q, cause of %d bytes", v.Challenge, len(v.Cause))
	}
	if len(d.asked) != 0 {
		t.Errorf("the directory was asked for %q", d.asked)
	}
}

// eventually polls until the condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("did not happen: " + what)
		}
	}
}

// issuer is a server that answers with what it is told to.
type issuer struct {
	*httptest.Server
	answer atomic.Pointer[http.HandlerFunc]
	hits   atomic.Int64
	ca     string // file
}

func newIssuer(t testing.TB, answer http.HandlerFunc) *issuer {
	i := new(issuer)
	i.serve(answer)
	i.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.hits.Add(1)
		(*i.answer.Load())(w, r)
	}))
	t.Cleanup(i.Close)
	i.ca = filepath.Join(t.TempDir(), "ca.pem")
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.Certificate().Raw})
	if err := os.WriteFile(i.ca, cert, 0o600); err != nil {
		t.Fatal(err)
	}
	return i
}

func (i *issuer) serve(answer http.HandlerFunc) { i.answer.Store(&answer) }

func text(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(s)) }
}

// plan is one that fetches its keys from the issuer.
func (i *issuer) plan(t testing.TB) (*JWT, *directory) {
	return newPlan(t, &JWT{JWKSURL: i.URL + "/keys", CAFile: i.ca, Issuer: issuerName, Audience: []string{"orders"}})
}

// settled waits for the latest fetch to have an outcome.
func settled(t testing.TB, p *JWT) {
	t.Helper()
	p.Start()
	eventually(t, "an outcome of the fetch", func() bool { return p.fetched.current.Load() != nil || p.fetched.failure.Load() != nil })
}
