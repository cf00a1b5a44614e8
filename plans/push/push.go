// Package push is the plan of subscriptions to which the gateway delivers.
package push

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/caddyfile/parse"
	"github.com/caddy-message-api/caddy-message-api/plans"
)

func init() {
	caddy.RegisterModule(new(Push))
}

// detail is what a client is told that comes by itself.
const detail = "this API has a plan for webhook subscriptions only: the gateway calls its subscribers, and nobody can come in by it"

// Push is for subscriptions with a callback, to which the gateway delivers by the API's
// entrypoint webhook. It lets no request in. A subscription begins, is changed, paused and ends
// by the admin API; `validation` says whether somebody has to accept it first, and
// what is changed in it later.
//
//	plan push [<name>]
//
// It has no options of its own. Of those that all plans have, receive_rate is the rate of
// deliveries to each subscription; limits of requests and a selection_rule mean nothing here
// and are refused.
type Push struct{}

// CaddyModule implements caddy.Module.
func (*Push) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: plans.Namespace + ".push", New: func() caddy.Module { return new(Push) }}
}

// UnmarshalCaddyfile implements caddyfile.Unmarshaler.
func (*Push) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if err := parse.NoArgs(d); err != nil {
		return err
	}
	return parse.Block(d, "plan push")
}

// Presents implements plans.Plan: no request carries anything of this plan.
func (*Push) Presents(*http.Request) bool { return false }

// Check implements plans.Plan: nobody comes in.
func (*Push) Check(*http.Request) plans.Verdict {
	return plans.Refuse("", detail, "the plan push lets no request in")
}

// Kind implements plans.Plan.
func (*Push) Kind() string { return "push" }

// Anonymous implements plans.Plan.
func (*Push) Anonymous() bool { return false }

// Interface guards.
var (
	_ plans.Plan            = (*Push)(nil)
	_ caddyfile.Unmarshaler = (*Push)(nil)
)
