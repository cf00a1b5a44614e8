package subscriptions

import (
	"context"
	"time"

	"github.com/caddy-message-api/caddy-message-api/plans"
	"github.com/caddy-message-api/caddy-message-api/store"
)

// Accept accepts a pending subscription, and makes the key that its plan wants. Where the
// subscription is accepted or paused, it accepts the configuration that was proposed for it.
func (r *Registry) Accept(ctx context.Context, by, id string, req AcceptRequest, when ...IfVersion) (Subscription, *NewKey, error) {
	now := r.now()
	before, there := r.Subscription(id)
	if !there {
		return Subscription{}, nil, notFound(KindSubscription, id)
	}
	if err := stale("subscription", version(when), before.Version); err != nil {
		return Subscription{}, nil, err
	}
	if before.proposes() {
		sub, err := r.acceptProposal(ctx, by, id, req, when)
		return sub, nil, err
	}
	if err := accept.on(before.Status); err != nil {
		return Subscription{}, nil, err
	}
	info, err := r.acceptable(&before, &req, now)
	if err != nil {
		return Subscription{}, nil, err
	}
	key, err := r.firstKey(ctx, by, &before, info, req.Key, now)
	if err != nil {
		return Subscription{}, nil, err
	}
	refs := withKey([]store.Ref{applicationRef(before.Application), subscriptionRef(id)}, key)
	var after Subscription
	err = r.update(ctx, "accepting the subscription", refs, func(tx *store.Tx) error {
		sub, err := r.may(tx, accept, id, version(when))
		if err != nil {
			return err
		}
		if err := r.maySubscribe(tx, &sub, info); err != nil {
			return err
		}
		sub.Starts, sub.Ends = utc(given(req.Starts, sub.Starts)), utc(given(req.Ends, sub.Ends))
		var c checks
		if c.dates(sub.Starts, sub.Ends, now); len(c) > 0 {
			return c.err("the dates")
		}
		sub.ProcessedAt, sub.ProcessedBy = now, by
		if after, err = sub.become(tx, Accepted, by, req.Reason, now); err != nil {
			return err
		}
		return putKey(tx, key)
	})
	if err != nil {
		return Subscription{}, nil, err
	}
	return after, key, nil
}

// acceptable checks what depends on request and plan.
func (r *Registry) acceptable(sub *Subscription, req *AcceptRequest, now time.Time) (PlanInfo, error) {
	info, err := r.opts.Plan(sub.API, sub.Plan)
	if err != nil {
		return info, conflict("the plan %q of %q cannot be asked, so the subscription can only be rejected: %v", sub.Plan, sub.API, err)
	}
	if info.Stage == "closed" {
		return info, conflict("the plan %q is closed: reject the subscription", sub.Plan)
	}
	var c checks
	c.text("reason", req.Reason, maxReason)
	c.dates(given(req.Starts, sub.Starts), given(req.Ends, sub.Ends), now)
	c.custom(req.Key, r.opts.CustomKeys)
	if req.Key != "" && info.Kind != kindAPIKey {
		c.add("key", "the plan %q is of kind %s, which has no keys", sub.Plan, info.Kind)
	}
	if len(c) == 0 && info.pushes() {
		_, err = r.open(sub.ID, sub.Sealed)
		return info, err
	}
	return info, c.err("the acceptance")
}

// given is a date of a request, or else the one that is there.
func given(asked, there time.Time) time.Time {
	if asked.IsZero() {
		return there
	}
	return asked
}

// Reject rejects a pending subscription. Where the subscription is accepted or paused, it
// rejects the configuration that was proposed for it.
func (r *Registry) Reject(ctx context.Context, by, id, reason string, when ...IfVersion) (Subscription, error) {
	if sub, there := r.Subscription(id); there && sub.proposes() {
		return r.rejectProposal(ctx, by, id, reason, when)
	}
	return r.act(ctx, reject, by, id, reason, when)
}

// Pause keeps a subscription from letting in, and ends its sessions, until it is resumed.
func (r *Registry) Pause(ctx context.Context, by, id, reason string, when ...IfVersion) (Subscription, error) {
	return r.act(ctx, pause, by, id, reason, when)
}

// Resume lets a paused subscription let in again.
func (r *Registry) Resume(ctx context.Context, by, id, reason string, when ...IfVersion) (Subscription, error) {
	return r.act(ctx, resume, by, id, reason, when)
}

