package cluster

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/admin"
)

// definition is a managed API on the mock, on the path of its id.
func definition(id, plan string) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{
		"paths": ["/%s"],
		"entrypoints": [{"type": "http_get", "messages_limit": 1}, {"type": "http_post"}],
		"endpoints": [{"endpoint": {"type": "mock", "message_interval": "20ms"}}],
		"plans": [%s]
	}`, id, plan))
}

const (
	keylessPlan = `{"plan": {"type": "keyless"}}`
	quotaPlan   = `{"plan": {"type": "api_key"}, "validation": "auto", "quota": "5000/1h"}`
)

// deploy saves and deploys a managed API, and returns when that was acknowledged.
func (n *node) deploy(id, plan string) (acknowledged time.Time) {
	n.t.Helper()
	api, err := n.admin.SaveAPI(n.t.Context(), id, definition(id, plan), admin.Save{Deploy: true})
	if err != nil {
		n.t.Fatalf("deploying %s on %s: %v", id, n.name, err)
	}
	if api.State != "started" || api.OutOfSync {
		n.t.Fatalf("%s is %s (out of sync: %v) on %s after save and deploy", id, api.State, api.OutOfSync, n.name)
	}
	return time.Now()
}

// A managed API is served by every node, wherever it was deployed, stopped or deleted, and by
// none that has forgotten it over a restart.
func TestManagedAPIsAreEverywhere(t *testing.T) {
	onEach(t, func(t *testing.T, storage string) {
		a, b := startTwo(t, storage, syncInterval)
		b.sees(time.Now(), "no API", "/kept", "", http.StatusNotFound)
		deployed := a.deploy("kept", keylessPlan)
		if got := a.get("/kept", "").Status; got != http.StatusOK {
			t.Errorf("a deployed API answers %d where it was deployed", got)
		}
		b.sees(deployed, "a deployed API", "/kept", "", http.StatusOK)
		a.deploy("stopped", keylessPlan)
		b.sees(time.Now(), "another", "/stopped", "", http.StatusOK)
		if _, err := b.admin.StopAPI(t.Context(), "stopped", admin.Write{}); err != nil {
			t.Fatal(err)
		}
		stopped := time.Now()
		a.sees(stopped, "a stopped API", "/stopped", "", http.StatusNotFound)
		if slug, _ := a.get("/stopped", "").Problem(t); slug != "api-stopped" {
			t.Errorf("a stopped API answers %s", slug)
		}
		a.neverReloaded()
		b.neverReloaded()

		s := a.subscribe("orders")
		for _, n := range []*node{a, b} {
			n.Terminate(15 * time.Second)
		}
		for _, n := range []*node{a, b} {
			n.Restart()
			n.opens()
			for path, want := range map[string]int{"/kept": http.StatusOK, "/stopped": http.StatusNotFound} {
				if got := n.get(path, "").Status; got != want {
					t.Errorf("%s: after a restart of both %s answers %d", n.name, path, got)
				}
			}
			if got := n.get("/orders", s.key).Status; got != http.StatusOK {
				t.Errorf("%s: after a restart of both a key gets %d", n.name, got)
			}
		}
		if _, err := a.admin.StartAPI(t.Context(), "stopped", admin.Write{}); err != nil {
			t.Fatal(err)
		}
		b.sees(time.Now(), "an API that was started again", "/stopped", "", http.StatusOK)
	})
}

// What was acknowledged is there for the others, whatever happens to who did it.
func TestAcknowledgedOutlivesKill(t *testing.T) {
	onEach(t, func(t *testing.T, storage string) {
		a, b := startTwo(t, storage, syncInterval)
		for round := range 3 {
			id := fmt.Sprintf("round-%d", round)
			acknowledged := a.deploy(id, keylessPlan)
			a.Kill()
			b.sees(acknowledged, "what a node that was killed had deployed", "/"+id, "", http.StatusOK)
			a.Restart()
			a.opens()
			for earlier := range round + 1 {
				path := fmt.Sprintf("/round-%d", earlier)
				if got := a.get(path, "").Status; got != http.StatusOK {
					t.Errorf("%s answers %d on the node that was killed in round %d", path, got, round)
				}
			}
		}
	})
}
