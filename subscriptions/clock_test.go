package subscriptions

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-message-api/caddy-message-api/plans"
	"github.com/caddy-message-api/caddy-message-api/store"
)

// TestExpiry lets time pass: rights end when they should, once, and are closed afterwards.
func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldOn(t, quietStore(t))
		begin := time.Now()
		w.application("app")
		w.application("late")
		ends := begin.Add(time.Hour)
		sub, key, err := w.Subscribe(t.Context(), "ann", SubscribeRequest{API: "orders", Plan: "auto", Application: "app", Ends: ends})
		if err != nil {
			t.Fatal(err)
		}
		pending, _, err := w.Subscribe(t.Context(), "ann", SubscribeRequest{API: "orders", Plan: "keys", Application: "app", Ends: ends})
		if err != nil {
			t.Fatal(err)
		}
		_, later, err := w.Subscribe(t.Context(), "ann", SubscribeRequest{
			API: "orders", Plan: "auto", Application: "late", Starts: begin.Add(30 * time.Minute), Ends: begin.Add(2 * time.Hour),
		})
		if err != nil {
			t.Fatal(err)
		}
		short := must[NewKey](t)(w.AddKey(t.Context(), "ann", sub.ID, KeyRequest{Expires: begin.Add(10 * time.Minute)}))
		moved := must[NewKey](t)(w.AddKey(t.Context(), "ann", sub.ID, KeyRequest{Expires: begin.Add(10 * time.Minute)}))
		must[Key](t)(w.ExpireKey(t.Context(), "ann", moved.ID, begin.Add(20*time.Minute)))

		sleepUntil(begin.Add(10*time.Minute - time.Millisecond))
		w.wantEnded()
		w.wantKey("orders", "auto", later.Secret, plans.NotYet)
		sleepUntil(begin.Add(10 * time.Minute))
		w.wantEnded(Ended{Credential: short.ID, Subscription: sub.ID, Expired: true})
		sleepUntil(begin.Add(20 * time.Minute))
		w.wantEnded(Ended{Credential: moved.ID, Subscription: sub.ID, Expired: true})
		sleepUntil(begin.Add(30 * time.Minute))
		w.wantKey("orders", "auto", later.Secret, plans.Good)
		w.wantKey("orders", "auto", key.Secret, plans.Good)
		sleepUntil(ends)
		w.wantEnded(Ended{Subscription: sub.ID, Expired: true})
		w.wantKey("orders", "auto", key.Secret, plans.Expired)
		if s, _ := w.Subscription(sub.ID); s.Status != Accepted {
			t.Errorf("it is %s at once: some other node is to have the chance", s.Status)
		}

		sleepUntil(ends.Add(2*sweepDelay + time.Second))
		w.wantEnded() // it was told before
		for id, want := range map[string]Status{sub.ID: Closed, pending.ID: Rejected} {
			if s, _ := w.Subscription(id); s.Status != want || s.Reason != "expired" || s.UpdatedBy != "auto" {
				t.Errorf("after the sweep: %+v", s)
			}
		}
		w.wantKey("orders", "auto", key.Secret, plans.Expired)
		sleepUntil(begin.Add(2 * time.Hour)) // it had not begun when it was made
		if ended := w.ends(); len(ended) != 1 || ended[0].Application != "late" || !ended[0].Expired {
			t.Errorf("ended: %+v", ended)
		}
		w.sweptUp(ends.Add(2 * time.Hour))
	})
}

func sleepUntil(at time.Time) {
	time.Sleep(time.Until(at))
	synctest.Wait()
}

// sweptUp waits for the last sweep.
func (w *world) sweptUp(at time.Time) {
	w.t.Helper()
	sleepUntil(at)
	w.index.mu.RLock()
	defer w.index.mu.RUnlock()
	if len(w.index.due) > 0 {
		w.t.Errorf("%d are still to be closed", len(w.index.due))
	}
}

// wantEnded compares what ended by what the wanted ones say.
func (w *world) wantEnded(want ...Ended) {
	w.t.Helper()
	got := w.ends()
	if len(got) != len(want) {
		w.t.Fatalf("ended: %+v; want %+v", got, want)
	}
	for i, e := range got {
		if e.Subscription != want[i].Subscription || e.Credential != want[i].Credential || e.Expired != want[i].Expired || e.Detail == "" || e.API == "" {
			w.t.Errorf("ended: %+v; want %+v", e, want[i])
		}
	}
}

