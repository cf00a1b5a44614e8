package subscriptions

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/caddy-message-api/caddy-message-api/plans"
	"github.com/caddy-message-api/caddy-message-api/store"
)

func (x *index) applyKey(rec store.Record, now time.Time) error {
	old := x.keys[rec.ID]
	var next *keyEntry
	var err error
	if !rec.Deleted {
		next, err = x.readKey(rec)
	}
	if old != nil {
		x.takeKey(old, next)
	}
	if next != nil {
		x.keys[next.id] = next
		x.hashedWith[next.hashedWith]++
		x.byHash.set(next.hash, next)
		next.sub.keys = append(next.sub.keys, next)
		next.open = next.standing(now) == plans.Good
		if next.open && !next.expires.IsZero() && (old == nil || !old.open || !old.expires.Equal(next.expires)) {
			x.times = append(x.times, deadline{at: next.expires, id: next.id, key: true})
		}
	}
	if old != nil && old.open && (next == nil || !next.open) {
		x.endKey(old, next != nil && !next.revoked)
	}
	return err
}

func (x *index) readKey(rec store.Record) (*keyEntry, error) {
	var key Key
	if err := decode(rec, &key); err != nil {
		return nil, err
	}
	hash, err := readHash(key.Hash)
	if err != nil {
		return nil, err
	}
	if key.Subscription == "" {
		return nil, errors.New("the record is damaged: it names no subscription")
	}
	return &keyEntry{
		id: rec.ID, hash: hash, sub: x.sub(key.Subscription), created: key.CreatedAt, expires: key.Expires,
		revoked: !key.RevokedAt.IsZero(), hashedWith: x.secretName(key.HashedWith),
	}, nil
}

// takeKey takes a key out of the index. A look-up meanwhile finds the old one or the next.
func (x *index) takeKey(old, next *keyEntry) {
	delete(x.keys, old.id)
	if x.hashedWith[old.hashedWith]--; x.hashedWith[old.hashedWith] == 0 {
		delete(x.hashedWith, old.hashedWith)
	}
	if next == nil || next.hash != old.hash {
		x.byHash.delete(old.hash)
	}
	old.sub.keys = slices.DeleteFunc(old.sub.keys, func(k *keyEntry) bool { return k == old })
}

func (x *index) endKey(k *keyEntry, expired bool) {
	k.open = false
	s := k.sub.state.Load()
	if s == nil {
		return
	}
	detail := "the key was revoked"
	if expired {
		detail = "the key has expired"
	}
	x.ended = append(x.ended, Ended{
		API: s.plan.api, Plan: s.plan.plan, Application: s.app.id, Subscription: k.sub.id,
		Credential: k.id, Expired: expired, Detail: detail,
	})
}

// secretName returns the name as it is kept, so that it is kept once.
func (x *index) secretName(name string) string {
	for known := range x.hashedWith {
		if known == name {
			return known
		}
	}
	return strings.Clone(name)
}
