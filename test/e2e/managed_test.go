package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/admin"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// storedIn names the file of the gateway's folder that holds the text, if one does.
func storedIn(t *testing.T, g *gateway.Gateway, text string) (file string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Dir(g.LogFile()), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.Contains(string(raw), text) {
			file = path
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func definition(path string, interval string) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{"paths":[%q],"entrypoints":[{"type":"http_get","duration_limit":"10ms"},{"type":"sse"},{"type":"websocket"}],
		"endpoints":[{"endpoint":{"type":"mock","message_interval":%q}}],"plans":[{"plan":{"type":"keyless"}}]}`, path, interval))
}

// A deploy touches one API: its streams end and come back, and no stream of another API
// notices. What was saved and not deployed serves nobody.
func TestManagedAPIs(t *testing.T) {
	bare := "http://localhost:PORT {\n route {\n" + api("/fixed", ticking+"plan keyless\n") + "\n message_api\n respond 418\n }\n}\n"
	g := gateway.Start(t, "", bare)
	o := operator(t, g)
	ctx := context.Background()
	status := func(path string) int {
		return gateway.Do(t, http.DefaultClient, "GET", g.URL(path), "").Status
	}
	if got := status("/one"); got != 418 {
		t.Fatalf("an API that is not there: %d", got)
	}
	for _, id := range []string{"one", "two"} {
		must[admin.API](t)(o.SaveAPI(ctx, id, definition("/"+id, "20ms"), admin.Save{Deploy: id == "two"}))
	}
	if got := [2]int{status("/one"), status("/two")}; got != [2]int{418, 200} {
		t.Errorf("saved, and deployed: %v", got)
	}
	must[admin.API](t)(o.DeployAPI(ctx, "one", admin.Write{}))
	one := gateway.OpenEvents(t, http.DefaultClient, g.URL("/one"))
	two := gateway.OpenEvents(t, http.DefaultClient, g.URL("/two"))
	fixed := gateway.OpenEvents(t, http.DefaultClient, g.URL("/fixed"))
	for _, e := range []*gateway.Events{one, two, fixed} {
		e.MustMessage(t)
	}
	a := must[admin.API](t)(o.SaveAPI(ctx, "one", definition("/one", "30ms"), admin.Save{}))
	if !a.OutOfSync {
		t.Errorf("after a save: %+v", a)
	}
	one.MustMessage(t)
	a = must[admin.API](t)(o.DeployAPI(ctx, "one", admin.Write{}))
	if a.OutOfSync {
		t.Errorf("after a deploy: %+v", a)
	}
	if reason := goaway(t, one); reason != "api_changed" {
		t.Errorf("the deployed API's stream ended with %q", reason)
	}
	one = gateway.OpenEvents(t, http.DefaultClient, g.URL("/one"))
	must[admin.API](t)(o.PublishAPI(ctx, "one", admin.Write{}))
	must[admin.API](t)(o.DeployAPI(ctx, "one", admin.Write{})) // nothing has changed
	if err := g.Load("message_api {\n sync_interval 1s\n}\n", bare); err != nil {
		t.Fatal(err)
	}
	for _, e := range []*gateway.Events{one, two, fixed} {
		for range 5 {
			e.MustMessage(t)
		}
	}
	must[admin.API](t)(o.StopAPI(ctx, "one", admin.Write{}))
	if reason := goaway(t, one); reason != "api_stopped" {
		t.Errorf("the stopped API's stream ended with %q", reason)
	}
	stopped := gateway.Do(t, http.DefaultClient, "GET", g.URL("/one"), "")
	if slug, _ := stopped.Problem(t); stopped.Status != 404 || slug != "api-stopped" {
		t.Errorf("a stopped API: %d %s", stopped.Status, stopped.Body)
	}
	if err := o.DeletePlan(ctx, "one", "keyless", admin.Write{}); err != nil {
		t.Fatal(err)
	}
	if err := o.DeleteAPI(ctx, "one", admin.Write{}); err != nil {
		t.Fatal(err)
	}
	if got := status("/one"); got != 418 {
		t.Errorf("a deleted API: %d", got)
	}
	two.MustMessage(t)
}

// A definition is refused as a configuration is, with all that is wrong at once and where.
func TestManagedAPIIsValidated(t *testing.T) {
	g := gateway.Start(t, "message_api {\n plans_forbidden keyless\n}\n", "http://localhost:PORT {\n message_api\n}\n")
	o := operator(t, g)
	_, err := o.SaveAPI(context.Background(), "bad", json.RawMessage(`{"paths":["nope","/b*"],"slow_client":"never",
		"entrypoints":[{"type":"http_get","messages_limit":-1},{"type":"carrier_pigeon"},{"type":"sse","qos":"at_least_once"}],
		"endpoints":[{"endpoint":{"type":"mock","wings":2}},{"endpoint":{"type":"rabbitmq"}}],
		"plans":[{"plan":{"type":"keyless"}},{"rate_limit":"often","colour":1,"plan":{"type":"api_key"}},{"name":"k","plan":{"type":"api_key"},"validation":"perhaps"},{"plan":{"type":"jwt"},"selection_rule":"1 +"}]}`),
		admin.Save{Deploy: true})
	problem, ok := err.(*admin.ProblemDetails)
	if !ok || problem.Status != 400 {
		t.Fatalf("%v", err)
	}
	var paths []string
	for _, p := range problem.Problems {
		paths = append(paths, p.Path)
		t.Logf("%s: %s", p.Path, p.Detail)
	}
	for _, want := range []string{"paths[0]", "paths[1]", "slow_client", "entrypoints[0]", "entrypoints[1]", "endpoints[0]", "endpoints[1]", "plans[0]", "plans[1].rate_limit", "plans[1].colour", "plans[2]", "plans[3]"} {
		if !strings.Contains(" "+strings.Join(paths, " ")+" ", " "+want+" ") {
			t.Errorf("nothing about %s: %v", want, paths)
		}
	}
	if _, err := o.SaveAPI(context.Background(), "bad", json.RawMessage(`{"paths":["/a"],"wheels":4,"colour":"red"}`), admin.Save{}); err == nil ||
		!strings.Contains(err.Error(), "wheels") || !strings.Contains(err.Error(), "colour") {
		t.Errorf("unknown members: %v", err)
	}
}

// A reload that forbids a kind of plan stops the managed APIs that have one, whose streams
// end; a reload that allows it again serves them again.
func TestForbiddenPlansOfManagedAPIs(t *testing.T) {
	bare := "http://localhost:PORT {\n message_api\n}\n"
	g := gateway.Start(t, "", bare)
	o := operator(t, g)
	must[admin.API](t)(o.SaveAPI(context.Background(), "open", definition("/open", "20ms"), admin.Save{Deploy: true}))
	stream := gateway.OpenEvents(t, http.DefaultClient, g.URL("/open"))
	stream.MustMessage(t)
	if err := g.Load("message_api {\n plans_forbidden keyless\n}\n", bare); err != nil {
		t.Fatal(err)
	}
	if reason := goaway(t, stream); reason != "api_stopped" {
		t.Errorf("the stream ended with %q", reason)
	}
	if a := gateway.Do(t, http.DefaultClient, "GET", g.URL("/open"), ""); a.Status != 503 {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	var status admin.StoreStatus
	g.Admin("GET", "/message_api/store", &status)
	if !slices.ContainsFunc(status.Problems, func(p admin.StoreProblem) bool {
		return p.Path == "apis/open" && strings.Contains(p.Detail, "plans_forbidden")
	}) {
		t.Errorf("the operator is not told: %+v", status.Problems)
	}
	if err := g.Load("", bare); err != nil {
		t.Fatal(err)
	}
	if a := gateway.Do(t, http.DefaultClient, "GET", g.URL("/open"), ""); a.Status != 200 {
		t.Errorf("%d %s", a.Status, a.Body)
	}
}

// All that changed at run time is there again after a restart, and in another gateway after
// export and import; who was sent away since the backup does not come back by it.
func TestRestartAndBackup(t *testing.T) {
	sites := "http://localhost:PORT {\n route {\n" + api("/fixed", ticking+"plan keyless\n") + "\n" +
		api("/keys", ticking+"plan api_key {\n validation auto\n}\n") + "\n message_api\n respond 418\n }\n}\n"
	g := gateway.Start(t, "", sites)
	o := operator(t, g)
	ctx := context.Background()
	must[admin.API](t)(o.SaveAPI(ctx, "mine", definition("/mine", "20ms"), admin.Save{Deploy: true}))
	must[admin.API](t)(o.SaveAPI(ctx, "gone", definition("/gone", "20ms"), admin.Save{Deploy: true}))
	must[admin.API](t)(o.StopAPI(ctx, "gone", admin.Write{}))
	must[admin.API](t)(o.StopAPI(ctx, "fixed", admin.Write{}))
	must[admin.API](t)(o.DeprecateAPI(ctx, "mine", admin.Write{}))
	good, leaked := o.subscribe("keys", "api_key", ""), o.subscribe("keys", "api_key", "")
	effects := func(g *gateway.Gateway) (seen []int) {
		for _, path := range []string{"/mine", "/gone", "/fixed", "/never"} {
			seen = append(seen, gateway.Do(t, http.DefaultClient, "GET", g.URL(path), "").Status)
		}
		for _, key := range []string{good.NewKey.Secret, leaked.NewKey.Secret} {
			seen = append(seen, gateway.Do(t, http.DefaultClient, "GET", g.URL("/keys"), "", keyHeader, key).Status)
		}
		return seen
	}
	check := func(when string, g *gateway.Gateway, want ...int) {
		t.Helper()
		if got := effects(g); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
		o := operator(t, g)
		a := must[admin.API](t)(o.API(ctx, "mine"))
		if !a.Deprecated || a.State != "started" {
			t.Errorf("%s: %+v", when, a)
		}
		app := o.application("late "+when, "")
		if _, err := o.Subscribe(ctx, admin.SubscribeRequest{API: "mine", Plan: "keyless", Application: app}); err == nil {
			t.Errorf("%s: a deprecated API took a subscription", when)
		}
	}
	check("at first", g, 200, 404, 404, 418, 200, 200)
	var backup bytes.Buffer
	if err := o.Export(ctx, &backup); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(backup.String(), good.NewKey.Secret) {
		t.Error("a key is in the backup")
	}
	must[admin.Key](t)(o.RevokeKey(ctx, leaked.NewKey.ID, admin.Write{}))
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := g.Load("", sites); err != nil {
		t.Fatal(err)
	}
	check("after a restart", g, 200, 404, 404, 418, 200, 401)
	report := must[admin.ImportReport](t)(o.Import(ctx, bytes.NewReader(backup.Bytes())))
	t.Logf("into the same: %+v", report)
	check("after an import into the same", g, 200, 404, 404, 418, 200, 401)
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}

	other := gateway.Start(t, "", sites)
	report = must[admin.ImportReport](t)(operator(t, other).Import(ctx, bytes.NewReader(backup.Bytes())))
	t.Logf("into an empty one: %+v", report)
	check("in another gateway", other, 200, 404, 404, 418, 200, 200) // the backup is older than the revocation
}
