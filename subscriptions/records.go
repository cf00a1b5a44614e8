package subscriptions

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"time"

	"github.com/caddy-message-api/caddy-message-api/store"
)

// secretRef is where the secret for hashing keys is kept.
var secretRef = store.Ref{Kind: KindSecret, ID: "api_keys"}

func applicationRef(id string) store.Ref  { return store.Ref{Kind: KindApplication, ID: id} }
func subscriptionRef(id string) store.Ref { return store.Ref{Kind: KindSubscription, ID: id} }
func keyRef(id string) store.Ref          { return store.Ref{Kind: KindKey, ID: id} }

// clientLock is held by who gives an application a client id. There is no such record.
func clientLock(id string) store.Ref { return store.Ref{Kind: "client_id", ID: id} }

// base32Ordered keeps the order of what it encodes.
var base32Ordered = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// newID makes an id that sorts by the time at which it was made: 48 bits of milliseconds, then
// 80 random ones.
func newID(now time.Time) string {
	var raw [16]byte
	for i, ms := 5, now.UnixMilli(); i >= 0; i, ms = i-1, ms>>8 {
		raw[i] = byte(ms)
	}
	_, _ = rand.Read(raw[6:]) // never fails: it ends the process instead
	return base32Ordered.EncodeToString(raw[:])
}

func readApplication(rec store.Record) (Application, error) {
	var app Application
	err := decode(rec, &app)
	app.ID, app.Version = rec.ID, rec.Version
	return app, err
}

func readSubscription(rec store.Record) (Subscription, error) {
	var sub Subscription
	err := decode(rec, &sub)
	sub.ID, sub.Version = rec.ID, rec.Version
	return sub, err
}

func readKey(rec store.Record) (Key, error) {
	var key Key
	err := decode(rec, &key)
	key.ID, key.Version = rec.ID, rec.Version
	return key, err
}

// find reads a record in a transaction.
func find[T any](tx *store.Tx, ref store.Ref, read func(store.Record) (T, error)) (value T, err error) {
	rec, there := tx.Get(ref)
	if !there {
		return value, notFound(ref.Kind, ref.ID)
	}
	if value, err = read(rec); err != nil {
		return value, conflict("the %s %q cannot be read: %v", ref.Kind, clip(ref.ID), err)
	}
	return value, nil
}

// put writes a record, and returns its version.
func put(tx *store.Tx, ref store.Ref, value any) (uint64, error) {
	before := uint64(0)
	if rec, there := tx.Get(ref); there {
		before = rec.Version
	}
	if err := tx.Put(ref, value); err != nil {
		return 0, fmt.Errorf("writing the %s: %w", ref.Kind, err)
	}
	if rec, there := tx.Get(ref); there && rec.Version > before {
		return rec.Version, nil
	}
	return before + 1, nil
}

// update makes a change. What comes from the store says which change it was.
func (r *Registry) update(ctx context.Context, what string, refs []store.Ref, f func(*store.Tx) error) error {
	err := r.store.Update(ctx, refs, f)
	if own := (*Error)(nil); err == nil || errors.As(err, &own) {
		return err
	}
	return fmt.Errorf("%s: %w", what, err)
}
