package subscriptions

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-message-api/caddy-message-api/plans"
	"github.com/caddy-message-api/caddy-message-api/store"
	"github.com/caddy-message-api/caddy-message-api/store/storetest"
)

// twoNodes are two processes on one storage, as far as they can see: files, and with -short
// memory, where nobody waits a second for a lock that somebody holds.
func twoNodes(t *testing.T) (a, b *world) {
	var storage certmagic.Storage = &certmagic.FileStorage{Path: t.TempDir()}
	if testing.Short() {
		storage = storetest.NewMemory()
	}
	custom := func(o *Options) { o.CustomKeys = true }
	return newWorldOn(t, openStore(t, storage), custom), newWorldOn(t, openStore(t, storage), custom)
}

// atOnce does the same on both nodes at the same time.
func atOnce(a, b *world, f func(w *world) error) (failed []error) {
	errs := make([]error, 2)
	var both sync.WaitGroup
	for i, w := range []*world{a, b} {
		both.Go(func() { errs[i] = f(w) })
	}
	both.Wait()
	for _, err := range errs {
		if err != nil {
			failed = append(failed, err)
		}
	}
	return failed
}

func TestTwoNodesAtOnce(t *testing.T) {
	a, b := twoNodes(t)
	for _, w := range []*world{a, b} {
		w.application("app-" + w.store.Node())
	}
	// The first key of each: the secret is made once.
	var mu sync.Mutex
	var keys []string
	if failed := atOnce(a, b, func(w *world) error {
		_, key, err := w.Subscribe(t.Context(), "ann", SubscribeRequest{API: "orders", Plan: "auto", Application: "app-" + w.store.Node()})
		if err == nil {
			mu.Lock()
			keys = append(keys, key.Secret)
			mu.Unlock()
		}
		return err
	}); len(failed) > 0 {
		t.Fatal(failed)
	}
	for _, key := range keys {
		for _, w := range []*world{a, b} {
			eventually(t, "each node knows both keys", func() bool { return w.key("orders", "auto", key) == plans.Good })
		}
	}
	if a.hasher.Load().name != b.hasher.Load().name {
		t.Error("two secrets")
	}
	a.application("one")
	for i := range 2 {
		plan := fmt.Sprint("plan-", i)
		for _, w := range []*world{a, b} {
			w.setPlan("orders", plan, PlanInfo{Kind: "api_key", Validation: "auto", Stage: "published"})
		}
		for what, f := range map[string]func(w *world) error{
			"subscription": func(w *world) error {
				_, _, err := w.Subscribe(t.Context(), "ann", SubscribeRequest{API: "orders", Plan: plan, Application: "one"})
				return err
			},
			"application": func(w *world) error {
				_, err := w.CreateApplication(t.Context(), "ann", Application{ID: plan, Name: "x"})
				return err
			},
			"client id": func(w *world) error {
				_, err := w.CreateApplication(t.Context(), "ann", Application{Name: "x", ClientID: plan})
				return err
			},
			"custom key": func(w *world) error {
				sub := w.list(Filter{Application: "app-" + w.store.Node()})[0]
				_, err := w.AddKey(t.Context(), "ann", sub.ID, KeyRequest{Key: "the-same-key-twice-" + plan})
				return err
			},
		} {
			failed := atOnce(a, b, f)
			if len(failed) != 1 || kindOf(failed[0]) != Conflict {
				t.Errorf("%s: one of two is to be refused; refused were %v", what, failed)
			}
		}
	}
	for _, w := range []*world{a, b} {
		if problems := append(w.Problems(), overlaps(w.store)...); len(problems) > 0 {
			t.Errorf("problems: %+v", problems)
		}
	}
}

func overlaps(s *store.Store) (list []Problem) {
	for _, p := range s.Problems() {
		list = append(list, Problem{Detail: fmt.Sprint(p)})
	}
	return list
}

