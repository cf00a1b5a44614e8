package module

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
)

// unitPool keeps API units over reloads. The key is the id and the hash of the definition,
// so that an unchanged API is the same unit and none of its sessions notices.
var unitPool = caddy.NewUsagePool()

// unit is a message API that is being served: made from JSON, not from handler state.
// Every handler that serves it holds a lease; when the last is gone the unit retires:
// it ends its sessions, and then itself.
type unit struct {
	def   *Definition
	key   string
	hash  string
	log   *zap.Logger
	ways  []*way
	plans []*plan
	// statics are the subscriptions that the definition brings along.
	statics []static
	// withheld are the headers, in canonical form, that carry credentials of the plans.
	withheld []string
	eps      []*endpoint
	logs     *logs
	ids      *identities
	// receipts are what clients of http_get have not confirmed yet.
	receipts *receipts
	cancel   context.CancelFunc

	mu       sync.Mutex
	retired  bool
	sessions sync.WaitGroup
}

// acquireUnit returns the unit for a normalized definition, made or found, and registers it
// with the app under where, which is empty for managed APIs: their ids are the store's.
func acquireUnit(ctx caddy.Context, app *App, def *Definition, where string) (*unit, error) {
	resolved, err := def.clone()
	if err != nil {
		return nil, err
	}
	for _, e := range resolved.Endpoints {
		if e.Use == "" {
			continue
		}
		shared, err := app.sharedEndpoint(e.Use)
		if err != nil {
			return nil, fmt.Errorf("message API %s: %w", def.ID, err)
		}
		e.EndpointRaw = append(json.RawMessage(nil), shared.EndpointRaw...)
	}
	if err := forbidden(app, resolved); err != nil {
		return nil, err
	}
	hash, err := hashOf(resolved)
	if err != nil {
		return nil, err
	}
	if where != "" {
		if err := app.register(def.ID, hash, where); err != nil {
			return nil, err
		}
	}
	key := def.ID + "/" + hash
	val, _, err := unitPool.LoadOrNew(key, func() (caddy.Destructor, error) {
		return loadUnit(ctx, resolved, key, hash)
	})
	if err != nil {
		return nil, fmt.Errorf("message API %s: %w", def.ID, err)
	}
	return val.(*unit), nil
}

func loadUnit(ctx caddy.Context, def *Definition, key, hash string) (_ *unit, err error) {
	own, cancel := detach(ctx)
	u := &unit{def: def, key: key, hash: hash, log: ctx.Logger().With(zap.String("api", def.ID)), cancel: cancel}
	u.logs = newLogs(u)
	u.ids = newIdentities()
	u.receipts = newReceipts(u.log)
	defer func() {
		if err != nil {
			u.releaseEndpoints()
			cancel()
		}
	}()
	if err := u.loadEndpoints(ctx); err != nil {
		return nil, err
	}
	if err := u.loadPlans(own); err != nil {
		return nil, err
	}
	if err := u.loadEntrypoints(own, true); err != nil {
		return nil, err
	}
	if err := u.loadStatic(); err != nil {
		return nil, err
	}
	runtime.add(u)
	return u, nil
}

func (u *unit) loadEndpoints(ctx caddy.Context) error {
	for _, cfg := range u.def.Endpoints {
		cfg.normalize()
		if slices.ContainsFunc(u.eps, func(e *endpoint) bool { return e.name == cfg.Name }) {
			return fmt.Errorf("endpoint %q is defined twice: give one of them another name", cfg.Name)
		}
		owner := u.def.ID
		if cfg.Use != "" {
			owner, cfg = "", &EndpointConfig{Name: cfg.Use, EndpointRaw: cfg.EndpointRaw}
		}
		e, err := acquireEndpoint(ctx, owner, cfg)
		if err != nil {
			return err
		}
		u.eps = append(u.eps, e)
	}
	return nil
}

// loadEntrypoints loads them and, if all endpoints are there, finds the one for each.
func (u *unit) loadEntrypoints(ctx caddy.Context, match bool) error {
	anonymous := slices.ContainsFunc(u.plans, func(p *plan) bool { return p.anonymous })
	raws := slices.Clone(u.def.EntrypointsRaw)
	vals, err := ctx.LoadModule(u.def, "EntrypointsRaw")
	if err != nil {
		return err
	}
	seen := make(map[string]bool)
	for i, val := range vals.([]any) {
		kind := typeOf(raws[i])
		guest, ok := val.(entrypoints.Entrypoint)
		if !ok {
			return fmt.Errorf("entrypoint %s: module %T is no entrypoints.Entrypoint", kind, val)
		}
		if seen[kind] {
			return fmt.Errorf("entrypoint %s stands twice", kind)
		}
		seen[kind] = true
		if !match {
			continue
		}
		w, err := negotiate(guest, u.eps, anonymous)
		if err != nil {
			return err
		}
		w.log = u.log.Named(kind)
		u.ways = append(u.ways, w)
	}
	return nil
}

// enter counts a session in, unless the unit has retired.
func (u *unit) enter() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.retired {
		return false
	}
	u.sessions.Add(1)
	return true
}

func (u *unit) isRetired() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.retired
}

func (u *unit) leave() { u.sessions.Done() }

// release gives a handler's lease back.
func (u *unit) release() { _, _ = unitPool.Delete(u.key) }

// Destruct implements caddy.Destructor. The last lease is gone: no handler sends sessions
// here any more, and those that are open are told to go. It returns at once, because a
// reload waits for it.
func (u *unit) Destruct() error {
	u.mu.Lock()
	u.retired = true
	u.mu.Unlock()
	runtime.remove(u)
	go u.retire()
	return nil
}

// retireTimeout bounds how long a retired unit waits for its sessions; they have write
// deadlines of their own, so this is for the unforeseen.
const retireTimeout = 30 * time.Second

func (u *unit) retire() {
	sessions.end(Selector{unit: u}, u.farewell())
	done := make(chan struct{})
	go func() {
		u.sessions.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(retireTimeout):
		u.log.Warn("sessions did not end in time; closing their endpoints", zap.Duration("waited", retireTimeout))
	}
	u.receipts.close()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := u.logs.close(ctx); err != nil && !errors.Is(err, context.Canceled) {
		u.log.Warn("closing shared logs", zap.Error(err))
	}
	u.releaseEndpoints()
	u.cancel()
}

// farewell is what sessions of a retired unit are told.
func (u *unit) farewell() entrypoints.End {
	switch {
	case caddy.Exiting():
		return entrypoints.End{Reason: entrypoints.EndShutdown, Detail: "the gateway is shutting down"}
	case runtime.current(u.def.ID) != nil:
		return entrypoints.End{Reason: entrypoints.EndChanged, Detail: "the API was deployed with another definition"}
	default:
		return entrypoints.End{Reason: entrypoints.EndStopped, Detail: "the API is no longer served"}
	}
}

func (u *unit) releaseEndpoints() {
	for _, e := range u.eps {
		e.release()
	}
}
