package cli_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// managed serves what is saved at run time, and one API of the Caddyfile.
const managed = `
http://localhost:PORT {
	route {
		message_api /shop {
			entrypoint http_post
			entrypoint sse
			endpoint mock {
				loopback
			}
			plan api_key {
				validation auto
			}
			plan api_key gold {
				validation manual
			}
		}
		message_api
		respond "nothing here" 404
	}
}
`

// shell runs commands against the admin endpoint of a gateway.
type shell struct {
	*testing.T
	*gateway.Gateway
	dir string
}

func newShell(t *testing.T) *shell {
	t.Helper()
	return &shell{t, gateway.Start(t, "", managed), t.TempDir()}
}

func (s *shell) args(args []string) []string {
	return append(args, "--address", fmt.Sprintf("127.0.0.1:%d", s.AdminPort))
}

// do runs a command that must succeed, and returns what it printed.
func (s *shell) do(args ...string) string {
	s.Helper()
	r := call{args: s.args(args), clock: time.Now}.run(s.T)
	if r.failed != nil {
		s.Fatalf("%q: %s", args, r.err)
	}
	return r.out
}

func (s *shell) refused(args ...string) string {
	s.Helper()
	return refused(s.T, s.args(args)...)
}

// get decodes what a command prints as JSON.
func (s *shell) get(v any, args ...string) {
	s.Helper()
	if err := json.Unmarshal([]byte(s.do(append(args, "--json")...)), v); err != nil {
		s.Fatal(err)
	}
}

func (s *shell) file(name, text string) string {
	s.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.Fatal(err)
	}
	return path
}

func (s *shell) expect(got string, wants ...string) {
	s.Helper()
	for _, want := range wants {
		if !strings.Contains(got, want) {
			s.Errorf("%q is not in\n%s", want, got)
		}
	}
}

// The life of a managed API by commands alone: saved, deployed, read, stopped, deleted.
func TestManagedAPIByCommands(t *testing.T) {
	s := newShell(t)
	file := s.file("ticks", `message_api /ticks {
	entrypoint http_get {
		duration_limit 300ms
	}
	entrypoint websocket
	endpoint mock {
		message_interval 50ms
	}
	plan keyless
}
`)
	status := func(want int) {
		t.Helper()
		if a := gateway.Do(t, s.Client(0), http.MethodGet, s.URL("/ticks"), ""); a.Status != want {
			t.Errorf("%d %s, want %d", a.Status, a.Body, want)
		}
	}
	s.expect(s.do("apis", "save", file, "--dry-run"), "ticks is valid, with paths /ticks and plans keyless; nothing was saved")
	s.expect(s.refused("apis", "get", "ticks"), "Not Found")
	s.expect(s.do("apis", "save", file), "ticks", "saved", "out of sync")
	status(404)
	s.expect(s.refused("apis", "save", file, "--create"), "Error: Precondition Failed")
	s.expect(s.do("apis", "deploy", "ticks"), "started", "in sync")
	status(200)
	s.expect(s.do("apis", "list"), "ticks", "shop", "caddyfile")
	s.expect(s.do("endpoints"), "ticks  mock")

	tail := call{args: []string{"tail", s.URL("/ticks"), "--websocket"}}.start(t)
	tail.sees(t, tail.out, "mock message\n")
	s.expect(s.do("sessions", "list", "--api", "ticks"), "websocket")
	s.expect(s.do("apis", "stop", "ticks"), "stopped")
	if r := tail.wait(t); r.failed == nil || !strings.Contains(r.err, "the gateway ended the session (api_stopped)") {
		t.Errorf("%+v", r)
	}
	status(404)
	s.expect(s.refused("apis", "delete", "ticks"), "Error: Conflict")
	s.expect(s.do("plans", "delete", "ticks", "keyless"), "deleted plan keyless of API ticks")
	s.expect(s.do("apis", "delete", "ticks"), "deleted API ticks")
	s.expect(s.refused("apis", "get", "ticks"), "Not Found")
}

