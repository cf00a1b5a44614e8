package webhook

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// local is an entrypoint that may call this machine.
const local = `"allow_networks":["loopback"],"timeout":"2s","retry":{"attempts":3,"delay":"1ms","jitter":0}`

func localEntrypoint(t testing.TB, more ...string) *Entrypoint {
	t.Helper()
	e := mustProvision(t, "{"+strings.Join(append([]string{local}, more...), ",")+"}")
	e.firstPause, e.letterWait, e.letterIdle = time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
	return e
}

// receiver is an HTTPS server with the consumer for it. more are members of the consumer.
func receiver(t testing.TB, handler http.HandlerFunc, more ...string) (asked string) {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.EnableHTTP2 = true
	server.Config.ErrorLog = nil
	server.StartTLS()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return consumerFor(t, server, more...)
}

func consumerFor(t testing.TB, server *httptest.Server, more ...string) string {
	t.Helper()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	own, err := json.Marshal(map[string]string{"ca": string(ca)})
	if err != nil {
		t.Fatal(err)
	}
	members := append([]string{`"callback":"` + server.URL + `/hook?token=geheim"`, `"tls":` + string(own)}, more...)
	return "{" + strings.Join(members, ",") + "}"
}

func try(t testing.TB, e *Entrypoint, asked string) entrypoints.Attempt {
	t.Helper()
	p := newPush(t, e, asked, newQueue())
	attempt, err := e.Try(t.Context(), p, entrypoints.Letter{Message: &message.Message{Payload: []byte("hello")}})
	if err != nil {
		t.Fatal(err)
	}
	if (attempt.Outcome == entrypoints.Delivered) != (p.sent == 1) {
		t.Errorf("%+v, and %d were counted", attempt, p.sent)
	}
	if strings.Contains(attempt.Error, "geheim") {
		t.Errorf("a secret in %q", attempt.Error)
	}
	return attempt
}

func TestAnswers(t *testing.T) {
	e := localEntrypoint(t)
	for status, want := range map[int]entrypoints.Outcome{
		200: entrypoints.Delivered, 201: entrypoints.Delivered, 202: entrypoints.Delivered, 204: entrypoints.Delivered, 299: entrypoints.Delivered,
		301: entrypoints.ClientError, 302: entrypoints.ClientError, 304: entrypoints.ClientError, 308: entrypoints.ClientError,
		400: entrypoints.ClientError, 401: entrypoints.ClientError, 403: entrypoints.ClientError, 404: entrypoints.ClientError, 413: entrypoints.ClientError,
		408: entrypoints.ServerError, 425: entrypoints.ServerError, 410: entrypoints.Gone, 429: entrypoints.Throttled,
		500: entrypoints.ServerError, 501: entrypoints.ServerError, 503: entrypoints.ServerError, 504: entrypoints.ServerError, 599: entrypoints.ServerError, 700: entrypoints.ServerError,
	} {
		var calls atomic.Int32
		got := try(t, e, receiver(t, func(w http.ResponseWriter, r *http.Request) {
			calls.Add(1)
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
		}))
		if got.Outcome != want || got.Status != status || got.Number != 1 || got.ID == "" || got.At.IsZero() || got.Duration <= 0 {
			t.Errorf("%d: %+v, want %s", status, got, want)
		}
		if (got.Error == "") != (want == entrypoints.Delivered) || calls.Load() != 1 {
			t.Errorf("%d: %q, %d calls", status, got.Error, calls.Load())
		}
	}
}

func TestRetryAfter(t *testing.T) {
	soon := time.Now().UTC().Add(90 * time.Second)
	for text, want := range map[string][2]time.Duration{
		"":                                      {0, 0},
		"7":                                     {7 * time.Second, 7 * time.Second},
		" 7 ":                                   {7 * time.Second, 7 * time.Second},
		"0":                                     {0, 0},
		"-7":                                    {0, 0},
		"1.5":                                   {0, 0},
		"soon":                                  {0, 0},
		"86401":                                 {24 * time.Hour, 24 * time.Hour},
		"99999999999999999999999999":            {24 * time.Hour, 24 * time.Hour},
		soon.Format(http.TimeFormat):            {85 * time.Second, 90 * time.Second},
		soon.Format(time.RFC850):                {85 * time.Second, 90 * time.Second},
		"Mon, 02 Jan 2006 15:04:05 GMT":         {0, 0},
		"Fri, 31 Dec 9999 23:59:59 GMT":         {24 * time.Hour, 24 * time.Hour},
		soon.Add(-time.Hour).Format(time.ANSIC): {0, 0},
	} {
		got := retryAfter(&http.Response{Header: http.Header{"Retry-After": {text}}})
		if got < want[0] || got > want[1] {
			t.Errorf("%q: %s, want %s", text, got, want[1])
		}
	}
	// The other clock is an hour behind.
	there := time.Now().UTC().Add(-time.Hour)
	got := retryAfter(&http.Response{Header: http.Header{
		"Date": {there.Format(http.TimeFormat)}, "Retry-After": {there.Add(time.Minute).Format(http.TimeFormat)},
	}})
	if got != time.Minute {
		t.Errorf("by a clock that is behind: %s", got)
	}
	e := localEntrypoint(t)
	if a := try(t, e, receiver(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
	})); a.Outcome != entrypoints.Throttled || a.Status != 503 {
		t.Errorf("%+v", a)
	}
}

