package e2e

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

const playground = `
	entrypoint http_get {
		duration_limit 300ms
	}
	entrypoint http_post
	entrypoint sse
	entrypoint websocket
	endpoint mock {
		loopback
	}
	plan keyless
`

func site(apis ...string) string {
	return "http://localhost:PORT {\n" + strings.Join(apis, "\n") + "\n}\n"
}

// siteTLS serves the APIs on the plain and on the encrypted port.
func siteTLS(apis ...string) string {
	return strings.Replace(site(apis...), "http://localhost:PORT", "http://localhost:PORT, https://localhost:TLSPORT", 1)
}

func api(args, block string) string { return "message_api " + args + " {\n" + block + "\n}" }

var uuidPattern = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// The ids of an exchange: made, or taken from header or query, the header first; the
// client identifier is only ever appended to, and only by header.
func TestIdentity(t *testing.T) {
	g := gateway.Start(t, "", site(api("/p", playground)))
	const rid, tid, cid = "X-Gravitee-Request-Id", "X-Gravitee-Transaction-Id", "X-Gravitee-Client-Identifier"
	inferred := gateway.Do(t, http.DefaultClient, "POST", g.URL("/p"), "x").Header.Get(cid)
	if !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(inferred) {
		t.Fatalf("inferred identifier %q is no SHA-256", inferred)
	}
	for name, tc := range map[string]struct {
		query             string
		headers           []string
		rid, tid, cid     string
		status            int
		freshRID, freshID bool
	}{
		"made":                    {status: 202, freshRID: true, freshID: true, cid: inferred},
		"by header":               {headers: []string{rid, "r1", tid, "t1"}, status: 202, rid: "r1", tid: "t1", cid: inferred},
		"by query":                {query: "?" + rid + "=r2&" + tid + "=t2", status: 202, rid: "r2", tid: "t2", cid: inferred},
		"query in any case":       {query: "?x-gravitee-request-id=r2", status: 202, rid: "r2", freshID: true, cid: inferred},
		"header first":            {query: "?" + rid + "=r2", headers: []string{rid, "r1"}, status: 202, rid: "r1", freshID: true, cid: inferred},
		"identifier appended":     {headers: []string{cid, "job-7"}, status: 202, freshRID: true, freshID: true, cid: inferred + "-job-7"},
		"identifier not by query": {query: "?" + cid + "=job-7", status: 202, freshRID: true, freshID: true, cid: inferred},
		"too long":                {headers: []string{rid, strings.Repeat("a", 129)}, status: 400},
		"longest":                 {headers: []string{rid, strings.Repeat("a", 128)}, status: 202, rid: strings.Repeat("a", 128), freshID: true, cid: inferred},
		"space inside":            {headers: []string{tid, "a b"}, status: 400},
		"not ASCII":               {headers: []string{cid, "jöb"}, status: 400},
		"empty":                   {headers: []string{cid, ""}, status: 400},
		"twice":                   {headers: []string{rid, "a", rid, "b"}, status: 400},
		"line break in query":     {query: "?" + rid + "=a%0d%0ab", status: 400},
	} {
		t.Run(name, func(t *testing.T) {
			a := gateway.Do(t, http.DefaultClient, "POST", g.URL("/p")+tc.query, "x", tc.headers...)
			if a.Status != tc.status {
				t.Fatalf("%d %s", a.Status, a.Body)
			}
			if tc.status == 400 {
				if slug, _ := a.Problem(t); slug != "bad-input" {
					t.Errorf("problem %s", slug)
				}
				return
			}
			check := func(header, want string, fresh bool) {
				got := a.Header.Get(header)
				if fresh && !uuidPattern.MatchString(got) || !fresh && got != want {
					t.Errorf("%s is %q, want %q", header, got, want)
				}
			}
			check(rid, tc.rid, tc.freshRID)
			check(tid, tc.tid, tc.freshID)
			check(cid, tc.cid, false)
		})
	}
}

