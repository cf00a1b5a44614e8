package module

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/lifecycle"
	"github.com/caddy-message-api/caddy-message-api/subscriptions"
)

// planInfo tells the subscriptions what they must know of a plan: of the one that is served,
// else of the one that is deployed, else of the one that is saved.
func (f *facts) planInfo(api, name string) (subscriptions.PlanInfo, error) {
	cfg, kind, err := f.planConfig(api, name)
	if err != nil {
		return subscriptions.PlanInfo{}, err
	}
	info := subscriptions.PlanInfo{Kind: kind, Validation: cfg.Validation, Conditions: cfg.GeneralConditions, Stage: string(lifecycle.Published)}
	if info.Validation == "" {
		info.Validation = "manual"
	}
	if kind == kindPush {
		info.Consumer = consumerOf(api)
	}
	if stage, ok := f.lifecycle.Stage(api, name); ok {
		info.Stage = string(stage)
	}
	if a, ok := f.lifecycle.Get(api); ok {
		info.Deprecated = a.Deprecated
	}
	return info, nil
}

// consumerOf has the entrypoint of an API that pushes check what a subscriber asks for.
func consumerOf(api string) func(old, asked json.RawMessage) (whole, shown json.RawMessage, problems []subscriptions.Problem, err error) {
	return func(old, asked json.RawMessage) (whole, shown json.RawMessage, problems []subscriptions.Problem, err error) {
		u := runtime.current(api)
		if u == nil || u.pushing() == nil {
			return nil, nil, nil, &subscriptions.Error{Kind: subscriptions.Conflict,
				Detail: fmt.Sprintf("message API %q is not served here by an entrypoint that delivers, so that nobody can check the consumer: deploy and start it first", api)}
		}
		whole, shown, err = u.pushing().push.Consumer(old, asked)
		flaws, ok := errors.AsType[entrypoints.Flaws](err)
		if !ok {
			return whole, shown, nil, err
		}
		for _, f := range flaws {
			problems = append(problems, subscriptions.Problem{Path: f.Path, Detail: f.Detail})
		}
		return nil, nil, problems, nil
	}
}

func (f *facts) planConfig(api, name string) (cfg PlanConfig, kind string, err error) {
	if u := runtime.current(api); u != nil {
		for _, p := range u.plans {
			if p.name == name {
				return p.config, p.kind, nil
			}
		}
	}
	a, ok := f.lifecycle.Get(api)
	if !ok {
		return cfg, "", &subscriptions.Error{Kind: subscriptions.NotFound, Detail: fmt.Sprintf("there is no message API %q", api)}
	}
	for _, rev := range []*lifecycle.Revision{a.Deployed, a.Saved} {
		if rev == nil {
			continue
		}
		var def Definition
		if err := json.Unmarshal(rev.Definition, &def); err != nil {
			return cfg, "", fmt.Errorf("reading the definition of API %s: %w", api, err)
		}
		for _, p := range def.Plans {
			kind = typeOf(p.PlanRaw)
			if p.Name == name || p.Name == "" && kind == name {
				return *p, kind, nil
			}
		}
	}
	return cfg, "", &subscriptions.Error{Kind: subscriptions.NotFound, Detail: fmt.Sprintf("message API %s has no plan %q", api, name)}
}

// closePlan closes the subscriptions of a plan that was closed.
func (f *facts) closePlan(ctx context.Context, by, api, plan, reason string) error {
	_, err := f.subscriptions.ClosePlan(ctx, by, api, plan, reason)
	return err
}

// apiChanged brings this node in line with what was changed, here or on another node.
func (f *facts) apiChanged(old, now *lifecycle.API) {
	api := now
	if api == nil {
		api = old
	}
	app := currentApp()
	if app == nil || theFacts.Load() != f {
		return // whoever starts next reads it all
	}
	defer f.pushing.changed()
	if wasServed(old) && !wasServed(now) {
		endAll(Selector{API: api.ID}, entrypoints.End{Reason: entrypoints.EndStopped, Detail: "the API was stopped"})
	}
	if api.Managed {
		app.managed.applyAll(f) // it may have taken a path from another one, or left it
	}
	for plan, stage := range api.Stages {
		if stage == lifecycle.Closed && (old == nil || old.Stages[plan] != lifecycle.Closed) {
			endAll(Selector{API: api.ID, Plan: plan}, entrypoints.End{Reason: entrypoints.EndRevoked, Detail: "the plan was closed"})
		}
	}
}

func wasServed(a *lifecycle.API) bool {
	return a != nil && a.Started && (!a.Managed || a.Deployed != nil)
}