// TestTwoNodesAgree: what one node does holds at the other within the interval, and ends its
// sessions.
func TestTwoNodesAgree(t *testing.T) {
	a, b := twoNodes(t)
	a.application("app")
	sub, key := a.subscribe("app", "orders", "auto")
	sees := func(want plans.Standing) {
		t.Helper()
		eventually(t, "the other node sees "+want.String(), func() bool { return b.key("orders", "auto", key.Secret) == want })
	}
	endedAt := func(want Ended) {
		t.Helper()
		var got []Ended
		eventually(t, "the other node ends the sessions", func() bool { got = append(got, b.ends()...); return len(got) > 0 })
		if len(got) != 1 || got[0].Subscription != want.Subscription || got[0].Credential != want.Credential {
			t.Errorf("ended: %+v; want %+v", got, want)
		}
	}
	sees(plans.Good)
	must[Subscription](t)(a.Pause(t.Context(), "ann", sub.ID, ""))
	sees(plans.Paused)
	endedAt(Ended{Subscription: sub.ID})
	must[Subscription](t)(b.Resume(t.Context(), "bob", sub.ID, ""))
	eventually(t, "the first node sees it resumed", func() bool { return a.key("orders", "auto", key.Secret) == plans.Good })
	must[Key](t)(a.RevokeKey(t.Context(), "ann", key.ID, ""))
	sees(plans.Revoked)
	endedAt(Ended{Subscription: sub.ID, Credential: key.ID})
}

// TestStartAgain builds the index anew from what is stored.
func TestStartAgain(t *testing.T) {
	storage := &certmagic.FileStorage{Path: t.TempDir()}
	first := newWorldOn(t, openStore(t, storage))
	keys := map[Status]string{}
	for _, status := range []Status{Pending, Accepted, Paused, Closed, Rejected} {
		_, keys[status] = first.brought(string(status), status)
	}
	second := newWorldOn(t, openStore(t, storage))
	sameIndex(t, second.index, first.index)
	for status, want := range map[Status]plans.Standing{Accepted: plans.Good, Paused: plans.Paused, Closed: plans.Closed} {
		second.wantKey("orders", "keys", keys[status], want)
	}
	if ended := second.ends(); len(ended) > 0 {
		t.Errorf("ended: %+v", ended)
	}
}

// TestImport brings a backup into an empty store, into the one that it is of, and into a
// foreign one.
func TestImport(t *testing.T) {
	a := newWorld(t)
	a.application("app")
	sub, key := a.subscribe("app", "orders", "auto")
	other := must[NewKey](t)(a.AddKey(t.Context(), "ann", sub.ID, KeyRequest{}))
	a.application("gone")
	gone, _ := a.subscribe("gone", "orders", "auto")
	var backup bytes.Buffer
	if err := a.store.Export(t.Context(), &backup); err != nil {
		t.Fatal(err)
	}
	text := backup.String()
	load := func(w *world) store.ImportReport {
		t.Helper()
		report, err := w.store.ImportWith(t.Context(), strings.NewReader(text), Merge)
		if err != nil {
			t.Fatal(err)
		}
		return report
	}
	empty := newWorld(t)
	load(empty)
	empty.wantKey("orders", "auto", key.Secret, plans.Good)
	empty.wantKey("orders", "auto", other.Secret, plans.Good)
	if list := empty.Problems(); len(list) > 0 {
		t.Errorf("problems: %+v", list)
	}

	must[Key](t)(a.RevokeKey(t.Context(), "ann", other.ID, "leaked"))
	must[Application](t)(a.ArchiveApplication(t.Context(), "ann", "gone", 0))
	load(a)
	a.wantKey("orders", "auto", key.Secret, plans.Good)
	a.wantKey("orders", "auto", other.Secret, plans.Revoked)
	if s, _ := a.Subscription(gone.ID); s.Status != Closed {
		t.Errorf("the closed subscription is %s again", s.Status)
	}
	if app, _ := a.Application("gone"); !app.Archived {
		t.Error("the archived application is back")
	}

	foreign := newWorld(t)
	foreign.application("its-own")
	_, own := foreign.subscribe("its-own", "orders", "auto")
	report := load(foreign)
	if len(report.Skipped) != 1 || !strings.Contains(report.Skipped[0].Reason, "another key secret") {
		t.Errorf("the report says nothing of the secret: %+v", report)
	}
	foreign.wantKey("orders", "auto", own.Secret, plans.Good)
	foreign.wantKey("orders", "auto", key.Secret, plans.Unknown)
	if list := foreign.Problems(); len(list) != 1 || !strings.Contains(list[0].Detail, "3 keys") {
		t.Errorf("problems: %+v", list)
	}
}

