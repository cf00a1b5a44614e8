package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/caddy-message-api/caddy-message-api/store"
)

// pathsLock is locked by whoever may claim a context path, so that two nodes can't give the
// same one to two APIs. Nothing is stored under it.
var pathsLock = store.Ref{Kind: "api_paths", ID: "lock"}

// change is one write to the record of an API, inside a transaction.
type change struct {
	reg     *Registry
	ctx     context.Context //nolint:containedctx // a change lives no longer than the call
	tx      *store.Tx
	id, by  string
	now     time.Time
	rec     *record
	version uint64 // of the stored record; 0: there is none
	// isDeclared and declared say what the configuration says of the API.
	isDeclared bool
	declared   []Plan
	// unreadable is why the stored record can't be read.
	unreadable error
	// remove deletes the record instead of writing it.
	remove bool
}

// exists says whether there is such an API.
func (c *change) exists() bool { return c.isDeclared || c.rec.Managed }

// errDryRun ends a transaction that shall not be written.
var errDryRun = errors.New("nothing was to be written")

// update changes an API that exists, by f.
func (r *Registry) update(ctx context.Context, by, id string, version uint64, f func(*change) error) (API, error) {
	return r.write(ctx, by, id, []store.Ref{refOf(id)}, func(c *change) error {
		if err := c.found(version); err != nil {
			return err
		}
		if c.unreadable != nil {
			return conflict("%v: import it again, or delete it", c.unreadable)
		}
		return f(c)
	})
}

// found says that there is such an API, and that it is the version that was asked for.
func (c *change) found(version uint64) error {
	if !c.exists() && c.unreadable == nil {
		return noAPI(c.id)
	}
	return c.atVersion(version)
}

func (c *change) atVersion(version uint64) error {
	switch {
	case version == 0 || version == c.version:
		return nil
	case !c.exists() && c.unreadable == nil:
		return &Error{Kind: Precondition, Detail: fmt.Sprintf("there is no API %s any more: somebody has deleted it", c.id)}
	}
	return &Error{Kind: Precondition, Detail: fmt.Sprintf("API %s is at version %d, not %d: somebody has changed it; read it again", c.id, c.version, version)}
}

// write runs f in a transaction and stores the record if f has changed it. What f refuses
// changes nothing.
func (r *Registry) write(ctx context.Context, by, id string, refs []store.Ref, f func(*change) error) (API, error) {
	var result API
	err := r.store.Update(ctx, refs, func(tx *store.Tx) error {
		c := &change{reg: r, ctx: ctx, tx: tx, id: id, by: by, now: r.opts.Now().UTC()}
		before, err := c.load()
		if err != nil {
			return err
		}
		if err := f(c); err != nil && !errors.Is(err, errDryRun) {
			return err
		} else if err != nil {
			result = *c.rec.api(id, c.version, c.isDeclared)
			return err
		}
		if err := c.put(before); err != nil {
			return err
		}
		result = *c.rec.api(id, c.version, c.isDeclared)
		return nil
	})
	if refused := (*Error)(nil); errors.As(err, &refused) {
		return API{}, refused
	}
	if err != nil && !errors.Is(err, errDryRun) {
		return API{}, fmt.Errorf("changing API %s: %w", id, err)
	}
	return result, nil
}

// load reads what there is, and returns it as it was for put.
func (c *change) load() (before []byte, err error) {
	c.reg.mu.Lock()
	c.declared, c.isDeclared = c.reg.declared[c.id]
	c.reg.mu.Unlock()
	c.rec = new(record)
	if stored, ok := c.tx.Get(refOf(c.id)); ok && !stored.Deleted {
		c.version = stored.Version
		if c.rec, c.unreadable = decodeRecord(stored); c.unreadable != nil {
			c.rec = new(record)
		}
	}
	return c.rec.encode()
}

// put stores the record, unless it says what it said before.
func (c *change) put(before []byte) error {
	if c.remove {
		c.tx.Delete(refOf(c.id))
		return nil
	}
	if same, err := c.rec.same(before); same || err != nil {
		return err
	}
	if c.rec.CreatedAt.IsZero() {
		c.rec.CreatedAt = c.now
	}
	c.rec.UpdatedAt, c.rec.UpdatedBy = c.now, c.by
	if err := c.tx.Put(refOf(c.id), c.rec); errors.Is(err, store.ErrInvalid) {
		return invalid("", "API %s can't be stored: %v", c.id, err)
	} else if err != nil {
		return err
	}
	stored, ok := c.tx.Get(refOf(c.id))
	if !ok {
		return fmt.Errorf("the record of API %s was written and is not there", c.id)
	}
	c.version = stored.Version
	return nil
}

// managed refuses what is only for managed APIs.
func (c *change) managed() error {
	if c.isDeclared {
		return conflict("API %s is written in the Caddyfile; change it there", c.id)
	}
	return nil
}

// plan finds a plan that is saved, deployed or declared.
func (c *change) plan(name string) (PlanInfo, error) {
	plans := c.rec.plans(c.declared, c.isDeclared)
	i := slices.IndexFunc(plans, func(p PlanInfo) bool { return p.Name == name })
	if i < 0 {
		return PlanInfo{}, noPlan(c.id, name)
	}
	return plans[i], nil
}
