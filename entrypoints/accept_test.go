package entrypoints_test

import (
	"net/http/httptest"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
)

func TestAcceptMatch(t *testing.T) {
	const sse = "text/event-stream"
	for _, c := range []struct {
		headers  []string
		quality  int
		specific int
	}{
		{nil, 1000, entrypoints.MatchAny},
		{[]string{""}, 1000, entrypoints.MatchAny},
		{[]string{sse}, 1000, entrypoints.MatchNamed},
		{[]string{"Text/Event-Stream ; Q=0.25"}, 250, entrypoints.MatchNamed},
		{[]string{"text/event-stream;q=0"}, 0, entrypoints.MatchNamed},
		{[]string{"*/*, text/event-stream;q=0"}, 0, entrypoints.MatchNamed},
		{[]string{"*/*;q=0.1, text/*;q=0.9"}, 900, entrypoints.MatchType},
		{[]string{"application/json", "text/event-stream;q=0.5"}, 500, entrypoints.MatchNamed},
		{[]string{`application/json;a="x,text/event-stream;\""`}, 0, entrypoints.MatchNone},
		{[]string{`text/event-stream;a="q=0;,";q=0.3`}, 300, entrypoints.MatchNamed},
		{[]string{"text/event-stream;charset=utf-8"}, 1000, entrypoints.MatchNamed},
		{[]string{"application/json"}, 0, entrypoints.MatchNone},
		// What can't be read is left out.
		{[]string{"nonsense, text/event-stream;q=2, ;;, */json, a b/c, text/event-stream;q=0.1234"}, 1000, entrypoints.MatchAny},
		{[]string{"text/event-stream;q=, text/event-stream;q=1.001, text/*;q=0.001"}, 1, entrypoints.MatchType},
		{[]string{"text/event-stream;q=0.2, text/event-stream;q=0.8"}, 800, entrypoints.MatchNamed},
	} {
		quality, specific := entrypoints.ParseAccept(c.headers).Match(sse)
		if quality != c.quality || specific != c.specific {
			t.Errorf("%q: quality %d specificity %d, want %d and %d", c.headers, quality, specific, c.quality, c.specific)
		}
	}
}

func FuzzParseAccept(f *testing.F) {
	f.Add(`text/html, application/xml;q=0.9, */*;q=0.8`)
	f.Add(`a/b;c="\`)
	f.Fuzz(func(t *testing.T, header string) {
		for _, m := range entrypoints.ParseAccept([]string{header}) {
			if m.Quality < 0 || m.Quality > 1000 || m.Type == "" || m.Subtype == "" {
				t.Errorf("%q yields %+v", header, m)
			}
		}
	})
}

func TestIsWebSocket(t *testing.T) {
	for _, c := range []struct {
		upgrade string
		want    bool
	}{{"", false}, {"websocket", true}, {"h2c", false}, {"h2c, WebSocket", true}} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Upgrade", c.upgrade)
		if got := entrypoints.IsWebSocket(r); got != c.want {
			t.Errorf("Upgrade %q: %t", c.upgrade, got)
		}
	}
}

func TestQuery(t *testing.T) {
	q, err := entrypoints.ParseQuery(httptest.NewRequest("GET", "/?a=1&b=x&b=y&c=", nil))
	if err != nil {
		t.Fatal(err)
	}
	if v, given, err := q.Get("a"); v != "1" || !given || err != nil {
		t.Errorf("a: %q %t %v", v, given, err)
	}
	if v, given, err := q.Get("c"); v != "" || !given || err != nil {
		t.Errorf("c: %q %t %v", v, given, err)
	}
	if _, given, err := q.Get("d"); given || err != nil {
		t.Errorf("d: %t %v", given, err)
	}
	if _, _, err := q.Get("b"); entrypoints.AsProblem(err).Status != 400 {
		t.Errorf("a repeated parameter: %v", err)
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.URL.RawQuery = "cursor=%zz"
	if _, err := entrypoints.ParseQuery(r); entrypoints.AsProblem(err).Slug != "bad-query" {
		t.Errorf("a query that can't be read: %v", err)
	}
}
