package httppost

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/goleak"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// provisioned makes an entrypoint as Caddy would.
func provisioned(t testing.TB, configure func(*Entrypoint)) *Entrypoint {
	t.Helper()
	e := new(Entrypoint)
	if configure != nil {
		configure(e)
	}
	if err := errors.Join(e.Provision(caddy.Context{}), e.Validate()); err != nil {
		t.Fatal(err)
	}
	return e
}

func TestCaddyfile(t *testing.T) {
	for _, c := range []struct {
		name, text, err string
		want            Entrypoint
	}{
		{name: "nothing", text: "http_post"},
		{name: "everything", text: `http_post {
			qos none
			request_headers_to_message
			max_body 64KiB
			via orders
			fallback spare
		}`, want: Entrypoint{
			Common:                  entrypoints.Common{QoS: message.None, Via: "orders", Fallback: "spare"},
			RequestHeadersToMessage: true, MaxBody: 64 << 10,
		}},
		{name: "argument", text: "http_post orders", err: `"orders" is one too many`},
		{name: "unknown", text: "http_post {\n from latest\n}", err: "unknown option \"from\" in entrypoint http_post: use fallback, max_body, qos, request_headers_to_message, via, at Testfile:2"},
		{name: "twice", text: "http_post {\n max_body 1MiB\n max_body 2MiB\n}", err: "stands twice"},
		{name: "bad size", text: "http_post {\n max_body none\n}", err: "is not a size"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var e Entrypoint
			err := e.UnmarshalCaddyfile(caddyfile.NewTestDispenser(c.text))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v, want one with %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, _ := json.Marshal(&e)
			want, _ := json.Marshal(&c.want)
			if string(got) != string(want) {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

func TestDefaultsNeedsAndMatch(t *testing.T) {
	e := provisioned(t, func(e *Entrypoint) { e.Via, e.Fallback = "a", "b" })
	if e.MaxBody != 1<<20 {
		t.Errorf("max_body %d", e.MaxBody)
	}
	for _, size := range []int64{-1, 1<<30 + 1} {
		if err := (&Entrypoint{MaxBody: size}).Validate(); err == nil {
			t.Errorf("max_body %d is taken", size)
		}
	}
	n := e.Needs()
	if n.Type != "http_post" || !n.Publish || n.Subscribe || n.Resume || n.Acks || n.Via != "a" || n.Fallback != "b" ||
		!slices.Equal(n.Levels, []message.QoS{message.None, message.Auto}) || !slices.Equal(e.Methods(), []string{"POST"}) {
		t.Errorf("%+v %q", n, e.Methods())
	}
	for _, c := range []struct {
		method, upgrade string
		want            int
	}{{"POST", "", 1}, {"POST", "h2c", 1}, {"POST", "websocket", 0}, {"GET", "", 0}, {"PUT", "", 0}} {
		r := httptest.NewRequest(c.method, "/", nil)
		r.Header.Set("Upgrade", c.upgrade)
		if got := e.Match(r); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

func TestWantsRepresentation(t *testing.T) {
	for _, c := range []struct {
		prefer []string
		want   bool
	}{
		{nil, false},
		{[]string{"return=representation"}, true},
		{[]string{"respond-async, Return = Representation; x=y"}, true},
		{[]string{`return="representation"`}, true},
		{[]string{"respond-async", "return=representation"}, true},
		{[]string{"return=minimal, return=representation"}, false},
		{[]string{"handling=strict"}, false},
		{[]string{"return"}, false},
	} {
		if got := wantsRepresentation(http.Header{"Prefer": c.prefer}); got != c.want {
			t.Errorf("%q: %t", c.prefer, got)
		}
	}
}

func TestIsBatch(t *testing.T) {
	for contentType, want := range map[string]bool{
		"application/x-ndjson": true, "Application/X-NDJSON; charset=utf-8": true, "application/x-ndjsonx": false,
		"application/json": false, "": false, "application/x-ndjson; =": false, "text/plain; a=application/x-ndjson": false,
	} {
		if got := isBatch(contentType); got != want {
			t.Errorf("%q: %t", contentType, got)
		}
	}
}

func TestRequestHeaders(t *testing.T) {
	h := http.Header{
		"X-Zed": {"2", "1"}, "Content-Type": {"text/plain"}, "Accept": {"*/*"},
		"Connection": {"keep-alive, x-private"}, "X-Private": {"p"}, "Keep-Alive": {"timeout=5"}, "Te": {"trailers"},
		"Trailer": {"T"}, "Transfer-Encoding": {"chunked"}, "Upgrade": {"h2c"}, "Content-Length": {"5"}, "Expect": {"100-continue"},
		"Proxy-Authorization": {"secret"}, "Proxy-Connection": {"x"}, "Authorization": {"secret"}, "Cookie": {"secret"},
		"X-Key": {"secret"},
	}
	secret := func(name string) bool { return name == "Authorization" || name == "Cookie" || name == "X-Key" }
	got, err := requestHeaders(h, secret)
	want := []message.Header{{Name: "Accept", Value: "*/*"}, {Name: "Content-Type", Value: "text/plain"}, {Name: "X-Zed", Value: "2"}, {Name: "X-Zed", Value: "1"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err = batchHeaders(h, secret); err != nil || len(got) != 3 || slices.Contains(got, want[1]) {
		t.Errorf("batch: %v, %v", got, err)
	}
	own := []message.Header{{Name: "accept", Value: "own"}, {Name: "b", Value: "c"}}
	got = withDefaults(slices.Clone(own), want)
	if !slices.Equal(got, append(own, want[1:]...)) {
		t.Errorf("merged: %v", got)
	}
	h["X-Many"] = make([]string, maxHeaders)
	if _, err := requestHeaders(h, secret); entrypoints.AsProblem(err).Status != 431 {
		t.Errorf("too many: %v", err)
	}
}
