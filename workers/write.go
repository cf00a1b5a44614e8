package workers

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/store"
)

const (
	// maxRefs and maxBytes bound one change of the store: each record costs a lock.
	maxRefs  = 50
	maxBytes = 256 << 10
	// writers is how many changes are on their way at a time.
	writers = 4
	// closeTries is how often a change is tried when the registry is being closed.
	closeTries = 2

	minRetry = 250 * time.Millisecond
	maxRetry = 5 * time.Second
)

// op is a change of one record.
type op struct {
	t       *task
	id      string
	action  action
	node    string
	term    uint64
	version string
	anew    bool
	failure *failure
	kept    json.RawMessage
	keeps   uint64

	// done: the work is owned now (claim). taken: from another node.
	done, taken bool
}

// todo is a task with what is to be stored for it.
type todo struct {
	t      *task
	action action
}

// write begins as many of the changes as may be on their way, what ends first. r.mu is held.
func (r *Registry) write(list []todo, p *view) {
	slices.SortStableFunc(list, func(a, b todo) int {
		return cmp.Or(cmp.Compare(min(a.t.fails, 2), min(b.t.fails, 2)), -cmp.Compare(a.action, b.action))
	})
	for len(list) > 0 && r.writing < writers {
		var ops []*op
		ops, list = r.batch(list, p)
		r.writing++
		r.wg.Go(func() { r.update(ops) })
	}
}

// batch takes what goes into one change. What has failed goes into smaller ones, and then
// alone: a lock that a dead node has left must not keep up everything else.
func (r *Registry) batch(list []todo, p *view) (ops []*op, rest []todo) {
	fails := min(list[0].t.fails, 2)
	most, size := []int{maxRefs, 8, 1}[fails], 0
	for i, one := range list {
		size += len(one.t.kept)
		if len(ops) == most || i > 0 && size > maxBytes || min(one.t.fails, 2) != fails {
			return ops, list[i:]
		}
		ops = append(ops, r.opOf(one, p))
	}
	return ops, nil
}

func (r *Registry) opOf(one todo, p *view) *op {
	t := one.t
	o := &op{t: t, id: t.id, action: one.action, node: r.node, term: p.lease.Term, failure: t.failed, anew: t.anew, keeps: t.keeps}
	if t.work != nil {
		o.version = t.work.Version
	}
	t.busy, t.due = true, false
	o.kept = t.kept
	return o
}

// update stores changes, and notes what came of it.
func (r *Registry) update(ops []*op) {
	refs := make([]store.Ref, len(ops))
	for i, o := range ops {
		refs[i] = refOf(o.id)
	}
	err := r.store.Update(r.ctx, refs, func(tx *store.Tx) error {
		for i, o := range ops {
			if err := r.apply(tx, refs[i], o); err != nil {
				return err
			}
		}
		return nil
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writing--
	for _, o := range ops {
		r.finish(o, err)
	}
	if err != nil && r.ctx.Err() == nil {
		r.log.Warn("workers: could not store who does what; trying again", zap.Int("works", len(ops)), zap.Error(err))
	}
	notify(r.wake)
}

// apply makes one change, if it is still right: the record may be another one by now.
func (r *Registry) apply(tx *store.Tx, ref store.Ref, o *op) error {
	o.done, o.taken = false, false
	var rec record
	stored, have := tx.Get(ref)
	if have {
		rec, _ = decode(stored) // what can't be read is written anew, and learn has said so
	}
	r.mu.Lock()
	mine, wanted, now := r.mine(rec.Owner), o.t.wanted(), time.Now().UTC().Truncate(time.Millisecond)
	r.mu.Unlock()
	if o.action == claim {
		if !wanted || !mine && rec.Owner != "" && !r.store.Gone(rec.Owner) || rec.refuses(o.version) && !o.anew {
			return nil
		}
		o.done, o.taken = true, !mine
		if rec.Owner == o.node && o.kept == nil {
			return nil
		}
		if !mine || rec.Owner != o.node {
			rec.Since = now
		}
		rec.Owner, rec.From, rec.Failed, rec.Cause, rec.Version = o.node, "", false, "", o.version
	} else if !mine {
		return nil
	}
	if o.kept != nil && !o.taken {
		rec.Kept = o.kept
	}
	switch o.action {
	case fail:
		rec.fail(o.failure.cause, o.failure.version, o.failure.at.UTC().Truncate(time.Millisecond))
	case release:
		rec.Owner, rec.From, rec.Since = "", o.node, now
	}
	return tx.Put(ref, rec)
}

// finish notes what came of a change. r.mu is held.
func (r *Registry) finish(o *op, err error) {
	t := o.t
	t.busy = false
	if err != nil {
		t.fails++
		t.due = t.kept != nil
		t.before = time.Now().Add(min(minRetry<<min(t.fails-1, 8), maxRetry))
		return
	}
	t.fails, t.before = 0, time.Time{}
	if o.taken || t.keeps == o.keeps {
		t.kept, t.due = nil, false
	}
	switch {
	case o.action == claim && o.done:
		t.claimed, t.free = o.term, time.Time{}
		t.anew = t.anew && t.work != nil && t.work.Version != o.version
	case o.action == release:
		t.claimed, t.released = 0, time.Now()
	case o.action == fail && t.failed == o.failure:
		t.claimed, t.failed = 0, nil
	}
}
