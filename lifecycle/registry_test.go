package lifecycle_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-message-api/caddy-message-api/lifecycle"
	"github.com/caddy-message-api/caddy-message-api/store"
	"github.com/caddy-message-api/caddy-message-api/store/storetest"
)

func TestNewNeedsValidate(t *testing.T) {
	if _, err := lifecycle.New(newRig(t).store, lifecycle.Options{}); err == nil {
		t.Error("a registry without Validate would save anything")
	}
}

// TestDeclaredWins: a managed API with the id of a declared one is not served, and nothing
// of it is lost.
func TestDeclaredWins(t *testing.T) {
	r := newRig(t)
	r.ops(save("first", true, gold), stop)
	r.declare(map[string][]lifecycle.Plan{"orders": {{Name: "free", Kind: "keyless"}}})
	a, _ := r.Get("orders")
	if a.Managed || a.Started || len(r.Serving()) > 0 {
		t.Errorf("it is %+v, serving %v", a, r.Serving())
	}
	r.ops(start) // the flags are those of the id
	if p := r.Problems(); len(p) != 1 || p[0].Path != "apis/orders" || !strings.Contains(p[0].Detail, "in the configuration") {
		t.Errorf("problems: %v", p)
	}
	r.plans("orders", "free keyless published saved deployed")
	for name, err := range map[string]error{
		"save": save("x", true, gold)(r), "deploy": deploy(r), "delete": remove(r), "delete plan": deletePlan(r),
		"put plan": second(r.PutPlan(ctx, "ann", "orders", "x", jwtPlan, 0)),
	} {
		t.Run(name, func(t *testing.T) { refused(t, err, lifecycle.Conflict, "is written in the Caddyfile") })
	}
	r.reopen()
	if len(r.Serving()) > 0 || len(r.List()) != 1 {
		t.Error("after a restart both are there")
	}
	r.declare(nil)
	if s := r.Serving(); len(s) != 1 || s[0].Deployed == nil || len(r.Problems()) > 0 {
		t.Errorf("serving %v, problems %v", s, r.Problems())
	}
}

// TestFlagsOutliveTheConfiguration: the flags of a declared API are there when it comes back,
// and go with it when it becomes a managed one.
func TestFlagsOutliveTheConfiguration(t *testing.T) {
	r := newRig(t)
	declared(stop, publish, deprecate, closePlan)(r)
	conf := r.declared
	r.declare(nil)
	if _, ok := r.Get("orders"); ok || len(r.List()) > 0 || r.IsStarted("orders") {
		t.Error("an API that is not in the configuration is there")
	}
	if _, ok := r.Stage("orders", "gold"); ok {
		t.Error("its plan is there")
	}
	refused(t, start(r), lifecycle.NotFound)
	r.declare(conf)
	a, _ := r.Get("orders")
	if s, _ := r.Stage("orders", "gold"); a.Started || !a.Published || !a.Deprecated || s != lifecycle.Closed {
		t.Errorf("came back as %+v", a)
	}
	r.declare(map[string][]lifecycle.Plan{"orders": {{Name: "gold", Kind: "jwt"}}})
	if p := r.Problems(); len(p) != 1 || !strings.Contains(p[0].Detail, "another name") {
		t.Errorf("problems: %v", p)
	}
	r.declare(nil)
	a = r.must(r.save("orders", define("orders", "", planOf("silver", "jwt")), lifecycle.Save{Deploy: true, CreateOnly: true}))
	if !a.Started || !a.Deprecated {
		t.Errorf("moved as %+v", a)
	}
	_, err := r.save("orders", define("orders", "", planOf("gold", "jwt"), planOf("silver", "jwt")), lifecycle.Save{})
	refused(t, err, lifecycle.Conflict, "can't come back")
}

// TestUnreadableRecords are told of, and never overwritten by accident.
func TestUnreadableRecords(t *testing.T) {
	r := newRig(t)
	r.ops(save("first", true, gold))
	if err := r.put("orders", json.RawMessage(`{"managed":true,"saved":7}`)); err != nil {
		t.Fatal(err)
	}
	if _, ok := r.Get("orders"); ok {
		t.Error("it can be read")
	}
	if p := r.Problems(); len(p) != 1 || !strings.Contains(p[0].Detail, "can't be read") {
		t.Errorf("problems: %v", p)
	}
	for _, op := range []func(*rig) error{save("x", false, gold), deploy, start, stop, closePlan} {
		refused(t, op(r), lifecycle.Conflict, "can't be read", "import it again, or delete it")
	}
	for _, bad := range []string{`{"managed":true}`, `{"stages":{"x":"open"}}`, `[]`} {
		if err := r.put("bad", json.RawMessage(bad)); err != nil {
			t.Fatal(err)
		}
		if n := len(r.Problems()); n != 2 {
			t.Errorf("%s: %v", bad, r.Problems())
		}
	}
	r.ops(remove)
	r.ops(save("first", true, gold))
}

func (r *rig) put(id string, data json.RawMessage) error {
	ref := store.Ref{Kind: "api", ID: id}
	return r.store.Update(ctx, []store.Ref{ref}, func(tx *store.Tx) error { return tx.Put(ref, data) })
}

