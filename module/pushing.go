package module

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/plans"
	"github.com/caddy-message-api/caddy-message-api/subscriptions"
	"github.com/caddy-message-api/caddy-message-api/workers"
)

// pushing keeps what is delivered in line with what is to be delivered: the subscriptions of
// push plans and those of definitions, of the APIs that the running configuration serves. Who
// of several nodes delivers which is the registry's business.
type pushing struct {
	f        *facts
	log      *zap.Logger
	registry *workers.Registry
	here     sync.Map // of id to *worker: those that run on this node
	wake     chan struct{}
	cancel   context.CancelFunc
	done     chan struct{}
}

// pushDelay gathers changes that come together, as in a reload.
const pushDelay = 20 * time.Millisecond

// measureEvery is how often the states of deliveries are counted for the metrics.
const measureEvery = 5 * time.Second

func newPushing(f *facts, log *zap.Logger) *pushing {
	ctx, cancel := context.WithCancel(context.Background())
	p := &pushing{f: f, log: log, wake: make(chan struct{}, 1), cancel: cancel, done: make(chan struct{})}
	p.registry = workers.New(workers.Options{Store: f.store, Logger: log.Named("workers")})
	go p.run(ctx)
	return p
}

// changed has the list made anew. It does not wait.
func (p *pushing) changed() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *pushing) run(ctx context.Context) {
	defer close(p.done)
	tick := time.NewTicker(measureEvery)
	defer tick.Stop()
	var measured map[string]bool
	for {
		select {
		case <-p.wake:
		case <-tick.C:
			measured = p.measure(measured)
			p.tidy(ctx)
			continue
		case <-ctx.Done():
			p.measure(measured)
			return
		}
		select {
		case <-time.After(pushDelay):
		case <-ctx.Done():
			return
		}
		p.registry.Want(p.wanted())
	}
}

// tidy forgets what was kept of subscriptions that have ended for good.
func (p *pushing) tidy(ctx context.Context) {
	if theFacts.Load() != p.f { // the subscriptions may not be read yet
		return
	}
	for _, st := range p.registry.List() {
		sub, ok := p.f.subscriptions.Subscription(st.ID)
		if !ok || sub.Status.Live() || st.State == workers.Running {
			continue // one of a definition, or one that goes on
		}
		if err := p.registry.Forget(ctx, st.ID); err != nil && ctx.Err() == nil {
			p.log.Warn("what was kept of a subscription that has ended can't be removed; trying again", zap.Error(err))
			return
		}
	}
}

// close drains the workers of this node and gives them to others.
func (p *pushing) close(ctx context.Context) error {
	p.cancel()
	<-p.done
	return p.registry.Close(ctx)
}

func (p *pushing) wanted() []workers.Work {
	var list []workers.Work
	for _, one := range p.list() {
		if one.active {
			list = append(list, workers.Work{ID: one.id, Version: one.version, Run: one.work(p.f)})
		}
	}
	return list
}

// pushed is a subscription to which the gateway delivers: one of the store, or one that its
// API's definition brings along.
type pushed struct {
	unit *unit
	way  *way
	// id is what the admin API calls it, client what it is called at the broker.
	id, client string
	static     bool
	// active: it is to be delivered now. why says why not.
	active    bool
	why       string
	principal plans.Principal
	limits    plans.Limits
	metadata  map[string]string
	// version changes with everything that a worker goes by.
	version  string
	shown    json.RawMessage
	consumer func() (json.RawMessage, error)
}

// list is everything that this node could deliver, active or not, by id.
func (p *pushing) list() []*pushed {
	app := currentApp()
	if app == nil || theFacts.Load() != p.f {
		return nil
	}
	var list []*pushed
	for _, u := range app.units() {
		w := u.pushing()
		if w == nil {
			continue
		}
		started := p.f.lifecycle.IsStarted(u.def.ID)
		for i := range u.statics {
			list = append(list, u.pushedStatic(w, &u.statics[i], started))
		}
		for _, plan := range u.plans {
			if plan.kind != kindPush {
				continue
			}
			for _, sub := range p.f.subscriptions.Pushed(u.def.ID, plan.name) {
				list = append(list, p.pushed(u, w, plan, &sub, started))
			}
		}
	}
	slices.SortFunc(list, func(a, b *pushed) int { return cmp.Compare(a.id, b.id) })
	return list
}

