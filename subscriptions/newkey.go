package subscriptions

import (
	"context"
	"encoding/base64"
	"errors"
	"time"

	"github.com/caddy-message-api/caddy-message-api/store"
)

// firstKey makes the key of a subscription that is accepted, if its plan has keys.
func (r *Registry) firstKey(ctx context.Context, by string, sub *Subscription, info PlanInfo, custom string, now time.Time) (*NewKey, error) {
	if info.Kind != kindAPIKey {
		return nil, nil
	}
	return r.makeKey(ctx, by, sub.ID, custom, now)
}

// makeKey makes a key, and stores nothing of it yet.
func (r *Registry) makeKey(ctx context.Context, by, subscription, custom string, now time.Time) (*NewKey, error) {
	hasher, err := r.secret(ctx)
	if err != nil {
		return nil, err
	}
	text := custom
	if text == "" {
		text = newSecret()
	}
	hash := hasher.hash(text)
	return &NewKey{Secret: text, Key: Key{
		ID: hash.id(), Subscription: subscription, Hash: base64.StdEncoding.EncodeToString(hash[:]), HashedWith: hasher.name,
		Hint: text[len(text)-4:], CreatedAt: now, CreatedBy: by, Custom: custom != "",
	}}, nil
}

// secret returns what keys are hashed with. With the first key it is made, under the lock of
// its record, so that two nodes that begin at once end with the same one.
func (r *Registry) secret(ctx context.Context) (*hasher, error) {
	if h := r.hasher.Load(); h != nil {
		return h, nil
	}
	err := r.update(ctx, "making the secret for keys", []store.Ref{secretRef}, func(tx *store.Tx) error {
		if _, there := tx.Get(secretRef); there {
			return nil
		}
		_, err := put(tx, secretRef, newStoredSecret(r.now()))
		return err
	})
	if err != nil {
		return nil, err
	}
	rec, there := r.store.Get(secretRef)
	if !there {
		return nil, errors.New("the secret for keys was stored and is not there")
	}
	h, err := readSecret(rec.Data)
	if err != nil {
		return nil, conflict("%v: import a backup of it", err)
	}
	r.hasher.Store(h)
	return h, nil
}

// withKey locks a custom key, which another node may be given at the same moment. One that
// was made is nobody else's.
func withKey(refs []store.Ref, key *NewKey) []store.Ref {
	if key == nil || !key.Custom {
		return refs
	}
	return append(refs, keyRef(key.ID))
}

// putKey stores a new key. It is refused if there ever was the same one.
func putKey(tx *store.Tx, key *NewKey) (err error) {
	if key == nil {
		return nil
	}
	if _, there := tx.Get(keyRef(key.ID)); there {
		return conflict("this key was given out already: choose another one, or leave it out")
	}
	key.Version, err = put(tx, keyRef(key.ID), key.Key)
	return err
}
