package cli_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/admin"
	"github.com/caddy-message-api/caddy-message-api/cli"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// site serves a channel that delivers what is published to it, and a history.
const site = `
http://localhost:PORT, https://localhost:TLSPORT {
	message_api /Play/Ground {
		description GENERATION
		entrypoint http_get {
			duration_limit 200ms
		}
		entrypoint http_post
		entrypoint sse {
			headers_as_comment
		}
		entrypoint websocket
		endpoint mock {
			loopback
		}
		plan keyless
	}
	message_api /ticks {
		entrypoint http_get {
			from client
			duration_limit 200ms
		}
		entrypoint sse {
			from client
			rotate 1s
		}
		entrypoint websocket {
			from client
		}
		endpoint mock {
			message_interval 1ms
			message_count 3000
		}
		plan keyless
	}
	message_api /sockets {
		entrypoint websocket
		endpoint mock {
			message_interval 1ms
		}
		plan keyless
	}
	message_api /pages {
		entrypoint http_get {
			duration_limit 100ms
		}
		endpoint mock {
			message_interval 1ms
		}
		plan keyless
	}
	message_api /jobs {
		entrypoint websocket {
			qos at_least_once
			from earliest
		}
		endpoint mock {
			message_interval 1ms
		}
		plan keyless
	}
	message_api / {
		entrypoint http_post
		endpoint mock
		plan keyless
	}
}
`

func start(t *testing.T) *gateway.Gateway {
	t.Helper()
	return gateway.Start(t, "", strings.Replace(site, "GENERATION", "one", 1))
}

// prime publishes until all have printed something: a session can be open before its
// subscription is.
func prime(t *testing.T, url, text string, readers ...*process) {
	t.Helper()
	gateway.Eventually(t, 20*time.Second, "readers of "+url, func() bool {
		ok(t, "publish", url, "-q", "-m", text)
		return !slices.ContainsFunc(readers, func(p *process) bool { return !strings.Contains(p.out.String(), text) })
	})
}

// opened is the id of the session by that entrypoint, when there is one.
func opened(t *testing.T, g *gateway.Gateway, entrypoint string) (id uint64) {
	t.Helper()
	gateway.Eventually(t, 20*time.Second, "a session by "+entrypoint, func() bool {
		var page admin.Page[admin.Session]
		g.Admin(http.MethodGet, "/message_api/sessions", &page)
		for _, s := range page.Items {
			if s.Entrypoint == entrypoint {
				id = s.ID
			}
		}
		return id != 0
	})
	return id
}

func TestGatewayPublishAndTail(t *testing.T) {
	g := start(t)
	url := g.URL("/play/ground")
	sse := call{args: []string{"tail", url}}.start(t)
	socket := call{args: []string{"tail", url, "--websocket", "--json"}}.start(t)
	prime(t, url, "primer", sse, socket)
	if out := ok(t, "publish", url, "-m", "one"); !strings.HasPrefix(out, "published") {
		t.Errorf("printed %q", out)
	}
	if r := (call{args: []string{"publish", url, "--lines"}, stdin: "two\n\xff\n"}).run(t); r.out != "published 2 messages\n" || r.failed != nil {
		t.Errorf("%+v", r)
	}
	ok(t, "publish", url, "-m", "three", "--message-header", "trace: a1", "--key", "k", "-q")
	sse.sees(t, sse.out, "three")
	if r := sse.interrupt(t); r.failed != nil || strings.ReplaceAll(r.out, "primer\n", "") != "one\ntwo\n\xff\nthree\n" || r.err != "" {
		t.Errorf("%+v", r)
	}
	socket.sees(t, socket.out, "three")
	r := socket.interrupt(t)
	if r.failed != nil || r.err != "" || !strings.Contains(r.out, `"content":"/w==","encoding":"base64"`) || !strings.Contains(r.out, `"trace":["a1"]`) {
		t.Errorf("%+v", r)
	}
}

