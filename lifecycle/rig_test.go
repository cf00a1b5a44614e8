package lifecycle_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/goleak"

	"github.com/caddy-message-api/caddy-message-api/lifecycle"
	"github.com/caddy-message-api/caddy-message-api/store"
	"github.com/caddy-message-api/caddy-message-api/store/storetest"
)

func TestMain(m *testing.M) {
	// CertMagic's locks in files look every 5 s whether they were given back.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh"))
}

// rig is a registry on a real store, with a gateway and subscriptions that are played.
type rig struct {
	*lifecycle.Registry
	t     testing.TB
	disk  certmagic.Storage
	store *store.Store

	mu       sync.Mutex
	now      time.Time
	live     map[string]int // api/plan: subscriptions
	closed   []string       // what ClosePlan was asked for
	closeErr error
	closing  func() // while subscriptions are being closed
	changes  []string
	declared map[string][]lifecycle.Plan
}

func newRig(t testing.TB) *rig { return openRig(t, storetest.NewMemory()) }

// openRig opens what is stored on disk.
func openRig(t testing.TB, disk certmagic.Storage) *rig {
	t.Helper()
	r := &rig{t: t, disk: disk, now: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC), live: map[string]int{}}
	r.open()
	t.Cleanup(r.close)
	return r
}