// What goes wrong on the way is told for what it is, and quickly.
func TestFaults(t *testing.T) {
	e := localEntrypoint(t, `"allow_http":true`)
	half := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			conn, buf, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = buf.WriteString(text)
			_ = buf.Flush()
			_ = conn.Close()
		}
	}
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		want    entrypoints.Outcome
	}{
		"no answer": {func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		}, entrypoints.TimedOut},
		"cut":                     {half(""), entrypoints.Unreachable},
		"half a status":           {half("HTTP/1.1 20"), entrypoints.Unreachable},
		"no HTTP":                 {half("SSH-2.0-OpenSSH_9.6\r\n"), entrypoints.Unreachable},
		"half a header":           {half("HTTP/1.1 200 OK\r\nContent-Len"), entrypoints.Unreachable},
		"half a body":             {half("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"), entrypoints.Delivered},
		"half a body of an error": {half("HTTP/1.1 500 Oops\r\nContent-Length: 100\r\n\r\nhalf"), entrypoints.ServerError},
		"half a chunk":            {half("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhalf"), entrypoints.Delivered},
		"a huge header":           {half("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2<<20)), entrypoints.Unreachable},
		"reset": {func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_ = conn.(*net.TCPConn).SetLinger(0)
			_ = conn.Close()
		}, entrypoints.Unreachable},
	} {
		server := httptest.NewServer(c.handler)
		began := time.Now()
		got := try(t, e, `{"callback":"`+server.URL+`/?token=geheim","timeout":"300ms"}`)
		if got.Outcome != c.want || got.Outcome != entrypoints.Delivered && got.Error == "" {
			t.Errorf("%s: %+v, want %s", name, got, c.want)
		}
		if took := time.Since(began); took > 2*time.Second || got.Duration > took {
			t.Errorf("%s: took %s, and says %s", name, took, got.Duration)
		}
		server.CloseClientConnections()
		server.Close()
	}
	// Nobody listens at a port that was just given back.
	server := httptest.NewServer(nil)
	server.Close()
	if got := try(t, e, `{"callback":"`+server.URL+`"}`); got.Outcome != entrypoints.Unreachable {
		t.Errorf("nobody there: %+v", got)
	}
	if got := try(t, e, `{"callback":"https://no-such-name.invalid/"}`); got.Outcome != entrypoints.Unreachable && got.Outcome != entrypoints.TimedOut {
		t.Errorf("no such name: %+v", got)
	}
}

