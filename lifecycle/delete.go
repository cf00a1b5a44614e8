package lifecycle

import (
	"context"
	"slices"
	"strings"

	"github.com/caddy-message-api/caddy-message-api/store"
)

// Delete removes a managed API that is stopped and has no plans left. Its subscriptions are
// closed, so that an API that is saved under the same id later begins with none.
func (r *Registry) Delete(ctx context.Context, by, id string, version uint64) (API, error) {
	var plans []string
	last, err := r.write(ctx, by, id, []store.Ref{refOf(id)}, func(c *change) error {
		if err := c.mayDelete(version); err != nil {
			return err
		}
		// What is deployed may still have plans. Nobody may subscribe to them from here on.
		plans = nil // it may be run again
		for name := range c.rec.Kinds {
			plans = append(plans, name)
			c.rec.setStage(name, Closed)
		}
		// A record that can't be read says nothing of its plans, and nothing in it is
		// worth keeping until they are closed.
		c.remove = c.unreadable != nil
		return nil
	})
	if err != nil {
		return API{}, err
	}
	slices.Sort(plans)
	if err := r.closeSubscriptions(ctx, by, id, plans, "the API was deleted"); err != nil {
		return API{}, err
	}
	return last, r.forget(ctx, by, id)
}

// forget deletes the record of an API whose subscriptions are closed.
func (r *Registry) forget(ctx context.Context, by, id string) error {
	_, err := r.write(ctx, by, id, []store.Ref{refOf(id)}, func(c *change) error {
		if !c.exists() && c.unreadable == nil {
			return nil
		}
		c.remove = true
		return c.mayDelete(0)
	})
	return err
}

func (c *change) mayDelete(version uint64) error {
	if c.isDeclared {
		return conflict("API %s is written in the Caddyfile; remove it there", c.id)
	}
	if err := c.found(version); err != nil || c.unreadable != nil {
		return err
	}
	if c.rec.started(false) {
		return conflict("API %s is started: stop it first", c.id)
	}
	if left := c.rec.Saved.Plans; len(left) > 0 {
		names := make([]string, len(left))
		for i, p := range left {
			names[i] = p.Name
		}
		return conflict("API %s has plans left: delete them first (%s)", c.id, strings.Join(names, ", "))
	}
	return nil
}

func (r *Registry) closeSubscriptions(ctx context.Context, by, id string, plans []string, reason string) error {
	for _, plan := range plans {
		if err := r.opts.ClosePlan(ctx, by, id, plan, reason); err != nil {
			return closeError(id, plan, err)
		}
	}
	return nil
}