func (r *rig) open() {
	r.t.Helper()
	var err error
	r.store, err = store.Open(context.Background(), store.Options{Storage: r.disk, Interval: time.Hour})
	if err != nil {
		r.t.Fatal(err)
	}
	r.Registry, err = lifecycle.New(r.store, lifecycle.Options{
		Now: r.tick, Validate: validate, LiveSubscriptions: r.subscriptions, ClosePlan: r.closePlan, OnChange: r.changed,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if r.declared != nil {
		r.Registry.Declare(r.declared)
	}
}

func (r *rig) close() {
	r.Registry.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := r.store.Close(ctx); err != nil {
		r.t.Errorf("closing the store: %v", err)
	}
}

// reopen is a restart.
func (r *rig) reopen() {
	r.t.Helper()
	r.close()
	r.open()
}

// carry exports everything and imports it into an empty store.
func (r *rig) carry() {
	r.t.Helper()
	var file bytes.Buffer
	if err := r.store.Export(context.Background(), &file); err != nil {
		r.t.Fatal(err)
	}
	r.close()
	r.disk = storetest.NewMemory()
	r.open()
	r.load(&file)
}

func (r *rig) load(file *bytes.Buffer) store.ImportReport {
	r.t.Helper()
	report, err := r.store.ImportWith(context.Background(), file, func(old *store.Record, in store.Record) (store.Record, error) {
		return lifecycle.Merge(old, in)
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return report
}

func (r *rig) declare(apis map[string][]lifecycle.Plan) {
	r.declared = apis
	r.Declare(apis)
}

// tick is a clock that never shows the same time twice.
func (r *rig) tick() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(time.Second)
	return r.now
}

func (r *rig) subscriptions(api, plan string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.live[api+"/"+plan]
}

func (r *rig) subscribe(api, plan string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.live[api+"/"+plan] = n
}

func (r *rig) closePlan(_ context.Context, _, api, plan, reason string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = append(r.closed, fmt.Sprintf("%s/%s: %s", api, plan, reason))
	if r.closing != nil {
		r.closing()
	}
	if r.closeErr != nil {
		return r.closeErr
	}
	delete(r.live, api+"/"+plan)
	return nil
}

func (r *rig) changed(old, now *lifecycle.API) {
	text := func(a *lifecycle.API) string {
		if a == nil {
			return "none"
		}
		return a.State()
	}
	id := ""
	for _, a := range []*lifecycle.API{old, now} {
		if a != nil {
			id = a.ID
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changes = append(r.changes, fmt.Sprintf("%s: %s -> %s", id, text(old), text(now)))
}

func (r *rig) seen() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := r.changes
	r.changes = nil
	return seen
}

// must is for what has to succeed.
func (r *rig) must(a lifecycle.API, err error) lifecycle.API {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
	return a
}

// refused is for what has to be refused, in words that contain all of the given ones.
func refused(t testing.TB, err error, kind lifecycle.Kind, words ...string) *lifecycle.Error {
	t.Helper()
	var e *lifecycle.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want it refused: %v", err, kind)
	}
	if e.Kind != kind {
		t.Fatalf("refused as %v (%v), want %v", e.Kind, e, kind)
	}
	for _, w := range words {
		if !bytes.Contains([]byte(e.Error()), []byte(w)) {
			t.Errorf("%q does not say %q", e.Error(), w)
		}
	}
	return e
}

// plan is a plan in a definition.
type plan struct {
	Name string `json:"name,omitempty"`
	Plan struct {
		Type string `json:"type"`
	} `json:"plan"`
}

func planOf(name, kind string) plan {
	p := plan{Name: name}
	p.Plan.Type = kind
	return p
}

type definition struct {
	ID          string            `json:"id,omitempty"`
	Description string            `json:"description,omitempty"`
	Paths       []string          `json:"paths,omitempty"`
	Entrypoints []json.RawMessage `json:"entrypoints,omitempty"`
	Endpoints   []json.RawMessage `json:"endpoints,omitempty"`
	Plans       []json.RawMessage `json:"plans,omitempty"`
}

func (d definition) json() json.RawMessage {
	raw, err := json.Marshal(d)
	if err != nil {
		panic(err)
	}
	return raw
}

// define is a definition that can be served on /<id>.
func define(id, description string, plans ...plan) json.RawMessage {
	d := definition{
		Description: description, Paths: []string{"/" + id},
		Entrypoints: []json.RawMessage{json.RawMessage(`{"type":"http_get"}`)},
		Endpoints:   []json.RawMessage{json.RawMessage(`{"endpoint":{"type":"mock"}}`)},
	}
	for _, p := range plans {
		raw, err := json.Marshal(p)
		if err != nil {
			panic(err)
		}
		d.Plans = append(d.Plans, raw)
	}
	return d.json()
}

// validate plays the gateway: it wants a known type of every guest, tells all problems at
// once, and writes the id into the definition.
func validate(_ context.Context, id string, raw json.RawMessage, deploy bool) (json.RawMessage, []lifecycle.Plan, []string, error) {
	var d definition
	var problems []lifecycle.Problem
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, nil, nil, &lifecycle.Error{Kind: lifecycle.Invalid, Detail: err.Error()}
	}
	if len(d.Paths) == 0 {
		problems = append(problems, lifecycle.Problem{Path: "paths", Detail: "a message API needs at least one context path"})
	}
	var plans []lifecycle.Plan
	for i, raw := range d.Plans {
		var p plan
		if err := json.Unmarshal(raw, &p); err != nil || p.Plan.Type == "" || p.Plan.Type == "nonsense" {
			problems = append(problems, lifecycle.Problem{Path: fmt.Sprintf("plans[%d].plan.type", i), Detail: fmt.Sprintf("there is no plan of type %q", p.Plan.Type)})
			continue
		}
		if p.Name == "" {
			p.Name = p.Plan.Type
		}
		plans = append(plans, lifecycle.Plan{Name: p.Name, Kind: p.Plan.Type})
	}
	if deploy && d.Description == "undeployable" {
		problems = append(problems, lifecycle.Problem{Path: "endpoints[0]", Detail: "the certificate is not there"})
	}
	if len(problems) > 0 {
		return nil, nil, nil, &lifecycle.Error{Kind: lifecycle.Invalid, Detail: "the definition of API " + id + " is not valid", Problems: problems}
	}
	d.ID = id
	return d.json(), plans, d.Paths, nil
}

func mustUnmarshal(t testing.TB, raw json.RawMessage, v any) {
	t.Helper()
	if err := json.Unmarshal(raw, v); err != nil {
		t.Fatal(err)
	}
}
