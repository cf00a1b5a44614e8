package subscriptions

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-message-api/caddy-message-api/plans"
	"github.com/caddy-message-api/caddy-message-api/store"
)

// defaultOverlap is how long the old keys of a subscription live on when one is renewed.
const defaultOverlap = 2 * time.Hour

// Store is what the registry needs of the store.
type Store interface {
	Get(store.Ref) (store.Record, bool)
	Range(kind string) iter.Seq[store.Record]
	Watch(func([]store.Change)) (stop func())
	Update(ctx context.Context, refs []store.Ref, f func(*store.Tx) error) error
}

// PlanInfo is what subscriptions need to know about a plan.
type PlanInfo struct {
	// Kind is the plan's type, e.g. "api_key".
	Kind string
	// Validation is "auto" or "manual": whether somebody accepts subscriptions. Empty is
	// manual.
	Validation string
	// Stage is "staging", "published", "deprecated" or "closed".
	Stage string
	// Deprecated says that the API is.
	Deprecated bool
	// Conditions is the revision of the general conditions that a consumer agrees to; empty
	// is none.
	Conditions string
	// Consumer checks the consumer configuration that is asked for; nil unless the plan
	// pushes. old is the whole of the one in force, also where another one is proposed
	// already, or nil where there is none that can be read. whole is what is to be kept, and
	// shown what may be seen of it. Problems are all that is wrong with asked, by the path of
	// the member in it. An error means that it can't be asked now. It must answer from memory.
	Consumer func(old, asked json.RawMessage) (whole, shown json.RawMessage, problems []Problem, err error)
}

// pushes says that subscriptions to the plan have a consumer configuration.
func (p *PlanInfo) pushes() bool { return p.Kind == kindPush || p.Consumer != nil }

// Ended is a right that ended while sessions may be running on it.
type Ended struct {
	API, Plan, Application, Subscription string
	// Credential is the key's or client's id; empty is every credential of the subscription.
	Credential string
	// Expired says that its time was over; otherwise somebody took it away.
	Expired bool
	// Detail is for the client.
	Detail string
}

// Options are how a registry works.
type Options struct {
	// KeySecret is what keys are hashed with, and what consumer configurations are sealed
	// under, of at least 32 bytes, the same on every node. Keys made under another one let
	// nobody in, and configurations sealed under another one can't be used. Default: one is
	// made with the first key or configuration, and kept in the store, which protects sealed
	// configurations from being shown by accident, and from nobody who reads all of the
	// storage or a backup.
	KeySecret []byte
	// CustomKeys allows keys that somebody thought out. How hard one is to guess is then
	// that somebody's business.
	CustomKeys bool
	// Overlap is how long the old keys of a subscription live on when one is renewed.
	// Default: 2h.
	Overlap time.Duration
	// Now is the time. Default: time.Now.
	Now func() time.Time
	// Plan tells about a plan; its error is for the caller who asked for a subscription.
	// It must answer from memory. Required.
	Plan func(api, plan string) (PlanInfo, error)
	// OnEnd is told when a right has ended, by whatever node. It must not wait, nor change
	// subscriptions.
	OnEnd func(Ended)
	// OnPush is told that what Pushed or ConsumerOf answer may have changed, of whatever
	// subscription, by whatever node or by time. It is not told of what there is when the
	// registry is made. It must not wait, nor change subscriptions.
	OnPush func()
	// OnError is told what went wrong in the background, where nobody waits for an answer:
	// that expired subscriptions could not be closed yet.
	OnError func(error)
}

// Registry holds the applications, subscriptions and keys.
type Registry struct {
	store Store
	opts  Options
	// hasher is nil until there is a secret, and so no key.
	hasher atomic.Pointer[hasher]
	index  *index
	// clock ends what expires.
	clock *clock

	cancel context.CancelFunc
	stop   func()
	done   sync.WaitGroup
}

