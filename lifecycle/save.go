package lifecycle

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/caddy-message-api/caddy-message-api/store"
)

// Save says how a definition is saved.
type Save struct {
	// Version is the version that is to be replaced; 0 is any.
	Version uint64
	// Deploy also deploys it, in the same write: all or nothing.
	Deploy bool
	// CreateOnly refuses to replace an API that is there.
	CreateOnly bool
	// DryRun checks everything and writes nothing. The API is returned as it would be, with
	// the version that it has.
	DryRun bool
}

// maxDefinition bounds a definition, in bytes.
const maxDefinition = 1 << 20

var idPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// Save writes the definition of a managed API. It is checked like a configuration, with all
// that is wrong told at once, and what is served stays what it is until a deploy. A
// definition that says what the saved one says makes no new revision. Plans that are new in
// it are published.
func (r *Registry) Save(ctx context.Context, by, id string, definition json.RawMessage, s Save) (API, error) {
	if !idPattern.MatchString(id) {
		return API{}, invalid("id", "%.80q: use 1 to 64 of A-Z a-z 0-9 _ -", id)
	}
	rev, err := r.validate(ctx, id, definition)
	if err != nil {
		return API{}, err
	}
	return r.write(ctx, by, id, []store.Ref{refOf(id), pathsLock}, func(c *change) error {
		if err := c.maySave(s); err != nil {
			return err
		}
		if err := c.save(rev); err != nil {
			return err
		}
		if s.Deploy {
			if err := c.deploy(); err != nil {
				return err
			}
		}
		if s.DryRun {
			return errDryRun
		}
		return nil
	})
}

func (c *change) maySave(s Save) error {
	if err := c.managed(); err != nil {
		return err
	}
	if c.unreadable != nil {
		return conflict("%v: import it again, or delete it", c.unreadable)
	}
	if s.CreateOnly && c.exists() {
		return &Error{Kind: Precondition, Detail: fmt.Sprintf("there is an API %s already", c.id)}
	}
	return c.atVersion(s.Version)
}

// validate checks a definition by itself, and reads what it says of plans and paths.
func (r *Registry) validate(ctx context.Context, id string, definition json.RawMessage) (*Revision, error) {
	if len(definition) > maxDefinition {
		return nil, invalid("", "the definition has %d bytes; at most %d", len(definition), maxDefinition)
	}
	if err := checkShape(id, definition); err != nil {
		return nil, err
	}
	normalized, plans, paths, err := r.opts.Validate(ctx, id, definition, false)
	if err != nil {
		return nil, err
	}
	rev := &Revision{Definition: normalized, Plans: plans, Paths: paths}
	return rev, checkPlanNames(plans)
}

// checkShape finds out whether a definition is an object, and one of this API.
func checkShape(id string, definition json.RawMessage) error {
	var head *struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(definition, &head); err != nil || head == nil {
		return invalid("", "the definition must be a JSON object, as in the configuration")
	}
	if head.ID != "" && head.ID != id {
		return invalid("id", "it is %.80q, but the API is saved as %s: leave it out, or make both the same", head.ID, id)
	}
	return nil
}

func checkPlanNames(plans []Plan) error {
	seen := map[string]bool{}
	for i, p := range plans {
		if seen[p.Name] {
			return invalid(fmt.Sprintf("plans[%d].name", i), "there are two plans %s: give one another name", p.Name)
		}
		seen[p.Name] = true
	}
	return nil
}

// save takes in a definition that is valid by itself.
func (c *change) save(rev *Revision) error {
	if err := c.freePaths(rev.Paths); err != nil {
		return err
	}
	if err := c.mayHavePlans(rev.Plans); err != nil {
		return err
	}
	if err := c.mayDrop(c.rec.Saved, rev.Plans); err != nil {
		return err
	}
	c.keep(rev)
	return nil
}

// keep makes rev the saved revision. What is only in older ones and was never published is
// forgotten.
func (c *change) keep(rev *Revision) {
	c.rec.Managed = true
	c.rec.remember(rev.Plans)
	number := 0
	if old := c.rec.Saved; old != nil {
		if sameJSON(old.Definition, rev.Definition) {
			return
		}
		number = old.Number
	}
	c.rec.Saved = &Revision{Number: number + 1, Definition: rev.Definition, Plans: rev.Plans, Paths: rev.Paths, At: c.now, By: c.by}
	for plan, s := range c.rec.Stages {
		if s == Staging && !has(c.rec.Saved, plan) && !has(c.rec.Deployed, plan) {
			delete(c.rec.Stages, plan)
		}
	}
}

