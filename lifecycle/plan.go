package lifecycle

import (
	"context"
	"encoding/json"
	"slices"
)

// PutPlan writes one plan of a managed API's saved definition. A new one comes in staging.
// Whatever it says, the plan keeps its stage, and a deploy serves it.
func (r *Registry) PutPlan(ctx context.Context, by, id, plan string, definition json.RawMessage, version uint64) (API, error) {
	entry, err := namedPlan(plan, definition)
	if err != nil {
		return API{}, err
	}
	return r.update(ctx, by, id, version, func(c *change) error {
		if err := c.managed(); err != nil {
			return err
		}
		if c.rec.stage(plan) == Closed {
			return conflict("plan %s of API %s is closed, which is for ever: choose another name", plan, id)
		}
		entries, err := plansOf(c.rec.Saved.Definition)
		if err != nil {
			return err
		}
		isNew := !has(c.rec.Saved, plan)
		if i := slices.IndexFunc(entries, named(plan)); i >= 0 {
			entries[i] = entry
		} else {
			entries = append(entries, entry)
		}
		if err := c.savePlans(entries); err != nil {
			return err
		}
		if isNew && c.rec.stage(plan) == Published && !has(c.rec.Deployed, plan) {
			c.rec.setStage(plan, Staging)
		}
		return nil
	})
}

// namedPlan reads a plan that is written by itself, and gives it its name.
func namedPlan(name string, definition json.RawMessage) (planEntry, error) {
	if len(definition) > maxDefinition {
		return planEntry{}, invalid("", "the plan has %d bytes; at most %d", len(definition), maxDefinition)
	}
	if name == "" {
		return planEntry{}, invalid("name", "a plan needs a name")
	}
	var head *struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(definition, &head); err != nil || head == nil {
		return planEntry{}, invalid("", "the plan must be a JSON object, like {\"plan\": {\"type\": \"api_key\"}}")
	}
	if head.Name != "" && head.Name != name {
		return planEntry{}, invalid("name", "it is %.80q, but the plan is saved as %s: leave it out, or make both the same", head.Name, name)
	}
	raw, err := withName(definition, name)
	if err != nil {
		return planEntry{}, invalid("", "%v", err)
	}
	entry, err := readPlan(raw)
	if err != nil {
		return planEntry{}, invalid("plan", "%v", err)
	}
	return entry, nil
}

// savePlans saves the definition with other plans.
func (c *change) savePlans(entries []planEntry) error {
	definition, err := withPlans(c.rec.Saved.Definition, entries)
	if err != nil {
		return err
	}
	rev, err := c.reg.validate(c.ctx, c.id, definition)
	if err != nil {
		return err
	}
	if err := c.mayHavePlans(rev.Plans); err != nil {
		return err
	}
	c.keep(rev)
	return nil
}

// DeletePlan takes a plan out of a managed API's saved definition. It must be in staging or
// closed, or without live subscriptions.
func (r *Registry) DeletePlan(ctx context.Context, by, id, plan string, version uint64) (API, error) {
	return r.update(ctx, by, id, version, func(c *change) error {
		if err := c.managed(); err != nil {
			return err
		}
		if _, err := c.plan(plan); err != nil {
			return err
		}
		if !has(c.rec.Saved, plan) {
			return notFound("the saved definition of API %s has no plan %s any more; it is deployed until the next deploy", id, plan)
		}
		if c.rec.stage(plan).served() {
			if err := c.unused(plan); err != nil {
				return err
			}
		}
		entries, err := plansOf(c.rec.Saved.Definition)
		if err != nil {
			return err
		}
		return c.savePlans(slices.DeleteFunc(entries, named(plan)))
	})
}

// PublishPlan offers a plan that is in staging for subscription. It is served from the next
// deploy on.
func (r *Registry) PublishPlan(ctx context.Context, by, id, plan string, version uint64) (API, error) {
	return r.update(ctx, by, id, version, func(c *change) error {
		return c.advance(plan, Published)
	})
}

// DeprecatePlan refuses new subscriptions to a plan. Those that there are go on.
func (r *Registry) DeprecatePlan(ctx context.Context, by, id, plan string, version uint64) (API, error) {
	return r.update(ctx, by, id, version, func(c *change) error {
		return c.advance(plan, Deprecated)
	})
}

// ClosePlan ends a plan for ever and at once, without a deploy: it lets nobody in any more,
// and its subscriptions are closed. If closing them fails, the plan is closed nevertheless,
// and closing it again goes on with them.
func (r *Registry) ClosePlan(ctx context.Context, by, id, plan, reason string, version uint64) (API, error) {
	a, err := r.update(ctx, by, id, version, func(c *change) error {
		return c.advance(plan, Closed)
	})
	if err != nil {
		return API{}, err
	}
	if err := r.closeSubscriptions(ctx, by, id, []string{plan}, reason); err != nil {
		return API{}, err
	}
	return a, nil
}

// steps are the stages that can follow a stage.
var steps = map[Stage][]Stage{
	Staging:    {Published, Closed},
	Published:  {Deprecated, Closed},
	Deprecated: {Closed},
}

// advance brings a plan into its next stage. Where it is there already, nothing happens.
func (c *change) advance(name string, to Stage) error {
	p, err := c.plan(name)
	if err != nil {
		return err
	}
	switch {
	case p.Stage == to:
		return nil
	case slices.Contains(steps[p.Stage], to):
		c.rec.remember([]Plan{{Name: p.Name, Kind: p.Kind}})
		c.rec.setStage(name, to)
		if to == Published {
			c.renumber()
		}
		return nil
	case p.Stage == Staging:
		return conflict("plan %s of API %s is in staging and can't be %s: publish it first, or close it", name, c.id, to)
	}
	return conflict("plan %s of API %s is %s and can't be %s any more: a plan never goes back; add one under another name", name, c.id, p.Stage, to)
}

// renumber makes a new revision where the next deploy serves something else without the
// saved definition having changed, so that a number means one thing.
func (c *change) renumber() {
	if c.rec.Saved == nil {
		return
	}
	rev := *c.rec.Saved
	rev.Number++
	rev.At, rev.By = c.now, c.by
	c.rec.Saved = &rev
}
