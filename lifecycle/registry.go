package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-message-api/caddy-message-api/store"
)

// Store is what the registry needs of a *store.Store.
type Store interface {
	Get(store.Ref) (store.Record, bool)
	Range(kind string) iter.Seq[store.Record]
	Watch(func([]store.Change)) (stop func())
	Update(ctx context.Context, refs []store.Ref, f func(*store.Tx) error) error
}

// Options are what a registry asks of the gateway.
type Options struct {
	// Now tells the time. Default: time.Now.
	Now func() time.Time
	// Validate checks a definition as the configuration is checked, and returns it with
	// its defaults filled in, its plans and its context paths. With deploy it must be fit
	// to be served. What is wrong is an *Error of kind Invalid with all problems at once.
	// It must not call the registry's methods that change anything. Required.
	Validate func(ctx context.Context, id string, definition json.RawMessage, deploy bool) (normalized json.RawMessage, plans []Plan, paths []string, err error)
	// LiveSubscriptions counts the subscriptions of a plan that are not closed or rejected.
	LiveSubscriptions func(api, plan string) int
	// ClosePlan closes all subscriptions of a plan. It is also called for plans that have
	// none, and again when a close is repeated.
	ClosePlan func(ctx context.Context, by, api, plan, reason string) error
	// OnChange is told of every change of an API, of this node and of others, in order and
	// one at a time; old is nil for a new one, new for a deleted one. A change of this node
	// has been told before the method that made it returns. Reloads (Declare) are not told.
	// It may read from the registry, and must not change anything in it.
	OnChange func(old, new *API)
}

// Registry knows all APIs, declared and managed. Reading it touches nothing but memory.
type Registry struct {
	store Store
	opts  Options
	stop  func()
	// current is replaced as a whole, so that the request path reads without a lock.
	current atomic.Pointer[index]
	// mu is held while the next index is made.
	mu       sync.Mutex
	declared map[string][]Plan
}

// New reads the APIs from the store and follows their changes until Close.
func New(s Store, opts Options) (*Registry, error) {
	if opts.Validate == nil {
		return nil, errors.New("lifecycle: Options.Validate is missing")
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.LiveSubscriptions == nil {
		opts.LiveSubscriptions = func(string, string) int { return 0 }
	}
	if opts.ClosePlan == nil {
		opts.ClosePlan = func(context.Context, string, string, string, string) error { return nil }
	}
	if opts.OnChange == nil {
		opts.OnChange = func(_, _ *API) {}
	}
	r := &Registry{store: s, opts: opts}
	r.current.Store(newIndex(nil, nil))
	// Watching begins before reading, so that nothing is missed in between. What is told
	// of meanwhile waits until everything has been read.
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stop = s.Watch(r.changed)
	stored := map[string]stored{}
	for rec := range s.Range(recordKind) {
		if !rec.Deleted {
			stored[rec.ID] = read(rec)
		}
	}
	r.current.Store(newIndex(stored, nil))
	return r, nil
}

// Close stops following the store.
func (r *Registry) Close() { r.stop() }

// Declare tells the APIs of the running configuration, with their plans; they replace those
// of the configuration before. A managed API with the id of a declared one is not served,
// and is among the Problems.
func (r *Registry) Declare(apis map[string][]Plan) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.declared = maps.Clone(apis)
	r.current.Store(newIndex(r.current.Load().stored, r.declared))
}

// changed follows the store. It looks up what is stored now instead of taking what it is
// told, so that a change that was read before it is told of is not undone.
func (r *Registry) changed(changes []store.Change) {
	var ids []string
	for _, c := range changes {
		if c.New != nil && c.New.Kind == recordKind {
			ids = append(ids, c.New.ID)
		}
	}
	if len(ids) == 0 {
		return
	}
	old, now := r.refresh(ids)
	for _, id := range ids {
		before, after := old.api(id), now.api(id)
		if before == nil && after == nil || before != nil && after != nil && before.Version == after.Version {
			continue
		}
		r.opts.OnChange(before, after)
	}
}

func (r *Registry) refresh(ids []string) (old, now *index) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old = r.current.Load()
	next := maps.Clone(old.stored)
	for _, id := range ids {
		rec, ok := r.store.Get(refOf(id))
		if !ok || rec.Deleted {
			delete(next, id)
			continue
		}
		next[id] = read(rec)
	}
	now = newIndex(next, r.declared)
	r.current.Store(now)
	return old, now
}