// failing is a store that does not take everything.
type failing struct {
	*store.Store
	mu   sync.Mutex
	left int // how many changes it takes
}

func (f *failing) Update(ctx context.Context, refs []store.Ref, g func(*store.Tx) error) error {
	f.mu.Lock()
	f.left--
	stop := f.left < 0
	f.mu.Unlock()
	if stop {
		return store.ErrUnavailable
	}
	return f.Store.Update(ctx, refs, g)
}

// TestStorageFails in the middle of a change of several batches.
func TestStorageFails(t *testing.T) {
	w := newWorld(t)
	for i := range 2*batch + 1 {
		w.setPlan("orders", fmt.Sprint("p", i), PlanInfo{Kind: "mtls", Validation: "auto", Stage: "published"})
	}
	w.application("app")
	for i := range 2*batch + 1 {
		w.subscribe("app", "orders", fmt.Sprint("p", i))
	}
	s := &failing{Store: w.store, left: 2}
	r, err := New(s, Options{Plan: noPlan})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	app, err := r.ArchiveApplication(t.Context(), "ann", "app", 0)
	if !errors.Is(err, store.ErrUnavailable) || !app.Archived || !strings.Contains(err.Error(), fmt.Sprintf("%d closed, %d left", batch, batch+1)) {
		t.Errorf("got %+v, %v", app, err)
	}
	if _, s := r.Directory("orders", "p0").Client("app-client"); s != plans.Closed {
		t.Errorf("the client of an archived application stands %q", s)
	}
	if _, _, err := r.Subscribe(t.Context(), "ann", SubscribeRequest{}); kindOf(err) != Invalid {
		t.Error(err)
	}
	s.mu.Lock()
	s.left = 100
	s.mu.Unlock()
	begin := time.Now()
	if _, err := r.ArchiveApplication(t.Context(), "ann", "app", 0); err != nil {
		t.Error(err)
	}
	t.Logf("%d subscriptions closed in %s", batch+1, time.Since(begin).Round(time.Millisecond))
	for _, sub := range w.list(Filter{Application: "app"}) {
		if sub.Status != Closed {
			t.Errorf("%s is %s", sub.Plan, sub.Status)
		}
	}
}

// TestDamagedSecret: no key can be made under a secret that can't be read, and no other one
// takes its place unasked.
func TestDamagedSecret(t *testing.T) {
	w := newWorld(t)
	w.application("app")
	if err := w.store.Update(t.Context(), []store.Ref{secretRef}, func(tx *store.Tx) error {
		return tx.Put(secretRef, storedSecret{Secret: "c2hvcnQ="})
	}); err != nil {
		t.Fatal(err)
	}
	_, _, err := w.Subscribe(t.Context(), "ann", SubscribeRequest{API: "orders", Plan: "auto", Application: "app"})
	wantKind(t, err, Conflict)
	if list := w.Problems(); len(list) != 1 || list[0].Path != "secret/api_keys" || strings.Contains(fmt.Sprint(list, err), "c2hvcnQ") {
		t.Errorf("problems: %+v, %v", list, err)
	}
	if n := len(w.list(Filter{})); n != 0 {
		t.Errorf("%d subscriptions were made without their key", n)
	}
	if _, err := Merge(nil, store.Record{Ref: secretRef, Data: []byte(`{"secret":"c2hvcnQ="}`)}); err == nil {
		t.Error("a damaged secret would be imported")
	}
}
