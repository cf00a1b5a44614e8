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

// A retry schedule that a message can't be held for is refused, with what to do.
func TestWebhookRetriesWithinTheLoan(t *testing.T) {
	g := gateway.Start(t, "", site("respond 200"))
	bus := func(retry string) string {
		return site(api("/x", "entrypoint webhook {\n"+retry+"\n}\nsubscription one {\n callback https://example.com\n}\n"+`endpoint azure_service_bus {
			connection_string "Endpoint=sb://localhost;SharedAccessKeyName=n;SharedAccessKey=a2V5"
			consumer {
				queue orders
				shared
				max_hold 1m
			}
		}`))
	}
	for retry, want := range map[string]string{
		"retry linear {\n attempts 10\n delay 10s\n}":      "retry and timeout",
		"retry linear {\n attempts unlimited\n}":           "any time",
		"retry linear {\n attempts 3\n delay 1s\n}":        "",
		"timeout 1m\nretry none":                           "",
		"timeout 1m\nretry linear {\n attempts 2\n}":       "retry and timeout",
		"retry linear {\n attempts 2\n delay 1m\n}":        "retry and timeout",
		"qos at_most_once\nretry linear {\n attempts 9\n}": "",
	} {
		cfg, err := g.Adapt("", bus(retry))
		if err != nil {
			t.Fatal(err)
		}
		var c caddy.Config
		if err := caddy.StrictUnmarshalJSON(cfg, &c); err != nil {
			t.Fatal(err)
		}
		err = caddy.Validate(&c)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", retry, err, want)
		}
	}
}
