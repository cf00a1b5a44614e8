package cli_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// got is a POST as the server saw it.
type got struct {
	header http.Header
	body   string
}

// postServer answers POSTs one after the other with the answers, the last one for ever, and
// keeps what it got.
type postServer struct {
	*httptest.Server
	mu   sync.Mutex
	gots []got
}

func newPostServer(t *testing.T, answers ...http.HandlerFunc) *postServer {
	t.Helper()
	s := new(postServer)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != http.MethodPost {
			http.Error(w, "no POST", http.StatusTeapot)
			return
		}
		s.mu.Lock()
		s.gots = append(s.gots, got{r.Header.Clone(), string(body)})
		answer := answers[min(len(s.gots), len(answers))-1]
		s.mu.Unlock()
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *postServer) seen() []got {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]got(nil), s.gots...)
}

// items answers with one item per line of a batch, made by f of its number and content.
func items(status int, f func(i int, content string) string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var list []string
		for i, line := range strings.Split(strings.TrimSuffix(string(body), "\n"), "\n") {
			var m struct{ Content string }
			if json.Unmarshal([]byte(line), &m) != nil {
				m.Content = line
			}
			list = append(list, f(i, m.Content))
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"items":[%s]}`, strings.Join(list, ","))
	}
}

func stored(_ int, content string) string {
	return fmt.Sprintf(`{"status":202,"id":%q}`, "id-"+content)
}

func refuse(status int, slug, detail string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]any{
			"type": "urn:message-api:problem:" + slug, "title": http.StatusText(status), "status": status, "detail": detail,
		})
	}
}

func TestPublishOne(t *testing.T) {
	s := newPostServer(t, items(202, stored))
	if out := ok(t, "publish", s.URL+"/orders", "-m", "hello", "-H", "X-A: b"); out != "published id-hello\n" {
		t.Errorf("printed %q", out)
	}
	g := s.seen()[0]
	if g.body != "hello" || g.header.Get("X-A") != "b" || g.header.Get("Prefer") != "return=representation" ||
		g.header.Get("Content-Length") != "5" || g.header.Get("Content-Type") != "" {
		t.Errorf("sent %+v", g)
	}
	file := filepath.Join(t.TempDir(), "m")
	if err := os.WriteFile(file, []byte("from a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := ok(t, "publish", s.URL, file, "--quiet"); out != "" {
		t.Errorf("printed %q", out)
	}
	if r := (call{args: []string{"publish", s.URL, "--json"}, stdin: "from stdin"}).run(t); r.out != `{"status":202,"id":"id-from stdin"}`+"\n" {
		t.Errorf("printed %+v", r)
	}
	ok(t, "publish", s.URL, "-m", "")
	for i, want := range []string{"hello", "from a file\n", "from stdin", ""} {
		if got := s.seen()[i].body; got != want {
			t.Errorf("message %d was %q, want %q", i, got, want)
		}
	}
}

func TestPublishWithKeyAndHeaders(t *testing.T) {
	s := newPostServer(t, items(202, stored))
	ok(t, "publish", s.URL, "-m", "a\nb", "--key", "k", "--message-header", "trace: 1", "--message-header", "trace: 2")
	g := s.seen()[0]
	if g.header.Get("Content-Type") != "application/x-ndjson" ||
		g.body != `{"key":"k","content":"a\nb","headers":{"trace":["1","2"]}}`+"\n" {
		t.Errorf("sent %+v", g)
	}
	ok(t, "publish", s.URL, "-m", "\xff", "--key", "k")
	if got := s.seen()[1].body; got != `{"key":"k","content":"/w==","encoding":"base64"}`+"\n" {
		t.Errorf("sent %s", got)
	}
}

func TestPublishCredentials(t *testing.T) {
	s := newPostServer(t, items(202, stored))
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("cma_file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		args         []string
		env          map[string]string
		header, want string
	}{
		{nil, nil, "Authorization", ""},
		{[]string{"--api-key", "cma_flag"}, map[string]string{"MESSAGE_API_TOKEN": "x"}, "X-Gravitee-Api-Key", "cma_flag"},
		{[]string{"--api-key-file", file, "--api-key-header", "X-Key"}, nil, "X-Key", "cma_file"},
		{nil, map[string]string{"MESSAGE_API_KEY": "cma_env"}, "X-Gravitee-Api-Key", "cma_env"},
		{[]string{"--token", "t"}, map[string]string{"MESSAGE_API_KEY": "cma_env"}, "Authorization", "Bearer t"},
		{nil, map[string]string{"MESSAGE_API_TOKEN": "env"}, "Authorization", "Bearer env"},
	} {
		r := call{args: append([]string{"publish", s.URL, "-m", "x"}, c.args...), env: c.env}.run(t)
		if r.failed != nil {
			t.Fatal(r.err)
		}
		h := s.seen()[i].header
		if got := h.Get(c.header); got != c.want {
			t.Errorf("%v %v: %s is %q, want %q", c.args, c.env, c.header, got, c.want)
		}
		if h.Get("Authorization") != "" && h.Get("X-Gravitee-Api-Key") != "" {
			t.Errorf("%v %v: two credentials", c.args, c.env)
		}
	}
}

// What the user did wrong is told before anything is sent, and no secret is repeated.
func TestPublishRefusesInput(t *testing.T) {
	s := newPostServer(t, items(202, stored))
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte(" \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-m", "x", "file"}, "--message and the file file: give one of them"},
		{[]string{"-H", "s3cret"}, "--header takes 'Name: value'"},
		{[]string{"--api-key", "s3cret", "--token", "s3cret"}, "--api-key and --token are two credentials: give one of them"},
		{[]string{"--api-key", "s3 cret"}, "characters that no header can carry"},
		{[]string{"--api-key-file", empty}, "holds no credential"},
		{[]string{"--api-key-file", empty, "--api-key", "s3cret"}, "--api-key and --api-key-file: give one of them"},
		{[]string{"--api-key-file", "/nowhere"}, "--api-key-file: open /nowhere"},
		{[]string{"--ca-file", empty}, "holds no certificate"},
		{[]string{"--message-header", "x"}, "write 'name: value'"},
		{[]string{"/nowhere"}, "open /nowhere"},
		{[]string{"a", "b"}, "3 arguments are too few or too many: caddy message-api publish <url> [<file>]"},
		{[]string{"--nonsense"}, "unknown flag"},
	} {
		got := refused(t, append([]string{"publish", s.URL + "?api-key=s3cret"}, c.args...)...)
		if !strings.Contains(got, c.want) || strings.Contains(got, "s3cret") || strings.Contains(got, "s3 cret") {
			t.Errorf("%v: %s, want %q", c.args, got, c.want)
		}
	}
	for url, want := range map[string]string{
		"ftp://x/y?k=s3cret": "begins with http:// or https://", "http:///y?k=s3cret": "names no host", "http://[?k=s3cret": "can't be read",
	} {
		if got := refused(t, "publish", url, "-m", "x"); !strings.Contains(got, want) || strings.Contains(got, "s3cret") {
			t.Errorf("%s: %s", url, got)
		}
	}
	if n := len(s.seen()); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}

func TestPublishTellsProblems(t *testing.T) {
	for _, c := range []struct {
		answer http.HandlerFunc
		want   string
	}{
		{refuse(401, "unauthorized", "the credential is unknown"), "Error: unauthorized (401): the credential is unknown\n"},
		{refuse(413, "too-large", "more than 1 MiB\x1b[2J"), "Error: too-large (413): more than 1 MiB\ufffd[2J\n"},
		{refuse(503, "capability-mismatch", "no", "Retry-After", "3600"), "Error: capability-mismatch (503): no\n"},
		{items(207, func(int, string) string {
			return `{"status":400,"type":"urn:message-api:problem:bad-line","detail":"no"}`
		}), "message 1: bad-line (400): no\nError: 1 of 1 messages were not published\n"},
		{func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://elsewhere/?secret", http.StatusTemporaryRedirect)
		}, "Error: the answer is a redirect to http://elsewhere/: use that URL, if you trust it with your credential\n"},
		{func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no such page", 404) }, "Error: Not Found (404): no such page\n"},
	} {
		s := newPostServer(t, c.answer)
		if got := refused(t, "publish", s.URL, "-m", "x"); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
		if n := len(s.seen()); n != 1 {
			t.Errorf("%q: %d requests", c.want, n)
		}
	}
	s := newPostServer(t, items(202, stored))
	s.Close()
	if got := refused(t, "publish", s.URL+"/x?api-key=s3cret", "-m", "x"); !strings.Contains(got, "connection refused") || strings.Contains(got, "s3cret") || strings.Contains(got, "may be stored") {
		t.Error(got)
	}
}

// A gateway that is busy has not published: the same is sent again, when it says.
func TestPublishTriesAgain(t *testing.T) {
	t.Parallel()
	s := newPostServer(t, refuse(429, "busy", "too fast", "Retry-After", "1"), items(202, stored))
	r := call{args: []string{"publish", s.URL, "-m", "x"}}.run(t)
	if r.failed != nil || r.out != "published id-x\n" || r.err != "busy (429): too fast; trying again in 1s\n" {
		t.Errorf("%+v", r)
	}
	if g := s.seen(); len(g) != 2 || g[0].body != "x" || g[1].body != "x" {
		t.Errorf("sent %+v", g)
	}
	// The standard input is gone when it was read.
	s = newPostServer(t, refuse(429, "busy", "too fast", "Retry-After", "1"), items(202, stored))
	if r := (call{args: []string{"publish", s.URL}, stdin: "x"}).run(t); r.failed == nil || len(s.seen()) != 1 {
		t.Errorf("%+v after %d requests", r, len(s.seen()))
	}
}

func TestPublishTimeout(t *testing.T) {
	release := make(chan struct{})
	s := newPostServer(t, func(http.ResponseWriter, *http.Request) { <-release })
	defer close(release)
	got := refused(t, "publish", s.URL, "-m", "x", "--timeout", "50ms")
	if !strings.Contains(got, "no answer within --timeout") || !strings.Contains(got, "sending it again may store it twice") {
		t.Error(got)
	}
}
