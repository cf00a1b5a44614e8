package subscriptions

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-message-api/caddy-message-api/store"
)

// TestPushOnBothNodes: what one node does is told on both, and both answer alike.
func TestPushOnBothNodes(t *testing.T) {
	a, b := twoNodes(t)
	a.application("app")
	eventually(t, "the other node sees the application", func() bool { _, there := b.Application("app"); return there })
	for _, w := range []*world{a, b} {
		if w.pushes.Load() != 0 {
			t.Error("there is nothing to push yet")
		}
	}
	var sub Subscription
	steps := []struct {
		name     string
		do       func() (Subscription, error)
		pushed   bool
		callback string
	}{
		{"subscribe", func() (Subscription, error) { return a.push("app", "reviewed", hook("a")), nil }, false, "a"},
		{"accept", func() (Subscription, error) {
			sub, _, err := b.Accept(t.Context(), "bob", sub.ID, AcceptRequest{})
			return sub, err
		}, true, "a"},
		{"propose", func() (Subscription, error) { return a.edit(sub.ID, hook("b")) }, true, "a"},
		{"accept the proposal", func() (Subscription, error) {
			sub, _, err := b.Accept(t.Context(), "bob", sub.ID, AcceptRequest{})
			return sub, err
		}, true, "b"},
		{"metadata", func() (Subscription, error) {
			return a.UpdateSubscription(t.Context(), "eve", sub.ID, 0, SubscriptionPatch{Metadata: map[string]string{"a": "b"}})
		}, true, "b"},
		{"pause", func() (Subscription, error) { return b.Pause(t.Context(), "bob", sub.ID, "") }, false, "b"},
		{"edit while paused", func() (Subscription, error) { return b.edit(sub.ID, hook("c")) }, false, "b"},
		{"reject the proposal", func() (Subscription, error) { return a.Reject(t.Context(), "bob", sub.ID, "") }, false, "b"},
		{"resume", func() (Subscription, error) { return a.Resume(t.Context(), "bob", sub.ID, "") }, true, "b"},
		{"close", func() (Subscription, error) { return b.CloseSubscription(t.Context(), "bob", sub.ID, "") }, false, ""},
	}
	for _, step := range steps {
		told := []int64{a.pushes.Load(), b.pushes.Load()}
		var err error
		if sub, err = step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		for i, w := range []*world{a, b} {
			eventually(t, step.name+" is told", func() bool {
				known, _ := w.Subscription(sub.ID) // the store's secret, which is told too, may come before it
				return w.pushes.Load() > told[i] && known.Version >= sub.Version
			})
			got := w.Pushed("orders", "reviewed")
			if step.pushed != (len(got) == 1) || step.pushed && got[0].Version != sub.Version {
				t.Errorf("%s: node %d pushes for %v", step.name, i, got)
			}
			whole, err := w.ConsumerOf(sub.ID)
			if step.callback == "" {
				wantKind(t, err, Conflict)
			} else if err != nil || parsed(t, whole)["callback"] != "https://example.com/"+step.callback {
				t.Errorf("%s: node %d has %s, %v", step.name, i, whole, err)
			}
		}
	}
	// What has nothing to push is not told.
	told := []int64{a.pushes.Load(), b.pushes.Load()}
	_, key := a.subscribe("app", "orders", "auto")
	must[Key](t)(a.RevokeKey(t.Context(), "ann", key.ID, ""))
	eventually(t, "the other node sees the revocation", func() bool { k, _ := b.Key(key.ID); return !k.RevokedAt.IsZero() })
	if a.pushes.Load() != told[0] || b.pushes.Load() != told[1] {
		t.Error("a key was told as something to push")
	}
	last := a.push("app", "hooks", hook("a"))
	eventually(t, "the other node pushes", func() bool { return len(b.pushedIDs("hooks")) == 1 })
	told = []int64{a.pushes.Load(), b.pushes.Load()}
	must[Application](t)(a.ArchiveApplication(t.Context(), "ann", "app", 0))
	for i, w := range []*world{a, b} {
		eventually(t, "archiving is told", func() bool { return w.pushes.Load() > told[i] && len(w.pushedIDs("hooks")) == 0 })
	}
	eventually(t, "nothing secret is left", func() bool { s, _ := b.Subscription(last.ID); return s.Sealed == nil })
}

