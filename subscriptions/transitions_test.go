package subscriptions

import (
	"strings"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/plans"
)

// brought makes a subscription with this status, of an application of its own.
func (w *world) brought(name string, to Status) (Subscription, string) {
	w.t.Helper()
	w.application(name)
	sub, _ := w.subscribe(name, "orders", "keys")
	secret := ""
	do := func(after Subscription, err error) {
		w.t.Helper()
		if err != nil {
			w.t.Fatal(err)
		}
		sub = after
	}
	if to == Accepted || to == Paused || to == Closed {
		after, key, err := w.Accept(w.t.Context(), "bob", sub.ID, AcceptRequest{})
		do(after, err)
		secret = key.Secret
	}
	switch to {
	case Paused:
		do(w.Pause(w.t.Context(), "bob", sub.ID, "nap"))
	case Closed:
		do(w.CloseSubscription(w.t.Context(), "bob", sub.ID, "over"))
	case Rejected:
		do(w.Reject(w.t.Context(), "bob", sub.ID, "no"))
	}
	if sub.Status != to {
		w.t.Fatalf("the subscription is %s, not %s", sub.Status, to)
	}
	return sub, secret
}

// TestEveryTransition does every action to a subscription of every status.
func TestEveryTransition(t *testing.T) {
	w := newWorld(t)
	until := time.Now().Add(time.Hour)
	actions := map[string]func(id string) (Subscription, error){
		"accept": func(id string) (Subscription, error) {
			sub, key, err := w.Accept(t.Context(), "cid", id, AcceptRequest{Reason: "fine"})
			if (err == nil) != (key != nil) {
				t.Errorf("accepting made the key %v, and the error %v", key, err)
			}
			return sub, err
		},
		"reject": func(id string) (Subscription, error) { return w.Reject(t.Context(), "cid", id, "fine") },
		"pause":  func(id string) (Subscription, error) { return w.Pause(t.Context(), "cid", id, "fine") },
		"resume": func(id string) (Subscription, error) { return w.Resume(t.Context(), "cid", id, "fine") },
		"close":  func(id string) (Subscription, error) { return w.CloseSubscription(t.Context(), "cid", id, "fine") },
		"change": func(id string) (Subscription, error) {
			return w.UpdateSubscription(t.Context(), "cid", id, 0, SubscriptionPatch{Ends: &until})
		},
		"add key": func(id string) (Subscription, error) {
			_, err := w.AddKey(t.Context(), "cid", id, KeyRequest{})
			sub, _ := w.Subscription(id)
			return sub, err
		},
	}
	// What becomes of each; what is not named is refused.
	want := map[string]map[Status]Status{
		"accept":  {Pending: Accepted},
		"reject":  {Pending: Rejected},
		"pause":   {Accepted: Paused},
		"resume":  {Paused: Accepted},
		"close":   {Accepted: Closed, Paused: Closed},
		"change":  {Pending: Pending, Accepted: Accepted, Paused: Paused},
		"add key": {Accepted: Accepted, Paused: Paused},
	}
	standing := map[Status]plans.Standing{
		Pending: plans.Unknown, Accepted: plans.Good, Paused: plans.Paused, Closed: plans.Closed, Rejected: plans.Unknown,
	}
	for name, act := range actions {
		for _, from := range []Status{Pending, Accepted, Paused, Closed, Rejected} {
			t.Run(name+" "+string(from), func(t *testing.T) {
				before, secret := w.brought(strings.ReplaceAll(name, " ", "-")+"-"+string(from), from)
				w.ends()
				after, err := act(before.ID)
				stored, _ := w.Subscription(before.ID)
				to, legal := want[name][from]
				if !legal {
					wantKind(t, err, Conflict)
					if err != nil && (!strings.Contains(err.Error(), string(from)) || !strings.Contains(err.Error(), hints[from])) {
						t.Errorf("%v: it does not say from what, and why not", err)
					}
					to = from
					if stored.Version != before.Version {
						t.Error("a refused action has changed the record")
					}
				} else if err != nil || after.Status != to || after.Version != stored.Version {
					t.Fatalf("got %+v, %v; stored %+v", after, err, stored)
				}
				if stored.Status != to {
					t.Errorf("it is %s; want %s", stored.Status, to)
				}
				if secret != "" {
					w.wantKey("orders", "keys", secret, standing[to])
				}
				ended := len(w.ends()) > 0
				if want := from == Accepted && to != Accepted; ended != want {
					t.Errorf("sessions were ended: %v; want %v", ended, want)
				}
			})
		}
	}
}

