package module

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// endpointPool keeps endpoints, and so their connections, over reloads. The key is the
// owner, the name, and everything that the endpoint is configured with.
var endpointPool = caddy.NewUsagePool()

// endpoint is a loaded endpoint guest. It is shared by the units that have the same one.
type endpoint struct {
	name   string
	kind   string
	key    string
	caps   message.Capabilities
	guest  endpoints.Endpoint
	pub    endpoints.Publishing
	sub    endpoints.Subscribing
	cancel context.CancelFunc
}

// acquireEndpoint returns the endpoint that cfg describes. owner is the API's id, or "" for
// endpoints that several APIs share.
func acquireEndpoint(ctx caddy.Context, owner string, cfg *EndpointConfig) (*endpoint, error) {
	kind := typeOf(cfg.EndpointRaw)
	hash, err := hashOf(cfg.EndpointRaw)
	if err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", cfg.Name, err)
	}
	key := owner + "/" + cfg.Name + "/" + kind + "/" + hash
	val, _, err := endpointPool.LoadOrNew(key, func() (caddy.Destructor, error) {
		return loadEndpoint(ctx, owner, key, kind, cfg)
	})
	if err != nil {
		return nil, fmt.Errorf("endpoint %s (%s): %w", cfg.Name, kind, unknownGuest(err, endpoints.Namespace, kind))
	}
	return val.(*endpoint), nil
}

// loadEndpoint loads the guest in a Caddy context of its own, which outlives the
// configuration that brought it.
func loadEndpoint(ctx caddy.Context, owner, key, kind string, cfg *EndpointConfig) (*endpoint, error) {
	own, cancel := detach(ctx)
	copied := &EndpointConfig{EndpointRaw: append(json.RawMessage(nil), cfg.EndpointRaw...)}
	val, err := own.LoadModule(copied, "EndpointRaw")
	if err != nil {
		cancel()
		return nil, err
	}
	guest, ok := val.(endpoints.Endpoint)
	if !ok {
		cancel()
		return nil, fmt.Errorf("module %T is no endpoints.Endpoint", val)
	}
	if scoped, ok := guest.(endpoints.Scoped); ok {
		scoped.SetScope(endpoints.Scope{Owner: owner, Name: cfg.Name})
	}
	e := &endpoint{name: cfg.Name, kind: kind, key: key, caps: guest.Capabilities(), guest: guest, cancel: cancel}
	e.pub, _ = guest.(endpoints.Publishing)
	e.sub, _ = guest.(endpoints.Subscribing)
	e.caps.Publish = e.caps.Publish && e.pub != nil
	e.caps.Subscribe = e.caps.Subscribe && e.sub != nil
	return e, nil
}

// release gives the endpoint back; the last one ends it.
func (e *endpoint) release() { _, _ = endpointPool.Delete(e.key) }

// Destruct implements caddy.Destructor.
func (e *endpoint) Destruct() error {
	e.cancel() // runs the guest's Cleanup
	return nil
}

// probe asks the broker whether it would serve us now.
func (e *endpoint) probe(ctx context.Context) error {
	if p, ok := e.guest.(endpoints.Prober); ok {
		return p.Probe(ctx)
	}
	return nil
}

// detach makes a Caddy context for guests that outlive the configuration that loads them.
func detach(ctx caddy.Context) (caddy.Context, context.CancelFunc) {
	ctx.Context = context.WithoutCancel(ctx.Context)
	return caddy.NewContext(ctx)
}
