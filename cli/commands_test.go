package cli_test

import (
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/admin"
	"github.com/caddy-message-api/caddy-message-api/cli"
)

var update = flag.Bool("update", false, "rewrite what is expected in testdata")

// testdata/commands.txt is a list of commands. What each prints follows it, then what went
// to standard error, after "!", and the requests to the admin API, after ">".
func TestCommands(t *testing.T) {
	const golden = "testdata/commands.txt"
	raw, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	f := newFakeAdmin(t)
	dir, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for line := range strings.Lines(string(raw)) {
		if strings.HasPrefix(line, "#") {
			got.WriteString(line)
			continue
		}
		text, isCommand := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "$ caddy message-api ")
		if !isCommand {
			continue
		}
		got.WriteString("\n" + line)
		args := append(words(text), "--address", f.URL)
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "DIR", dir)
		}
		r := call{args: args, stdin: `{"export":1}`}.run(t)
		got.WriteString(strings.ReplaceAll(r.out, dir, "DIR"))
		writePrefixed(&got, "! ", strings.ReplaceAll(r.err, dir, "DIR"))
		writePrefixed(&got, "> ", strings.Join(f.requests(), "\n"))
		if (r.failed != nil) != strings.HasPrefix(strings.TrimPrefix(r.err, "\n"), "Error:") {
			t.Errorf("%s: %v, and on stderr %q", text, r.failed, r.err)
		}
	}
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got.String() != string(raw) {
		t.Errorf("%s is not what the commands print; run the test with -update and look at the difference:\n%s", golden, firstDifference(string(raw), got.String()))
	}
}

func writePrefixed(b *strings.Builder, prefix, text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(b, "%s%s\n", prefix, strings.TrimSuffix(line, "\n"))
	}
}

func firstDifference(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("line %d\nwant %s\ngot  %s", i+1, a[i], b[i])
		}
	}
	return "one is longer"
}

// words splits a command line at blanks that are not between single quotes.
func words(text string) (list []string) {
	for i, part := range strings.Split(text, "'") {
		switch {
		case i%2 == 1:
			list = append(list, part)
		default:
			list = append(list, strings.Fields(part)...)
		}
	}
	return list
}

// Every command is in the golden file, and says what it is for.
func TestEveryCommandIsTested(t *testing.T) {
	raw, err := os.ReadFile("testdata/commands.txt")
	if err != nil {
		t.Fatal(err)
	}
	root := cli.NewCommand(nil, nil, false)
	n := 0
	for _, group := range root.Commands()[0].Commands() {
		leaves := group.Commands()
		if len(leaves) == 0 {
			leaves = append(leaves, group)
		}
		for _, cmd := range leaves {
			n++
			if cmd.Short == "" {
				t.Errorf("%s does not say what it is for", cmd.CommandPath())
			}
			if name := cmd.Name(); name == "publish" && cmd.Parent() == root.Commands()[0] || name == "tail" {
				continue // they have tests of their own
			}
			if !strings.Contains(string(raw), "\n$ "+cmd.CommandPath()) {
				t.Errorf("%s is not in testdata/commands.txt", cmd.CommandPath())
			}
		}
	}
	if n < 45 {
		t.Errorf("%d commands are too few", n)
	}
}

func TestGroupsTakeCommands(t *testing.T) {
	if got := refused(t, "nonsense"); got != "Error: unknown command \"nonsense\" for \"caddy message-api\": use apis, applications, dead-letters, deliveries, endpoints, keys, plans, publish, sessions, store, subscriptions, tail\n" {
		t.Error(got)
	}
	for _, args := range [][]string{nil, {"apis"}, {"apis", "save", "--help"}} {
		if out := ok(t, args...); !strings.Contains(out, "Usage:") || !strings.Contains(out, "--json") {
			t.Errorf("%q: %s", args, out)
		}
	}
}

