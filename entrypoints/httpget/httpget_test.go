package httpget

import (
	"encoding/json"
	"errors"
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
	for _, c := range []struct {
		name, text, err string
		want            Entrypoint
	}{
		{name: "nothing", text: "http_get"},
		{name: "everything", text: `http_get {
			qos at_least_once
			messages_limit 10
			duration_limit 2m
			headers_in_payload
			metadata_in_payload on
			from client
			via orders
			fallback spare
		}`, want: Entrypoint{
			Common:        entrypoints.Common{QoS: message.AtLeastOnce, Via: "orders", Fallback: "spare"},
			Reading:       entrypoints.Reading{From: "client"},
			MessagesLimit: 10, DurationLimit: caddy.Duration(2 * time.Minute), HeadersInPayload: true, MetadataInPayload: true,
		}},
		{name: "argument", text: "http_get orders", err: `"orders" is one too many`},
		{name: "unknown", text: "http_get {\n limit 1\n}", err: "unknown option \"limit\" in entrypoint http_get: use ack_wait, duration_limit, fallback, from, headers_in_payload, messages_limit, metadata_in_payload, qos, via, at Testfile:2"},
		{name: "twice", text: "http_get {\n via a\n via b\n}", err: "stands twice"},
		{name: "no limit", text: "http_get {\n messages_limit 0\n}", err: "not a whole number of at least 1"},
		{name: "no duration", text: "http_get {\n duration_limit 0s\n}", err: "duration_limit must be longer than 0"},
		{name: "bad duration", text: "http_get {\n duration_limit soon\n}", err: "is not a duration"},
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

func TestDefaultsAndBounds(t *testing.T) {
	e := provisioned(t, nil)
	if e.MessagesLimit != 500 || time.Duration(e.DurationLimit) != 5*time.Second || time.Duration(e.AckWait) != 30*time.Second {
		t.Errorf("%+v", e)
	}
	for _, e := range []*Entrypoint{
		{MessagesLimit: -1}, {MessagesLimit: 10_001}, {DurationLimit: -1}, {DurationLimit: caddy.Duration(time.Hour + 1)},
		{AckWait: -1}, {AckWait: caddy.Duration(10*time.Minute + 1)},
		{Reading: entrypoints.Reading{From: "2026-01-01T00:00:00Z"}},
	} {
		if err := errors.Join(e.Provision(caddy.Context{}), e.Validate()); err == nil {
			t.Errorf("%+v is taken", e)
		}
	}
}

func TestNeedsAndMatch(t *testing.T) {
	e := provisioned(t, func(e *Entrypoint) {
		e.QoS, e.Via, e.Fallback, e.From = message.AtMostOnce, "a", "b", "earliest"
	})
	n := e.Needs()
	if n.Hold != time.Duration(e.DurationLimit+e.AckWait) || n.Type != "http_get" || !n.Subscribe || n.Publish || !n.Resume || !n.Acks || n.QoS != message.AtMostOnce ||
		n.Via != "a" || n.Fallback != "b" || n.From != "earliest" || !slices.Equal(n.Levels, message.Levels[:]) {
		t.Errorf("%+v", n)
	}
	if !slices.Equal(e.Methods(), []string{"GET"}) {
		t.Errorf("%q", e.Methods())
	}
	for _, c := range []struct {
		method, upgrade string
		want            int
	}{{"GET", "", 1}, {"GET", "h2c", 1}, {"GET", "websocket", 0}, {"HEAD", "", 0}, {"POST", "", 0}} {
		r := httptest.NewRequest(c.method, "/", nil)
		r.Header.Set("Upgrade", c.upgrade)
		if got := e.Match(r); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

func TestNegotiate(t *testing.T) {
	const chrome = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"
	const firefox = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
	for _, c := range []struct {
		accept []string
		want   *format
	}{
		{nil, jsonFormat},
		{[]string{""}, jsonFormat},
		{[]string{"*/*"}, jsonFormat},
		{[]string{"application/json"}, jsonFormat},
		{[]string{chrome}, jsonFormat},
		{[]string{firefox}, jsonFormat},
		{[]string{"application/json, text/plain, */*"}, jsonFormat}, // axios
		{[]string{"application/*"}, jsonFormat},
		{[]string{"application/json, application/xml"}, jsonFormat},
		{[]string{"application/json;q=0.5, application/xml;q=0.4"}, jsonFormat},
		{[]string{"application/xml"}, xmlFormat},
		{[]string{"application/json;q=0.5, application/xml"}, xmlFormat},
		{[]string{"application/json;q=0.5", "application/xml"}, xmlFormat},
		{[]string{"application/xml, */*"}, xmlFormat},
		{[]string{"*/*;q=0.1, application/xml;q=0.2"}, xmlFormat},
		{[]string{"text/html, application/xml;q=0.9"}, xmlFormat}, // JSON is not acceptable
		{[]string{"application/json;q=0, */*"}, xmlFormat},
		{[]string{"text/plain"}, textFormat},
		{[]string{"text/*"}, textFormat},
		{[]string{"text/plain, */*;q=0.8"}, textFormat},
		{[]string{"text/plain;q=0.9, application/xml;q=0.8"}, textFormat},
		{[]string{"text/plain;charset=utf-8"}, textFormat},
		{[]string{"text/event-stream"}, nil},
		{[]string{"image/png, */*;q=0"}, nil},
		{[]string{"application/json;q=0"}, nil},
		{[]string{"nonsense"}, jsonFormat}, // sloppy headers are served
	} {
		got, ok := negotiate(c.accept)
		if ok != (c.want != nil) || ok && got != c.want {
			t.Errorf("%q: %+v", c.accept, got)
		}
	}
}

func TestParseAsk(t *testing.T) {
	e := provisioned(t, nil)
	for _, c := range []struct {
		query, slug string
		want        ask
	}{
		{query: "", want: ask{limit: 500}},
		{query: "limit=1", want: ask{limit: 1, limited: true}},
		{query: "limit=500&other=1&other=2", want: ask{limit: 500, limited: true}},
		{query: "limit=1000000000000", want: ask{limit: 500, limited: true}},
		{query: "limit=9223372036854775807", want: ask{limit: 500, limited: true}},
		{query: "cursor=abc&from=latest", want: ask{limit: 500, cursor: "abc", resuming: true, from: "latest"}},
		{query: "cursor=&from=", want: ask{limit: 500}},
		{query: "limit=9223372036854775808", slug: "bad-limit"},
		{query: "limit=0", slug: "bad-limit"},
		{query: "limit=-1", slug: "bad-limit"},
		{query: "limit=x", slug: "bad-limit"},
		{query: "limit=", slug: "bad-limit"},
		{query: "limit=%2B5", slug: "bad-limit"},
		{query: "limit=+5", slug: "bad-limit"},
		{query: "limit=1.5", slug: "bad-limit"},
		{query: "limit=1e3", slug: "bad-limit"},
		{query: "limit=1&limit=2", slug: "bad-query"},
		{query: "cursor=a&cursor=a", slug: "bad-query"},
		{query: "from=a&from=a", slug: "bad-query"},
		{query: "cursor=%zz", slug: "bad-query"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.RawQuery = c.query
		got, err := e.parseAsk(r)
		if c.slug != "" {
			if p := entrypoints.AsProblem(err); err == nil || p.Slug != c.slug || p.Status != 400 {
				t.Errorf("%q: %v", c.query, err)
			}
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("%q: %+v, %v", c.query, got, err)
		}
	}
}