// TestTwoDecisionsAtOnce: one of accepting and rejecting a proposal holds, on both nodes.
func TestTwoDecisionsAtOnce(t *testing.T) {
	a, b := twoNodes(t)
	sub := a.pushed("app", Accepted, hook("a"))
	for i := range 3 {
		must[Subscription](t)(a.edit(sub.ID, hook(fmt.Sprint(i))))
		eventually(t, "the other node sees the proposal", func() bool { s, _ := b.Subscription(sub.ID); return s.Proposed != nil })
		before := a.consumer(sub.ID)["callback"]
		failed := atOnce(a, b, func(w *world) error {
			if w == a {
				_, _, err := w.Accept(t.Context(), "bob", sub.ID, AcceptRequest{Reason: "accepted"})
				return err
			}
			_, err := w.Reject(t.Context(), "bob", sub.ID, "rejected")
			return err
		})
		if len(failed) != 1 || kindOf(failed[0]) != Conflict {
			t.Fatalf("refused were %v", failed)
		}
		s, _ := a.Subscription(sub.ID)
		want := before
		if s.Reason == "accepted" {
			want = fmt.Sprint("https://example.com/", i)
		}
		for _, w := range []*world{a, b} {
			eventually(t, "both hold to the decision", func() bool {
				s, _ := w.Subscription(sub.ID)
				return s.Proposed == nil && w.consumer(sub.ID)["callback"] == want
			})
		}
	}
}

// TestPushBeginsAndEnds by time alone, and is told then.
func TestPushBeginsAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := quietStore(t)
		w := newWorldOn(t, s)
		begin := time.Now()
		starts, ends := begin.Add(time.Hour+30*time.Second), begin.Add(2*time.Hour)
		w.application("app")
		sub, _, err := w.Subscribe(t.Context(), "ann", SubscribeRequest{
			API: "orders", Plan: "hooks", Application: "app", Consumer: hook("a").json(), Starts: starts, Ends: ends,
		})
		if err != nil {
			t.Fatal(err)
		}
		silent, _, err := w.Subscribe(t.Context(), "ann", SubscribeRequest{API: "orders", Plan: "auto", Application: "app", Starts: starts, Ends: ends})
		if err != nil {
			t.Fatal(err)
		}
		again := newWorldOn(t, s) // finds it when it starts
		step := func(at time.Time, told int64, want ...string) {
			t.Helper()
			sleepUntil(at)
			for i, node := range []*world{w, again} {
				if n := node.pushes.Swap(0); n != told {
					t.Errorf("after %s node %d was told %d times; want %d", at.Sub(begin), i, n, told)
				}
				node.wantPushed("hooks", want...)
			}
		}
		w.pushes.Store(0)
		step(starts.Add(-time.Millisecond), 0)
		step(starts, 1, sub.ID)
		later := starts.Add(10 * time.Minute) // it begins anew
		must[Subscription](t)(w.UpdateSubscription(t.Context(), "ann", sub.ID, 0, SubscriptionPatch{Starts: &later}))
		step(later.Add(-time.Millisecond), 1)
		step(later, 1, sub.ID)
		must[Subscription](t)(w.Pause(t.Context(), "ann", sub.ID, ""))
		step(ends.Add(-20*time.Minute), 1)
		must[Subscription](t)(w.Resume(t.Context(), "ann", sub.ID, ""))
		step(ends.Add(-time.Millisecond), 1, sub.ID)
		step(ends, 1)
		sleepUntil(ends.Add(3 * sweepDelay))
		for _, id := range []string{sub.ID, silent.ID} {
			if s, _ := w.Subscription(id); s.Status != Closed || s.Sealed != nil {
				t.Errorf("after the sweep: %v", s)
			}
		}
		step(ends.Add(time.Hour), 1) // it was closed
	})
}