func TestHeadersPrefix(t *testing.T) {
	g := gateway.Start(t, "message_api {\n headers_prefix X-Shop-\n}", site(api("/p", playground)))
	a := gateway.Do(t, http.DefaultClient, "POST", g.URL("/p"), "x", "X-Shop-Request-Id", "r1", "X-Gravitee-Request-Id", "r2")
	if a.Header.Get("X-Shop-Request-Id") != "r1" || a.Header.Get("X-Gravitee-Request-Id") != "" {
		t.Errorf("headers %v", a.Header)
	}
}

func TestPropagateIdentity(t *testing.T) {
	g := gateway.Start(t, "", site(api("/p", "propagate_identity\n"+strings.Replace(playground, "entrypoint sse", "entrypoint sse {\nheaders_as_comment\n}", 1))))
	ev := gateway.OpenEvents(t, g.Client(0), g.URL("/p"))
	gateway.Do(t, http.DefaultClient, "POST", g.URL("/p"), "x", "X-Gravitee-Request-Id", "r1", "X-Gravitee-Client-Identifier", "job")
	got := strings.Join(ev.MustMessage(t).Comments, "\n")
	if !strings.Contains(got, "X-Gravitee-Request-Id: r1") || !strings.Contains(got, "-job") {
		t.Errorf("comments %q", got)
	}
}

// A context path matches itself and what is below it, by whole segments; the longest wins.
func TestContextPaths(t *testing.T) {
	one := func(path, content string) string {
		return api(path, `
			entrypoint http_get {
				messages_limit 1
			}
			endpoint mock {
				message_interval 10ms
				message_content `+content+`
			}
			plan keyless`)
	}
	g := gateway.Start(t, "", site(one("/b /second", "outer"), one("/b/inner", "inner"), one("/", "root"), "respond /free 418"))
	for path, want := range map[string]string{
		"/b": "outer", "/b/": "outer", "/b/x/y": "outer", "/B": "outer", "//b//x": "outer", "/b/./z": "outer", "/second/1": "outer",
		"/b/inner": "inner", "/b/inner/z": "inner", "/b/innermost": "outer",
		"/bzz": "root", "/": "root", "/anything": "root",
	} {
		a := gateway.Do(t, http.DefaultClient, "GET", g.URL(path), "")
		if a.Status != 200 || !strings.Contains(a.Body, `"`+want+`"`) {
			t.Errorf("%s: %d %.80s, want %s", path, a.Status, a.Body, want)
		}
	}
}

func TestOtherHandlersStayReachable(t *testing.T) {
	g := gateway.Start(t, "", site("route {", api("/b", playground), "respond 418\n}"))
	for path, want := range map[string]int{"/": 418, "/bzz": 418, "/a": 418, "/b": 200} {
		if a := gateway.Do(t, http.DefaultClient, "GET", g.URL(path), ""); a.Status != want {
			t.Errorf("%s: %d", path, a.Status)
		}
	}
}

