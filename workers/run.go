package workers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"go.uber.org/zap"
)

// The pauses before a work that ended by itself is begun again. A run of that length makes
// the next pause short again.
const (
	minBackoff = time.Second
	maxBackoff = time.Minute
)

// run is a Run on its way. Its fields are under Registry.mu.
type run struct {
	version string
	term    uint64
	started time.Time
	fenced  bool
	drains  bool
	// stop ends ctx, which is Run's, and let ends the lease's, from which it comes.
	stop context.CancelFunc
	let  context.CancelCauseFunc
}

// drain has the run end what it has begun.
func (u *run) drain() {
	u.drains = true
	u.stop()
}

// fence has the run let go, and its owner be confirmed before the next. r.mu is held.
func (r *Registry) fence(t *task) {
	t.claimed = 0
	if t.run.fenced {
		return
	}
	t.run.fenced = true
	t.run.let(ErrFenced)
	r.fenced++
}

// tellFenced writes to the log how many had to let go. r.mu is held.
func (r *Registry) tellFenced() {
	if r.fenced > 0 {
		r.log.Warn("workers: "+ErrFenced.Error(), zap.Int("works", r.fenced))
		r.fenced = 0
	}
}

// start begins a work. r.mu is held.
func (r *Registry) start(t *task, p *view) {
	if lease := r.store.Lease(); lease.Term != t.claimed || !lease.Holds(time.Now()) {
		return
	}
	lease, let := context.WithCancelCause(context.Background())
	ctx, stop := context.WithCancel(context.WithValue(lease, leaseOf{}, lease))
	u := &run{version: t.work.Version, term: t.claimed, started: p.now, stop: stop, let: let}
	t.run = u
	t.anew = false // from now on its own failures count
	work, k := t.work, &keeper{r: r, t: t, u: u}
	r.runs.Go(func() {
		err := safely(ctx, work, k)
		stop()
		r.over(t, u, err)
		let(nil)
	})
	notify(r.guarding)
}

// safely makes an error of a panic: one work must not end the gateway.
func safely(ctx context.Context, work *Work, k Keeper) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it panicked: %v\n%s", p, debug.Stack())
		}
	}()
	return work.Run(ctx, k)
}

// over notes how a run has ended.
func (r *Registry) over(t *task, u *run, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer notify(r.wake)
	now := time.Now()
	t.run, t.due = nil, t.kept != nil
	t.ended = ""
	var failed Failure
	switch {
	case errors.As(err, &failed):
		if t.work == nil || t.work.Version == u.version {
			t.failed = &failure{cause: failed.WorkFailed(), version: u.version, at: now}
		}
		r.log.Warn("workers: a work has failed", zap.String("work", t.id), zap.Error(err))
	case u.fenced || u.drains:
		t.backoff, t.again = 0, time.Time{}
		if err != nil {
			r.log.Info("workers: a work ended with an error", zap.String("work", t.id), zap.Error(err))
		}
	default:
		r.backOff(t, u, err, now)
	}
}

// backOff has a work that ended by itself be begun again later.
func (r *Registry) backOff(t *task, u *run, err error, now time.Time) {
	if err == nil {
		err = errors.New("it ended by itself")
	}
	t.backoff = min(max(2*t.backoff, r.minBackoff), maxBackoff)
	if now.Sub(u.started) >= maxBackoff {
		t.backoff = r.minBackoff
	}
	pause := t.backoff + rand.N(t.backoff/4+1)
	t.again, t.ended = now.Add(pause), cut(err.Error())
	r.log.Warn("workers: a work ended with an error, and is begun again",
		zap.String("work", t.id), zap.Duration("in", pause), zap.Error(err))
}

// guard lets go of what runs when the lease is over, whatever else is going on.
func (r *Registry) guard() {
	for {
		r.mu.Lock()
		lease, now, running := r.store.Lease(), time.Now(), false
		for _, t := range r.tasks {
			if t.run == nil {
				continue
			}
			if t.run.term != lease.Term || !lease.Holds(now) {
				r.fence(t)
			}
			running = running || !t.run.fenced
		}
		r.tellFenced()
		r.mu.Unlock()
		wait := time.Hour
		if running {
			wait = min(lease.Until.Sub(now), r.ttl/4)
		}
		if !r.pause(wait, r.guarding) {
			return
		}
	}
}

// keeper is the Keeper of a run.
type keeper struct {
	r *Registry
	t *task
	u *run
}

// Load implements Keeper.
func (k *keeper) Load() json.RawMessage {
	k.r.mu.Lock()
	defer k.r.mu.Unlock()
	return k.t.known()
}

// Keep implements Keeper.
func (k *keeper) Keep(data json.RawMessage) {
	if len(data) > MaxKept || !json.Valid(data) {
		k.r.log.Error("workers: what a work wants to keep is no JSON or too long, and is not kept",
			zap.String("work", k.t.id), zap.Int("bytes", len(data)), zap.Int("most", MaxKept))
		return
	}
	k.r.mu.Lock()
	defer k.r.mu.Unlock()
	if k.t.run != k.u {
		return // Run has returned
	}
	k.t.kept = data
	k.t.keeps++
	if k.r.flush.IsZero() {
		k.r.flush = time.Now().Add(k.r.flushAfter)
		notify(k.r.wake)
	}
}

// Interface guard
var _ Keeper = (*keeper)(nil)