// TestStartsStaySmall: a start that stays the same is in the clock once.
func TestStartsStaySmall(t *testing.T) {
	m := &memory{records: map[store.Ref]store.Record{}}
	r, err := New(m, Options{KeySecret: testSecret, Plan: noPlan})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	starts := time.Now().Add(time.Hour)
	for i := range 1000 {
		m.put(subscriptionRef("sub"), Subscription{
			API: "orders", Plan: "hooks", Application: "app", Status: []Status{Accepted, Paused}[i%2], Starts: starts, Sealed: &Sealed{Key: "k"},
		})
	}
	r.clock.mu.Lock()
	defer r.clock.mu.Unlock()
	if n := len(r.clock.heap); n != 1 {
		t.Errorf("%d deadlines of one subscription", n)
	}
}

// TestPushRace reads all the while that several change the same subscriptions. What is
// in force last is what the last change said.
func TestPushRace(t *testing.T) {
	w := newWorld(t)
	var subs []string
	for i := range 3 {
		subs = append(subs, w.pushed(fmt.Sprint("app-", i), Accepted, hook("a")).ID)
	}
	stop := make(chan struct{})
	var readers, writers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, sub := range w.Pushed("orders", "reviewed") {
					whole, err := w.ConsumerOf(sub.ID)
					if own := (*Error)(nil); err != nil && !errors.As(err, &own) {
						t.Error(err)
					}
					if err == nil && parsed(t, whole)["secret"] != secretText {
						t.Errorf("opened is %s", whole)
					}
				}
				if list := w.Problems(); len(list) > 0 {
					t.Errorf("problems: %+v", list)
				}
			}
		})
	}
	for n := range 3 {
		writers.Go(func() {
			for i := range 20 {
				id := subs[(i+n)%len(subs)]
				var err error
				switch n {
				case 0:
					_, err = w.edit(id, hook(fmt.Sprint(i)))
				case 1:
					if _, _, err = w.Accept(t.Context(), "bob", id, AcceptRequest{}); kindOf(err) == Conflict {
						err = nil
					}
				case 2:
					if _, err = w.Pause(t.Context(), "bob", id, ""); err == nil || kindOf(err) == Conflict {
						_, err = w.Resume(t.Context(), "bob", id, "")
					}
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	for _, id := range subs {
		must[Subscription](t)(w.edit(id, hook("last")))
		if _, _, err := w.Accept(t.Context(), "bob", id, AcceptRequest{}); err != nil {
			t.Error(err)
		}
		if c := w.consumer(id)["callback"]; c != "https://example.com/last" {
			t.Errorf("in force is %s", c)
		}
	}
	w.wantPushed("reviewed", inOrder(w, subs)...)
}

// TestManyPushed: asking for what is pushed decodes nothing and allocates a list, however many
// subscriptions of other plans, and closed ones, there are.
func TestManyPushed(t *testing.T) {
	const n = 10_000
	m := &memory{records: map[store.Ref]store.Record{}}
	h := newHasher(testSecret)
	var want []string
	created := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range n {
		id := fmt.Sprintf("sub-%06d", i)
		sealed, err := h.seal(id, hook(id).json())
		if err != nil {
			t.Fatal(err)
		}
		sub := Subscription{
			API: "orders", Plan: "hooks", Application: "app", Status: Accepted, CreatedAt: created.Add(time.Duration(i) * time.Second),
			Consumer: hook(id).json(), Sealed: sealed,
		}
		switch i % 10 {
		case 0:
			want = append(want, id)
		case 1, 2, 3:
			sub.Status = []Status{Pending, Paused, Closed}[i%10-1]
		default:
			sub.Plan = "others"
		}
		m.set(subscriptionRef(id), sub)
	}
	r, err := New(m, Options{KeySecret: testSecret, Plan: noPlan})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	begin := time.Now()
	got := r.Pushed("orders", "hooks")
	took := time.Since(begin)
	ids := make([]string, len(got))
	for i, s := range got {
		ids[i] = s.ID
	}
	if !slices.Equal(ids, want) {
		t.Fatalf("%d are pushed; want %d, in order", len(ids), len(want))
	}
	begin = time.Now()
	for _, id := range ids {
		if _, err := r.ConsumerOf(id); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d of %d found in %s, each opened in %s", len(got), n, took, time.Since(begin)/time.Duration(len(ids)))
	if allocs := testing.AllocsPerRun(10, func() { r.Pushed("orders", "hooks") }); allocs > 1 && !raceEnabled {
		t.Errorf("%g allocations", allocs)
	}
}
