package examples

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// The two minutes of the README, command by command.
func TestReadmeTwoMinutes(t *testing.T) {
	g := serve(t, "quickstart", ":8080 {", ":PORT {")
	d := read(t, g, "README.md", "Two minutes")
	clock(t, g, d, "curl -i http://localhost:8080/qs-message-api", "curl 'http://localhost:8080/qs-message-api?limit=2'")

	watch := d.start("curl -N -H 'Accept: text/event-stream' http://localhost:8080/playground")
	watch.expect(commandTimeout, "retry: ")
	if a := d.answer("curl -i -d 'hello' http://localhost:8080/playground"); a.Status != 202 || a.Body != "" {
		t.Errorf("posting: %+v", a)
	}
	watch.expect(commandTimeout, "event: message\ndata: hello\n\n")

	a := d.answer(`printf '{"content":"a"}\n{"content":"b","key":"k"}\n{"content":"3q2+7w==","encoding":"base64"}\n' | ` +
		"curl -i -H 'Content-Type: application/x-ndjson' --data-binary @- http://localhost:8080/playground")
	if a.Status != 202 || strings.Count(a.Body, `"status":202`) != 3 {
		t.Errorf("the batch: %+v", a)
	}
	watch.expect(commandTimeout, "data: a\n\n")
	watch.expect(commandTimeout, "data: b\n\n")
	watch.expect(commandTimeout, "event: message-base64\ndata: 3q2+7w==\n\n")

	healthy(t, d.run("curl http://localhost:8080/healthz"), "qs-message-api", "playground")
}

// The example's own README says the same in its words.
func TestQuickStartReadme(t *testing.T) {
	g := serve(t, "quickstart", ":8080 {", ":PORT {")
	d := read(t, g, "examples/quickstart/README.md", "")
	clock(t, g, d, "curl -i http://localhost:8080/qs-message-api", "curl 'http://localhost:8080/qs-message-api?limit=2'")
	watch := d.start("curl -N -H 'Accept: text/event-stream' http://localhost:8080/playground")
	watch.expect(commandTimeout, "retry: ")
	if a := d.answer("curl -i -d hello http://localhost:8080/playground"); a.Status != 202 {
		t.Errorf("posting: %+v", a)
	}
	watch.expect(commandTimeout, "data: hello\n\n")
}

// clock runs the two GETs of the API that makes a message a second.
func clock(t *testing.T, g *gateway.Gateway, d *doc, all, two string) {
	t.Helper()
	began := time.Now()
	a := d.answer(all)
	page := a.Page(t)
	if took := time.Since(began); a.Header.Get("Content-Type") != "application/json" || len(page.Items) != 4 ||
		page.Items[0].Content != "mock message" || took < 4900*time.Millisecond {
		t.Errorf("after %s: %v %s", took, a.Header, a.Body)
	}
	page = gateway.Answer{Status: http.StatusOK, Body: d.run(two)}.Page(t)
	if len(page.Items) != 2 || page.Pagination.NextCursor == "" {
		t.Fatalf("with limit=2: %+v", page)
	}
	next := gateway.Do(t, g.Client(0), "GET", g.URL("/qs-message-api?limit=1&cursor="+page.Pagination.NextCursor), "").Page(t)
	if len(next.Items) != 1 || next.Items[0].ID != "2" || page.Items[1].ID != "1" {
		t.Errorf("the cursor leads from %+v to %+v", page, next)
	}
}

func healthy(t *testing.T, answer string, apis ...string) {
	t.Helper()
	for _, want := range append(apis, `"status":"ok"`) {
		if !strings.Contains(answer, want) {
			t.Errorf("the health check has no %s: %s", want, answer)
		}
	}
	if strings.Contains(answer, "failing") {
		t.Errorf("the health check: %s", answer)
	}
}

// The https example serves localhost with Caddy's own authority, on HTTP/2, and another
// name when it is given one.
func TestHTTPS(t *testing.T) {
	g := serve(t, "https")
	d := read(t, g, "examples/https/README.md", "")
	g.CA() // waits for the certificate
	d.env = trust(t, g)
	page := gateway.Answer{Status: http.StatusOK, Body: d.run("curl https://localhost/qs-message-api")}.Page(t)
	if len(page.Items) != 4 {
		t.Errorf("got %+v", page)
	}
	watch := d.start("curl -N -H 'Accept: text/event-stream' https://localhost/qs-message-api")
	watch.expect(commandTimeout, "event: message\ndata: mock message\n\n")
	if !strings.Contains(watch.stderr.String(), "< HTTP/2 200") {
		t.Errorf("the stream is not on HTTP/2: %s", &watch.stderr)
	}
	ws := gateway.OpenSocket(t, g, g.TLS("/qs-message-api"), nil)
	_ = ws.SetReadDeadline(time.Now().Add(commandTimeout))
	if _, payload, err := ws.ReadMessage(); err != nil || string(payload) != "mock message" {
		t.Errorf("by wss: %q, %v", payload, err)
	}
	_ = ws.Close()

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if a := gateway.Do(t, client, "GET", g.URL("/qs-message-api"), ""); a.Status != 308 || !strings.HasPrefix(a.Header.Get("Location"), "https://localhost") {
		t.Errorf("plain HTTP: %+v", a)
	}
}

func TestHTTPSWithAName(t *testing.T) {
	needCurl(t)
	t.Setenv("MESSAGE_API_HOST", "gw.localhost")
	g := serve(t, "https")
	env := trust(t, g)
	url := strings.Replace(g.TLS("/qs-message-api?limit=1"), "localhost", "gw.localhost", 1)
	gateway.Eventually(t, commandTimeout, "the certificate for gw.localhost", func() bool {
		r := start(t, "curl '"+url+"'", env...)
		err := <-r.ended
		return err == nil && strings.Contains(r.stdout.String(), `"mock message"`)
	})
}

// trust makes curl trust the gateway's authority and tell what it does.
func trust(t *testing.T, g *gateway.Gateway) []string {
	t.Helper()
	var ca struct {
		Root string `json:"root_certificate"`
	}
	g.Admin("GET", "/pki/ca/local", &ca)
	dir := t.TempDir()
	root := filepath.Join(dir, "root.crt")
	for path, text := range map[string]string{root: ca.Root, filepath.Join(dir, ".curlrc"): "verbose\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return []string{"CURL_CA_BUNDLE=" + root, "CURL_HOME=" + dir}
}
