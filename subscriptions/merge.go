package subscriptions

import (
	"encoding/json"
	"fmt"

	"github.com/caddy-message-api/caddy-message-api/store"
)

// Merge decides about a record that is imported, for the import of the store. What is final
// stays final: an archived application, a closed subscription and a revoked key do not come
// back to life with an old backup, and nothing secret is kept of what is over. An error is the reason for leaving the record out. Records
// of other kinds are taken as they come.
func Merge(old *store.Record, in store.Record) (store.Record, error) {
	if in.Deleted {
		return in, nil
	}
	switch in.Kind {
	case KindApplication:
		return merge(old, in, readApplication, func(was, app *Application) error {
			if was.Archived && !app.Archived {
				app.Archived = true
			}
			return nil
		})
	case KindSubscription:
		return merge(old, in, readSubscription, func(was, sub *Subscription) error {
			if was.Status != "" && !was.Status.Live() && sub.Status.Live() {
				sub.Status, sub.Reason, sub.ClosedAt, sub.ProcessedAt = was.Status, was.Reason, was.ClosedAt, was.ProcessedAt
			}
			if !sub.Status.Live() {
				sub.bury()
			}
			return nil
		})
	case KindKey:
		return merge(old, in, readKey, func(was, key *Key) error {
			if !was.RevokedAt.IsZero() && key.RevokedAt.IsZero() {
				key.RevokedAt, key.RevokedBy, key.Reason = was.RevokedAt, was.RevokedBy, was.Reason
			}
			_, err := readHash(key.Hash)
			return err
		})
	case KindSecret:
		return mergeSecret(old, in)
	}
	return in, nil
}

// merge lets keep change the imported value after what is there now, which is the zero value
// if there is nothing.
func merge[T any](old *store.Record, in store.Record, read func(store.Record) (T, error), keep func(was, value *T) error) (store.Record, error) {
	value, err := read(in)
	if err != nil {
		return in, err
	}
	var was T
	if old != nil && !old.Deleted {
		if was, err = read(*old); err != nil {
			was = *new(T) // what is damaged is replaced
		}
	}
	if err := keep(&was, &value); err != nil {
		return in, err
	}
	data, err := json.Marshal(value)
	if err != nil {
		return in, fmt.Errorf("the %s cannot be written: %w", in.Kind, err)
	}
	in.Data = data
	return in, nil
}

// mergeSecret keeps the secret that is there: all keys here were made under it.
func mergeSecret(old *store.Record, in store.Record) (store.Record, error) {
	next, err := readSecret(in.Data)
	if err != nil {
		return in, err
	}
	if old == nil || old.Deleted {
		return in, nil
	}
	if was, err := readSecret(old.Data); err == nil && was.name != next.name {
		return in, fmt.Errorf("there is another key secret here already: the imported keys made under the other one (%s) will let nobody in; "+
			"import into an empty store, or give out new keys", next.name)
	}
	return in, nil
}
