// Package keyless is the plan that lets everybody in.
package keyless

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/caddyfile/parse"
	"github.com/caddy-message-api/caddy-message-api/plans"
)

func init() {
	caddy.RegisterModule(new(Keyless))
}

// Keyless lets every client in, without a credential. It gives unrestricted access to what
// is behind the API, so an API that exposes anything sensitive should not have it;
// `plans_forbidden keyless` in the global options keeps it out of a whole gateway.
//
// Clients are told apart by their network address alone, as Caddy sees it with its trusted
// proxies; behind one NAT they are one. A client that sends a client identifier of its own
// is told apart by both.
//
//	plan keyless [<name>]
//
// It has no options of its own; those that all plans have are told in docs/plans.md.
type Keyless struct{}

// CaddyModule implements caddy.Module.
func (*Keyless) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: plans.Namespace + ".keyless", New: func() caddy.Module { return new(Keyless) }}
}

// Provision implements caddy.Provisioner.
func (*Keyless) Provision(ctx caddy.Context) error {
	ctx.Logger().Warn("a keyless plan lets everybody use this API and what is behind it; " +
		"plans_forbidden keyless refuses such plans")
	return nil
}

// UnmarshalCaddyfile implements caddyfile.Unmarshaler.
func (*Keyless) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if err := parse.NoArgs(d); err != nil {
		return err
	}
	return parse.Block(d, "plan keyless")
}

// Presents implements plans.Plan: there is nothing to present.
func (*Keyless) Presents(*http.Request) bool { return false }

// Check implements plans.Plan: everybody is granted access.
func (*Keyless) Check(*http.Request) plans.Verdict { return plans.Verdict{Granted: true} }

// Kind implements plans.Plan.
func (*Keyless) Kind() string { return "keyless" }

// Anonymous implements plans.Plan.
func (*Keyless) Anonymous() bool { return true }

// Interface guards.
var (
	_ plans.Plan            = (*Keyless)(nil)
	_ caddy.Provisioner     = (*Keyless)(nil)
	_ caddyfile.Unmarshaler = (*Keyless)(nil)
)
