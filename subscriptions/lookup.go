package subscriptions

import (
	"time"

	"github.com/caddy-message-api/caddy-message-api/plans"
)

// directory is the plans.Directory of one plan.
type directory struct {
	r    *Registry
	plan *planIndex
}

// Key implements plans.Directory.
func (d directory) Key(secret string) (plans.Holder, plans.Standing) {
	hasher := d.r.hasher.Load()
	if hasher == nil || !WellFormed(secret) {
		return plans.Holder{}, plans.Unknown
	}
	key, there := d.r.index.byHash.get(hasher.hash(secret))
	if !there {
		return plans.Holder{}, plans.Unknown
	}
	now := d.r.opts.Now()
	holder, standing := d.hold(key.sub, key.id, now)
	if standing == plans.Unknown || standing == plans.Elsewhere {
		return holder, standing
	}
	if s := key.standing(now); s != plans.Good {
		standing = s
	}
	if !key.expires.IsZero() && (holder.Expires.IsZero() || key.expires.Before(holder.Expires)) {
		holder.Expires = key.expires
	}
	return holder, standing
}

// Client implements plans.Directory.
func (d directory) Client(id string) (plans.Holder, plans.Standing) {
	app, there := d.r.index.clients.get(id)
	if !there || id == "" {
		return plans.Holder{}, plans.Unknown
	}
	sub := d.plan.of(app)
	if sub == nil {
		return plans.Holder{Application: app.id, Credential: id}, plans.Elsewhere
	}
	return d.hold(sub, id, d.r.opts.Now())
}

// hold says whose a subscription is, and how it stands with this plan.
func (d directory) hold(sub *subEntry, credential string, now time.Time) (plans.Holder, plans.Standing) {
	s := sub.state.Load()
	if s == nil { // the key is here, and its subscription is not, or is not any more
		return plans.Holder{Subscription: sub.id, Credential: credential}, plans.Unknown
	}
	holder := plans.Holder{
		Application: s.app.id, Subscription: sub.id, Credential: credential,
		Since: s.since, Expires: s.ends, Limits: s.limits,
	}
	if s.plan != d.plan {
		return holder, plans.Elsewhere
	}
	return holder, s.standing(now)
}

// standing is how a subscription stands with its own plan. What is over for ever comes before
// what will pass: a client is told to wait only where waiting helps.
func (s *subState) standing(now time.Time) plans.Standing {
	switch {
	case s.expired(now):
		return plans.Expired
	case s.status == Closed || s.status == Rejected || s.app.archived():
		return plans.Closed
	case s.status == Pending:
		return plans.Pending
	case s.status == Paused:
		return plans.Paused
	case now.Before(s.starts):
		return plans.NotYet
	}
	return plans.Good
}

// standing is how a key stands, whatever its subscription does.
func (k *keyEntry) standing(now time.Time) plans.Standing {
	switch {
	case k.revoked:
		return plans.Revoked
	case !k.expires.IsZero() && !now.Before(k.expires):
		return plans.Expired
	}
	return plans.Good
}

// archived says that the application may do nothing any more. One whose record is not here
// may: it is not known to be archived, and its subscriptions are there.
func (a *appEntry) archived() bool {
	s := a.state.Load()
	return s != nil && s.archived
}
