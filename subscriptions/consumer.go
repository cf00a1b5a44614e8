package subscriptions

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"time"
	"unicode/utf8"

	"github.com/caddy-message-api/caddy-message-api/plans"
)

// consumer checks a configuration as far as it does not depend on what the plan pushes by.
func (c *checks) consumer(asked json.RawMessage, plan string, info PlanInfo) {
	switch {
	case !info.pushes() && asked != nil:
		c.add("consumer", "the plan %q is of kind %s, which has no consumer configuration: leave it out", plan, info.Kind)
	case info.pushes() && asked == nil:
		c.add("consumer", "it is missing: the plan %q pushes, and wants to know where to", plan)
	case asked == nil:
	case len(asked) > maxConsumer:
		c.add("consumer", "it has %d bytes; at most %d", len(asked), maxConsumer)
	case !utf8.Valid(asked):
		c.add("consumer", "it is not valid UTF-8")
	case !json.Valid(asked) || bytes.TrimLeft(asked, " \t\r\n")[0] != '{':
		c.add("consumer", "it is no JSON object")
	}
}

// made is a configuration that the plan has agreed to.
type made struct {
	whole, shown json.RawMessage
	sealed       *Sealed
}

// configure has the plan check what is asked for, and seals it.
func configure(h *hasher, info PlanInfo, sub *Subscription, old, asked json.RawMessage) (m made, err error) {
	if info.Consumer == nil {
		return m, conflict("the plan %q of %q cannot check a consumer configuration now: start the API on this node first", sub.Plan, sub.API)
	}
	whole, shown, problems, err := info.Consumer(old, asked)
	if own := (*Error)(nil); errors.As(err, &own) {
		return m, err
	}
	if err != nil {
		return m, conflict("the plan %q of %q cannot check a consumer configuration now: %v", sub.Plan, sub.API, err)
	}
	var c checks
	for _, p := range problems {
		path := "consumer"
		if p.Path != "" {
			path += "." + p.Path
		}
		c.add(path, "%s", p.Detail)
	}
	if n := max(len(whole), len(shown)); n > maxConsumer {
		c.add("consumer", "it has %d bytes with all that it says by default or from before; at most %d", n, maxConsumer)
	}
	if len(c) > 0 {
		return m, c.err("the consumer configuration")
	}
	m.whole, m.shown = whole, shown
	m.sealed, err = h.seal(sub.ID, whole)
	return m, err
}

// firstConsumer configures a new subscription, if its plan pushes.
func (r *Registry) firstConsumer(ctx context.Context, sub *Subscription, info PlanInfo, asked json.RawMessage) error {
	if !info.pushes() {
		return nil
	}
	h, err := r.secret(ctx)
	if err != nil {
		return err
	}
	m, err := configure(h, info, sub, nil, asked)
	sub.Consumer, sub.Sealed, sub.NewConsumer = m.shown, m.sealed, m.whole
	return err
}

// newConsumer prepares a change of the configuration of a subscription; nil changes nothing.
// What it returns makes the change.
func (r *Registry) newConsumer(ctx context.Context, by, id string, version uint64, asked json.RawMessage) (func(*Subscription, time.Time) error, error) {
	if asked == nil {
		return func(*Subscription, time.Time) error { return nil }, nil
	}
	before, there := r.Subscription(id)
	if !there {
		return nil, notFound(KindSubscription, id)
	}
	if err := before.changeable(version); err != nil {
		return nil, err
	}
	info, err := r.opts.Plan(before.API, before.Plan)
	if err != nil {
		return nil, conflict("the plan %q of %q cannot be asked: %v", before.Plan, before.API, err)
	}
	var c checks
	if c.consumer(asked, before.Plan, info); len(c) > 0 {
		return nil, c.err("the change")
	}
	h, err := r.secret(ctx)
	if err != nil {
		return nil, err
	}
	return func(sub *Subscription, now time.Time) error { return r.reconfigure(h, info, sub, asked, by, now) }, nil
}

// reconfigure gives a subscription another configuration, or proposes it. What can't be opened
// any more is no obstacle: then the new one has to say all.
func (r *Registry) reconfigure(h *hasher, info PlanInfo, sub *Subscription, asked json.RawMessage, by string, now time.Time) error {
	old, err := r.open(sub.ID, sub.Sealed)
	if err != nil {
		old = nil
	}
	m, err := configure(h, info, sub, old, asked)
	if err != nil {
		return err
	}
	if old == nil {
		sub.NewConsumer = m.whole
	}
	if sub.Status == Pending || info.Validation == "auto" {
		sub.Consumer, sub.Sealed, sub.Proposed = m.shown, m.sealed, nil
		return nil
	}
	sub.Proposed = &Proposal{Consumer: m.shown, Sealed: m.sealed, At: now, By: by}
	return nil
}

// ConsumerOf returns the whole consumer configuration of a live subscription, secrets and all:
// the one in force, or that was asked for where it is pending. The error of one that can't be
// opened says under which key secret it was sealed, and concerns no other subscription.
func (r *Registry) ConsumerOf(id string) (whole json.RawMessage, err error) {
	r.index.mu.RLock()
	e := r.index.subs[id]
	r.index.mu.RUnlock()
	if e == nil {
		return nil, notFound(KindSubscription, id)
	}
	s := e.state.Load()
	switch {
	case s == nil:
		return nil, notFound(KindSubscription, id)
	case !s.status.Live():
		return nil, conflict("a subscription that is %s has no consumer configuration any more", s.status)
	case s.push == nil:
		return nil, conflict("the subscription %q has no consumer configuration: its plan %q does not push", clip(id), s.plan.plan)
	}
	return r.open(id, s.push.Sealed)
}

// Pushed are the subscriptions of a plan that there is something to be pushed for: accepted,
// within their dates, of an application that is not archived, and with a consumer
// configuration, in the order in which they were created. It reads memory only, and what the
// subscriptions point to is the registry's: it must not be changed.
func (r *Registry) Pushed(api, plan string) []Subscription {
	now := r.opts.Now()
	r.index.mu.RLock()
	defer r.index.mu.RUnlock()
	p := r.index.plans[planName{api, plan}]
	if p == nil {
		return nil
	}
	list := make([]Subscription, 0, len(p.push.items))
	for _, e := range p.push.items {
		if s := e.state.Load(); s.standing(now) == plans.Good {
			list = append(list, *s.push)
		}
	}
	return list
}

// unopened are the configurations that can't be opened.
func (r *Registry) unopened() (list []Problem) {
	var push []*Subscription
	r.index.mu.RLock()
	for _, p := range r.index.plans {
		for _, e := range p.push.items {
			push = append(push, e.state.Load().push)
		}
	}
	r.index.mu.RUnlock()
	for _, sub := range push {
		path := subscriptionRef(sub.ID).String()
		if _, err := r.open(sub.ID, sub.Sealed); err != nil {
			list = append(list, Problem{Path: path, Detail: err.Error()})
		}
		if sub.Proposed == nil {
			continue
		}
		if _, err := r.open(sub.ID, sub.Proposed.Sealed); err != nil {
			list = append(list, Problem{Path: path, Detail: "what is proposed: " + err.Error()})
		}
	}
	return list
}