func TestGatewayTLS(t *testing.T) {
	g := start(t)
	g.CA() // waits for the certificate
	var ca struct {
		Root string `json:"root_certificate"`
	}
	g.Admin(http.MethodGet, "/pki/ca/local", &ca)
	root := filepath.Join(t.TempDir(), "root.crt")
	if err := os.WriteFile(root, []byte(ca.Root), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, how := range []string{"--sse", "--websocket", "--get"} {
		got := refused(t, "tail", g.TLS("/ticks"), how)
		if !strings.Contains(got, "certificate signed by unknown authority") {
			t.Errorf("%s: %s", how, got)
		}
		if r := (call{args: []string{"tail", g.TLS("/ticks"), how, "--ca-file", root, "-n", "2"}}).run(t); r.failed != nil || strings.Count(r.out, "\n") != 2 {
			t.Errorf("%s: %+v", how, r)
		}
	}
}

// All three ways read a history of 2,500 messages whole and in order, side by side, the event
// stream over at least two connections, because each lives for two seconds at most. With -short
// there are so few messages that one is enough: to come back takes up to five seconds.
func TestGatewayReadsAll(t *testing.T) {
	count := 2500
	if testing.Short() {
		count = 500
	}
	g := start(t)
	var first string
	ways := []string{"--websocket", "--sse", "--get"}
	running := make(map[string]*process)
	for _, how := range ways {
		running[how] = call{args: []string{"tail", g.URL("/ticks"), how, "--json", "-n", fmt.Sprint(count)}}.start(t)
	}
	for _, how := range ways {
		r := running[how].wait(t)
		if r.failed != nil || strings.Count(r.out, "\n") != count || strings.Contains(r.out, `"gap"`) {
			t.Fatalf("%s: %d lines, %s, %v", how, strings.Count(r.out, "\n"), r.err, r.failed)
		}
		if how == "--sse" && !testing.Short() && !strings.Contains(r.err, "the gateway ended the session (rotate)") {
			t.Errorf("one stream of %s", r.err)
		}
		cursors := make(map[string]bool)
		for line := range strings.Lines(r.out) {
			var e struct{ Cursor string }
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err)
			}
			if how != "--get" { // there a page has one
				cursors[e.Cursor] = true
			}
		}
		if how != "--get" && len(cursors) != count {
			t.Errorf("%s: %d different messages", how, len(cursors))
		}
		if first == "" {
			first = strings.SplitN(r.out, "\n", 2)[0]
		}
	}
	var e struct{ Cursor string }
	if err := json.Unmarshal([]byte(first), &e); err != nil || e.Cursor == "" {
		t.Fatal(first, err)
	}
	if out := ok(t, "tail", g.URL("/ticks"), "--cursor", e.Cursor, "-n", "1"); out != "mock message\n" {
		t.Errorf("%q", out)
	}
	if out := ok(t, "tail", g.URL("/ticks"), "--from", "earliest", "--get", "-n", "1"); out != "mock message\n" {
		t.Errorf("%q", out)
	}
	if got := refused(t, "tail", g.URL("/ticks"), "--cursor", "nonsense"); !strings.Contains(got, "bad-input (400)") {
		t.Error(got)
	}
}

// An API is read by what it has.
func TestGatewayFindsAWay(t *testing.T) {
	g := start(t)
	for _, path := range []string{"/sockets", "/pages"} {
		if r := (call{args: []string{"tail", g.URL(path), "-n", "2"}}).run(t); r.failed != nil || r.out != "mock message\nmock message\n" {
			t.Errorf("%s: %+v", path, r)
		}
	}
	if got := refused(t, "tail", g.URL("/")); !strings.Contains(got, "method-not-allowed (405)") {
		t.Error(got)
	}
	if got := refused(t, "publish", g.URL("/pages"), "-m", "x"); !strings.Contains(got, "method-not-allowed (405)") {
		t.Error(got)
	}
}

// What was printed was acknowledged: a client that comes back gets what follows.
func TestGatewayAcknowledges(t *testing.T) {
	g := start(t)
	seen := make(map[string]int)
	for range 3 {
		out := ok(t, "tail", g.URL("/jobs"), "--websocket", "--json", "-n", "50", "-H", "X-Gravitee-Client-Identifier: job-7")
		for line := range strings.Lines(out) {
			var e struct{ ID string }
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err)
			}
			seen[e.ID]++
		}
	}
	for n := range 150 {
		if seen[fmt.Sprint(n)] != 1 {
			t.Fatalf("message %d was printed %d times, of %v", n, seen[fmt.Sprint(n)], seen)
		}
	}
}

// A reload with another definition ends the session, and tail comes back to the new one.
func TestGatewayReload(t *testing.T) {
	g := start(t)
	url := g.URL("/play/ground")
	p := call{args: []string{"tail", url}}.start(t)
	prime(t, url, "one", p)
	if err := g.Load("", strings.Replace(site, "GENERATION", "two", 1)); err != nil {
		t.Fatal(err)
	}
	p.sees(t, p.err, "the gateway ended the session (api_changed)")
	p.sees(t, p.err, "gap (unresumable)")
	prime(t, url, "two", p)
	if r := p.interrupt(t); r.failed != nil {
		t.Errorf("%+v", r)
	}
}

// An operator's end is final.
func TestGatewayEndedByOperator(t *testing.T) {
	g := start(t)
	for _, how := range []string{"sse", "websocket"} {
		p := call{args: []string{"tail", g.URL("/play/ground"), "--" + how}}.start(t)
		id := opened(t, g, how)
		if status := g.Admin(http.MethodDelete, fmt.Sprint("/message_api/sessions/", id), nil); status != http.StatusNoContent {
			t.Fatalf("%d for session %d", status, id)
		}
		if r := p.wait(t); r.failed == nil || !strings.Contains(r.err, "Error: the gateway ended the session (operator)") {
			t.Errorf("%+v", r)
		}
	}
}

// The id under which a definition is saved is the one that the gateway gives it.
func TestGatewayIDs(t *testing.T) {
	g := start(t)
	var answer json.RawMessage
	g.Admin(http.MethodGet, "/message_api/apis", &answer)
	for path, want := range map[string]string{"/Play/Ground": "play-ground", "/ticks": "ticks", "/": "root"} {
		got, err := cli.IDOf(fmt.Appendf(nil, `{"paths":[%q]}`, path))
		if err != nil || got != want || !strings.Contains(string(answer), fmt.Sprintf(`"id":%q`, want)) {
			t.Errorf("%s: %q, %v, want %q in %s", path, got, err, want, answer)
		}
	}
}
