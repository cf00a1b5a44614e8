package egress

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
)

func request() *http.Request {
	return must(http.NewRequest(http.MethodPost, "https://hooks.example.com", nil))
}

func authorization(t *testing.T, a Auth) (string, error) {
	t.Helper()
	r := request()
	err := a.Authorize(t.Context(), r)
	return r.Header.Get("Authorization"), err
}

func TestFixedCredentials(t *testing.T) {
	for _, c := range []struct {
		cfg  AuthConfig
		want string
	}{
		{AuthConfig{}, ""},
		{AuthConfig{Type: "none"}, ""},
		{AuthConfig{Type: "basic", Username: "Aladdin", Password: "open sesame"}, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="}, // RFC 7617
		{AuthConfig{Type: "bearer", Token: "mF_9.B5f-4.1JqM"}, "Bearer mF_9.B5f-4.1JqM"},                                // RFC 6750
	} {
		a, err := NewAuth(c.cfg, nil, &Policy{})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got, err := authorization(t, a); err != nil || got != c.want {
				t.Errorf("%s: %q, %v; want %q", c.cfg.Type, got, err, c.want)
			}
			a.Rejected()
		}
	}
}

func TestFlawsOfCredentials(t *testing.T) {
	oauth2 := AuthConfig{Type: "oauth2", TokenURL: "https://auth.example.com/token", ClientID: "id", ClientSecret: "secret"}
	with := func(change func(*AuthConfig)) AuthConfig { c := oauth2; change(&c); return c }
	for _, c := range []struct {
		cfg  AuthConfig
		path string
	}{
		{AuthConfig{Type: "digest"}, "type"},
		{AuthConfig{Token: "secret"}, "token"},
		{AuthConfig{Type: "basic"}, "username"},
		{AuthConfig{Type: "basic", Username: "a:b"}, "username"},
		{AuthConfig{Type: "basic", Username: "a\n"}, "username"},
		{AuthConfig{Type: "basic", Username: "a", Password: "secret\r\n"}, "password"},
		{AuthConfig{Type: "basic", Username: "a", Password: strings.Repeat("secret", 200)}, "password"},
		{AuthConfig{Type: "basic", Username: "a", Token: "secret"}, "token"},
		{AuthConfig{Type: "bearer"}, "token"},
		{AuthConfig{Type: "bearer", Token: "secret secret"}, "token"},
		{AuthConfig{Type: "bearer", Token: "secretü"}, "token"},
		{AuthConfig{Type: "bearer", Token: "secret\r\nX-A: b"}, "token"},
		{with(func(c *AuthConfig) { c.TokenURL = "" }), "token_url"},
		{with(func(c *AuthConfig) { c.TokenURL = "http://auth.example.com" }), "token_url"},
		{with(func(c *AuthConfig) { c.TokenURL = "https://169.254.169.254/token" }), "token_url"},
		{with(func(c *AuthConfig) { c.ClientID = "" }), "client_id"},
		{with(func(c *AuthConfig) { c.ClientSecret = "" }), "client_secret"},
		{with(func(c *AuthConfig) { c.ClientAuth = "jwt" }), "client_auth"},
		{with(func(c *AuthConfig) { c.Scopes = []string{"a b"} }), "scopes"},
		{with(func(c *AuthConfig) { c.Scopes = make([]string, 65) }), "scopes"},
		{with(func(c *AuthConfig) { c.Password = "secret" }), "password"},
	} {
		_, err := NewAuth(c.cfg, http.DefaultClient, &Policy{})
		flaws, ok := errors.AsType[entrypoints.Flaws](err)
		if !ok || flaws[0].Path != c.path || strings.Contains(err.Error(), "secretsecret") || strings.Contains(flaws[0].Detail, "secret") {
			t.Errorf("%+v: %v, want a flaw of %s", c.cfg, err, c.path)
		}
	}
	if err := CheckAuth(oauth2, &Policy{}); err != nil {
		t.Error(err)
	}
	for _, client := range []*http.Client{nil, http.DefaultClient} { // the default one knows no policy
		if _, err := NewAuth(oauth2, client, &Policy{}); err == nil {
			t.Error("tokens are got without a policy")
		}
	}
	var cfg AuthConfig
	document := `{"type":"oauth2","token_url":"a","client_id":"b","client_secret":"c","scopes":["d"],"client_auth":"body"}`
	if err := json.Unmarshal([]byte(document), &cfg); err != nil || string(must(json.Marshal(cfg))) != document {
		t.Errorf("%v: %+v", err, cfg)
	}
}