func TestChangesAreTold(t *testing.T) {
	r := newRig(t)
	expect := func(want ...string) {
		t.Helper()
		if got := r.seen(); !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
	}
	r.ops(save("first", false, gold))
	expect("orders: none -> saved")
	r.ops(deploy)
	expect("orders: saved -> started")
	r.ops(stop)
	expect("orders: started -> stopped")
	r.ops(closePlan, deletePlan)
	expect("orders: stopped -> stopped", "orders: stopped -> stopped")
	r.ops(remove)
	expect("orders: stopped -> none")
	r.declare(map[string][]lifecycle.Plan{"orders": {{Name: "gold", Kind: "jwt"}}})
	expect()
	r.ops(stop)
	expect("orders: started -> stopped")
	r.declare(nil)
	expect()
}

// odd is a store whose changes come at bad moments.
type odd struct {
	*store.Store
	reading func() // after the first record was read
}

// Watch tells of everything twice.
func (o odd) Watch(f func([]store.Change)) func() {
	return o.Store.Watch(func(c []store.Change) { f(c); f(c) })
}

func (o odd) Range(kind string) iter.Seq[store.Record] {
	return func(yield func(store.Record) bool) {
		for r := range o.Store.Range(kind) {
			if !yield(r) {
				return
			}
			o.reading()
		}
	}
}

// TestChangesWhileReading: a change while the records are read is not missed, and one that is
// told of twice is told of once.
func TestChangesWhileReading(t *testing.T) {
	r := newRig(t)
	r.ops(save("first", true, gold))
	r.seen()
	var wg sync.WaitGroup
	stopping := make(chan struct{})
	reading := func() {
		wg.Go(func() {
			if err := stop(r); err != nil {
				t.Error(err)
			}
		})
		for { // until it is in the store's memory
			if rec, _ := r.store.Get(store.Ref{Kind: "api", ID: "orders"}); bytes.Contains(rec.Data, []byte(`"stopped":true`)) {
				close(stopping)
				return
			}
			runtime.Gosched()
		}
	}
	told := 0
	late, err := lifecycle.New(odd{r.store, reading}, lifecycle.Options{Validate: validate, OnChange: func(_, _ *lifecycle.API) { told++ }})
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	<-stopping
	wg.Wait()
	if late.IsStarted("orders") || told != 1 {
		t.Errorf("started: %v; told %d times", late.IsStarted("orders"), told)
	}
	late.Close()
	r.ops(start)
	if told != 1 {
		t.Error("it was told after it was closed")
	}
}

// TestTwoNodes: two nodes on one storage see each other's changes, and never give one path
// to two APIs.
func TestTwoNodes(t *testing.T) {
	var disk certmagic.Storage = &certmagic.FileStorage{Path: t.TempDir()}
	if testing.Short() {
		disk = storetest.NewMemory() // where nobody waits a second for a lock that somebody holds
	}
	a, b := openRig(t, disk), openRig(t, disk)
	a.ops(save("first", true, gold))
	// b has not looked yet, and nevertheless works on what is there.
	b.ops(stop)
	if err := a.store.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	if a.IsStarted("orders") {
		t.Error("the other node's stop did not arrive")
	}
	if got, want := a.seen(), []string{"orders: none -> started", "orders: started -> stopped"}; !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
	if got := b.seen(); len(got) == 0 || got[len(got)-1] != "orders: started -> stopped" {
		t.Errorf("the node itself was told %q", got)
	}
	var wg sync.WaitGroup
	errs := make([]error, 6)
	for i := range errs {
		node := []*rig{a, b}[i%2]
		wg.Go(func() {
			_, errs[i] = node.save(fmt.Sprintf("api-%d", i), define("same", "", gold), lifecycle.Save{Deploy: true})
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		refused(t, err, lifecycle.Conflict, "has the path /same already")
	}
	if won != 1 {
		t.Errorf("%d APIs have the same path: %v", won, errs)
	}
}

// TestStorageFails: what can't be written is an error of the store, and changes nothing.
func TestStorageFails(t *testing.T) {
	r := newRig(t)
	r.ops(save("first", true, gold))
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	_, err := r.Stop(cancelled, "ann", "orders", 0)
	if e := (*lifecycle.Error)(nil); err == nil || errors.As(err, &e) || !strings.Contains(err.Error(), "changing API orders") {
		t.Errorf("got %v", err)
	}
	if !r.IsStarted("orders") {
		t.Error("it is stopped nevertheless")
	}
}

// TestReadingWhileWriting is for the race detector.
func TestReadingWhileWriting(t *testing.T) {
	r := newRig(t)
	r.ops(save("first", true, gold))
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				r.List()
				r.Serving()
				r.Problems()
				r.IsStarted("orders")
				r.Stage("orders", "gold")
			}
		})
	}
	rounds := 20
	if testing.Short() {
		rounds = 5
	}
	for i := range rounds {
		r.ops(stop, start, save(fmt.Sprint(i), true, gold))
		r.declare(map[string][]lifecycle.Plan{"other": nil})
	}
	close(done)
	wg.Wait()
}

func TestTheRequestPathAllocatesNothing(t *testing.T) {
	r := newRig(t)
	r.ops(save("first", true, gold))
	if n := testing.AllocsPerRun(100, func() {
		if s, ok := r.Stage("orders", "gold"); !r.IsStarted("orders") || s != lifecycle.Published || !ok {
			t.Fatal("not served")
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
