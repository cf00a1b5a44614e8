package subscriptions

import (
	"container/heap"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/caddy-message-api/caddy-message-api/plans"
)

const (
	// longestNap bounds how late the clock notices that the machine slept, or that its time
	// was set.
	longestNap = time.Minute
	// sweepDelay is how long, and up to as long again, a node waits before it closes what
	// has expired. Some node is first, and the others then find it done.
	sweepDelay = 15 * time.Second
	// reviewEvery is how often it is looked for plans that were closed while somebody
	// subscribed on another node.
	reviewEvery = 10 * time.Minute
)

// deadline is when a subscription or key ends, or a push subscription begins, unless that has
// been changed since.
type deadline struct {
	at    time.Time
	id    string
	key   bool
	begin bool
}

// clock is the one timer for all that will expire or begin. A deadline that is moved stays in it and
// is found out of date when its time comes.
type clock struct {
	mu   sync.Mutex
	heap deadlines
	wake chan struct{}
}

type deadlines []deadline

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].at.Before(d[j].at) }
func (d deadlines) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *deadlines) Push(x any)        { *d = append(*d, x.(deadline)) }
func (d *deadlines) Pop() any {
	last := len(*d) - 1
	x := (*d)[last]
	(*d)[last] = deadline{}
	*d = (*d)[:last]
	return x
}

func newClock() *clock { return &clock{wake: make(chan struct{}, 1)} }

func (c *clock) add(times ...deadline) {
	if len(times) == 0 {
		return
	}
	c.mu.Lock()
	if len(times) > len(c.heap) {
		c.heap = append(c.heap, times...)
		heap.Init(&c.heap)
	} else {
		for _, t := range times {
			heap.Push(&c.heap, t)
		}
	}
	c.mu.Unlock()
	c.nudge()
}

// nudge has the clock look at what there is now.
func (c *clock) nudge() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// passed takes out what is over, and says how long until the next.
func (c *clock) passed(now time.Time) (over []deadline, next time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.heap) > 0 && !now.Before(c.heap[0].at) {
		over = append(over, heap.Pop(&c.heap).(deadline))
	}
	next = longestNap
	if len(c.heap) > 0 {
		next = min(next, c.heap[0].at.Sub(now))
	}
	return over, next
}

// run ends what expires.
func (r *Registry) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.clock.wake:
		case <-timer.C:
		}
		now := r.opts.Now()
		over, next := r.clock.passed(now)
		r.tell(r.index.expire(over, now))
		timer.Reset(next)
	}
}

// tidy closes, some time later, what is over. It waits for the storage, which run must not.
func (r *Registry) tidy(ctx context.Context) {
	review := time.NewTimer(jitter(reviewEvery / 2))
	defer review.Stop()
	sweep := time.NewTimer(0)
	defer sweep.Stop()
	waiting := true // for the sweep
	for {
		wake := r.index.overdue
		if waiting {
			wake = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-wake:
			sweep.Reset(jitter(sweepDelay))
			waiting = true
		case <-sweep.C:
			waiting = false
			if err := r.sweep(ctx); err != nil {
				r.complain(ctx, err)
				sweep.Reset(jitter(sweepDelay))
				waiting = true
			}
		case <-review.C:
			r.complain(ctx, r.review(ctx))
			review.Reset(jitter(reviewEvery))
		}
	}
}

// complain tells what went wrong, but for what Close broke off: another node, or the next
// start, does it.
func (r *Registry) complain(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil && r.opts.OnError != nil {
		r.opts.OnError(err)
	}
}

// expire ends what is over, and says whether that concerns push subscriptions, of which some
// may begin instead. Deadlines that have been moved later come in again.
func (x *index) expire(over []deadline, now time.Time) (ended []Ended, pushed bool) {
	if len(over) == 0 {
		return nil, false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, d := range over {
		switch {
		case d.key:
			x.expireKey(d.id, now)
		case d.begin:
			x.pushed = true // whether it really begins is for Pushed to say
		default:
			x.expireSubscription(d.id, now)
		}
	}
	return x.takeEnded(), x.takePushed()
}

func (x *index) expireSubscription(id string, now time.Time) {
	e := x.subs[id]
	if e == nil {
		return
	}
	s := e.state.Load()
	if s == nil || !s.status.Live() || !s.expired(now) {
		return
	}
	x.end(e, s, "the subscription has expired", true)
	x.pushed = x.pushed || s.push != nil
	x.mustClose(e)
}

func (x *index) expireKey(id string, now time.Time) {
	k := x.keys[id]
	if k == nil || !k.open || k.standing(now) != plans.Expired {
		return
	}
	k.open = false
	if k.sub.open {
		x.endKey(k, true)
	}
}

// mustClose has the sweep close a subscription.
func (x *index) mustClose(e *subEntry) {
	x.due[e] = struct{}{}
	select {
	case x.overdue <- struct{}{}:
	default:
	}
}

// sweep closes what is over: subscriptions that expired, or whose application is archived.
func (r *Registry) sweep(ctx context.Context) error {
	now := r.opts.Now()
	var expired, archived []string
	r.index.mu.RLock()
	for e := range r.index.due {
		s := e.state.Load()
		switch {
		case s == nil || !s.status.Live():
		case s.expired(now):
			expired = append(expired, e.id)
		case s.app.archived():
			archived = append(archived, e.id)
		}
	}
	r.index.mu.RUnlock()
	slices.Sort(expired) // alike on every node
	slices.Sort(archived)
	if _, err := r.closeAll(ctx, "auto", "expired", expired, (*Subscription).expired); err != nil {
		return fmt.Errorf("expired subscriptions could not be closed yet: %w", err)
	}
	if _, err := r.closeAll(ctx, "auto", reasonArchived, archived, nil); err != nil {
		return fmt.Errorf("subscriptions of archived applications could not be closed yet: %w", err)
	}
	return nil
}

// review closes what was subscribed to a plan on one node while another closed the plan.
func (r *Registry) review(ctx context.Context) error {
	for _, name := range r.index.populated() {
		info, err := r.opts.Plan(name.api, name.plan)
		if err != nil || info.Stage != "closed" {
			continue // a plan that is not configured here may be elsewhere
		}
		if _, err := r.ClosePlan(ctx, "auto", name.api, name.plan, "the plan was closed"); err != nil {
			return fmt.Errorf("subscriptions of a closed plan could not be closed yet: %w", err)
		}
	}
	return nil
}

// populated are the plans that have live subscriptions.
func (x *index) populated() []planName {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var names []planName
	for name, p := range x.plans {
		if p.alive > 0 {
			names = append(names, name)
		}
	}
	return names
}
