package subscriptions

import (
	"context"
	"fmt"
	"time"

	"github.com/caddy-message-api/caddy-message-api/store"
)

// batch is how many subscriptions are closed in one write.
const batch = 64

// ClosePlan closes every live subscription to a plan, batch by batch; those that are pending
// are rejected. It says how many those were. After an error the same call closes the rest.
func (r *Registry) ClosePlan(ctx context.Context, by, api, plan, reason string) (n int, err error) {
	var c checks
	if c.text("reason", reason, maxReason); len(c) > 0 {
		return 0, c.err("the reason")
	}
	r.index.mu.RLock()
	var ids []string
	if p := r.index.plans[planName{api, plan}]; p != nil {
		ids = p.subs.live()
	}
	r.index.mu.RUnlock()
	return r.closeAll(ctx, by, reason, ids, nil)
}

// closeAll closes those of the subscriptions that are still live and for which still holds,
// if it is given.
func (r *Registry) closeAll(ctx context.Context, by, reason string, ids []string, still func(*Subscription, time.Time) bool) (n int, err error) {
	for len(ids) > 0 {
		some := ids[:min(batch, len(ids))]
		ids = ids[len(some):]
		closed, err := r.closeBatch(ctx, by, reason, some, still)
		n += closed
		if err != nil {
			return n, fmt.Errorf("%d closed, %d left: %w", n, len(ids)+len(some)-closed, err)
		}
	}
	return n, nil
}

func (r *Registry) closeBatch(ctx context.Context, by, reason string, ids []string, still func(*Subscription, time.Time) bool) (n int, err error) {
	refs := make([]store.Ref, len(ids))
	for i, id := range ids {
		refs[i] = subscriptionRef(id)
	}
	err = r.update(ctx, "closing subscriptions", refs, func(tx *store.Tx) error {
		n = 0
		now := r.now()
		for _, ref := range refs {
			sub, err := find(tx, ref, readSubscription)
			if err != nil || !sub.Status.Live() || still != nil && !still(&sub, now) {
				continue // gone, or closed or changed by another node
			}
			to := Closed
			if sub.Status == Pending {
				to, sub.ProcessedAt, sub.ProcessedBy = Rejected, now, by
			}
			if _, err := sub.become(tx, to, by, reason, now); err != nil {
				return err
			}
			n++
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// expired says that the time of the subscription is over.
func (s *Subscription) expired(now time.Time) bool { return !s.Ends.IsZero() && !now.Before(s.Ends) }
