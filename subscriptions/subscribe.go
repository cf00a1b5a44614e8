package subscriptions

import (
	"context"
	"fmt"
	"time"

	"github.com/caddy-message-api/caddy-message-api/store"
)

// The kinds of plans that subscriptions treat in their own way.
const (
	kindKeyless = "keyless"
	kindAPIKey  = "api_key"
	kindPush    = "push"
)

// byClient says that a plan of this kind knows its clients by their client ids.
func byClient(kind string) bool { return kind == "jwt" || kind == "oauth2" }

// Subscribe asks for a subscription. Where the plan validates by itself it is accepted at
// once, and the key that the plan wants is made with it. The Subscription of a plan that
// pushes has the configuration as it was made in NewConsumer, this once.
func (r *Registry) Subscribe(ctx context.Context, by string, req SubscribeRequest) (Subscription, *NewKey, error) {
	now := r.now()
	if err := r.checkRequest(&req, now); err != nil {
		return Subscription{}, nil, err
	}
	info, err := r.opts.Plan(req.API, req.Plan)
	if err != nil {
		return Subscription{}, nil, &Error{Kind: Invalid, Detail: "the subscription cannot be made",
			Problems: []Problem{{Path: "plan", Detail: err.Error()}}}
	}
	if err := subscribable(&req, info); err != nil {
		return Subscription{}, nil, err
	}
	sub := Subscription{
		ID: newID(now), API: req.API, Plan: req.Plan, Application: req.Application, Status: Pending,
		Starts: utc(req.Starts), Ends: utc(req.Ends), CreatedAt: now, UpdatedAt: now, UpdatedBy: by,
		Limits: noLimits(req.Limits), Metadata: req.Metadata, Message: req.Message, ConditionsAccepted: req.ConditionsAccepted,
	}
	if err := r.firstConsumer(ctx, &sub, info, req.Consumer); err != nil {
		return Subscription{}, nil, err
	}
	var key *NewKey
	if info.Validation == "auto" {
		sub.Status, sub.ProcessedAt, sub.ProcessedBy = Accepted, now, "auto"
		if key, err = r.firstKey(ctx, by, &sub, info, req.Key, now); err != nil {
			return Subscription{}, nil, err
		}
	}
	refs := withKey([]store.Ref{applicationRef(sub.Application)}, key)
	err = r.update(ctx, "subscribing", refs, func(tx *store.Tx) (err error) {
		if err := r.maySubscribe(tx, &sub, info); err != nil {
			return err
		}
		if sub.Version, err = put(tx, subscriptionRef(sub.ID), sub); err != nil {
			return err
		}
		return putKey(tx, key)
	})
	if err != nil {
		return Subscription{}, nil, err
	}
	return sub, key, nil
}

func (r *Registry) checkRequest(req *SubscribeRequest, now time.Time) error {
	var c checks
	c.required("api", req.API)
	c.required("plan", req.Plan)
	c.required("application", req.Application)
	c.text("message", req.Message, maxText)
	c.line("conditions_accepted", req.ConditionsAccepted, maxName)
	c.dates(req.Starts, req.Ends, now)
	c.limits(req.Limits)
	c.metadata(req.Metadata)
	c.custom(req.Key, r.opts.CustomKeys)
	return c.err("the subscription")
}

// subscribable checks what depends on the plan alone.
func subscribable(req *SubscribeRequest, info PlanInfo) error {
	var c checks
	if req.Key != "" && info.Kind != kindAPIKey {
		c.add("key", "the plan %q is of kind %s, which has no keys", req.Plan, info.Kind)
	} else if req.Key != "" && info.Validation != "auto" {
		c.add("key", "subscriptions to this plan are accepted by somebody: give the key then")
	}
	c.consumer(req.Consumer, req.Plan, info)
	if info.Conditions != "" && req.ConditionsAccepted != info.Conditions {
		c.add("conditions_accepted", "the plan %q has general conditions: accept their revision %q", req.Plan, info.Conditions)
	}
	switch {
	case info.Deprecated:
		return conflict("the API %q is deprecated: it takes no new subscriptions", req.API)
	case info.Kind == kindKeyless:
		return conflict("the plan %q is keyless: it needs no subscription", req.Plan)
	case info.Stage == "staging":
		return conflict("the plan %q is in staging: publish it first", req.Plan)
	case info.Stage != "published":
		return conflict("the plan %q is %s: it takes no new subscriptions", req.Plan, info.Stage)
	}
	return c.err("the subscription")
}

// maySubscribe checks what depends on the application. Who asks holds its lock.
func (r *Registry) maySubscribe(tx *store.Tx, sub *Subscription, info PlanInfo) error {
	rec, there := tx.Get(applicationRef(sub.Application))
	if !there {
		return &Error{Kind: Invalid, Detail: "the subscription cannot be made",
			Problems: []Problem{{Path: "application", Detail: fmt.Sprintf("there is no application %q", clip(sub.Application))}}}
	}
	app, err := readApplication(rec)
	if err != nil {
		return conflict("the application %q cannot be read: %v", sub.Application, err)
	}
	if err := mayUse(&app, info, sub.Plan); err != nil {
		return err
	}
	if info.pushes() {
		return nil // each has its own callback
	}
	if other := r.index.liveSubscription(sub.API, sub.Plan, sub.Application); other != "" && other != sub.ID {
		return conflict("the application %q has a live subscription to the plan %q already: %s", sub.Application, sub.Plan, other)
	}
	return nil
}

// mayUse checks that an application can use a plan.
func mayUse(app *Application, info PlanInfo, plan string) error {
	if app.Archived {
		return conflict("the application %q is archived", app.ID)
	}
	if byClient(info.Kind) && app.ClientID == "" {
		return conflict("the plan %q is of kind %s, which knows clients by their client id: give the application %q one first", plan, info.Kind, app.ID)
	}
	return nil
}

// liveSubscription is the id of the application's live subscription to the plan, or nothing.
func (x *index) liveSubscription(api, plan, application string) string {
	x.mu.RLock()
	p, app := x.plans[planName{api, plan}], x.apps[application]
	x.mu.RUnlock()
	if p == nil || app == nil {
		return ""
	}
	if e := p.of(app); e != nil && e.live() {
		return e.id
	}
	return ""
}