// authorizationServer is a token endpoint that does what RFC 6749 says of it, and no more.
type authorizationServer struct {
	t      *testing.T
	header bool
	issued atomic.Int64
}

func (s *authorizationServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fail := func(status int, code string) {
		if status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `Basic realm="clients"`)
		}
		w.Header().Set("Content-Type", "application/json;charset=UTF-8")
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, `{"error":%q,"error_description":"Sorry, s6BhdRkqt3 with 7Fjfp0ZBr1KtDRbnfVdmIw/+."}`, code)
	}
	if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" || r.ParseForm() != nil {
		fail(http.StatusBadRequest, "invalid_request")
		return
	}
	id, secret, basic := r.BasicAuth()
	if basic { // §2.3.1: both are form-encoded first
		id, secret = unescape(id), unescape(secret)
	} else {
		id, secret = r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	}
	switch {
	case basic != s.header || basic && r.PostForm.Has("client_secret"):
		s.t.Errorf("client authentication by header: %v", basic)
		fail(http.StatusBadRequest, "invalid_request")
	case id != "s6BhdRkqt3" || secret != "7Fjfp0ZBr1KtDRbnfVdmIw/+":
		fail(http.StatusUnauthorized, "invalid_client")
	case r.PostForm.Get("grant_type") != "client_credentials":
		fail(http.StatusBadRequest, "unsupported_grant_type")
	case r.PostForm.Get("scope") != "hooks write":
		fail(http.StatusBadRequest, "invalid_scope")
	default:
		w.Header().Set("Content-Type", "application/json;charset=UTF-8")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = fmt.Fprintf(w, `{"access_token":"2YotnFZFEjr1zCsicMWpAA.%d","token_type":"Bearer","expires_in":3600,"example_parameter":"example_value"}`, s.issued.Add(1))
	}
}

func unescape(text string) string {
	return must(http.NewRequest("GET", "http://a/?q="+text, nil)).URL.Query().Get("q")
}

func TestOAuth2(t *testing.T) {
	for _, where := range []string{"", "header", "body"} {
		issuer := &authorizationServer{t: t, header: where != "body"}
		server := newCounted(t, true, nil, issuer.ServeHTTP)
		opt := server.options()
		client := newClient(t, opt)
		cfg := AuthConfig{
			Type: "oauth2", TokenURL: server.URL + "/token", ClientID: "s6BhdRkqt3", ClientSecret: "7Fjfp0ZBr1KtDRbnfVdmIw/+",
			Scopes: []string{"hooks", "write"}, ClientAuth: where,
		}
		a, err := NewAuth(cfg, client, &opt.Policy)
		if err != nil {
			t.Fatal(err)
		}
		// All at once, one asks.
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				if got, err := authorization(t, a); err != nil || got != "Bearer 2YotnFZFEjr1zCsicMWpAA.1" {
					t.Errorf("%q, %v", got, err)
				}
			})
		}
		wg.Wait()
		a.Rejected()
		if got, err := authorization(t, a); err != nil || got != "Bearer 2YotnFZFEjr1zCsicMWpAA.2" {
			t.Errorf("after a rejection: %q, %v", got, err)
		}
		cfg.Scopes = nil
		for secret, code := range map[string]string{"7Fjfp0ZBr1KtDRbnfVdmIw/+": "400 Bad Request: invalid_scope", "wrong": "401 Unauthorized: invalid_client"} {
			cfg.ClientSecret = secret
			outcome, text := Classify(second(authorization(t, must(NewAuth(cfg, client, &opt.Policy)))))
			if outcome != entrypoints.AuthFailed || !strings.Contains(text, code) {
				t.Errorf("%s %s", outcome, text)
			}
			if secret != "wrong" && strings.Contains(text, secret) {
				t.Errorf("the secret is told: %s", text)
			}
		}
		// The same policy holds for the token endpoint.
		strict := newClient(t, Options{TLS: opt.TLS})
		outcome, text := Classify(second(authorization(t, must(NewAuth(cfg, strict, &opt.Policy)))))
		if outcome != entrypoints.Blocked {
			t.Errorf("%s %s", outcome, text)
		}
	}
}

