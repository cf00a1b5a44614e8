package module

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/admin"
	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/lifecycle"
	"github.com/caddy-message-api/caddy-message-api/subscriptions"
)

const (
	defaultSyncInterval = 5 * time.Second
	minSyncInterval     = 100 * time.Millisecond
	defaultKeyOverlap   = 2 * time.Hour
	minKeySecret        = 32
	// startPatience is how long a start waits for the store, so that the first request
	// finds everything there.
	startPatience = 5 * time.Second
)

// generations are the configurations that have started and not stopped, the newest last. A
// new one starts before the old one stops; one whose start fails stops again, and the old one
// goes on.
var generations struct {
	mu   sync.Mutex
	apps []*App
}

// currentApp is the app of the running configuration, or nil.
func currentApp() *App {
	generations.mu.Lock()
	defer generations.mu.Unlock()
	if n := len(generations.apps); n > 0 {
		return generations.apps[n-1]
	}
	return nil
}

// changes counts what was withdrawn. A request that comes in meanwhile sees by it that it has
// to ask again.
var changes atomic.Int64

func (a *App) normalizeStore() error {
	switch {
	case a.SyncInterval == 0:
		a.SyncInterval = caddy.Duration(defaultSyncInterval)
	case time.Duration(a.SyncInterval) < minSyncInterval:
		return fmt.Errorf("sync_interval %s is shorter than %s", time.Duration(a.SyncInterval), minSyncInterval)
	}
	if a.KeyOverlap == 0 {
		a.KeyOverlap = caddy.Duration(defaultKeyOverlap)
	}
	if a.KeySecret == "" {
		return nil
	}
	a.keySecret = []byte(strings.TrimSpace(caddy.NewReplacer().ReplaceKnown(a.KeySecret, "")))
	if len(a.keySecret) < minKeySecret {
		return fmt.Errorf("key_secret has %d characters, which is less than %d: is what it stands for there?", len(a.keySecret), minKeySecret)
	}
	return nil
}

// Start implements caddy.App: it opens the store, and waits for it a little.
func (a *App) Start() error {
	k, err := acquireKeeper(a)
	if err != nil {
		return err
	}
	a.keeper = k
	generations.mu.Lock()
	generations.apps = append(generations.apps, a)
	generations.mu.Unlock()
	a.serve()
	a.started.Store(true)
	select {
	case <-k.ready:
		k.tell() // or the first request could come before the keeper has told
	case <-time.After(startPatience):
		a.log.Warn("the store is not open yet: requests are answered with 503 until it is", zap.Duration("waited", startPatience))
	}
	return nil
}

// serve makes the store of this configuration the one that is asked: now, or when it is open,
// which its keeper then tells.
func (a *App) serve() {
	theKeeper.Store(a.keeper)
	select {
	case <-a.keeper.ready:
		a.adopt(a.keeper.facts)
	default:
		theFacts.Store(nil)
		a.keeper.tell()
	}
}

// adopt makes the facts those of this configuration, and serves the managed APIs that they
// hold.
func (a *App) adopt(f *facts) {
	f.admin.SetLoggers(a.ctx.Logger(auditLog{}), a.log.Named("admin"))
	f.lifecycle.Declare(a.declared())
	a.managed.applyAll(f)       // before anybody is let in, so that no API is missing then
	old := theFacts.Swap(f)     // from now on every change is told
	a.managed.applyAll(f)       // what changed meanwhile was not
	if old != nil && old != f { // another storage: its subscriptions are unknown here
		endAll(Selector{subscribed: true}, entrypoints.End{Reason: entrypoints.EndRevoked, Detail: "the gateway's store was replaced"})
	}
	if old != nil && old != f {
		old.pushing.changed() // it delivers nothing any more
	}
	f.pushing.changed()
	for _, id := range a.registered() {
		if u := runtime.current(id); u != nil {
			u.startPlans()
		}
	}
	for _, api := range f.lifecycle.List() {
		if !api.Started && (api.Deployed != nil || !api.Managed) {
			endAll(Selector{API: api.ID}, entrypoints.End{Reason: entrypoints.EndStopped, Detail: "the API is stopped"})
		}
	}
}

// auditLog gives the audit log the name by which a configuration can send it elsewhere.
type auditLog struct{}

// CaddyModule implements caddy.Module.
func (auditLog) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: admin.AuditLogger, New: func() caddy.Module { return auditLog{} }}
}

// Stop implements caddy.App. The next configuration, if there is one, has started already; or
// it has failed, and the one before goes on.
func (a *App) Stop() error {
	generations.mu.Lock()
	was := len(generations.apps) > 0 && generations.apps[len(generations.apps)-1] == a
	generations.apps = slices.DeleteFunc(generations.apps, func(other *App) bool { return other == a })
	generations.mu.Unlock()
	if before := currentApp(); was && before != nil {
		before.serve()
	}
	a.managed.close()
	if a.keeper == nil {
		return nil
	}
	return a.keeper.release()
}

// gate says whether the API may be served at all. One of a configuration whose start is not
// over is not known yet, and starts out as started.
func (h *Handler) gate() error {
	f := theFacts.Load()
	if f == nil {
		return notOpen()
	}
	if f.lifecycle.IsStarted(h.ID) {
		return nil
	}
	if _, known := f.lifecycle.Get(h.ID); !known && h.app.declares(h.ID) {
		return nil
	}
	return errStopped
}

// notOpen is the answer while there is no store.
func notOpen() error {
	detail := "the gateway is starting: its store is not open yet"
	if k := theKeeper.Load(); k != nil && k.why() != nil {
		detail = "the gateway can't open its store: its log says why"
	}
	return notReady(detail)
}

// notReady is the answer while nobody can tell who may come in.
func notReady(detail string) error {
	return &entrypoints.Problem{Status: http.StatusServiceUnavailable, Slug: "not-ready", Detail: detail, RetryAfter: time.Second}
}

// declared are the APIs that the configuration defines, with their plans.
func (a *App) declared() map[string][]lifecycle.Plan {
	list := make(map[string][]lifecycle.Plan)
	for _, id := range a.registered() {
		if u := runtime.current(id); u != nil {
			list[id] = nil // one may have subscriptions of its own and no plan
			for _, p := range u.plans {
				list[id] = append(list[id], lifecycle.Plan{Name: p.name, Kind: p.kind})
			}
		}
	}
	return list
}

// declares says whether the configuration defines the API.
func (a *App) declares(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.apis[id]
	return ok
}

// endAll ends sessions, and gives back what their clients have not confirmed.
func endAll(sel Selector, end entrypoints.End) {
	changes.Add(1)
	sessions.end(sel, end)
	for _, u := range runtime.all() {
		u.receipts.revoke(&sel)
	}
}

// subscriptionEnded ends the sessions of what was withdrawn or has expired.
func (f *facts) subscriptionEnded(e subscriptions.Ended) {
	reason := entrypoints.EndRevoked
	if e.Expired {
		reason = entrypoints.EndExpired
	}
	endAll(Selector{API: e.API, Plan: e.Plan, Application: e.Application, Subscription: e.Subscription, Credential: e.Credential},
		entrypoints.End{Reason: reason, Detail: e.Detail})
}