// Every refusal before the first byte is a problem with a stable type.
func TestProblems(t *testing.T) {
	g := gateway.Start(t, "", site(
		api("/p", playground),
		api("/get", "entrypoint http_get\nendpoint mock\nplan keyless"),
		api("/alo", "entrypoint sse {\nqos at_most_once\n}\nentrypoint websocket {\nqos at_least_once\n}\nendpoint mock\nplan keyless"),
		api("/pages", "errors caddy\n"+strings.Replace(playground, "duration_limit 300ms", "duration_limit 10ms", 1)),
		"handle_errors {\nrespond \"page for {err.status_code}\"\n}",
	))
	for name, tc := range map[string]struct {
		method, path string
		headers      []string
		body         string
		status       int
		slug         string
		header       string
	}{
		"method":                  {method: "DELETE", path: "/p", status: 405, slug: "method-not-allowed", header: "Allow"},
		"method of no entrypoint": {method: "POST", path: "/get", body: "x", status: 405, slug: "method-not-allowed", header: "Allow"},
		"accept":                  {method: "GET", path: "/p", headers: []string{"Accept", "image/png"}, status: 406, slug: "not-acceptable"},
		"limit 0":                 {method: "GET", path: "/p?limit=0", status: 400},
		"limit -1":                {method: "GET", path: "/p?limit=-1", status: 400},
		"limit x":                 {method: "GET", path: "/p?limit=x", status: 400},
		"limit beyond int64":      {method: "GET", path: "/p?limit=99999999999999999999", status: 400},
		"garbled cursor":          {method: "GET", path: "/get?cursor=%21%21", status: 400},
		"from not allowed":        {method: "GET", path: "/get?from=earliest", status: 400},
		"anonymous at_most_once":  {method: "GET", path: "/alo", headers: []string{"Accept", "text/event-stream"}, status: 400, slug: "identity-required"},
		"acks need the protocol": {method: "GET", path: "/alo", headers: []string{"Connection", "Upgrade", "Upgrade", "websocket",
			"Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}, status: 400},
		"foreign origin publishes": {method: "POST", path: "/p", headers: []string{"Origin", "https://evil.example"}, body: "x", status: 403, slug: "origin-refused"},
		"foreign origin socket": {method: "GET", path: "/p", headers: []string{"Origin", "https://evil.example", "Connection", "Upgrade", "Upgrade", "websocket",
			"Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}, status: 403, slug: "origin-refused"},
	} {
		t.Run(name, func(t *testing.T) {
			a := gateway.Do(t, http.DefaultClient, tc.method, g.URL(tc.path), tc.body, tc.headers...)
			if a.Status != tc.status {
				t.Fatalf("%d %s", a.Status, a.Body)
			}
			slug, detail := a.Problem(t)
			if tc.slug != "" && slug != tc.slug || detail == "" {
				t.Errorf("problem %s: %s", slug, detail)
			}
			if tc.header != "" && a.Header.Get(tc.header) == "" {
				t.Errorf("no %s in %v", tc.header, a.Header)
			}
		})
	}
	t.Run("limit 10^12 is the configured limit", func(t *testing.T) {
		if a := gateway.Do(t, http.DefaultClient, "GET", g.URL("/p?limit=1000000000000"), ""); a.Page(t).Pagination.Limit == "" {
			t.Errorf("%s", a.Body)
		}
	})
	t.Run("errors caddy", func(t *testing.T) {
		a := gateway.Do(t, http.DefaultClient, "DELETE", g.URL("/pages"), "")
		if a.Status != 405 || a.Body != "page for 405" || a.Header.Get("Allow") == "" {
			t.Errorf("%d %v %q", a.Status, a.Header, a.Body)
		}
	})
	t.Run("oversize body", func(t *testing.T) {
		a := gateway.Do(t, http.DefaultClient, "POST", g.URL("/p"), strings.Repeat("x", 1<<20+1))
		if slug, _ := a.Problem(t); a.Status != 413 || slug != "too-large" {
			t.Errorf("%d %s", a.Status, a.Body)
		}
	})
}

func TestCORS(t *testing.T) {
	g := gateway.Start(t, "", site(api("/p", "origins https://app.example.com\n"+playground)))
	a := gateway.Do(t, http.DefaultClient, "OPTIONS", g.URL("/p"), "", "Origin", "https://app.example.com",
		"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "content-type")
	if a.Status != 204 || a.Header.Get("Access-Control-Allow-Origin") != "https://app.example.com" ||
		!strings.Contains(a.Header.Get("Access-Control-Allow-Methods"), "POST") || a.Header.Get("Access-Control-Allow-Headers") != "content-type" {
		t.Errorf("preflight: %d %v", a.Status, a.Header)
	}
	a = gateway.Do(t, http.DefaultClient, "POST", g.URL("/p"), "x", "Origin", "https://app.example.com")
	if a.Status != 202 || a.Header.Get("Access-Control-Allow-Origin") != "https://app.example.com" {
		t.Errorf("allowed: %d %v", a.Status, a.Header)
	}
	a = gateway.Do(t, http.DefaultClient, "GET", g.URL("/p"), "", "Origin", "https://evil.example")
	if a.Status != 200 || a.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("a foreign page may read: %d %v", a.Status, a.Header)
	}
	a = gateway.Do(t, http.DefaultClient, "POST", g.URL("/p"), "x", "Origin", strings.TrimSuffix(g.URL(""), "/"))
	if a.Status != 202 {
		t.Errorf("the API's own origin: %d %s", a.Status, a.Body)
	}
}

func plainClient(t *testing.T) *http.Client {
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}
