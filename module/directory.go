package module

import (
	"sync/atomic"

	"github.com/caddy-message-api/caddy-message-api/lifecycle"
	"github.com/caddy-message-api/caddy-message-api/plans"
)

// directory is what one plan sees of the subscriptions. A unit outlives configurations, and
// the store can be another one after a reload, so that each question goes to the current one.
type directory struct {
	api, plan string
	last      atomic.Pointer[scoped]
}

// scoped is a directory of one store.
type scoped struct {
	of  *facts
	dir plans.Directory
}

func newDirectory(api, plan string) *directory { return &directory{api: api, plan: plan} }

// current is nil while there is no store; nobody is let in then.
func (d *directory) current() plans.Directory {
	f := theFacts.Load()
	if f == nil {
		return nil
	}
	s := d.last.Load()
	if s == nil || s.of != f {
		s = &scoped{of: f, dir: f.subscriptions.Directory(d.api, d.plan)}
		d.last.Store(s)
	}
	return s.dir
}

// Key implements plans.Directory.
func (d *directory) Key(secret string) (plans.Holder, plans.Standing) {
	if dir := d.current(); dir != nil {
		return d.open(dir.Key(secret))
	}
	return plans.Holder{}, plans.Unknown
}

// Client implements plans.Directory.
func (d *directory) Client(id string) (plans.Holder, plans.Standing) {
	if dir := d.current(); dir != nil {
		return d.open(dir.Client(id))
	}
	return plans.Holder{}, plans.Unknown
}

// open refuses everybody once the plan is closed, also while its subscriptions are still
// being closed one by one.
func (d *directory) open(h plans.Holder, s plans.Standing) (plans.Holder, plans.Standing) {
	if s == plans.Good && d.closed() {
		return h, plans.Closed
	}
	return h, s
}

// closed says that the plan was closed at run time.
func (d *directory) closed() bool {
	f := theFacts.Load()
	if f == nil {
		return false
	}
	stage, ok := f.lifecycle.Stage(d.api, d.plan)
	return ok && stage == lifecycle.Closed
}
