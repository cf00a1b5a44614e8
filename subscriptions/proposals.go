package subscriptions

import (
	"context"
	"time"

	"github.com/caddy-message-api/caddy-message-api/store"
)

// proposes says that there is a proposal to be decided on.
func (s *Subscription) proposes() bool {
	return s.Proposed != nil && (s.Status == Accepted || s.Status == Paused)
}

// acceptProposal puts what was proposed in force. Whether the subscription is paused stays.
func (r *Registry) acceptProposal(ctx context.Context, by, id string, req AcceptRequest, when []IfVersion) (Subscription, error) {
	var c checks
	c.text("reason", req.Reason, maxReason)
	for path, at := range map[string]time.Time{"starts": req.Starts, "ends": req.Ends} {
		if !at.IsZero() {
			c.add(path, "it is a consumer configuration that is accepted: change the dates of the subscription by themselves")
		}
	}
	if req.Key != "" {
		c.add("key", "it is a consumer configuration that is accepted, which has no key")
	}
	if len(c) > 0 {
		return Subscription{}, c.err("the acceptance")
	}
	return r.decide(ctx, accept, by, id, req.Reason, when, func(sub *Subscription) error {
		if _, err := r.open(id, sub.Proposed.Sealed); err != nil {
			return err
		}
		sub.Consumer, sub.Sealed = sub.Proposed.Consumer, sub.Proposed.Sealed
		return nil
	})
}

// rejectProposal drops what was proposed. All else stays as it is.
func (r *Registry) rejectProposal(ctx context.Context, by, id, reason string, when []IfVersion) (Subscription, error) {
	var c checks
	if c.text("reason", reason, maxReason); len(c) > 0 {
		return Subscription{}, c.err("the reason")
	}
	return r.decide(ctx, reject, by, id, reason, when, func(*Subscription) error { return nil })
}

// decide does what is decided, and ends the proposal. ProcessedAt stays: it is when the
// subscription itself was accepted, from which Since may count.
func (r *Registry) decide(ctx context.Context, a action, by, id, reason string, when []IfVersion, do func(*Subscription) error) (after Subscription, err error) {
	err = r.update(ctx, "deciding on the proposal", []store.Ref{subscriptionRef(id)}, func(tx *store.Tx) error {
		sub, err := find(tx, subscriptionRef(id), readSubscription)
		if err != nil {
			return err
		}
		if err := stale("subscription", version(when), sub.Version); err != nil {
			return err
		}
		if !sub.proposes() { // somebody was faster
			if err := a.on(sub.Status); err != nil {
				return err
			}
			return conflict("the subscription has changed meanwhile; read it again")
		}
		if err := do(&sub); err != nil {
			return err
		}
		sub.Proposed, sub.Reason, sub.UpdatedAt, sub.UpdatedBy = nil, reason, r.now(), by
		after = sub
		after.Version, err = put(tx, subscriptionRef(id), sub)
		return err
	})
	if err != nil {
		return Subscription{}, err
	}
	return after, nil
}
