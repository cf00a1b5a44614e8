package admin

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestBase(t *testing.T) {
	for address, want := range map[string]string{
		"localhost:2019":                "http://localhost:2019",
		":2019":                         "http://localhost:2019",
		"tcp/localhost:2019":            "http://localhost:2019",
		"http://localhost:2019/":        "http://localhost:2019",
		"https://admin.example.com":     "https://admin.example.com",
		"[::1]:2019":                    "http://[::1]:2019",
		"unix//run/caddy.sock":          "http://127.0.0.1 /run/caddy.sock",
		"unix//run/caddy.sock|0220":     "http://127.0.0.1 /run/caddy.sock",
		"unix/caddy.sock":               "http://127.0.0.1 caddy.sock",
		"unix/":                         "",
		"http://":                       "",
		"ftp://localhost":               "",
		"http://user:secret@localhost":  "",
		"http://localhost/message_api":  "",
		"http://localhost:2019?a=b":     "",
		"udp/localhost:2019":            "",
		"http://localhost:port":         "",
		"unix//run/caddy.sock|0220|xyz": "http://127.0.0.1 /run/caddy.sock",
	} {
		base, socket, err := resolveBase(address)
		if got := strings.TrimSpace(base + " " + socket); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v, want %q", address, got, err, want)
		}
	}
}

func TestClientOverUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "127.0.0.1" || r.Header.Get("Origin") != "" {
			t.Errorf("host %q, origin %q", r.Host, r.Header.Get("Origin"))
		}
		fmt.Fprint(w, `{"node":"n1"}`)
	}))
	_ = server.Listener.Close()
	server.Listener = listener
	server.Start()
	defer server.Close()
	c := &Client{Base: "unix/" + path}
	defer c.Close()
	status, err := c.Store(t.Context())
	if err != nil || status.Node != "n1" {
		t.Fatalf("%+v, %v", status, err)
	}
}

func TestClientSends(t *testing.T) {
	var got string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = fmt.Sprintf("%s %s %s|%s|%s|%s", r.Method, r.RequestURI, body, r.Header.Get("Content-Type"), r.Header.Get("If-Match"), r.Header.Get("If-None-Match"))
		if r.Header.Get("Origin") != "http://"+r.Host {
			t.Errorf("origin %q", r.Header.Get("Origin"))
		}
		fmt.Fprint(w, `{}`)
	}))
	defer server.Close()
	c, ctx := &Client{Base: server.URL}, t.Context()
	defer c.Close()
	at := time.Date(2026, 12, 31, 23, 59, 59, 0, time.UTC)
	for want, call := range map[string]func() error{
		`PUT /message_api/apis/a?deploy=true {"x":1}|application/json||*`: func() error {
			_, err := c.SaveAPI(ctx, "a", []byte(`{"x":1}`), Save{CreateOnly: true, Deploy: true})
			return err
		},
		`PUT /message_api/apis/a?dry_run=true {}|application/json||`: func() error {
			_, err := c.CheckAPI(ctx, "a", []byte(`{}`), false)
			return err
		},
		`POST /message_api/apis/a%2F..%3Fb/stop |||`: func() error { _, err := c.StopAPI(ctx, "a/..?b", Write{}); return err },
		`POST /message_api/apis/a/start {"reason":"why"}|application/json|"7"|`: func() error {
			_, err := c.StartAPI(ctx, "a", Write{IfMatch: `"7"`, Reason: "why"})
			return err
		},
		`PUT /message_api/apis/a/members {"members":[]}|application/json||`: func() error { _, err := c.SetMembers(ctx, "a", nil, ""); return err },
		`PATCH /message_api/applications/x {"description":"","client_id":"c"}|application/json|"2"|`: func() error {
			_, err := c.UpdateApplication(ctx, "x", ApplicationPatch{Description: Some(""), ClientID: Some("c")}, `"2"`)
			return err
		},
		`GET /message_api/subscriptions?after=n&api=a&limit=5&status=pending |||`: func() error {
			_, err := c.SubscriptionPage(ctx, SubscriptionQuery{PageQuery: PageQuery{Limit: 5, After: "n"}, API: "a", Status: "pending"})
			return err
		},
		`GET /message_api/apis?group=g&group=h&visible_to=u |||`: func() error {
			_, err := c.APIPage(ctx, APIQuery{VisibleTo: "u", Groups: []string{"g", "h"}})
			return err
		},
		`POST /message_api/keys/k/expire {"at":"2026-12-31T23:59:59Z"}|application/json||`: func() error { _, err := c.ExpireKey(ctx, "k", at, ""); return err },
		`DELETE /message_api/sessions/9 |||`:                                               func() error { return c.EndSession(ctx, 9) },
		`POST /message_api/import {"a":1}|application/json||`:                              func() error { _, err := c.Import(ctx, strings.NewReader(`{"a":1}`)); return err },
	} {
		if err := call(); err != nil || got != want {
			t.Errorf("%s, %v\nwant %s", got, err, want)
		}
	}
	for _, id := range []string{"", ".", ".."} {
		got = ""
		if _, err := c.API(ctx, id); err == nil || got != "" {
			t.Errorf("id %q: %v, sent %q", id, err, got)
		}
	}
}

func TestClientErrors(t *testing.T) {
	for name, c := range map[string]struct {
		status            int
		contentType, body string
		says              string
	}{
		"a problem": {409, "application/problem+json", `{"type":"urn:message-api:problem:conflict","title":"Conflict","status":409,"detail":"stop it first"}`, "Conflict: stop it first"},
		"problems": {400, "application/problem+json",
			`{"title":"Bad Request","status":400,"detail":"it is wrong","problems":[{"path":"a.b","detail":"x"},{"path":"","detail":"y"}]}`, "Bad Request: it is wrong: a.b: x; y"},
		"Caddy's":         {403, "application/json", `{"error":"client is not allowed to access from origin ''"}`, "Forbidden: client is not allowed"},
		"nobody's 404":    {404, "text/plain", "404 page not found", "is it a Caddy with this module"},
		"nobody's 502":    {502, "text/html", "<html>", "502 Bad Gateway"},
		"a redirect":      {307, "text/html", "", "307"},
		"no JSON":         {200, "application/json", "hello", "something else than expected"},
		"a broken length": {200, "application/json", "", "something else than expected"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", c.contentType)
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(c.status)
				fmt.Fprint(w, c.body)
			}))
			defer server.Close()
			client := &Client{Base: server.URL}
			defer client.Close()
			_, err := client.API(t.Context(), "a")
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("%v does not say %q", err, c.says)
			}
			if problem, ok := errors.AsType[*ProblemDetails](err); c.status != 200 && (!ok || problem.Status != c.status) {
				t.Errorf("%#v", err)
			}
		})
	}
}

func TestClientWithNobodyThere(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	_, err = (&Client{Base: address}).API(t.Context(), "a")
	if err == nil || !strings.Contains(err.Error(), "the admin endpoint at http://"+address) {
		t.Error(err)
	}
	if _, err = (&Client{Base: "nothing://"}).API(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), "admin address") {
		t.Error(err)
	}
}

// An export that breaks off is no export.
func TestBrokenExport(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"records":[`)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	defer server.Close()
	c := &Client{Base: server.URL}
	defer c.Close()
	if err := c.Export(t.Context(), io.Discard); err == nil || !strings.Contains(err.Error(), "broke off") {
		t.Error(err)
	}
}
