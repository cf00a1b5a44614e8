package worker

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
)

const (
	// keepSoon is the time between two calls of Keep while something changes that matters
	// after a restart; keepLater, while messages are only counted.
	keepSoon, keepLater = 250 * time.Millisecond, 10 * time.Second
	// memory is for how long a message that failed is remembered, if it does not come again.
	memory = time.Hour
)

// news says what is not kept yet.
type news struct {
	changed, counted bool
	kept             time.Time // when Keep was called last
	newest           entrypoints.Attempt
}

// load begins with what was kept.
func (e *engine) load(p *entrypoints.Progress) {
	e.Progress = *p
	e.Parked, e.Recent = nil, nil
	e.records = make(map[string]*trial)
	now := time.Now()
	e.news.kept = now
	for i := range p.Parked[:min(len(p.Parked), entrypoints.MaxParked)] {
		e.records[p.Parked[i].Fingerprint] = &trial{Parked: p.Parked[i], kept: true, since: now}
	}
	e.known.Store(int64(len(e.records)))
	if len(e.records) > 0 {
		e.expires = now.Add(memory)
	}
	for _, a := range p.Recent {
		if a.Outcome == entrypoints.Delivered {
			e.news.newest = a
		} else {
			e.recent(a)
		}
	}
	e.news.changed, e.news.counted = false, false
}

// snapshot is what is to be kept. e.mu is held.
func (e *engine) snapshot() *entrypoints.Progress {
	p := e.Progress
	p.Parked = make([]entrypoints.Parked, 0, len(e.records))
	for _, t := range e.records {
		p.Parked = append(p.Parked, t.Parked)
	}
	slices.SortFunc(p.Parked, func(a, b entrypoints.Parked) int {
		return cmp.Or(a.First.Compare(b.First), cmp.Compare(a.Fingerprint, b.Fingerprint))
	})
	p.Recent = slices.Clone(e.Recent)
	if newest := e.news.newest; newest.Outcome != "" {
		at := len(p.Recent)
		for at > 0 && p.Recent[at-1].At.After(newest.At) {
			at--
		}
		p.Recent = slices.Insert(p.Recent, at, newest)
	}
	e.news.changed, e.news.counted, e.news.kept = false, false, time.Now()
	return &p
}

// changed notes that there is something to keep soon, and counted that there is later.
func (e *engine) changed() {
	if !e.news.changed {
		e.news.changed = true
		e.nudge()
	}
}

func (e *engine) counted() {
	if !e.news.counted {
		e.news.counted = true
		e.nudge()
	}
}

// recent notes an attempt that failed.
func (e *engine) recent(a entrypoints.Attempt) {
	if len(e.Recent) >= entrypoints.MaxRecent-1 { // one place is for the newest that did not
		e.Recent = slices.Delete(e.Recent, 0, len(e.Recent)-entrypoints.MaxRecent+2)
	}
	e.Recent = append(e.Recent, a)
	e.changed()
}

// delivered notes an attempt that did not fail.
func (e *engine) delivered(a entrypoints.Attempt) {
	e.Delivered++
	e.news.newest = a
	e.counted()
	if e.Trouble != "" {
		e.Trouble, e.Since = "", time.Time{}
		e.changed()
	}
}

// trouble notes that nothing can be delivered at the moment: all that is here has failed,
// and waits.
func (e *engine) trouble(t *trial) {
	if e.Trouble == "" {
		e.Since = time.Now()
	}
	e.Trouble = fmt.Sprintf("message %s failed with %s at attempt %d", t.ID, t.Outcome, t.Attempts)
	if t.Error != "" {
		e.Trouble += ": " + t.Error
	}
	if n := e.parked.Len(); n > 1 {
		e.Trouble += fmt.Sprintf(" (and %d others wait as well)", n-1)
	}
	e.Trouble += "; the next attempt is at " + e.parked.lanes[0].due.UTC().Format(time.RFC3339)
	e.changed()
}

// keep has a message that failed remembered over restarts, if there is room.
func (e *engine) keep(it *item) {
	t := it.trial
	if !t.kept && e.records[t.Fingerprint] == nil && len(e.records) < entrypoints.MaxParked {
		t.kept = true
		e.records[t.Fingerprint] = t
	}
	if t.kept {
		e.changed()
	}
}

// resume finds what is known of a message that failed before it was delivered this time.
func (e *engine) resume(it *item) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	t := e.records[it.fingerprint]
	if t == nil || t.held || it.content() && it.d.Attempt <= 1 {
		return false // another message may have the same content
	}
	t.held = true
	e.known.Add(-1)
	it.trial = t
	now := time.Now()
	latest := now.Add(max(longestRest, e.opt.Retry.MaxDelay)) // the clock may have been set
	if e.holds() {
		latest = it.at.Add(e.opt.Capabilities.MaxHold - e.margin())
	}
	if e.once || t.Next.IsZero() {
		t.Next = now
	}
	if t.Next.After(latest) {
		t.Next = latest
	}
	t.seen = e.Delivered
	return true
}

// over forgets a message that is done with.
func (e *engine) over(t *trial) {
	if t.kept {
		delete(e.records, t.Fingerprint)
		t.kept = false
		e.changed()
	}
}

// lost notes that the delivery of a message is not here any more.
func (e *engine) lost(t *trial) {
	if !t.kept || !t.held {
		return
	}
	t.held, t.verdict, t.hurries = false, "", 0
	t.since = time.Now()
	e.known.Add(1)
	if e.expires.IsZero() {
		e.expires = t.since.Add(memory)
	}
}

// expire forgets messages that did not come again.
func (e *engine) expire(now time.Time) {
	if e.expires.IsZero() || now.Before(e.expires) {
		return
	}
	e.expires = time.Time{}
	for fingerprint, t := range e.records {
		if t.held {
			continue
		}
		end := t.since.Add(memory)
		if !now.Before(end) {
			delete(e.records, fingerprint)
			e.known.Add(-1)
			e.changed()
		} else if e.expires.IsZero() || end.Before(e.expires) {
			e.expires = end
		}
	}
}