func TestWhereTheAdminEndpointIs(t *testing.T) {
	f := newFakeAdmin(t)
	dir := t.TempDir()
	host := strings.TrimPrefix(f.URL, "http://")
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: f}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	for _, args := range [][]string{
		{"--address", host},
		{"--address", "unix/" + socket},
		{"--config", write("caddy.json", fmt.Sprintf(`{"admin":{"listen":%q}}`, host))},
		{"-c", write("x.conf", "{\n\tadmin "+host+"\n}\n"), "-a", "caddyfile"},
	} {
		if r := (call{args: append([]string{"sessions", "end", "17"}, args...)}).run(t); r.out != "ended session 17\n" {
			t.Errorf("%v: %+v", args, r)
		}
	}
	f.Close()
	if got := refused(t, "endpoints", "--address", host); !strings.Contains(got, "connection refused") {
		t.Error(got)
	}
	for want, args := range map[string][]string{
		"begins with https://":      {"--address", host, "--ca-file", "x"},
		"belong together":           {"--address", "https://" + host, "--client-cert", "x"},
		"--ca-file: open nowhere":   {"--address", "https://" + host, "--ca-file", "nowhere"},
		"finding the address":       {"--config", filepath.Join(dir, "nowhere.json")},
		"admin address \"http://\"": {"--address", "http://"},
	} {
		if got := refused(t, append([]string{"endpoints"}, args...)...); !strings.Contains(got, want) {
			t.Errorf("%v: %s", args, got)
		}
	}
}

// An admin endpoint that does not answer is waited for as long as --timeout says.
func TestSlowAdminEndpoint(t *testing.T) {
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer s.Close()
	defer close(release)
	got := refused(t, "endpoints", "--address", s.URL, "--timeout", "30ms")
	if !strings.Contains(got, "did not answer within --timeout (30ms)") {
		t.Error(got)
	}
}

// An admin endpoint on TLS with a certificate that the system does not know.
func TestAdminOverTLS(t *testing.T) {
	f := new(fakeAdmin)
	s := httptest.NewTLSServer(f)
	defer s.Close()
	if got := refused(t, "endpoints", "--address", s.URL); !strings.Contains(got, "certificate") {
		t.Error(got)
	}
	file := filepath.Join(t.TempDir(), "root.pem")
	if err := os.WriteFile(file, pemOf(s.Certificate().Raw), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := ok(t, "sessions", "end", "17", "--address", s.URL, "--ca-file", file); out != "ended session 17\n" {
		t.Error(out)
	}
}

func pemOf(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}) }

func TestExportToAFile(t *testing.T) {
	f := newFakeAdmin(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "export.json")
	if out := ok(t, "store", "export", file, "--address", f.URL); out != "" {
		t.Errorf("printed %q", out)
	}
	raw, err := os.ReadFile(file)
	info, statErr := os.Stat(file)
	if err != nil || statErr != nil || string(raw) != `{"export":1}`+"\n" || info.Mode().Perm() != 0o600 {
		t.Errorf("%q with mode %v: %v, %v", raw, info.Mode(), err, statErr)
	}
	// One that breaks off replaces nothing, and leaves nothing behind.
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"exp`)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	defer broken.Close()
	if got := refused(t, "store", "export", file, "--address", broken.URL); !strings.Contains(got, "broke off") {
		t.Error(got)
	}
	again, err := os.ReadFile(file)
	entries, dirErr := os.ReadDir(dir)
	if err != nil || dirErr != nil || string(again) != string(raw) || len(entries) != 1 {
		t.Errorf("%q, %v, %v, %v", again, entries, err, dirErr)
	}
	r := call{args: []string{"store", "export", "-", "--address", f.URL}, terminal: true}.run(t)
	if r.failed == nil || r.out != "" || !strings.Contains(r.err, "does not belong on a terminal") {
		t.Errorf("%+v", r)
	}
}

// A list that breaks off is no list.
func TestBrokenList(t *testing.T) {
	n := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n++; n > 1 {
			problem(w, &admin.ProblemDetails{Title: "Service Unavailable", Status: 503, Detail: "the store is not there"})
			return
		}
		_ = json.NewEncoder(w).Encode(admin.Page[admin.Application]{Items: []admin.Application{shop}, Next: "x"})
	}))
	defer s.Close()
	r := call{args: []string{"applications", "list", "--json", "--address", s.URL}}.run(t)
	if r.failed == nil || json.Valid([]byte(r.out)) || r.err != "Error: Service Unavailable: the store is not there\n" {
		t.Errorf("%+v", r)
	}
}
