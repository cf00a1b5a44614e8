package e2e

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// What can't work is refused when the configuration is loaded, and says why; a refused
// reload leaves what was there.
func TestRefusedConfigurations(t *testing.T) {
	g := gateway.Start(t, "", site(api("/p", playground)))
	mock := "endpoint mock\n"
	for name, tc := range map[string]struct{ globals, sites, want string }{
		"no plan":       {"", site(api("/x", "entrypoint http_get\n"+mock)), "needs at least one plan"},
		"no endpoint":   {"", site(api("/x", "entrypoint http_get\nplan keyless")), "needs at least one endpoint"},
		"no entrypoint": {"", site(api("/x", mock+"plan keyless")), "needs at least one entrypoint"},
		"keyless forbidden": {"message_api {\nplans_forbidden keyless\n}", site(api("/x", "entrypoint http_get\n"+mock+"plan keyless")),
			"plans_forbidden refuses"},
		"one id, two APIs": {"", site(api("/x", "id same\n"+playground), api("/y", "id same\nname other\n"+playground)), "is made twice"},
		"no positions": {"", site(api("/x", "entrypoint sse {\nqos at_least_once\n}\nendpoint mock {\nloopback\n}\nplan keyless")),
			"use qos none, auto"},
		"no such endpoint": {"", site(api("/x", "entrypoint sse {\nvia other\n}\n"+mock+"plan keyless")), `has no endpoint "other": use mock`},
		"no shared endpoint": {"", site(api("/x", "entrypoint sse\nendpoint use orders\nplan keyless")),
			`there is no shared endpoint "orders"`},
	} {
		t.Run(name, func(t *testing.T) {
			err := g.Load(tc.globals, tc.sites)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if a := gateway.Do(t, http.DefaultClient, "POST", g.URL("/p"), "x"); a.Status != 202 {
				t.Errorf("after the refused reload: %d %s", a.Status, a.Body)
			}
		})
	}
}

// `caddy validate` provisions everything and talks to nobody.
func TestValidateNeedsNoBroker(t *testing.T) {
	g := gateway.Start(t, "", site(api("/p", playground)))
	cfg, err := g.Adapt("", site(api("/x", `
		entrypoint sse
		entrypoint http_post
		endpoint kafka {
			brokers 127.0.0.1:1
			producer {
				topics orders
			}
			consumer {
				topics orders
			}
		}
		plan keyless`)))
	if err != nil {
		t.Fatal(err)
	}
	var c caddy.Config
	if err := caddy.StrictUnmarshalJSON(cfg, &c); err != nil {
		t.Fatal(err)
	}
	if err := caddy.Validate(&c); err != nil {
		t.Error(err)
	}
}

// One site on two ports is one API.
func TestOneSiteOnTwoPorts(t *testing.T) {
	g := gateway.Start(t, "", siteTLS(api("/p", playground)))
	var apis []struct {
		ID       string
		Paths    []string
		Sessions int
	}
	g.AdminList("/message_api/apis", &apis)
	if len(apis) != 1 || apis[0].ID != "p" {
		t.Fatalf("APIs %+v", apis)
	}
	ev := gateway.OpenEvents(t, g.Client(1), g.TLS("/p"))
	gateway.Do(t, http.DefaultClient, "POST", g.URL("/p"), "over the other port")
	if got := ev.MustMessage(t); got.Data != "over the other port" {
		t.Errorf("%+v", got)
	}
}

func TestKeylessWarnsOnce(t *testing.T) {
	g := gateway.Start(t, "", site(api("/p", playground)))
	if n := strings.Count(g.Log(), "a keyless plan lets everybody use"); n != 1 {
		t.Errorf("%d warnings about keyless", n)
	}
}