// Everything that is wrong with a definition is told, each with its place.
func TestManagedAPIErrors(t *testing.T) {
	s := newShell(t)
	file := s.file("bad.json", `{"paths":["no-slash"],"entrypoints":[{"type":"nonsense"}],"endpoints":[{"endpoint":{"type":"mock"}}],"plans":[{"plan":{"type":"nothing"}}]}`)
	s.expect(s.refused("apis", "save", "bad", file), "Error: ", "\n  entrypoints[0]", "\n  plans[0]")
	s.expect(s.refused("apis", "save", "shop", s.file("shop.json", `{"paths":["/shop"]}`)), "Error: Conflict", "Caddyfile")
	s.expect(s.refused("apis", "deploy", "shop"), "Error: Conflict", "Caddyfile")
	s.expect(s.refused("apis", "stop", "shop", "--if-match", "99"), "Error: Precondition Failed")
}

// What is fetched can be changed and saved again; a version that is old is not overwritten.
func TestDefinitionRoundTrip(t *testing.T) {
	s := newShell(t)
	s.do("apis", "save", s.file("a", "message_api /a {\n\tname one\n\tentrypoint sse\n\tendpoint mock\n\tplan keyless\n}"), "--deploy")
	var before struct{ ETag string }
	s.get(&before, "apis", "get", "a")
	definition := s.do("apis", "get", "a", "--definition")
	s.expect(s.do("apis", "save", "a", s.file("same.json", definition), "--if-match", before.ETag), "in sync")
	changed := s.file("changed.json", strings.Replace(definition, `"one"`, `"two"`, 1))
	s.expect(s.do("apis", "save", "a", changed, "--if-match", before.ETag), "out of sync")
	s.expect(s.refused("apis", "save", "a", changed, "--if-match", before.ETag), "Precondition Failed")
	s.expect(s.do("plans", "put", "a", "gold", s.file("gold", "plan api_key")), "gold", "api_key", "staging")
	s.expect(s.do("plans", "publish", "a", "gold"), "published")
	s.expect(s.do("apis", "deploy", "a"), "keyless,gold", "in sync")
	s.expect(s.do("plans", "deprecate", "a", "gold"), "deprecated")
	s.expect(s.do("plans", "close", "a", "gold"), "closed")
	s.expect(s.do("plans", "list", "a"), "keyless  keyless  published", "gold     api_key  closed")
	for _, action := range []string{"publish", "public", "private", "unpublish", "deprecate"} {
		s.do("apis", action, "a")
	}
	s.expect(s.do("apis", "members", "a", "ann", "group:sales"), "ann\ngroup:sales\n")
	s.expect(s.do("apis", "get", "a"), "deprecated", "Members:", "ann, group:sales")
}

// An application, a subscription, a key: and then the API can be used, until the key is
// revoked.
func TestSubscribeByCommands(t *testing.T) {
	s := newShell(t)
	url := s.URL("/shop")
	s.expect(refused(t, "tail", url), "unauthorized (401)")
	app := strings.TrimSpace(s.do("applications", "create", "Web shop", "--owner", "ann", "--quiet"))
	key := strings.TrimSpace(s.do("subscriptions", "create", "--api", "shop", "--plan", "api_key", "--application", app, "--quiet"))
	env := map[string]string{"MESSAGE_API_KEY": key}
	keyFile := s.file("key", key+"\n")

	reading := call{args: []string{"tail", url}, env: env}.start(t)
	gateway.Eventually(t, 20*time.Second, "a reader of /shop", func() bool {
		if r := (call{args: []string{"publish", url, "-m", "hello", "--api-key-file", keyFile, "-q"}}).run(t); r.failed != nil {
			t.Fatal(r.err)
		}
		return strings.Contains(reading.out.String(), "hello\n")
	})
	s.expect(s.do("sessions", "list", "--application", app), app, "api_key", "sse")

	var subscriptions struct{ Items []struct{ ID, Status string } }
	s.get(&subscriptions, "subscriptions", "list", "--application", app)
	if len(subscriptions.Items) != 1 || subscriptions.Items[0].Status != "accepted" {
		t.Fatalf("%+v", subscriptions)
	}
	id := subscriptions.Items[0].ID
	var keys struct{ Items []struct{ ID, Hint string } }
	s.get(&keys, "keys", "list", id)
	if len(keys.Items) != 1 || !strings.HasSuffix(key, keys.Items[0].Hint) {
		t.Fatalf("%+v", keys)
	}
	second := strings.TrimSpace(s.do("keys", "create", id, "--quiet", "--expires", "90d"))
	s.expect(s.do("keys", "revoke", keys.Items[0].ID, "--reason", "leaked"), "revoked")
	if r := reading.wait(t); r.failed == nil || !strings.Contains(r.err, "the gateway ended the session (revoked)") {
		t.Errorf("%+v", r)
	}
	s.expect(refused(t, "publish", url, "-m", "x", "--api-key", key), "unauthorized (401)")
	ok(t, "publish", url, "-m", "x", "-q", "--api-key", second)

	s.expect(s.do("subscriptions", "update", id, "--rate-limit", "5/1s", "--ends", "30d", "--metadata", "cost=42"), "rate_limit 5/1s", "cost=42", "Ends:")
	s.expect(s.do("subscriptions", "update", id, "--rate-limit", "none", "--ends", "none"), "cost=42")
	if out := s.do("subscriptions", "get", id); strings.Contains(out, "Limits:") || strings.Contains(out, "Ends:") {
		t.Error(out)
	}
	s.expect(s.do("subscriptions", "pause", id), "paused")
	s.expect(refused(t, "publish", url, "-m", "x", "--api-key", second), "forbidden (403)", "paused")
	s.expect(s.do("subscriptions", "resume", id), "accepted")
	s.expect(s.refused("subscriptions", "resume", id), "Conflict")
	s.expect(s.do("subscriptions", "close", id, "--reason", "done"), "closed", "done")
	s.expect(s.do("applications", "delete", app), "Archived:")
}