func TestTransitionsAreNoted(t *testing.T) {
	w := newWorld(t)
	sub, _ := w.brought("app", Pending)
	if sub.UpdatedBy != "ann" || sub.CreatedAt.IsZero() || !sub.ProcessedAt.IsZero() {
		t.Errorf("pending: %+v", sub)
	}
	starts := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	sub, _, err := w.Accept(t.Context(), "bob", sub.ID, AcceptRequest{Reason: "yes", Starts: starts})
	if err != nil || sub.ProcessedBy != "bob" || sub.ProcessedAt.IsZero() || sub.Reason != "yes" || !sub.Since().Equal(starts) {
		t.Errorf("accepted: %+v, %v", sub, err)
	}
	sub = must[Subscription](t)(w.Pause(t.Context(), "cid", sub.ID, "why not"))
	if sub.ProcessedBy != "bob" || sub.PausedAt.IsZero() || sub.UpdatedBy != "cid" || sub.Reason != "why not" {
		t.Errorf("paused: %+v", sub)
	}
	sub = must[Subscription](t)(w.Resume(t.Context(), "cid", sub.ID, ""))
	if !sub.PausedAt.IsZero() || sub.Reason != "" {
		t.Errorf("resumed: %+v", sub)
	}
	sub = must[Subscription](t)(w.CloseSubscription(t.Context(), "dan", sub.ID, "end"))
	if sub.ClosedAt.IsZero() || sub.UpdatedBy != "dan" {
		t.Errorf("closed: %+v", sub)
	}
}

func TestStaleVersions(t *testing.T) {
	w := newWorld(t)
	app := w.application("app")
	sub, key := w.subscribe("app", "orders", "auto")
	bad := IfVersion(sub.Version + 7)
	name := "other"
	for what, err := range map[string]error{
		"application": failure(w.UpdateApplication(t.Context(), "x", "app", app.Version+1, ApplicationPatch{Name: &name})),
		"archive":     failure(w.ArchiveApplication(t.Context(), "x", "app", app.Version+1)),
		"pause":       failure(w.Pause(t.Context(), "x", sub.ID, "", bad)),
		"close":       failure(w.CloseSubscription(t.Context(), "x", sub.ID, "", bad)),
		"change":      failure(w.UpdateSubscription(t.Context(), "x", sub.ID, uint64(bad), SubscriptionPatch{})),
		"add":         failure(w.AddKey(t.Context(), "x", sub.ID, KeyRequest{}, bad)),
		"renew":       failure(w.RenewKey(t.Context(), "x", key.ID, key2(key)+1)),
		"revoke":      failure(w.RevokeKey(t.Context(), "x", key.ID, "", key2(key)+1)),
		"expire":      failure(w.ExpireKey(t.Context(), "x", key.ID, time.Time{}, key2(key)+1)),
	} {
		t.Run(what, func(t *testing.T) { wantKind(t, err, Precondition) })
	}
	w.wantKey("orders", "auto", key.Secret, plans.Good)
	if _, err := w.Pause(t.Context(), "x", sub.ID, "", IfVersion(sub.Version)); err != nil {
		t.Error(err)
	}
}

func failure[T any](_ T, err error) error { return err }

func key2(k *NewKey) IfVersion { return IfVersion(k.Version) }

func TestNothingThere(t *testing.T) {
	w := newWorld(t)
	for what, err := range map[string]error{
		"application": failure(w.UpdateApplication(t.Context(), "x", "none", 0, ApplicationPatch{})),
		"archive":     failure(w.ArchiveApplication(t.Context(), "x", "none", 0)),
		"reject":      failure(w.Reject(t.Context(), "x", "none", "")),
		"change":      failure(w.UpdateSubscription(t.Context(), "x", "none", 0, SubscriptionPatch{})),
		"add":         failure(w.AddKey(t.Context(), "x", "none", KeyRequest{})),
		"renew":       failure(w.RenewKey(t.Context(), "x", "none")),
		"revoke":      failure(w.RevokeKey(t.Context(), "x", "none", "")),
		"expire":      failure(w.ExpireKey(t.Context(), "x", "none", time.Time{})),
	} {
		t.Run(what, func(t *testing.T) { wantKind(t, err, NotFound) })
	}
	_, _, err := w.Accept(t.Context(), "x", "none", AcceptRequest{})
	wantKind(t, err, NotFound)
}
