package examples

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// operated is a page whose commands ask the gateway's admin endpoint, too.
func operated(t *testing.T, g *gateway.Gateway, name, section string) *doc {
	t.Helper()
	if testing.Short() {
		t.Skip("the caddy command is built for this in the integration stage")
	}
	dir := t.TempDir()
	d := read(t, g, "examples/"+name+"/README.md", section,
		"bin/caddy message-api", gateway.Binary(t)+" message-api", "examples/", filepath.Join("..", "..", "examples")+"/",
		"> key", "> "+filepath.Join(dir, "key"), "cat key", "cat "+filepath.Join(dir, "key"))
	d.env = append(d.env, fmt.Sprintf("CADDY_ADMIN=127.0.0.1:%d", g.AdminPort), "HOME="+dir)
	return d
}

var plansPort = []string{":8080 {", ":PORT {"}

func TestAPIKeys(t *testing.T) {
	g := serve(t, "api-keys", plansPort...)
	d := operated(t, g, "api-keys", "")
	d.run(`bin/caddy message-api applications create --id shop "The shop"`)
	d.run("bin/caddy message-api subscriptions create --api orders --plan free --application shop --quiet > key")
	if a := d.answer(`curl -i -d '{"n":1}' http://localhost:8080/orders`); a.Status != 401 || a.Header.Get("WWW-Authenticate") == "" {
		t.Errorf("without a key: %+v", a)
	}
	if a := d.answer(`curl -i -H "X-Gravitee-Api-Key: $(cat key)" -d '{"n":1}' http://localhost:8080/orders`); a.Status != 202 || a.Header.Get("X-Rate-Limit-Remaining") == "" {
		t.Errorf("with the key: %+v", a)
	}
	events := d.start(`curl -N -H "X-Gravitee-Api-Key: $(cat key)" -H 'Accept: text/event-stream' http://localhost:8080/orders`)
	events.expect(commandTimeout, "retry: ")

	d.run("bin/caddy message-api subscriptions create --api orders --plan gold --application shop")
	type row struct{ ID, Plan string }
	list := func(command string) (rows []row) {
		out := d.with(command, "list", "list --json")
		var page struct{ Items []row }
		if err := json.Unmarshal([]byte(out), &page); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		return page.Items
	}
	pending := list("bin/caddy message-api subscriptions list --status pending")
	if len(pending) != 1 || pending[0].Plan != "gold" {
		t.Fatalf("pending: %+v", pending)
	}
	if out := d.with("bin/caddy message-api subscriptions accept <id>", "<id>", pending[0].ID); !strings.Contains(out, "cma_") {
		t.Errorf("accepting shows no key: %s", out)
	}
	var free admined
	free.get(t, g, "/message_api/subscriptions?plan=free")
	var keys admined
	out := d.with("bin/caddy message-api keys list <subscription>", "<subscription>", free.Items[0].ID, "list", "list --json")
	if err := json.Unmarshal([]byte(out), &keys); err != nil || len(keys.Items) != 1 {
		t.Fatalf("%s: %v", out, err)
	}
	d.with("bin/caddy message-api keys renew <key>", "<key>", keys.Items[0].ID)
	d.with("bin/caddy message-api keys revoke <key>", "<key>", keys.Items[0].ID)
	events.expect(commandTimeout, `"reason":"revoked"`)
}

// admined is a list of the admin API.
type admined struct{ Items []struct{ ID string } }

func (a *admined) get(t *testing.T, g *gateway.Gateway, path string) {
	t.Helper()
	if status := g.Admin("GET", path, a); status != 200 || len(a.Items) == 0 {
		t.Fatalf("%s: %d %+v", path, status, a)
	}
}

func TestJWTExample(t *testing.T) {
	g := serve(t, "jwt", plansPort...)
	d := operated(t, g, "jwt", "")
	d.run(`bin/caddy message-api applications create --id shop --client-id shop "The shop"`)
	d.run("bin/caddy message-api subscriptions create --api orders --plan jwt --application shop")
	raw, err := os.ReadFile("../../examples/jwt/README.md")
	if err != nil {
		t.Fatal(err)
	}
	script := regexp.MustCompile("(?s)```sh\n(b64.*?)```").FindStringSubmatch(string(raw))
	if script == nil {
		t.Fatal("the README makes no token")
	}
	token := strings.TrimSpace(start(t, script[1]+"\necho $token").wait(commandTimeout))
	d.env = append(d.env, "token="+token)
	if a := d.answer(`curl -i -d '{"n":1}' http://localhost:8080/orders`); a.Status != 401 || !strings.HasPrefix(a.Header.Get("WWW-Authenticate"), "Bearer") {
		t.Errorf("without a token: %+v", a)
	}
	if a := d.answer(`curl -i -H "Authorization: Bearer $token" -d '{"n":1}' http://localhost:8080/orders`); a.Status != 202 {
		t.Errorf("with the token: %+v", a)
	}
	if a := d.answer(`curl -i -H "Authorization: Bearer x$token" -d '{"n":1}' http://localhost:8080/orders`); a.Status != 401 || !strings.Contains(a.Header.Get("WWW-Authenticate"), "invalid_token") {
		t.Errorf("with a bad token: %+v", a)
	}
	d.start(`curl -N -H "Authorization: Bearer $token" -H 'Accept: text/event-stream' http://localhost:8080/orders`).expect(commandTimeout, "retry: ")
}

func TestManagedExample(t *testing.T) {
	g := serve(t, "managed", plansPort...)
	d := operated(t, g, "managed", "")
	status := func() int { return gateway.Do(t, g.Client(0), "GET", g.URL("/playground"), "").Status }
	saved := status()
	d.run("bin/caddy message-api apis save playground examples/managed/playground.json")
	if got := status(); got != saved {
		t.Errorf("saved: %d, before %d", got, saved)
	}
	d.run("bin/caddy message-api apis deploy playground")
	if out := d.run("bin/caddy message-api apis list"); !strings.Contains(out, "playground") || !strings.Contains(out, "started") {
		t.Errorf("the list: %s", out)
	}
	if p := page(t, d.run("curl http://localhost:8080/playground")); len(p.Items) < 3 {
		t.Errorf("the page: %+v", p)
	}
	ws := gateway.OpenSocket(t, g, g.URL("/playground"), nil)
	if _, payload, err := ws.ReadMessage(); err != nil || string(payload) != "mock message" {
		t.Errorf("the socket: %q %v", payload, err)
	}
	stop := "bin/caddy message-api apis stop playground"
	d.run(stop)
	for {
		if _, _, err := ws.ReadMessage(); err != nil {
			if !websocket.IsCloseError(err, websocket.ClosePolicyViolation) {
				t.Errorf("the socket ended with %v", err)
			}
			break
		}
	}
	if got := status(); got != 404 {
		t.Errorf("stopped: %d", got)
	}
	d.run("bin/caddy message-api apis start playground")
	if got := status(); got != 200 {
		t.Errorf("started again: %d", got)
	}
	d.run("bin/caddy message-api apis stop playground")
	d.run("bin/caddy message-api plans delete playground keyless")
	d.run("bin/caddy message-api apis delete playground")
	if got := status(); got != saved {
		t.Errorf("deleted: %d, before %d", got, saved)
	}
}
