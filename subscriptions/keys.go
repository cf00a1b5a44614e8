package subscriptions

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/caddy-message-api/caddy-message-api/store"
)

// AddKey makes a further key for a subscription.
func (r *Registry) AddKey(ctx context.Context, by, subscription string, req KeyRequest, when ...IfVersion) (NewKey, error) {
	now := r.now()
	var c checks
	c.custom(req.Key, r.opts.CustomKeys)
	if !req.Expires.IsZero() && !now.Before(req.Expires) {
		c.add("expires", "it is in the past")
	}
	if err := c.err("the key"); err != nil {
		return NewKey{}, err
	}
	if err := r.keyPlan(subscription); err != nil {
		return NewKey{}, err
	}
	key, err := r.makeKey(ctx, by, subscription, req.Key, now)
	if err != nil {
		return NewKey{}, err
	}
	refs := withKey([]store.Ref{subscriptionRef(subscription)}, key)
	err = r.update(ctx, "making the key", refs, func(tx *store.Tx) error {
		sub, _, err := r.liveKeys(tx, subscription, version(when), now)
		if err != nil {
			return err
		}
		key.Expires = clamp(utc(req.Expires), sub.Ends)
		return putKey(tx, key)
	})
	if err != nil {
		return NewKey{}, err
	}
	return *key, nil
}

// RenewKey makes a new key in the place of one that is not revoked. All other keys of the
// subscription end after the overlap, if they don't end before.
func (r *Registry) RenewKey(ctx context.Context, by, id string, when ...IfVersion) (NewKey, error) {
	now := r.now()
	old, there := r.Key(id)
	if !there {
		return NewKey{}, notFound(KindKey, id)
	}
	if err := r.keyPlan(old.Subscription); err != nil {
		return NewKey{}, err
	}
	key, err := r.makeKey(ctx, by, old.Subscription, "", now)
	if err != nil {
		return NewKey{}, err
	}
	for range renewTries {
		if err = r.replace(ctx, old, key, version(when), now); !errors.Is(err, errMoreKeys) {
			break
		}
	}
	if err != nil {
		return NewKey{}, err
	}
	return *key, nil
}

// renewTries is how often renewing is begun anew because a key was added meanwhile.
const renewTries = 4

var errMoreKeys = &Error{Kind: Conflict, Detail: "keys are being added to the subscription at the same time; try again"}

// replace stores the new key, and the end of the others.
func (r *Registry) replace(ctx context.Context, old Key, key *NewKey, want uint64, now time.Time) error {
	refs := []store.Ref{subscriptionRef(old.Subscription)}
	for _, id := range r.index.keysOf(old.Subscription) {
		refs = append(refs, keyRef(id))
	}
	return r.update(ctx, "renewing the key", refs, func(tx *store.Tx) error {
		if _, err := r.changeable(tx, old.ID, want); err != nil {
			return err
		}
		_, live, err := r.liveKeys(tx, old.Subscription, 0, now)
		if err != nil {
			return err
		}
		for _, k := range live {
			if !slices.Contains(refs, keyRef(k.ID)) {
				return errMoreKeys
			}
			k.Expires = earliest(k.Expires, now.Add(r.opts.Overlap))
			if _, err := put(tx, keyRef(k.ID), k); err != nil {
				return err
			}
		}
		return putKey(tx, key)
	})
}

// RevokeKey takes a key back at once. Revoking it once more changes nothing.
func (r *Registry) RevokeKey(ctx context.Context, by, id, reason string, when ...IfVersion) (Key, error) {
	var c checks
	if c.text("reason", reason, maxReason); len(c) > 0 {
		return Key{}, c.err("the revocation")
	}
	return r.changeKey(ctx, "revoking the key", id, func(key *Key) (bool, error) {
		if err := stale("key", version(when), key.Version); err != nil || !key.RevokedAt.IsZero() {
			return false, err
		}
		key.RevokedAt, key.RevokedBy, key.Reason = r.now(), by, reason
		return true, nil
	})
}