// CloseSubscription ends a subscription for good.
func (r *Registry) CloseSubscription(ctx context.Context, by, id, reason string, when ...IfVersion) (Subscription, error) {
	return r.act(ctx, closing, by, id, reason, when)
}

// act does what is nothing but a change of status.
func (r *Registry) act(ctx context.Context, a action, by, id, reason string, when []IfVersion) (after Subscription, err error) {
	var c checks
	if c.text("reason", reason, maxReason); len(c) > 0 {
		return Subscription{}, c.err("the reason")
	}
	err = r.update(ctx, "changing the subscription", []store.Ref{subscriptionRef(id)}, func(tx *store.Tx) error {
		sub, err := r.may(tx, a, id, version(when))
		if err != nil {
			return err
		}
		now := r.now()
		switch {
		case a.to == Rejected:
			sub.ProcessedAt, sub.ProcessedBy = now, by
		case a.to == Accepted && !sub.Ends.IsZero() && !now.Before(sub.Ends):
			return conflict("the subscription has expired: change its end first")
		}
		after, err = sub.become(tx, a.to, by, reason, now)
		return err
	})
	if err != nil {
		return Subscription{}, err
	}
	return after, nil
}

// may reads a subscription that an action is for.
func (r *Registry) may(tx *store.Tx, a action, id string, want uint64) (Subscription, error) {
	sub, err := find(tx, subscriptionRef(id), readSubscription)
	if err != nil {
		return sub, err
	}
	if err := stale("subscription", want, sub.Version); err != nil {
		return sub, err
	}
	return sub, a.on(sub.Status)
}

// become writes the subscription with another status.
func (s Subscription) become(tx *store.Tx, to Status, by, reason string, now time.Time) (Subscription, error) {
	s.Status, s.Reason, s.UpdatedAt, s.UpdatedBy = to, reason, now, by
	switch to {
	case Paused:
		s.PausedAt = now
	case Accepted:
		s.PausedAt = time.Time{}
	case Closed:
		s.ClosedAt = now
	}
	if !to.Live() {
		s.bury()
	}
	version, err := put(tx, subscriptionRef(s.ID), s)
	s.Version = version
	return s, err
}

// UpdateSubscription changes dates, limits, metadata and consumer configuration of a live
// subscription. Its keys end with it at the latest, as before.
func (r *Registry) UpdateSubscription(ctx context.Context, by, id string, version uint64, patch SubscriptionPatch) (after Subscription, err error) {
	consumer, err := r.newConsumer(ctx, by, id, version, patch.Consumer)
	if err != nil {
		return Subscription{}, err
	}
	err = r.update(ctx, "changing the subscription", []store.Ref{subscriptionRef(id)}, func(tx *store.Tx) error {
		sub, err := find(tx, subscriptionRef(id), readSubscription)
		if err != nil {
			return err
		}
		if err := sub.changeable(version); err != nil {
			return err
		}
		now := r.now()
		if err := patch.apply(&sub, now); err != nil {
			return err
		}
		if err := consumer(&sub, now); err != nil {
			return err
		}
		sub.UpdatedAt, sub.UpdatedBy = now, by
		after = sub
		after.Version, err = put(tx, subscriptionRef(id), sub)
		return err
	})
	if err != nil {
		return Subscription{}, err
	}
	return after, nil
}

// changeable checks that a subscription of this version may be changed.
func (s *Subscription) changeable(version uint64) error {
	if err := stale("subscription", version, s.Version); err != nil {
		return err
	}
	if !s.Status.Live() {
		return conflict("a subscription that is %s cannot be changed: %s", s.Status, hints[s.Status])
	}
	return nil
}

func (p SubscriptionPatch) apply(sub *Subscription, now time.Time) error {
	var c checks
	if p.Starts != nil {
		sub.Starts = utc(*p.Starts)
	}
	if p.Ends != nil {
		sub.Ends = utc(*p.Ends)
	}
	if p.Starts != nil || p.Ends != nil {
		c.dates(sub.Starts, sub.Ends, now)
	}
	if p.Limits != nil {
		c.limits(p.Limits)
		sub.Limits = noLimits(p.Limits)
	}
	if p.Metadata != nil {
		c.metadata(p.Metadata)
		sub.Metadata = p.Metadata
	}
	return c.err("the change")
}

// noLimits makes limits without anything in them none.
func noLimits(l *plans.Limits) *plans.Limits {
	if l == nil || *l == (plans.Limits{}) {
		return nil
	}
	return l
}
