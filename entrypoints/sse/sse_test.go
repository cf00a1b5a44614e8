package sse

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

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
	off, ten := caddy.Duration(0), caddy.Duration(10*time.Second)
	for _, c := range []struct {
		name, text, err string
		want            Entrypoint
	}{
		{name: "nothing", text: "sse"},
		{name: "everything", text: `sse {
			qos at_least_once
			heartbeat 10s
			metadata_as_comment
			headers_as_comment on
			rotate 1h
			from client
			via orders
			fallback spare
		}`, want: Entrypoint{
			Common:    entrypoints.Common{QoS: message.AtLeastOnce, Via: "orders", Fallback: "spare"},
			Reading:   entrypoints.Reading{From: "client"},
			Heartbeat: &ten, MetadataAsComment: true, HeadersAsComment: true, Rotate: caddy.Duration(time.Hour),
		}},
		{name: "heartbeat off", text: "sse {\n heartbeat off\n}", want: Entrypoint{Heartbeat: &off}},
		{name: "argument", text: "sse orders", err: `"orders" is one too many`},
		{name: "unknown", text: "sse {\n hartbeat 1s\n}", err: "unknown option \"hartbeat\" in entrypoint sse: use fallback, from, headers_as_comment, heartbeat, metadata_as_comment, qos, rotate, via, at Testfile:2"},
		{name: "twice", text: "sse {\n rotate 1h\n rotate 2h\n}", err: "stands twice"},
		{name: "bad rotate", text: "sse {\n rotate 0s\n}", err: "rotate must be at least 1s"},
		{name: "bad qos", text: "sse {\n qos exactly_once\n}", err: "use none, auto, at_most_once or at_least_once"},
		{name: "bad from", text: "sse {\n from begin\n}", err: "use latest, earliest, client"},
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

func TestValidate(t *testing.T) {
	short := caddy.Duration(time.Millisecond)
	for _, e := range []*Entrypoint{{Heartbeat: &short}, {Rotate: short}, {Reading: entrypoints.Reading{From: "begin"}}} {
		if err := errors.Join(e.Provision(caddy.Context{}), e.Validate()); err == nil {
			t.Errorf("%+v is taken", e)
		}
	}
	if e := provisioned(t, nil); e.heartbeat != 5*time.Second {
		t.Errorf("the default heartbeat is %s", e.heartbeat)
	}
}

func TestNeeds(t *testing.T) {
	e := provisioned(t, func(e *Entrypoint) {
		e.QoS, e.Via, e.Fallback, e.From = message.AtMostOnce, "a", "b", "earliest"
	})
	n := e.Needs()
	if n.Type != "sse" || !n.Subscribe || n.Publish || !n.Resume || n.Acks || n.QoS != message.AtMostOnce ||
		n.Via != "a" || n.Fallback != "b" || n.From != "earliest" || !slices.Equal(n.Levels, message.Levels[:]) {
		t.Errorf("%+v", n)
	}
	if !slices.Equal(e.Methods(), []string{"GET"}) {
		t.Errorf("%q", e.Methods())
	}
}

func TestMatch(t *testing.T) {
	e := provisioned(t, nil)
	for _, c := range []struct {
		method, accept, upgrade string
		want                    int
	}{
		{"GET", "text/event-stream", "", 2},
		{"GET", "application/json, text/event-stream;q=0.1", "", 2},
		{"GET", "text/event-stream;q=0", "", 0},
		{"GET", "text/*", "", 0},
		{"GET", "*/*", "", 0},
		{"GET", "", "", 0},
		{"POST", "text/event-stream", "", 0},
		{"HEAD", "text/event-stream", "", 0},
		{"GET", "text/event-stream", "websocket", 0},
	} {
		r := httptest.NewRequest(c.method, "/", nil)
		if c.accept != "" {
			r.Header.Set("Accept", c.accept)
		}
		if c.upgrade != "" {
			r.Header.Set("Upgrade", c.upgrade)
		}
		if got := e.Match(r); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

func TestWant(t *testing.T) {
	e := provisioned(t, nil)
	for _, c := range []struct {
		target, header string
		cursor, from   string
		byHeader       bool
		slug           string
	}{
		{target: "/"},
		{target: "/?cursor=&last-event-id="},
		{target: "/?cursor=abc&from=earliest", cursor: "abc", from: "earliest"},
		{target: "/?last-event-id=abc", cursor: "abc"},
		{target: "/?cursor=abc", header: "def", cursor: "def", byHeader: true},
		{target: "/?cursor=abc&last-event-id=abc", header: "def", cursor: "def", byHeader: true},
		{target: "/?cursor=abc&last-event-id=abc", slug: "bad-query"},
		{target: "/?cursor=abc&cursor=abc", slug: "bad-query"},
		{target: "/?last-event-id=a&last-event-id=a", slug: "bad-query"},
		{target: "/?from=a&from=a", slug: "bad-query"},
		{target: "/?cursor=%25%zz", slug: "bad-query"},
	} {
		r := httptest.NewRequestWithContext(context.Background(), "GET", "/", nil)
		_, r.URL.RawQuery, _ = strings.Cut(c.target, "?")
		if c.header != "" {
			r.Header.Set("Last-Event-ID", c.header)
		}
		want, byHeader, err := e.want(r)
		if c.slug != "" {
			if err == nil || entrypoints.AsProblem(err).Slug != c.slug || entrypoints.AsProblem(err).Status != http.StatusBadRequest {
				t.Errorf("%+v: %v", c, err)
			}
			continue
		}
		if err != nil || want.Cursor != c.cursor || want.Resuming != (c.cursor != "") || want.From != c.from || byHeader != c.byHeader {
			t.Errorf("%+v: %+v %t %v", c, want, byHeader, err)
		}
	}
}
