package browser

import (
	"fmt"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// A page of another origin, which another port is, may use an API that names it, and no
// other: it can't read, it can't publish, and what it tried was not published.
func TestOrigins(t *testing.T) {
	chromium(t)
	folder := pages(t)
	allowed, foreign := gateway.FreePort(t), gateway.FreePort(t)
	origin := fmt.Sprintf("origins http://localhost:%d", allowed)
	g := gateway.Start(t, "", site("http://localhost:PORT", folder,
		playground("/own")+playground("/shared", origin)+playground("/all", "origins *"))+
		site(fmt.Sprintf("http://localhost:%d, http://localhost:%d", allowed, foreign), folder, ""))
	p := open(t, g.URL("/"))
	for _, page := range []struct {
		name string
		port int
		may  map[string]bool
	}{
		{"the API's own", g.Port, map[string]bool{"/own": true, "/shared": true, "/all": true}},
		{"the allowed", allowed, map[string]bool{"/shared": true, "/all": true}},
		{"a foreign", foreign, map[string]bool{"/all": true}},
	} {
		for _, path := range []string{"/own", "/shared", "/all"} {
			t.Run(page.name+path, func(t *testing.T) {
				p.t = t
				p.navigate(fmt.Sprintf("http://localhost:%d/", page.port))
				if page.may[path] {
					mayAll(t, g, p, path)
				} else {
					mayNothing(t, g, p, path)
				}
			})
		}
	}
	p.t = t
}

// mayAll uses an API in every way. The batch's content type makes the browser ask before.
func mayAll(t *testing.T, g *gateway.Gateway, p *page, path string) {
	t.Helper()
	p.do(fmt.Sprintf(`api = "localhost:%d%s"; w = watch("http://" + api); s = dial("ws://" + api)`, g.Port, path))
	for _, log := range []string{"w.log", "s.log"} {
		if got := await[event](p, log+".next()"); got.Type != "open" {
			t.Fatalf("%s: %+v", log, got)
		}
	}
	answer := await[map[string]any](p, `fetch("http://" + api, { method: "POST", body: '{"content":"asked before"}\n', headers: { "Content-Type": "application/x-ndjson" } })
		.then(async (r) => ({ status: r.status, body: await r.text(), id: r.headers.get("X-Gravitee-Request-Id") }))`)
	if answer["status"] != 202.0 || answer["id"] == nil {
		t.Fatalf("posting a batch: %v", answer)
	}
	for log, want := range map[string]string{"w.log": "message asked before", "s.log": "text asked before"} {
		if got := await[event](p, log+".next()"); got.what() != want {
			t.Errorf("%s: %+v", log, got)
		}
	}
	p.do(`w.source.close(); s.socket.close()`)
}

// mayNothing tries the same. Whether something was published is seen from outside.
func mayNothing(t *testing.T, g *gateway.Gateway, p *page, path string) {
	t.Helper()
	watching := gateway.OpenEvents(t, g.Client(0), g.URL(path))
	p.do(fmt.Sprintf(`api = "localhost:%d%s"; w = watch("http://" + api); s = dial("ws://" + api)`, g.Port, path))
	if got := await[event](p, "w.log.next()"); got.Type != "error" || got.State != 2 {
		t.Errorf("an EventSource: %+v", got)
	}
	if got := await[[]event](p, `s.log.until("close")`); got[0].Type != "error" || got[len(got)-1].Code != 1006 {
		t.Errorf("a WebSocket: %+v", got)
	}
	for what, script := range map[string]string{
		"a GET":                    `fetch("http://" + api + "?limit=1")`,
		"a POST":                   `fetch("http://" + api, { method: "POST", body: "read" })`,
		"a POST that is asked for": `fetch("http://" + api, { method: "POST", body: "{}", headers: { "Content-Type": "application/x-ndjson" } })`,
	} {
		if got := await[string](p, script+`.then((r) => "" + r.status, (e) => e.name)`); got != "TypeError" {
			t.Errorf("%s: %s", what, got)
		}
	}
	// Without CORS the browser sends it and shows nobody the answer, which is a 403.
	if got := await[string](p, `fetch("http://" + api, { method: "POST", body: "blind", mode: "no-cors" }).then((r) => r.type)`); got != "opaque" {
		t.Errorf("a blind POST: %s", got)
	}
	if a := gateway.Do(t, g.Client(0), "POST", g.URL(path), "end of the test"); a.Status != 202 {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	if got := watching.MustMessage(t); got.Data != "end of the test" {
		t.Errorf("%q was published", got.Data)
	}
	// Nobody waits here for the end of the EventSource's session: Chromium reads on for five
	// seconds in a response that the page may not see, before it hangs up.
}