// New makes a registry of what is in the store. It waits for nothing but memory.
func New(s Store, opts Options) (*Registry, error) {
	if opts.Plan == nil {
		return nil, errors.New("subscriptions need a Plan function")
	}
	if opts.Overlap < 0 {
		return nil, fmt.Errorf("the overlap %s of renewed keys is less than 0", opts.Overlap)
	}
	if opts.Overlap == 0 {
		opts.Overlap = defaultOverlap
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	r := &Registry{store: s, opts: opts, index: newIndex(), clock: newClock()}
	if opts.KeySecret != nil {
		if len(opts.KeySecret) < minKeySecret {
			return nil, fmt.Errorf("the key secret has %d bytes: use at least %d random ones", len(opts.KeySecret), minKeySecret)
		}
		r.hasher.Store(newHasher(opts.KeySecret))
	}
	r.load()
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.done.Go(func() { r.run(ctx) })
	r.done.Go(func() { r.tidy(ctx) })
	return r, nil
}

// Close ends what runs in the background. Directories go on answering with what they know.
func (r *Registry) Close() {
	r.stop()
	r.cancel()
	r.done.Wait()
}

// load fills the index. Changes that come meanwhile wait for it, or are read twice.
func (r *Registry) load() {
	now := r.opts.Now()
	r.stop = r.store.Watch(r.changed)
	r.index.mu.Lock()
	defer r.index.mu.Unlock()
	for rec := range r.store.Range(KindSecret) {
		r.learnSecret(rec)
	}
	r.index.loading = true
	for _, kind := range []string{KindApplication, KindSubscription, KindKey} {
		for rec := range r.store.Range(kind) {
			r.index.apply(rec, now)
		}
	}
	r.index.loaded()
	r.clock.add(r.index.takeTimes()...)
}

// changed brings the index to what the store says now, and tells what ended by it.
func (r *Registry) changed(changes []store.Change) {
	now := r.opts.Now()
	r.index.mu.Lock()
	for _, c := range changes {
		if c.New == nil {
			continue
		}
		if c.New.Kind == KindSecret {
			r.learnSecret(*c.New)
			r.index.pushed = true // what could not be opened may be now
			continue
		}
		r.index.apply(*c.New, now)
	}
	ended, times, pushed := r.index.takeEnded(), r.index.takeTimes(), r.index.takePushed()
	r.index.mu.Unlock()
	r.clock.add(times...)
	r.tell(ended, pushed)
}

// tell says what ended, and whether something about push subscriptions has changed.
func (r *Registry) tell(ended []Ended, pushed bool) {
	if pushed && r.opts.OnPush != nil {
		r.opts.OnPush()
	}
	if r.opts.OnEnd == nil {
		return
	}
	for _, e := range ended {
		r.opts.OnEnd(e)
	}
}

// learnSecret takes the secret from the store, where none is configured.
func (r *Registry) learnSecret(rec store.Record) {
	if r.opts.KeySecret != nil || rec.ID != secretRef.ID || rec.Deleted {
		return
	}
	h, err := readSecret(rec.Data)
	if err != nil {
		r.index.problem(rec.Ref, err.Error())
		return
	}
	delete(r.index.problems, rec.Ref)
	r.hasher.Store(h)
}

// Problems are records that can't be used, keys that let nobody in, and consumer
// configurations that can't be opened.
func (r *Registry) Problems() []Problem {
	name := ""
	if h := r.hasher.Load(); h != nil {
		name = h.name
	}
	list := append(r.index.report(name), r.unopened()...)
	slices.SortFunc(list, func(a, b Problem) int { return strings.Compare(a.Path+a.Detail, b.Path+b.Detail) })
	return list
}

// Directory returns whom the subscriptions of a plan let in. It is good for as long as the
// registry, also where the plan has no subscription yet.
func (r *Registry) Directory(api, plan string) plans.Directory {
	return directory{r, r.index.planOf(api, plan)}
}

// LiveSubscriptions counts the pending, accepted and paused subscriptions of a plan, or of a
// whole API where plan is empty.
func (r *Registry) LiveSubscriptions(api, plan string) int { return r.index.live(api, plan) }

// jitter spreads what every node would otherwise do at the same moment.
func jitter(d time.Duration) time.Duration { return d + rand.N(d) }

// now is the time as it is stored: without what a clock of this process adds to it, and no
// finer than ids tell.
func (r *Registry) now() time.Time { return r.opts.Now().UTC().Truncate(time.Millisecond) }
