package subscriptions

import (
	"slices"
	"sync"
	"time"
)

// planIndex is one plan of one API, as far as subscriptions know it. It is never removed: a
// plan that is configured asks it.
type planIndex struct {
	api, plan string
	// subs, push and alive are under the index's lock. push are the live subscriptions with a
	// consumer configuration.
	subs  ordered
	push  ordered
	alive int

	mu sync.RWMutex
	// current is the subscription that counts for each application: the live one, else the
	// last. Push subscriptions don't: nobody comes in by them, and there may be several.
	current map[*appEntry]*subEntry
	// spare are further live ones of an application. There are none, unless two nodes that
	// did not see each other made them, or an import brought them.
	spare map[*appEntry][]*subEntry
}

func newPlanIndex(api, plan string) *planIndex {
	return &planIndex{api: api, plan: plan, current: map[*appEntry]*subEntry{}, spare: map[*appEntry][]*subEntry{}}
}

func (p *planIndex) of(app *appEntry) *subEntry {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.current[app]
}

// count keeps the number of live subscriptions.
func (p *planIndex) count(old, next *subState) {
	if old != nil && old.status.Live() {
		p.alive--
	}
	if next != nil && next.status.Live() {
		p.alive++
	}
}

// choose decides which subscription of an application counts, after e has changed. Every node
// decides alike: among several live ones the first.
func (p *planIndex) choose(app *appEntry, e *subEntry, live bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notSpare(app, e)
	current := p.current[app]
	switch {
	case current == nil:
		p.current[app] = e
	case current == e:
		if !live {
			p.promote(app)
		}
	case live && !current.live():
		p.current[app] = e
	case live && e.compare(current.created, current.id) < 0:
		p.current[app] = e
		p.spare[app] = append(p.spare[app], current)
	case live:
		p.spare[app] = append(p.spare[app], e)
	case !current.live() && e.compare(current.created, current.id) > 0:
		p.current[app] = e
	}
}

// drop forgets a subscription.
func (p *planIndex) drop(app *appEntry, e *subEntry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notSpare(app, e)
	if p.current[app] != e {
		return
	}
	delete(p.current, app)
	p.promote(app)
}

// promote puts the first spare one in the place of the current, if there is a spare one.
func (p *planIndex) promote(app *appEntry) {
	spare := p.spare[app]
	if len(spare) == 0 {
		return
	}
	first := slices.MinFunc(spare, func(a, b *subEntry) int { return a.compare(b.created, b.id) })
	p.current[app] = first
	p.notSpare(app, first)
}

func (p *planIndex) notSpare(app *appEntry, e *subEntry) {
	if len(p.spare) == 0 {
		return
	}
	rest := slices.DeleteFunc(p.spare[app], func(s *subEntry) bool { return s == e })
	if len(rest) == 0 {
		delete(p.spare, app)
		return
	}
	p.spare[app] = rest
}

func (e *subEntry) live() bool {
	s := e.state.Load()
	return s != nil && s.status.Live()
}

func (s *subState) expired(now time.Time) bool { return !s.ends.IsZero() && !now.Before(s.ends) }

// pushes says that there may be something to push for it.
func (s *subState) pushes() bool { return s.push != nil && s.status.Live() }

// begins says that the clock has to tell when it begins.
func (s *subState) begins(now time.Time) bool { return s.pushes() && now.Before(s.starts) }

// expires says that the clock has to look at it some time.
func (s *subState) expires(now time.Time) bool {
	return s.status.Live() && !s.ends.IsZero() && !s.expired(now)
}