// freePaths refuses paths that other managed APIs have, saved or deployed.
func (c *change) freePaths(paths []string) error {
	for r := range c.reg.store.Range(recordKind) {
		if r.ID == c.id || r.Deleted {
			continue
		}
		other, err := decodeRecord(r)
		if err != nil || !other.Managed {
			continue
		}
		for _, path := range paths {
			if claims(other.Saved, path) || claims(other.Deployed, path) {
				return conflict("API %s has the path %s already: use another one, or first change, deploy or delete that API", r.ID, shown(path))
			}
		}
	}
	return nil
}

func claims(r *Revision, path string) bool { return r != nil && slices.Contains(r.Paths, path) }

// mayHavePlans refuses plans that stand under the name of another kind of plan.
func (c *change) mayHavePlans(plans []Plan) error {
	for _, p := range plans {
		kind := c.rec.Kinds[p.Name]
		if kind == "" || kind == p.Kind {
			continue
		}
		if s := c.rec.stage(p.Name); s == Closed || s == Deprecated {
			return conflict("plan %s of API %s was of kind %s when it was %s, and can't come back as %s: choose another name", p.Name, c.id, kind, s, p.Kind)
		}
		if has(c.rec.Deployed, p.Name) || c.reg.opts.LiveSubscriptions(c.id, p.Name) > 0 {
			return conflict("plan %s of API %s is of kind %s, and can't become %s while it is deployed or has subscriptions: choose another name", p.Name, c.id, kind, p.Kind)
		}
	}
	return nil
}

// mayDrop refuses to leave out plans that somebody uses.
func (c *change) mayDrop(from *Revision, plans []Plan) error {
	if from == nil {
		return nil
	}
	for _, p := range from.Plans {
		if slices.ContainsFunc(plans, func(kept Plan) bool { return kept.Name == p.Name }) || !c.rec.stage(p.Name).served() {
			continue
		}
		if err := c.unused(p.Name); err != nil {
			return err
		}
	}
	return nil
}

func (c *change) unused(plan string) error {
	if n := c.reg.opts.LiveSubscriptions(c.id, plan); n > 0 {
		return conflict("plan %s of API %s has %d live subscriptions: close the plan first, which closes them", plan, c.id, n)
	}
	return nil
}

func has(r *Revision, plan string) bool {
	return r != nil && slices.ContainsFunc(r.Plans, func(p Plan) bool { return p.Name == plan })
}

// Deploy makes the saved definition the one that is served, without its staging and closed
// plans. The first deploy also starts the API; later ones leave a stopped API stopped.
func (r *Registry) Deploy(ctx context.Context, by, id string, version uint64) (API, error) {
	return r.write(ctx, by, id, []store.Ref{refOf(id), pathsLock}, func(c *change) error {
		if err := c.found(version); err != nil {
			return err
		}
		if err := c.maySave(Save{}); err != nil {
			return err
		}
		if err := c.freePaths(c.rec.Saved.Paths); err != nil {
			return err
		}
		return c.deploy()
	})
}

func (c *change) deploy() error {
	definition, plans, err := served(c.rec.Saved, c.rec.Stages)
	if err != nil {
		return err
	}
	if err := c.deployable(definition, plans); err != nil {
		return err
	}
	if err := c.mayDrop(c.rec.Deployed, plans); err != nil {
		return err
	}
	if _, _, _, err := c.reg.opts.Validate(c.ctx, c.id, definition, true); err != nil {
		return err
	}
	saved, deployed := c.rec.Saved, c.rec.Deployed
	if deployed == nil {
		c.rec.Stopped = false
	}
	if deployed == nil || !sameJSON(deployed.Definition, definition) {
		c.rec.Deployed = &Revision{Number: saved.Number, Definition: definition, Plans: plans, Paths: saved.Paths, At: c.now, By: c.by}
	}
	return nil
}

// deployable says what a definition lacks.
func (c *change) deployable(definition json.RawMessage, plans []Plan) error {
	what, err := lacks(definition)
	if err != nil {
		return err
	}
	if what != "" {
		return conflict("API %s has no %s: save it with at least one, then deploy it", c.id, what)
	}
	if len(plans) > 0 {
		return nil
	}
	var staging []string
	for _, p := range c.rec.Saved.Plans {
		if c.rec.stage(p.Name) == Staging {
			staging = append(staging, p.Name)
		}
	}
	if len(staging) > 0 {
		return conflict("API %s has no plan that is published: publish one first (in staging: %s), then deploy it", c.id, strings.Join(staging, ", "))
	}
	return conflict("API %s has no plan that is published or deprecated, so nobody might use it: add one and publish it, then deploy the API", c.id)
}
