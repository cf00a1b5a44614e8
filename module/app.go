package module

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

// AppID is the id of the app module.
const AppID = "message_api"

func init() {
	caddy.RegisterModule(new(App))
}

// App holds what all message APIs share. It needs no configuration.
type App struct {
	// Endpoints are shared by several APIs, which refer to them by name
	// (`endpoint use <name>`).
	Endpoints []*EndpointConfig `json:"endpoints,omitempty"`
	// PlansForbidden are types of plans that no API may have, typically keyless in
	// production. A configuration with such a plan is refused.
	PlansForbidden []string `json:"plans_forbidden,omitempty"`
	// HeadersPrefix stands before Request-Id, Transaction-Id and Client-Identifier in
	// header names. Default: X-Gravitee-.
	HeadersPrefix string `json:"headers_prefix,omitempty"`
	// SyncInterval is how often this node looks for what others have changed in the storage
	// that they share, and tells them what it has counted. At least 100ms. Default: 5s.
	SyncInterval caddy.Duration `json:"sync_interval,omitempty"`
	// KeySecret is what API keys are hashed with, at least 32 characters; give it by {env.*} or
	// {file.*}. Keys made under one secret are unknown under another. Default: a random one,
	// kept in the storage.
	KeySecret string `json:"key_secret,omitempty"`
	// CustomKeys allows API keys that somebody chose, instead of random ones. Default: false.
	CustomKeys bool `json:"custom_keys,omitempty"`
	// KeyOverlap is for how long the old keys of a subscription go on when one is renewed.
	// Default: 2h.
	KeyOverlap caddy.Duration `json:"key_overlap,omitempty"`

	ctx     caddy.Context
	log     *zap.Logger
	names   identityNames
	metrics *metrics
	shared  []*endpoint
	managed *managed
	keeper  *keeper
	// keySecret is what KeySecret stands for; nil is a random one.
	keySecret []byte
	// started: the store was asked for. Caddy's servers may start before.
	started atomic.Bool

	mu   sync.Mutex
	apis map[string]place
}

// place is where an API was defined first, for error messages.
type place struct {
	hash  string
	where string
}

// CaddyModule implements caddy.Module.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: AppID, New: func() caddy.Module { return new(App) }}
}

// Provision implements caddy.Provisioner.
func (a *App) Provision(ctx caddy.Context) error {
	a.ctx, a.log, a.apis = ctx, ctx.Logger(), make(map[string]place)
	if a.HeadersPrefix == "" {
		a.HeadersPrefix = "X-Gravitee-"
	}
	names, err := newIdentityNames(a.HeadersPrefix)
	if err != nil {
		return err
	}
	a.names = names
	if a.metrics, err = newMetrics(ctx.GetMetricsRegistry()); err != nil {
		return err
	}
	if err := a.normalizeStore(); err != nil {
		return err
	}
	a.managed = newManaged(a)
	seen := make(map[string]bool)
	for _, e := range a.Endpoints {
		if e.Use != "" {
			return fmt.Errorf("shared endpoint %q: `use` is for APIs", e.Use)
		}
		e.normalize()
		if seen[e.Name] {
			return fmt.Errorf("shared endpoint %q is defined twice: give one of them another name", e.Name)
		}
		seen[e.Name] = true
		ep, err := acquireEndpoint(ctx, "", e)
		if err != nil {
			return err
		}
		a.shared = append(a.shared, ep)
	}
	return nil
}

// Cleanup implements caddy.CleanerUpper.
func (a *App) Cleanup() error {
	for _, ep := range a.shared {
		ep.release()
	}
	return nil
}

func (e *EndpointConfig) normalize() {
	if e.Name == "" {
		e.Name = e.Use
	}
	if e.Name == "" {
		e.Name = typeOf(e.EndpointRaw)
	}
}

// sharedEndpoint finds the definition of a shared endpoint.
func (a *App) sharedEndpoint(name string) (*EndpointConfig, error) {
	known := make([]string, 0, len(a.Endpoints))
	for _, e := range a.Endpoints {
		if e.Name == name {
			return e, nil
		}
		known = append(known, e.Name)
	}
	if len(known) == 0 {
		return nil, fmt.Errorf("there is no shared endpoint %q: define it in the global option message_api", name)
	}
	return nil, fmt.Errorf("there is no shared endpoint %q: use %s", name, strings.Join(known, ", "))
}

// register makes sure that one id means one API within a configuration.
func (a *App) register(id, hash, where string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	first, ok := a.apis[id]
	if !ok {
		a.apis[id] = place{hash: hash, where: where}
		return nil
	}
	if first.hash != hash {
		return fmt.Errorf("message API id %q is made twice, with different definitions: %s and %s; give one of them an explicit id",
			id, first.where, where)
	}
	return nil
}

// forbids says whether plans of the kind are refused.
func (a *App) forbids(kind string) bool { return slices.Contains(a.PlansForbidden, kind) }

// registered returns the ids of the APIs of this configuration.
func (a *App) registered() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	ids := make([]string, 0, len(a.apis))
	for id := range a.apis {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// Interface guards.
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
