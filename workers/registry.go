package workers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/store"
)

// Registry does what this node owns of the work that it is to do.
type Registry struct {
	store      *store.Store
	log        *zap.Logger
	onChange   func(string)
	ttl        time.Duration
	flushAfter time.Duration
	minBackoff time.Duration
	// wake has everything be looked at, and guarding tells guard that something runs.
	wake, guarding chan struct{}

	//nolint:containedctx // the life of the registry, which no single call owns
	ctx      context.Context
	cancel   context.CancelFunc
	unwatch  func()
	wg, runs sync.WaitGroup

	mu    sync.Mutex
	tasks map[string]*task
	// node is this one's id, and former are those that it had.
	node     string
	nodeHash uint64
	former   map[string]bool
	writing  int
	flush    time.Time       // when what is kept is stored
	shared   time.Time       // when work was last offered to others
	declined map[string]bool // nodes that have not taken what they were offered last
	// unlease ends the lease, or is nil if there is none. held is when there was last one, or
	// when it was asked for.
	unlease func()
	held    time.Time
	fenced  int // runs that had to let go and were not logged yet
	closing bool
	drained chan struct{}
}

// New makes a registry that does nothing yet. It waits for nothing but memory.
func New(opt Options) *Registry {
	if opt.TTL <= 0 {
		opt.TTL = max(store.DefaultTTL, opt.Store.Interval())
	}
	if opt.Logger == nil {
		opt.Logger = zap.NewNop()
	}
	if opt.OnChange == nil {
		opt.OnChange = func(string) {}
	}
	r := &Registry{
		store: opt.Store, log: opt.Logger, onChange: opt.OnChange, ttl: opt.TTL, flushAfter: time.Second, minBackoff: minBackoff,
		wake: make(chan struct{}, 1), guarding: make(chan struct{}, 1), drained: make(chan struct{}),
		tasks: make(map[string]*task), former: make(map[string]bool), declined: make(map[string]bool), node: opt.Store.Node(),
	}
	r.nodeHash = hash(r.node)
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.unwatch = r.store.Watch(r.changed)
	r.mu.Lock()
	for rec := range r.store.Range(Kind) {
		r.learn(rec)
	}
	r.mu.Unlock()
	r.wg.Go(r.loop)
	r.wg.Go(r.guard)
	return r
}

func (r *Registry) changed(changes []store.Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range changes {
		if c.New != nil && c.New.Kind == Kind {
			r.learn(*c.New)
			notify(r.wake)
		}
	}
}

// Want says what this node is to do if nobody else does: all of it. What was wanted before and
// is not in list any more is ended and released, and what has another Version is ended and
// begun anew; otherwise another Run counts from the next time on. It returns at once.
func (r *Registry) Want(list []Work) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing {
		return
	}
	wanted := make(map[string]bool, len(list))
	for _, work := range list {
		if wanted[work.ID] {
			r.log.Error("workers: two works have the same id; the first counts", zap.String("work", work.ID))
			continue
		}
		wanted[work.ID] = true
		t := r.tasks[work.ID]
		if t == nil {
			t = r.add(work.ID)
		}
		r.want(t, work)
	}
	for id, t := range r.tasks {
		if !wanted[id] {
			t.work, t.forgotten, t.anew, t.offered = nil, false, false, ""
		}
	}
	notify(r.wake)
}

func (r *Registry) want(t *task, work Work) {
	if t.work != nil && t.work.Version != work.Version {
		t.anew, t.forgotten, t.failed = true, false, nil
		t.backoff, t.again = 0, time.Time{}
	}
	t.work, t.unusable = &work, ""
	if len(work.ID) == 0 || len(work.ID) > 512 || !utf8.ValidString(work.ID) || work.Run == nil {
		t.unusable = "its id must be UTF-8 of 1 to 512 bytes, and it must have a Run"
		r.log.Error("workers: a work can't be done: "+t.unusable, zap.String("work", work.ID))
	}
}

func (r *Registry) add(id string) *task {
	t := &task{id: id, since: time.Now(), shown: shown{state: Waiting}}
	r.tasks[id] = t
	return t
}