// A certificate that nobody vouches for is not trusted, and a subscription's own is, under
// its own name.
func TestCertificates(t *testing.T) {
	e := localEntrypoint(t)
	asked := receiver(t, func(http.ResponseWriter, *http.Request) {})
	var tree map[string]any
	if err := json.Unmarshal([]byte(asked), &tree); err != nil {
		t.Fatal(err)
	}
	variant := func(change func(tls map[string]any)) string {
		tls := map[string]any{"ca": tree["tls"].(map[string]any)["ca"]}
		change(tls)
		raw, err := json.Marshal(map[string]any{"callback": tree["callback"], "tls": tls})
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	for name, c := range map[string]struct {
		change func(map[string]any)
		want   entrypoints.Outcome
	}{
		"unknown authority": {func(tls map[string]any) { delete(tls, "ca") }, entrypoints.Unreachable},
		"its name":          {func(tls map[string]any) { tls["server_name"] = "example.com" }, entrypoints.Delivered},
		"another name":      {func(tls map[string]any) { tls["server_name"] = "example.net" }, entrypoints.Unreachable},
	} {
		if got := try(t, e, variant(c.change)); got.Outcome != c.want {
			t.Errorf("%s: %+v, want %s", name, got, c.want)
		}
	}
	lax := localEntrypoint(t, `"tls":{"insecure_skip_verify":true}`)
	if got := try(t, lax, variant(func(tls map[string]any) { delete(tls, "ca") })); got.Outcome != entrypoints.Delivered {
		t.Errorf("without verification: %+v", got)
	}
	if got := try(t, lax, variant(func(tls map[string]any) { tls["server_name"] = "example.net" })); got.Outcome != entrypoints.Unreachable {
		t.Errorf("a subscription with a ca of its own is not verified: %+v", got)
	}
}

func TestClientCertificate(t *testing.T) {
	var presented atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		presented.Store(int32(len(r.TLS.PeerCertificates)))
	}))
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.StartTLS()
	defer server.Close()
	defer server.CloseClientConnections()
	pair := server.TLS.Certificates[0]
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key := filepath.Join(t.TempDir(), "c.pem"), filepath.Join(t.TempDir(), "k.pem")
	for file, block := range map[string]*pem.Block{
		certificate: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := try(t, localEntrypoint(t), consumerFor(t, server)); got.Outcome != entrypoints.Unreachable {
		t.Errorf("without a certificate: %+v", got)
	}
	e := localEntrypoint(t, `"tls":{"client_certificate":{"certificate":"`+certificate+`","key":"`+key+`"}}`)
	if got := try(t, e, consumerFor(t, server)); got.Outcome != entrypoints.Delivered || presented.Load() != 1 {
		t.Errorf("with one: %+v, %d", got, presented.Load())
	}
}

// A body is read as far as max_response, and neither a long nor a slow one costs more.
func TestBodies(t *testing.T) {
	e := localEntrypoint(t, `"max_response":1024`)
	several := func(asked string, n int) {
		p := newPush(t, e, asked, newQueue())
		for range n {
			a, err := e.Try(t.Context(), p, entrypoints.Letter{Message: &message.Message{Payload: []byte("x")}})
			if err != nil || a.Outcome != entrypoints.Delivered {
				t.Errorf("%+v, %v", a, err)
			}
		}
	}
	for name, c := range map[string]struct {
		size   int
		reused bool
	}{"short": {1024, true}, "none": {0, true}, "long": {1 << 20, false}} {
		var opened atomic.Int32
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, strings.Repeat("x", c.size))
		}))
		server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				opened.Add(1)
			}
		}
		server.StartTLS()
		several(consumerFor(t, server), 5)
		if n := opened.Load(); (n == 1) != c.reused {
			t.Errorf("%s: %d connections for 5 attempts", name, n)
		}
		server.CloseClientConnections()
		server.Close()
	}
	// The status is the answer: a body that never ends is waited for no longer than the timeout.
	gone := make(chan struct{})
	began := time.Now()
	got := try(t, e, receiver(t, func(w http.ResponseWriter, r *http.Request) {
		defer close(gone)
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}, `"timeout":"200ms"`))
	if got.Outcome != entrypoints.Delivered || time.Since(began) > 5*time.Second {
		t.Errorf("%+v after %s", got, time.Since(began))
	}
	<-gone
}

func TestProtocols(t *testing.T) {
	e := localEntrypoint(t, `"allow_http":true`)
	for _, h2 := range []bool{true, false} {
		var proto atomic.Value
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { proto.Store(r.Proto) }))
		server.EnableHTTP2 = h2
		server.StartTLS()
		if got := try(t, e, consumerFor(t, server)); got.Outcome != entrypoints.Delivered {
			t.Errorf("%+v", got)
		}
		if want := map[bool]string{true: "HTTP/2.0", false: "HTTP/1.1"}[h2]; proto.Load() != want {
			t.Errorf("%v, want %s", proto.Load(), want)
		}
		server.CloseClientConnections()
		server.Close()
	}
}

