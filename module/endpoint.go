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
		return loadEndpoint(ctx, owner, key, cfg)
	})
	if err != nil {
		return nil, fmt.Errorf("endpoint %s (%s): %w", cfg.Name, kind, err)
	}
	return val.(*endpoint), nil
}

// loadEndpoint loads the guest in a Caddy context of its own, which outlives the
// configuration that brought it.
func loadEndpoint(ctx caddy.Context, owner, key string, cfg *EndpointConfig) (*endpoint, error) {
	own, cancel := detach(ctx)
	e, err := readyEndpoint(own, cfg)
	if err != nil {
		cancel()
		return nil, err
	}
	if scoped, ok := e.guest.(endpoints.Scoped); ok {
		scoped.SetScope(endpoints.Scope{Owner: owner, Name: cfg.Name})
	}
	e.key, e.cancel = key, cancel
	return e, nil
}

// readyEndpoint loads the guest and asks what it can do.
func readyEndpoint(ctx caddy.Context, cfg *EndpointConfig) (*endpoint, error) {
	copied := &EndpointConfig{EndpointRaw: append(json.RawMessage(nil), cfg.EndpointRaw...)}
	kind := typeOf(copied.EndpointRaw)
	val, err := ctx.LoadModule(copied, "EndpointRaw")
	if err != nil {
		return nil, unknownGuest(err, endpoints.Namespace, kind)
	}
	guest, ok := val.(endpoints.Endpoint)
	if !ok {
		return nil, fmt.Errorf("module %T is no endpoints.Endpoint", val)
	}
	e := &endpoint{name: cfg.Name, kind: kind, caps: guest.Capabilities(), guest: guest}
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