func TestManualSubscription(t *testing.T) {
	s := newShell(t)
	app := strings.TrimSpace(s.do("applications", "create", "B2B", "--id", "b2b", "--client-id", "b2b-client", "-q"))
	r := call{args: s.args([]string{"subscriptions", "create", "--api", "shop", "--plan", "gold", "--application", app, "--message", "please", "-q"})}.run(t)
	if r.failed != nil || r.out != "" || !strings.Contains(r.err, "is pending, and no key was made") {
		t.Fatalf("%+v", r)
	}
	var list struct{ Items []struct{ ID string } }
	s.get(&list, "subscriptions", "list", "--status", "pending")
	id := list.Items[0].ID
	s.expect(s.refused("subscriptions", "create", "--api", "shop", "--plan", "gold", "--application", app), "Conflict")
	out := s.do("subscriptions", "accept", id, "--reason", "welcome", "--ends", "365d")
	s.expect(out, "accepted", "welcome", "Key:", "cma_")
	s.expect(s.do("applications", "update", app, "--name", "Business"), "Business")
	var renewed struct{ ID, Secret string }
	s.get(&list, "keys", "list", id)
	s.get(&renewed, "keys", "renew", list.Items[0].ID)
	ok(t, "publish", s.URL("/shop"), "-m", "x", "-q", "--api-key", renewed.Secret)
	s.expect(s.do("keys", "expire", renewed.ID, "1s"), renewed.ID, "in ")
	if testing.Short() {
		return // its end is up to two seconds away
	}
	gateway.Eventually(t, 20*time.Second, "the end of the key", func() bool {
		r := call{args: []string{"publish", s.URL("/shop"), "-m", "x", "--api-key", renewed.Secret}}.run(t)
		return strings.Contains(r.err, "unauthorized (401)")
	})
}

// An export can be imported, and holds no key.
func TestStoreByCommands(t *testing.T) {
	s := newShell(t)
	s.do("applications", "create", "Web shop", "--id", "web")
	key := strings.TrimSpace(s.do("subscriptions", "create", "--api", "shop", "--plan", "api_key", "--application", "web", "-q"))
	file := filepath.Join(s.dir, "export.json")
	s.do("store", "export", file)
	raw, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(raw), "Web shop") || strings.Contains(string(raw), key) {
		t.Errorf("%v: %s", err, raw)
	}
	s.expect(s.do("store", "import", file), " unchanged, 0 skipped")
	s.expect(s.do("store", "status"), "NODE", "application", "subscription")
	s.expect(s.do("store", "sync"), "NODE")
	s.expect(s.refused("store", "import", s.file("no.json", "{}")), "Error: ")
}