// loop looks at everything when something has changed, and every now and then. It never
// waits for the storage.
func (r *Registry) loop() {
	for r.pause(r.step(), r.wake) {
	}
}

// step moves everything on, and says after what time it is to be done again.
func (r *Registry) step() time.Duration {
	r.mu.Lock()
	p := r.look()
	r.lease(p)
	r.share(p)
	r.dueKept(p)
	var list []todo
	for id, t := range r.tasks {
		if a := r.decide(t, p); a != nothing {
			list = append(list, todo{t, a})
		}
		if t.work == nil && !t.have && t.run == nil && !t.busy {
			delete(r.tasks, id)
		}
	}
	r.tellFenced()
	r.write(list, p)
	told := r.told(p)
	r.drainedNow()
	wait := r.nextStep(p)
	r.mu.Unlock()
	for _, id := range told {
		r.onChange(id)
	}
	return wait
}

// lease keeps one while there is something to do. r.mu is held.
func (r *Registry) lease(p *view) {
	needed := false
	for _, t := range r.tasks {
		needed = needed || t.wanted() || t.busy || t.run != nil || t.have && r.mine(t.rec.Owner)
	}
	switch {
	case needed && r.unlease == nil && !r.closing:
		r.unlease, r.held = r.store.KeepAlive(r.ttl), p.now
	case !needed && r.unlease != nil:
		r.unlease()
		r.unlease = nil
	}
}

// dueKept has what is kept be stored when its time has come. r.mu is held.
func (r *Registry) dueKept(p *view) {
	if r.flush.IsZero() || p.now.Before(r.flush) {
		return
	}
	r.flush = time.Time{}
	for _, t := range r.tasks {
		t.due = t.kept != nil
	}
}

// nextStep is when everything is to be looked at again at the latest. r.mu is held.
func (r *Registry) nextStep(p *view) time.Duration {
	wait := time.Hour
	if len(r.tasks) > 0 {
		wait = max(min(r.ttl/8, 250*time.Millisecond), time.Millisecond)
	}
	if !r.flush.IsZero() {
		wait = min(wait, max(r.flush.Sub(p.now), 0))
	}
	return wait
}

// drainedNow tells Close that everything has ended. r.mu is held.
func (r *Registry) drainedNow() {
	if !r.closing {
		return
	}
	for _, t := range r.tasks {
		if t.run != nil || t.busy || r.unsaved(t) && t.fails < closeTries {
			return
		}
	}
	select {
	case <-r.drained:
	default:
		close(r.drained)
	}
}

// pause waits for d or for early, and says whether the registry goes on.
func (r *Registry) pause(d time.Duration, early <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-r.ctx.Done():
		return false
	case <-early:
	case <-timer.C:
	}
	return true
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Close has everything end, stores what was kept, and ends the lease, by which all that this
// node owned is free for others at once. When ctx is done what still runs has to let go, and
// the lease goes on until it has.
func (r *Registry) Close(ctx context.Context) error {
	r.mu.Lock()
	if r.closing {
		r.mu.Unlock()
		return nil
	}
	r.closing = true
	for _, t := range r.tasks {
		t.fails, t.before = 0, time.Time{}
	}
	notify(r.wake)
	r.mu.Unlock()
	var err error
	select {
	case <-r.drained:
	case <-ctx.Done():
		err = fmt.Errorf("workers: %w", context.Cause(ctx))
	}
	r.cancel()
	r.unwatch()
	r.wg.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	running, unsaved := 0, 0
	for _, t := range r.tasks {
		if t.run != nil {
			r.fence(t)
			running++
		}
		if r.unsaved(t) {
			unsaved++
		}
	}
	if r.unlease != nil && running > 0 {
		go func() { r.runs.Wait(); r.unlease() }()
	} else if r.unlease != nil {
		r.unlease()
	}
	if unsaved > 0 && err == nil {
		err = errors.New("workers: the storage could not be written")
	}
	if err != nil {
		return fmt.Errorf("%w: %d works had not ended, and what %d have kept last, or why they failed, is not stored", err, running, unsaved)
	}
	r.runs.Wait()
	return nil
}