// ExpireKey says when a key ends: at the latest when its subscription does, which is also what
// a zero time means.
func (r *Registry) ExpireKey(ctx context.Context, _ /* by */, id string, at time.Time, when ...IfVersion) (Key, error) {
	now := r.now()
	if !at.IsZero() && !now.Before(at) {
		return Key{}, &Error{Kind: Invalid, Detail: "the change cannot be taken",
			Problems: []Problem{{Path: "at", Detail: "it is in the past; to end a key now, revoke it"}}}
	}
	return r.changeKey(ctx, "changing when the key ends", id, func(key *Key) (bool, error) {
		if err := stale("key", version(when), key.Version); err != nil {
			return false, err
		}
		if err := stillLive(key, now); err != nil {
			return false, err
		}
		sub, there := r.Subscription(key.Subscription)
		if !there || !sub.Status.Live() || !sub.Ends.IsZero() && !now.Before(sub.Ends) {
			return false, conflict("the subscription of the key has ended")
		}
		before := key.Expires
		key.Expires = clamp(utc(at), sub.Ends)
		return !key.Expires.Equal(before), nil
	})
}

func stillLive(key *Key, now time.Time) error {
	switch {
	case !key.RevokedAt.IsZero():
		return conflict("the key was revoked: that is final; make a new one")
	case !key.live(now):
		return conflict("the key has expired: renew it, or make a new one")
	}
	return nil
}

func (r *Registry) changeKey(ctx context.Context, what, id string, f func(*Key) (changed bool, err error)) (Key, error) {
	var after Key
	err := r.update(ctx, what, []store.Ref{keyRef(id)}, func(tx *store.Tx) error {
		key, err := find(tx, keyRef(id), readKey)
		if err != nil {
			return err
		}
		changed, err := f(&key)
		if err == nil && changed {
			key.Version, err = put(tx, keyRef(id), key)
		}
		after = key
		return err
	})
	if err != nil {
		return Key{}, err
	}
	return after, nil
}

// changeable reads a key that may be renewed.
func (r *Registry) changeable(tx *store.Tx, id string, want uint64) (Key, error) {
	key, err := find(tx, keyRef(id), readKey)
	if err != nil {
		return key, err
	}
	if err := stale("key", want, key.Version); err != nil {
		return key, err
	}
	if !key.RevokedAt.IsZero() {
		return key, conflict("the key was revoked: that is final; make a new one")
	}
	return key, nil
}

// keyPlan checks that a subscription is to a plan with keys.
func (r *Registry) keyPlan(subscription string) error {
	sub, there := r.Subscription(subscription)
	if !there {
		return notFound(KindSubscription, subscription)
	}
	info, err := r.opts.Plan(sub.API, sub.Plan)
	if err != nil {
		return conflict("the plan %q of %q cannot be asked: %v", sub.Plan, sub.API, err)
	}
	if info.Kind != kindAPIKey {
		return conflict("the plan %q is of kind %s, which has no keys", sub.Plan, info.Kind)
	}
	return nil
}

// liveKeys reads a subscription that may get one more key, and its live keys. Who asks holds
// the subscription's lock.
func (r *Registry) liveKeys(tx *store.Tx, id string, want uint64, now time.Time) (Subscription, []Key, error) {
	sub, err := find(tx, subscriptionRef(id), readSubscription)
	if err == nil {
		err = stale("subscription", want, sub.Version)
	}
	if err != nil {
		return sub, nil, err
	}
	switch {
	case sub.Status != Accepted && sub.Status != Paused:
		return sub, nil, conflict("a subscription that is %s gets no key: %s", sub.Status, hints[sub.Status])
	case !sub.Ends.IsZero() && !now.Before(sub.Ends):
		return sub, nil, conflict("the subscription has expired: change its end first")
	}
	var live []Key
	for _, keyID := range r.index.keysOf(id) {
		key, err := find(tx, keyRef(keyID), readKey)
		if err == nil && key.live(now) {
			live = append(live, key)
		}
	}
	if len(live) >= maxLiveKeys {
		return sub, nil, conflict("the subscription has %d live keys, and at most %d: revoke some first", len(live), maxLiveKeys)
	}
	return sub, live, nil
}

// clamp keeps the end of a key within its subscription. A key without an end of its own has
// none: it ends with the subscription, also if that is moved.
func clamp(at, ends time.Time) time.Time {
	if at.IsZero() {
		return at
	}
	return earliest(at, ends)
}

// earliest is the earlier of two ends, where zero is never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