// TestEndedOnce has everything that takes a right away, and what must not be told again.
func TestEndedOnce(t *testing.T) {
	w := newWorld(t)
	w.application("app")
	sub, key := w.subscribe("app", "orders", "auto")
	second := must[NewKey](t)(w.AddKey(t.Context(), "ann", sub.ID, KeyRequest{}))
	w.wantEnded()
	must[NewKey](t)(w.RenewKey(t.Context(), "ann", key.ID))
	w.wantEnded() // the old ones have two hours
	must[Key](t)(w.RevokeKey(t.Context(), "ann", second.ID, ""))
	w.wantEnded(Ended{Subscription: sub.ID, Credential: second.ID})
	must[Key](t)(w.RevokeKey(t.Context(), "ann", second.ID, ""))
	w.wantEnded()
	must[Subscription](t)(w.Pause(t.Context(), "ann", sub.ID, ""))
	w.wantEnded(Ended{Subscription: sub.ID})
	must[Subscription](t)(w.CloseSubscription(t.Context(), "ann", sub.ID, ""))
	w.wantEnded()
	sub, _ = w.subscribe("app", "orders", "auto")
	must[Subscription](t)(w.Pause(t.Context(), "ann", sub.ID, ""))
	w.wantEnded(Ended{Subscription: sub.ID})
	must[Subscription](t)(w.Resume(t.Context(), "ann", sub.ID, ""))
	w.wantEnded()
	must[Subscription](t)(w.CloseSubscription(t.Context(), "ann", sub.ID, ""))
	w.wantEnded(Ended{Subscription: sub.ID})
	sub, _ = w.subscribe("app", "orders", "auto")
	if err := w.store.Update(t.Context(), []store.Ref{subscriptionRef(sub.ID)}, func(tx *store.Tx) error {
		tx.Delete(subscriptionRef(sub.ID))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	w.wantEnded(Ended{Subscription: sub.ID})
}

// TestSweepAfterAStart finds what expired while nothing ran, and does not tell of it.
func TestSweepAfterAStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := quietStore(t)
		w := newWorldOn(t, s)
		w.application("app")
		ends := time.Now().Add(time.Hour)
		sub, _, err := w.Subscribe(t.Context(), "ann", SubscribeRequest{API: "orders", Plan: "auto", Application: "app", Ends: ends})
		if err != nil {
			t.Fatal(err)
		}
		w.Close()
		sleepUntil(ends.Add(time.Hour))
		if s, _ := w.Subscription(sub.ID); s.Status != Accepted {
			t.Fatalf("it is %s", s.Status)
		}
		again := newWorldOn(t, s)
		sleepUntil(ends.Add(2 * time.Hour))
		again.wantEnded()
		if s, _ := again.Subscription(sub.ID); s.Status != Closed {
			t.Errorf("it is %s", s.Status)
		}
	})
}

// TestReview closes what was subscribed to while the plan was closed elsewhere.
func TestReview(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldOn(t, quietStore(t))
		w.application("app")
		sub, _ := w.subscribe("app", "orders", "auto")
		info := somePlans[planName{"orders", "auto"}]
		info.Stage = "closed"
		w.setPlan("orders", "auto", info)
		sleepUntil(time.Now().Add(3 * reviewEvery))
		if s, _ := w.Subscription(sub.ID); s.Status != Closed {
			t.Errorf("it is %s", s.Status)
		}
		w.wantEnded(Ended{Subscription: sub.ID})
	})
}

// TestSweepTriesAgain has a storage that fails for a while.
func TestSweepTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, secrets := crowd(10)
		ends := time.Now().Add(time.Hour)
		for rec := range m.Range(KindSubscription) {
			sub, err := readSubscription(rec)
			if err != nil {
				t.Fatal(err)
			}
			sub.Ends = ends
			m.set(rec.Ref, sub)
		}
		var complaints []error
		var ended []Ended
		r, err := New(m, Options{
			KeySecret: testSecret, Plan: noPlan,
			OnEnd:   func(e Ended) { ended = append(ended, e) },
			OnError: func(err error) { complaints = append(complaints, err) },
		})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		d := r.Directory("api-0", "plan-0")
		sleepUntil(ends)
		if _, s := d.Key(secrets[0]); s != plans.Expired || len(ended) != 10 {
			t.Errorf("the key stands %q, and %d ended", s, len(ended))
		}
		sleepUntil(ends.Add(10 * sweepDelay))
		if n := len(complaints); n < 4 || n > 10 {
			t.Errorf("%d complaints", n)
		}
		if len(complaints) > 0 && (!errors.Is(complaints[0], store.ErrUnavailable) || !strings.Contains(complaints[0].Error(), "could not be closed yet")) {
			t.Errorf("it complains %v", complaints[0])
		}
		if len(ended) != 10 {
			t.Errorf("%d ended", len(ended))
		}
	})
}

// TestClockSteps: the machine's time jumps, as after a sleep.
func TestClockSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldOn(t, quietStore(t))
		w.at(time.Now())
		w.application("app")
		sub, _, err := w.Subscribe(t.Context(), "ann", SubscribeRequest{
			API: "orders", Plan: "auto", Application: "app", Ends: time.Now().Add(24 * time.Hour),
		})
		if err != nil {
			t.Fatal(err)
		}
		w.at(time.Now().Add(25 * time.Hour))
		sleepUntil(time.Now().Add(longestNap))
		w.wantEnded(Ended{Subscription: sub.ID, Expired: true})
	})
}

// TestClockStaysSmall: what changes often does not fill the heap.
func TestClockStaysSmall(t *testing.T) {
	m, _ := crowd(1)
	r, err := New(m, Options{KeySecret: testSecret, Plan: noPlan})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, kind := range []string{KindSubscription, KindKey} {
		for rec := range m.Range(kind) {
			for i := range 1000 {
				if kind == KindKey {
					key, _ := readKey(rec)
					key.Expires = time.Now().Add(time.Hour).Truncate(time.Hour)
					m.put(rec.Ref, key)
					continue
				}
				sub, _ := readSubscription(rec)
				sub.Ends, sub.Status = time.Now().Add(48*time.Hour).Truncate(24*time.Hour), []Status{Accepted, Paused}[i%2]
				m.put(rec.Ref, sub)
			}
			break
		}
	}
	r.clock.mu.Lock()
	defer r.clock.mu.Unlock()
	if n := len(r.clock.heap); n < 2 || n > 4 {
		t.Errorf("%d deadlines of two records", n)
	}
}