func TestBadTokenResponses(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		says   string
	}{
		"too long": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"access_token":"a","x":"`+strings.Repeat("x", maxTokenResponse)+`"}`)
		}, "too large"},
		"endless":  {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, zeros{}) }, "too large"},
		"no token": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{}`) }, "missing access_token"},
		"no JSON":  {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `<html>secret`) }, "parse"},
		"other type": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"access_token":"a","token_type":"mac"}`)
		}, "mac"},
		"injection": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"access_token":"a\r\nX-Admin: 1","token_type":"bearer"}`)
		}, "can't be sent"},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		}, "302"},
		"page":      {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500); _, _ = io.WriteString(w, "secret") }, "500 Internal Server Error"},
		"lost":      {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "closed"},
		"too late":  {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "in time"},
		"error 200": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"error":"slow_down"}`) }, "slow_down"},
	} {
		t.Run(name, func(t *testing.T) {
			server := newCounted(t, false, nil, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body) // only then does the server see that the client leaves
				w.Header().Set("Content-Type", "application/json")
				c.answer(w, r)
			})
			opt := server.options()
			transport := NewTransport(opt)
			defer transport.CloseIdleConnections()
			cfg := AuthConfig{Type: "oauth2", TokenURL: server.URL + "/?key=secret", ClientID: "id", ClientSecret: "secret"}
			outcome, text := Classify(second(authorization(t, must(NewAuth(cfg, NewClient(transport, 300*time.Millisecond), &opt.Policy)))))
			if outcome != entrypoints.AuthFailed || !strings.Contains(text, c.says) || strings.Contains(text, "secret") {
				t.Errorf("%s %s", outcome, text)
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// endpoint is a token endpoint without a network, for bubbles of synctest.
type endpoint struct {
	asked   atomic.Int64
	fails   atomic.Bool
	takes   time.Duration
	expires int
	aborted atomic.Int64
}

func (e *endpoint) RoundTrip(r *http.Request) (*http.Response, error) {
	n := e.asked.Add(1)
	select {
	case <-time.After(e.takes):
	case <-r.Context().Done():
		e.aborted.Add(1)
		return nil, r.Context().Err()
	}
	if e.fails.Load() {
		return nil, errors.New("down")
	}
	body := fmt.Sprintf(`{"access_token":"t%d","token_type":"bearer","expires_in":%d}`, n, e.expires)
	return &http.Response{StatusCode: 200, Status: "200 OK", Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

func (e *endpoint) auth() Auth {
	cfg := AuthConfig{Type: "oauth2", TokenURL: "https://auth.example.com", ClientID: "id", ClientSecret: "secret"}
	return must(NewAuth(cfg, &http.Client{Transport: e}, &Policy{}))
}

func TestTokensAreKeptUntilTheyEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{expires: 3600}
		a := e.auth()
		for after, want := range map[time.Duration]string{0: "Bearer t1"} {
			time.Sleep(after)
			if got, err := authorization(t, a); err != nil || got != want {
				t.Errorf("after %v: %q, %v", after, got, err)
			}
		}
		time.Sleep(time.Hour - tokenMargin - time.Second)
		if got, _ := authorization(t, a); got != "Bearer t1" {
			t.Errorf("before its end: %q", got)
		}
		time.Sleep(time.Second)
		if got, _ := authorization(t, a); got != "Bearer t2" {
			t.Errorf("at its end: %q", got)
		}
		// A short one is used for most of its life, too.
		e = &endpoint{expires: 5}
		a = e.auth()
		_, _ = authorization(t, a)
		time.Sleep(4 * time.Second)
		if got, _ := authorization(t, a); got != "Bearer t1" {
			t.Errorf("a short one: %q", got)
		}
		// One without an end is kept until it is rejected.
		e = &endpoint{}
		a = e.auth()
		_, _ = authorization(t, a)
		time.Sleep(1000 * time.Hour)
		if got, _ := authorization(t, a); got != "Bearer t1" {
			t.Errorf("without an end: %q", got)
		}
	})
}

func TestRejectedTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{expires: 3600}
		a := e.auth()
		a.Rejected() // there is none
		for i, want := range []string{"Bearer t1", "Bearer t2", "Bearer t2"} {
			if got, err := authorization(t, a); err != nil || got != want {
				t.Errorf("%d: %q, %v, want %q", i, got, err, want)
			}
			// The second comes from those that were on their way with the first.
			a.Rejected()
		}
		time.Sleep(rejectedOnce)
		a.Rejected()
		if got, _ := authorization(t, a); got != "Bearer t3" {
			t.Errorf("later: %q", got)
		}
	})
}

func TestFailuresOfTokensAreKeptForASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{expires: 3600}
		e.fails.Store(true)
		a := e.auth()
		for range 100 {
			if _, err := authorization(t, a); err == nil {
				t.Fatal("there is a token")
			}
			time.Sleep(10 * time.Millisecond)
		}
		if n := e.asked.Load(); n != 1 {
			t.Errorf("asked %d times within a second", n)
		}
		e.fails.Store(false)
		if got, err := authorization(t, a); err != nil || got != "Bearer t2" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// Who is impatient takes nobody with them; but with the last one the request ends.
func TestWaitingForATokenEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{expires: 3600, takes: 10 * time.Second}
		a := e.auth()
		var wg sync.WaitGroup
		wait := func(patience time.Duration, want string) {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				r := request()
				err := a.Authorize(ctx, r)
				if got := r.Header.Get("Authorization"); got != want || (err == nil) != (want != "") {
					t.Errorf("patience of %v: %q, %v", patience, got, err)
				}
				if err != nil {
					if outcome, text := Classify(err); outcome != entrypoints.AuthFailed || !strings.Contains(text, "in time") {
						t.Errorf("%s %s", outcome, text)
					}
				}
			})
			synctest.Wait()
		}
		wait(time.Second, "")
		wait(time.Minute, "Bearer t1")
		wg.Wait()
		if e.asked.Load() != 1 || e.aborted.Load() != 0 {
			t.Errorf("asked %d times, %d aborted", e.asked.Load(), e.aborted.Load())
		}
		e = &endpoint{expires: 3600, takes: 10 * time.Second}
		a = e.auth()
		wait(time.Second, "")
		wait(2*time.Second, "")
		wg.Wait()
		synctest.Wait()
		if e.asked.Load() != 1 || e.aborted.Load() != 1 {
			t.Errorf("asked %d times, %d aborted", e.asked.Load(), e.aborted.Load())
		}
		wait(time.Minute, "Bearer t2")
		wg.Wait()
		// It doesn't wait for ever either.
		e = &endpoint{takes: time.Hour}
		a = e.auth()
		begun := time.Now()
		if _, err := authorization(t, a); err == nil || time.Since(begun) != tokenTimeout {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	})
}
