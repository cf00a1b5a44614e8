package subscriptions

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/goleak"

	"github.com/caddy-message-api/caddy-message-api/plans"
	"github.com/caddy-message-api/caddy-message-api/store"
	"github.com/caddy-message-api/caddy-message-api/store/storetest"
)

func TestMain(m *testing.M) {
	// certmagic keeps a lock file fresh, and notices after 5 s that it is gone.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh"))
}

// world is a registry on a store, with plans that a test sets.
type world struct {
	*Registry
	t     *testing.T
	store *store.Store

	mu    sync.Mutex
	plans map[planName]PlanInfo
	ended []Ended
	now   time.Time // zero: the real time

	pushes atomic.Int64 // how often OnPush was called
}

// The plans that every world has.
var somePlans = map[planName]PlanInfo{
	{"orders", "keys"}:       {Kind: "api_key", Validation: "manual", Stage: "published"},
	{"orders", "auto"}:       {Kind: "api_key", Validation: "auto", Stage: "published"},
	{"orders", "tokens"}:     {Kind: "jwt", Validation: "auto", Stage: "published"},
	{"orders", "free"}:       {Kind: "keyless", Stage: "published"},
	{"orders", "staging"}:    {Kind: "api_key", Stage: "staging"},
	{"orders", "deprecated"}: {Kind: "api_key", Stage: "deprecated"},
	{"orders", "closed"}:     {Kind: "api_key", Stage: "closed"},
	{"orders", "terms"}:      {Kind: "api_key", Validation: "auto", Stage: "published", Conditions: "r2"},
	{"bills", "auto"}:        {Kind: "api_key", Validation: "auto", Stage: "published"},
	{"old", "auto"}:          {Kind: "api_key", Validation: "auto", Stage: "published", Deprecated: true},
	{"orders", "hooks"}:      {Kind: "push", Validation: "auto", Stage: "published", Consumer: someConsumer},
	{"orders", "reviewed"}:   {Kind: "push", Validation: "manual", Stage: "published", Consumer: someConsumer},
	{"orders", "away"}:       {Kind: "push", Validation: "auto", Stage: "published"},
}

func openStore(t *testing.T, storage certmagic.Storage) *store.Store {
	t.Helper()
	return openStoreEvery(t, storage, 100*time.Millisecond)
}

// quietStore is for tests in a synctest bubble, in which hours pass.
func quietStore(t *testing.T) *store.Store {
	t.Helper()
	return openStoreEvery(t, storetest.NewMemory(), time.Hour)
}

func openStoreEvery(t *testing.T, storage certmagic.Storage, interval time.Duration) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Options{Storage: storage, Interval: interval})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newWorld(t *testing.T, change ...func(*Options)) *world {
	t.Helper()
	return newWorldOn(t, openStore(t, storetest.NewMemory()), change...)
}

func newWorldOn(t *testing.T, s *store.Store, change ...func(*Options)) *world {
	t.Helper()
	w := &world{t: t, store: s, plans: maps.Clone(somePlans)}
	opts := Options{
		Now: w.clock,
		Plan: func(api, plan string) (PlanInfo, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			info, there := w.plans[planName{api, plan}]
			if !there {
				return info, fmt.Errorf("there is no plan %q", plan)
			}
			return info, nil
		},
		OnEnd: func(e Ended) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.ended = append(w.ended, e)
		},
		OnPush:  func() { w.pushes.Add(1) },
		OnError: func(err error) { t.Errorf("in the background: %v", err) },
	}
	for _, f := range change {
		f(&opts)
	}
	var err error
	if w.Registry, err = New(s, opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.now.IsZero() {
		return time.Now()
	}
	return w.now
}

// at sets the time.
func (w *world) at(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = now
}

func (w *world) setPlan(api, plan string, info PlanInfo) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.plans[planName{api, plan}] = info
}

// ends returns what was told to have ended since it was last asked.
func (w *world) ends() []Ended {
	w.mu.Lock()
	defer w.mu.Unlock()
	ended := w.ended
	w.ended = nil
	return ended
}

func (w *world) application(name string) Application {
	w.t.Helper()
	app, err := w.CreateApplication(w.t.Context(), "ann", Application{ID: name, Name: name, ClientID: name + "-client"})
	if err != nil {
		w.t.Fatal(err)
	}
	return app
}

func (w *world) subscribe(application, api, plan string) (Subscription, *NewKey) {
	w.t.Helper()
	sub, key, err := w.Subscribe(w.t.Context(), "ann", SubscribeRequest{API: api, Plan: plan, Application: application})
	if err != nil {
		w.t.Fatal(err)
	}
	return sub, key
}

// key asks how a key stands.
func (w *world) key(api, plan, secret string) plans.Standing {
	_, standing := w.Directory(api, plan).Key(secret)
	return standing
}

func (w *world) wantKey(api, plan, secret string, want plans.Standing) {
	w.t.Helper()
	if got := w.key(api, plan, secret); got != want {
		w.t.Errorf("the key stands %q with %s/%s; want %q", got, api, plan, want)
	}
}

// kindOf is the kind of an error; 0 is none.
func kindOf(err error) Kind {
	if own := (*Error)(nil); errors.As(err, &own) {
		return own.Kind
	}
	return 0
}

func wantKind(t *testing.T, err error, want Kind) {
	t.Helper()
	if got := kindOf(err); err == nil || got != want {
		t.Errorf("got %v (%v); want an error of kind %q", err, got, want)
	}
}

func (w *world) list(f Filter) []Subscription {
	w.t.Helper()
	seq, err := w.Subscriptions(f)
	if err != nil {
		w.t.Fatal(err)
	}
	var list []Subscription
	for s := range seq {
		list = append(list, s)
	}
	return list
}

// eventually polls with a deadline.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