// find returns the subscription of an id, if this node serves its API.
func (p *pushing) find(id string) (*pushed, error) {
	app := currentApp()
	if sub, ok := p.f.subscriptions.Subscription(id); ok && app != nil {
		for _, u := range app.units() {
			w := u.pushing()
			i := slices.IndexFunc(u.plans, func(plan *plan) bool { return plan.name == sub.Plan && plan.kind == kindPush })
			if u.def.ID == sub.API && w != nil && i >= 0 {
				return p.pushed(u, w, u.plans[i], &sub, p.f.lifecycle.IsStarted(sub.API)), nil
			}
		}
		return nil, &subscriptions.Error{Kind: subscriptions.Conflict,
			Detail: "this subscription is not to a plan push of an API that is served here, so nothing is delivered to it"}
	}
	for _, one := range p.list() {
		if one.id == id {
			return one, nil
		}
	}
	return nil, &subscriptions.Error{Kind: subscriptions.NotFound, Detail: "there is no such subscription"}
}

func (u *unit) pushedStatic(w *way, s *static, started bool) *pushed {
	one := &pushed{
		unit: u, way: w, id: u.staticID(s.name), client: s.name, static: true, active: started, shown: s.shown,
		principal: plans.Principal{API: u.def.ID, Subscription: u.staticID(s.name)},
		consumer:  func() (json.RawMessage, error) { return s.whole, nil },
		version:   u.hash,
	}
	if !started {
		one.why = "the API is stopped"
	}
	return one
}

func (p *pushing) pushed(u *unit, w *way, plan *plan, sub *subscriptions.Subscription, started bool) *pushed {
	one := &pushed{
		unit: u, way: w, id: sub.ID, client: sub.ID, shown: sub.Consumer, metadata: sub.Metadata,
		principal: plans.Principal{API: sub.API, Plan: sub.Plan, Application: sub.Application, Subscription: sub.ID,
			Expires: sub.Ends, Since: sub.Since(), Limits: sub.Limits},
		limits:   plans.Limits{ReceiveRate: plan.config.Limits.Over(sub.Limits).ReceiveRate},
		consumer: func() (json.RawMessage, error) { return p.f.subscriptions.ConsumerOf(sub.ID) },
	}
	one.version = versionOf(u.hash, sub)
	now := time.Now()
	switch {
	case !started:
		one.why = "the API is stopped"
	case sub.Status != subscriptions.Accepted:
		one.why = "the subscription is " + string(sub.Status)
	case !sub.Starts.IsZero() && now.Before(sub.Starts):
		one.why = "the subscription has not begun yet"
	case !sub.Ends.IsZero() && !now.Before(sub.Ends):
		one.why = "the subscription has expired"
	default:
		one.active = true
	}
	return one
}

// versionOf is another one when something has changed that a worker goes by, and the same on
// every node.
func versionOf(hash string, sub *subscriptions.Subscription) string {
	raw, err := json.Marshal([]any{hash, sub.Sealed, sub.Limits, sub.Metadata, sub.Ends})
	if err != nil { // they were read from JSON
		return hash
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// values are what the placeholders of an endpoint stand for.
func (p *pushed) values() endpoints.Values {
	repl := caddy.NewEmptyReplacer()
	const prefix = "message_api.subscription."
	repl.Set(prefix+"id", p.id)
	repl.Set(prefix+"name", p.client)
	repl.Set(prefix+"api", p.principal.API)
	repl.Set(prefix+"plan", p.principal.Plan)
	repl.Set(prefix+"application", p.principal.Application)
	for name, value := range p.metadata {
		repl.Set(prefix+"metadata."+name, value)
	}
	return values{repl}
}

// units are those that the configuration serves, declared and managed.
func (a *App) units() []*unit {
	var list []*unit
	a.mu.Lock()
	for id, place := range a.apis {
		if u := runtime.find(id, place.hash); u != nil {
			list = append(list, u)
		}
	}
	a.mu.Unlock()
	return append(list, a.managed.units()...)
}

// pushChanged has the running configuration's list made anew.
func pushChanged() {
	if f := theFacts.Load(); f != nil {
		f.pushing.changed()
	}
}
