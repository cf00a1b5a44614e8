package worker

import (
	"time"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
)

// keepTime is the goroutine that lets parked lanes go on when they are due, and has the
// progress kept. It sleeps until the next of that.
func (e *engine) keepTime() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-e.kick:
		case <-e.quit:
			return
		}
		next, keep := e.tick(time.Now())
		if keep != nil {
			e.opt.Keep(keep)
		}
		timer.Reset(next)
	}
}

const (
	// idleTick is how long the keeper sleeps when it knows of nothing.
	idleTick = time.Hour
	// idleWorker is for how long a goroutine may have nothing to send before it ends.
	idleWorker = 10 * time.Second
)

// tick does what is due, and says for how long nothing is.
func (e *engine) tick(now time.Time) (time.Duration, *entrypoints.Progress) {
	e.mu.Lock()
	defer e.mu.Unlock()
	woken := 0
	for e.parked.Len() > 0 && !e.parked.lanes[0].due.After(now) {
		l := e.parked.lanes[0]
		e.parked.remove(l)
		e.ready.push(l)
		woken++
	}
	e.wake(woken)
	e.expire(now)
	e.dismiss(now)
	var keep *entrypoints.Progress
	if e.keepDue(now) {
		keep = e.snapshot()
	}
	e.armed = e.next(now)
	return max(time.Until(e.armed), 0), keep
}

func (e *engine) keepDue(now time.Time) bool {
	since := now.Sub(e.news.kept)
	return e.news.changed && since >= keepSoon || e.news.counted && since >= keepLater
}

// next is when something is due.
func (e *engine) next(now time.Time) time.Time {
	next := now.Add(idleTick)
	sooner := func(t time.Time) {
		if t.Before(next) {
			next = t
		}
	}
	if e.parked.Len() > 0 {
		sooner(e.parked.lanes[0].due)
	}
	if !e.expires.IsZero() {
		sooner(e.expires)
	}
	if e.idle > 0 {
		sooner(e.lookIdle)
	}
	switch {
	case e.news.changed:
		sooner(e.news.kept.Add(keepSoon))
	case e.news.counted:
		sooner(e.news.kept.Add(keepLater))
	}
	return next
}

// dismiss ends workers that had nothing to do since it looked last.
func (e *engine) dismiss(now time.Time) {
	if e.idle == 0 || now.Before(e.lookIdle) {
		return
	}
	n := min(e.spare, e.idle)
	if e.lookIdle.IsZero() {
		n = 0
	}
	e.retire += n
	e.idle -= n
	for range n {
		e.work.Signal()
	}
	e.spare, e.lookIdle = e.idle, now.Add(idleWorker)
}

// nudge has the keeper look again.
func (e *engine) nudge() {
	select {
	case e.kick <- struct{}{}:
	default:
	}
}
