package workers

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/store"
)

// notHeld is said of work that waits because this node holds no lease.
const notHeld = "the storage can't be written, so another node may have taken over; it goes on by itself when it can"

// Status tells how it stands with a work.
func (r *Registry) Status(id string) (Status, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tasks[id]
	if t == nil || t.work == nil && !t.have {
		return Status{}, false
	}
	return r.status(t, r.look()), true
}

// List tells of all works that are wanted here, or that the store knows, by id.
func (r *Registry) List() []Status {
	r.mu.Lock()
	p := r.look()
	list := make([]Status, 0, len(r.tasks))
	for _, t := range r.tasks {
		if t.work != nil || t.have {
			list = append(list, r.status(t, p))
		}
	}
	r.mu.Unlock()
	slices.SortFunc(list, func(a, b Status) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// status is under r.mu.
func (r *Registry) status(t *task, p *view) Status {
	now := r.shownOf(t, p)
	s := Status{ID: t.id, State: now.state, Owner: now.owner, Here: now.here, Cause: now.cause, Since: t.since, Kept: t.known()}
	switch {
	case t.failed != nil:
		s.Since = t.failed.at
	case now.state == Failed && t.unusable == "", now.state == Running && !now.here:
		s.Since = t.rec.Since
	case now.here && t.run != nil:
		s.Since = t.run.started
	}
	return s
}

// shownOf is how it stands with a task. r.mu is held.
func (r *Registry) shownOf(t *task, p *view) shown {
	own := t.have && r.mine(t.rec.Owner)
	begunAgain := ""
	if t.ended != "" {
		begunAgain = "is begun again: " + t.ended
	}
	switch {
	case t.unusable != "":
		return shown{state: Failed, cause: t.unusable}
	case t.failed != nil:
		return shown{state: Failed, cause: cut(t.failed.cause)}
	case t.run != nil && !t.run.fenced:
		return shown{state: Running, owner: r.node, here: true, cause: begunAgain}
	case t.rec.Failed && !(t.wanted() && (t.anew || !t.rec.refuses(t.work.Version))):
		return shown{state: Failed, cause: t.rec.Cause}
	case own && p.holds && t.claimed == p.lease.Term:
		return shown{state: Running, owner: r.node, here: true, cause: begunAgain}
	case t.have && t.rec.Owner != "" && !own && !p.isGone(t.rec.Owner):
		return shown{state: Running, owner: t.rec.Owner}
	case t.wanted() && !p.holds && p.now.Sub(r.held) >= r.ttl:
		return shown{state: Waiting, owner: t.rec.Owner, cause: notHeld}
	case t.have && t.rec.Owner != "" && !own:
		return shown{state: Waiting, owner: t.rec.Owner, cause: "the node that did it has ended"}
	}
	return shown{state: Waiting}
}

// told are the works of which something else is to be shown than before. r.mu is held.
func (r *Registry) told(p *view) (ids []string) {
	for id, t := range r.tasks {
		if now := r.shownOf(t, p); now != t.shown {
			t.shown, t.since = now, time.Now()
			ids = append(ids, id)
		}
	}
	return ids
}

// Retry has a work that failed be begun again, by whatever node. by is who wants it. The error
// is ErrNotFailed, or the store's.
func (r *Registry) Retry(ctx context.Context, id, by string) error {
	ref := refOf(id)
	err := r.store.Update(ctx, []store.Ref{ref}, func(tx *store.Tx) error {
		stored, have := tx.Get(ref)
		if !have {
			return ErrNotFailed
		}
		rec, err := decode(stored)
		if err != nil {
			return err
		}
		if !rec.Failed {
			return ErrNotFailed
		}
		rec.retry(by, time.Now().UTC().Truncate(time.Millisecond))
		return tx.Put(ref, rec)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", id, err)
	}
	r.log.Info("workers: a work that failed is to be begun again", zap.String("work", id), zap.String("by", by))
	return nil
}

// Forget removes what is kept of a work that is over for good. Where it is still wanted it is
// ended, and begun again only when it has been left out of Want, or has another Version.
func (r *Registry) Forget(ctx context.Context, id string) error {
	ref := refOf(id)
	err := r.store.Update(ctx, []store.Ref{ref}, func(tx *store.Tx) error {
		tx.Delete(ref)
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", id, err)
	}
	return nil
}