func TestAuth(t *testing.T) {
	e := localEntrypoint(t)
	var issued atomic.Int32
	var good atomic.Value // the Authorization that is taken
	good.Store("")
	handler := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			user, password, _ := r.BasicAuth()
			if err := r.ParseForm(); err != nil || user != "id" || password != "geheim" || r.PostForm.Get("scope") != "a b" {
				t.Errorf("asks for a token with %s, %s, %v", user, r.PostForm, err)
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = fmt.Fprintf(w, `{"access_token":"t%d","token_type":"Bearer","expires_in":3600}`, issued.Add(1))
			return
		}
		if r.Header.Get("Authorization") != good.Load() {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(handler))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	for _, c := range []struct{ auth, good string }{
		{`{"type":"basic","username":"u","password":"geheim"}`, "Basic dTpnZWhlaW0="},
		{`{"type":"bearer","token":"geheim"}`, "Bearer geheim"},
	} {
		good.Store(c.good)
		if got := try(t, e, consumerFor(t, server, `"auth":`+c.auth)); got.Outcome != entrypoints.Delivered {
			t.Errorf("%s: %+v", c.auth, got)
		}
		good.Store("something else")
		if got := try(t, e, consumerFor(t, server, `"auth":`+c.auth)); got.Outcome != entrypoints.AuthFailed || got.Status != 401 {
			t.Errorf("%s: %+v", c.auth, got)
		}
	}
	asked := consumerFor(t, server, `"secrets":[]`, `"auth":{"type":"oauth2","token_url":"`+server.URL+`/token","client_id":"id","client_secret":"geheim","scopes":["a","b"]}`)
	for i, c := range []struct {
		good   string
		want   entrypoints.Outcome
		issued int32
	}{
		{"Bearer t1", entrypoints.Delivered, 1},
		{"Bearer t1", entrypoints.Delivered, 1},  // kept from one attempt to the next
		{"Bearer t2", entrypoints.AuthFailed, 1}, // forgotten after a 401
		{"Bearer t2", entrypoints.Delivered, 2},
	} {
		good.Store(c.good)
		if got := try(t, e, asked); got.Outcome != c.want || issued.Load() != c.issued {
			t.Errorf("%d: %+v, %d tokens", i, got, issued.Load())
		}
	}
	none := httptest.NewTLSServer(http.NotFoundHandler())
	asked = consumerFor(t, server, `"auth":{"type":"oauth2","token_url":"`+none.URL+`/token","client_id":"id","client_secret":"geheim"}`)
	none.Close()
	if got := try(t, e, asked); got.Outcome != entrypoints.AuthFailed || !strings.Contains(got.Error, "token") {
		t.Errorf("nobody gives tokens: %+v", got)
	}
}

// What must not be called is not called, whatever was allowed before.
func TestBlocked(t *testing.T) {
	e := localEntrypoint(t)
	asked := receiver(t, func(http.ResponseWriter, *http.Request) { t.Error("was called") })
	p := newPush(t, e, asked, newQueue(one("x")))
	strict := mustProvision(t, `{}`)
	if _, err := strict.Try(t.Context(), p, entrypoints.Letter{Message: &message.Message{}}); err == nil || message.KindOf(err) != message.Mismatch {
		t.Errorf("a callback that is not allowed any more: %v", err)
	}
	err := p.ends(strict)
	if failure, ok := err.(*entrypoints.Failure); !ok || failure.Gone || !strings.Contains(failure.Cause, "callback") || strings.Contains(failure.Cause, "geheim") {
		t.Errorf("%v", err)
	}
	if p.source.opened != 0 {
		t.Error("the broker was asked although nothing can be delivered")
	}
	byName := newPush(t, strict, `{"callback":"https://localhost.example.invalid/"}`, newQueue())
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if a, err := strict.Try(ctx, byName, entrypoints.Letter{Message: &message.Message{}}); err != nil || a.Outcome == entrypoints.Delivered {
		t.Errorf("%+v, %v", a, err)
	}
}

// A header that can't go out is told of once, and not for each message.
func TestDroppedHeaders(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	e := localEntrypoint(t, `"message_headers":["x-*"]`)
	e.logger = zap.New(core)
	in := &inbox{t: t}
	p := newPush(t, e, receiver(t, in.ServeHTTP), newQueue())
	for range 3 {
		m := &message.Message{Headers: []message.Header{{Name: "x-bad", Value: "a\r\nb: c"}, {Name: "x-good", Value: "1"}}}
		if a, err := e.Try(t.Context(), p, entrypoints.Letter{Message: m}); err != nil || a.Outcome != entrypoints.Delivered {
			t.Errorf("%+v, %v", a, err)
		}
	}
	if n := logs.FilterFieldKey("header").Len(); n != 1 {
		t.Errorf("%d warnings", n)
	}
	for _, c := range in.got() {
		if c.header.Get("x-good") != "1" || c.header.Get("x-bad") != "" || c.header.Get("b") != "" {
			t.Errorf("%v", c.header)
		}
	}
}
