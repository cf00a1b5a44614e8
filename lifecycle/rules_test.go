package lifecycle_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/lifecycle"
)

var ctx = context.Background()

func (r *rig) save(id string, def json.RawMessage, s lifecycle.Save) (lifecycle.API, error) {
	return r.Save(ctx, "ann", id, def, s)
}

func TestSaveTellsAllProblemsAtOnce(t *testing.T) {
	r := newRig(t)
	_, err := r.save("orders", json.RawMessage(`{"plans":[{"plan":{"type":"nonsense"}},{"plan":{}}]}`), lifecycle.Save{})
	e := refused(t, err, lifecycle.Invalid)
	var paths []string
	for _, p := range e.Problems {
		paths = append(paths, p.Path)
	}
	if want := []string{"paths", "plans[0].plan.type", "plans[1].plan.type"}; !slices.Equal(paths, want) {
		t.Errorf("problems at %q, want %q", paths, want)
	}
	if _, ok := r.Get("orders"); ok {
		t.Error("it was saved nevertheless")
	}
}

func TestSaveRefuses(t *testing.T) {
	r := newRig(t)
	for name, c := range map[string]struct {
		id, definition, says string
	}{
		"no object":    {"orders", `[1]`, "JSON object"},
		"null":         {"orders", `null`, "JSON object"},
		"half":         {"orders", `{"paths":`, "JSON object"},
		"nothing":      {"orders", ``, "JSON object"},
		"another id":   {"orders", `{"id":"bills","paths":["/b"]}`, "make both the same"},
		"no id":        {"", `{"paths":["/b"]}`, "use 1 to 64 of"},
		"odd id":       {"../orders", `{"paths":["/b"]}`, "use 1 to 64 of"},
		"long id":      {strings.Repeat("x", 65), `{"paths":["/b"]}`, "use 1 to 64 of"},
		"much too big": {"orders", `{"description":"` + strings.Repeat("x", 1<<20) + `"}`, "at most 1048576"},
		"two alike":    {"orders", `{"paths":["/b"],"plans":[{"plan":{"type":"jwt"}},{"name":"jwt","plan":{"type":"api_key"}}]}`, "two plans jwt"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := r.save(c.id, json.RawMessage(c.definition), lifecycle.Save{})
			refused(t, err, lifecycle.Invalid, c.says)
		})
	}
	if n := len(r.List()); n != 0 {
		t.Errorf("%d were saved nevertheless", n)
	}
}

func TestSaveAndDeployIsAllOrNothing(t *testing.T) {
	r := newRig(t)
	both := lifecycle.Save{Deploy: true}
	_, err := r.save("orders", define("orders", "undeployable", gold), both)
	refused(t, err, lifecycle.Invalid, "endpoints[0]", "certificate")
	if _, ok := r.Get("orders"); ok {
		t.Fatal("it was saved without being deployed")
	}
	first := r.must(r.save("orders", define("orders", "first", gold), both))
	_, err = r.save("orders", define("orders", "second"), both)
	refused(t, err, lifecycle.Conflict, "no plan")
	if now, _ := r.Get("orders"); now.Version != first.Version || now.OutOfSync() {
		t.Errorf("half of it was done: version %d, out of sync %v", now.Version, now.OutOfSync())
	}
	r.must(r.save("orders", define("orders", "undeployable", gold), lifecycle.Save{}))
	_, err = r.Deploy(ctx, "ann", "orders", 0)
	refused(t, err, lifecycle.Invalid, "certificate")
}

func TestDeployNeedsEverything(t *testing.T) {
	for name, c := range map[string]struct{ definition, says string }{
		"entrypoint": {`{"paths":["/o"],"endpoints":[{}],"plans":[{"plan":{"type":"jwt"}}]}`, "has no entrypoint"},
		"endpoint":   {`{"paths":["/o"],"entrypoints":[{}],"plans":[{"plan":{"type":"jwt"}}]}`, "has no endpoint"},
		"plan":       {`{"paths":["/o"],"entrypoints":[{}],"endpoints":[{}]}`, "has no plan"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.must(r.save("orders", json.RawMessage(c.definition), lifecycle.Save{}))
			_, err := r.Deploy(ctx, "ann", "orders", 0)
			refused(t, err, lifecycle.Conflict, c.says, "deploy")
		})
	}
}

func TestVersions(t *testing.T) {
	r := newRig(t)
	r.ops(save("first", true, gold))
	now, _ := r.Get("orders")
	stale := now.Version + 7
	for name, op := range map[string]func(uint64) (lifecycle.API, error){
		"save": func(v uint64) (lifecycle.API, error) {
			return r.save("orders", define("orders", "other", gold), lifecycle.Save{Version: v})
		},
		"deploy": func(v uint64) (lifecycle.API, error) { return r.Deploy(ctx, "ann", "orders", v) },
		// Nothing would change, and yet the version is the wrong one.
		"start":          func(v uint64) (lifecycle.API, error) { return r.Start(ctx, "ann", "orders", v) },
		"stop":           func(v uint64) (lifecycle.API, error) { return r.Stop(ctx, "ann", "orders", v) },
		"members":        func(v uint64) (lifecycle.API, error) { return r.SetMembers(ctx, "ann", "orders", v, nil) },
		"put plan":       func(v uint64) (lifecycle.API, error) { return r.PutPlan(ctx, "ann", "orders", "x", jwtPlan, v) },
		"publish plan":   func(v uint64) (lifecycle.API, error) { return r.PublishPlan(ctx, "ann", "orders", "gold", v) },
		"deprecate plan": func(v uint64) (lifecycle.API, error) { return r.DeprecatePlan(ctx, "ann", "orders", "gold", v) },
		"close plan":     func(v uint64) (lifecycle.API, error) { return r.ClosePlan(ctx, "ann", "orders", "gold", "", v) },
		"delete plan":    func(v uint64) (lifecycle.API, error) { return r.DeletePlan(ctx, "ann", "orders", "gold", v) },
		"delete":         func(v uint64) (lifecycle.API, error) { return r.Delete(ctx, "ann", "orders", v) },
	} {
		t.Run(name, func(t *testing.T) {
			_, err := op(stale)
			refused(t, err, lifecycle.Precondition, "somebody has changed it")
		})
	}
	if len(r.closed) > 0 {
		t.Errorf("subscriptions were closed: %q", r.closed)
	}
	_, err := r.save("orders", define("orders", "other", gold), lifecycle.Save{CreateOnly: true})
	refused(t, err, lifecycle.Precondition, "already")
	_, err = r.save("bills", define("bills", "other", gold), lifecycle.Save{Version: 3})
	refused(t, err, lifecycle.Precondition, "deleted")
	changed := r.must(r.Stop(ctx, "bob", "orders", now.Version))
	if changed.Version <= now.Version || changed.UpdatedBy != "bob" || !changed.UpdatedAt.After(now.UpdatedAt) || !changed.CreatedAt.Equal(now.CreatedAt) {
		t.Errorf("from %+v to %+v", now, changed)
	}
}

// TestDoingItTwice: the second time is no error, and writes nothing.
func TestDoingItTwice(t *testing.T) {
	for _, op := range []struct {
		name string
		do   func(*rig) error
	}{
		{"start", start}, {"stop", stop}, {"publish", publish}, {"unpublish", unpublish}, {"public", public},
		{"private", private}, {"deploy", deploy}, {"save", save("first", false, gold)}, {"save+deploy", save("first", true, gold)},
		{"deprecate", deprecate}, {"plan close", closePlan},
	} {
		t.Run(op.name, func(t *testing.T) {
			r := newRig(t)
			r.ops(save("first", true, gold), op.do)
			before, _ := r.Get("orders")
			r.seen()
			r.ops(op.do)
			after, _ := r.Get("orders")
			if after.Version != before.Version || !after.UpdatedAt.Equal(before.UpdatedAt) {
				t.Errorf("version %d became %d", before.Version, after.Version)
			}
			if told := r.seen(); len(told) > 0 {
				t.Errorf("changes were told: %q", told)
			}
		})
	}
}

func TestDryRun(t *testing.T) {
	r := newRig(t)
	a := r.must(r.save("orders", define("orders", "first", gold), lifecycle.Save{Deploy: true, DryRun: true}))
	if a.State() != lifecycle.StateStarted || a.Version != 0 {
		t.Errorf("it would be %s, version %d", a.State(), a.Version)
	}
	if _, ok := r.Get("orders"); ok {
		t.Error("it was written")
	}
	_, err := r.save("orders", define("orders", "first"), lifecycle.Save{Deploy: true, DryRun: true})
	refused(t, err, lifecycle.Conflict, "no plan")
}

// TestOutOfSync: what counts is what a deploy would change.
func TestOutOfSync(t *testing.T) {
	r := newRig(t)
	sync := func(want bool) {
		t.Helper()
		if a, _ := r.Get("orders"); a.OutOfSync() != want {
			t.Errorf("out of sync is %v; saved %s, deployed %s", !want, a.Saved.Definition, a.Deployed.Definition)
		}
	}
	silver := planOf("silver", "jwt")
	r.ops(save("first", true, gold, silver))
	sync(false)
	// Nothing is different but how it is written.
	var d map[string]any
	mustUnmarshal(t, define("orders", "first", gold, silver), &d)
	indented, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	r.must(r.save("orders", indented, lifecycle.Save{}))
	sync(false)
	r.must(r.ClosePlan(ctx, "ann", "orders", "silver", "", 0))
	sync(false)
	r.must(r.PutPlan(ctx, "ann", "orders", "bronze", jwtPlan, 0))
	sync(false)
	r.must(r.PublishPlan(ctx, "ann", "orders", "bronze", 0))
	sync(true)
	r.must(r.Deploy(ctx, "ann", "orders", 0))
	sync(false)
	r.must(r.DeprecatePlan(ctx, "ann", "orders", "gold", 0))
	sync(false)
	// The order of plans counts: they are asked in it.
	r.must(r.save("orders", define("orders", "first", planOf("bronze", "jwt"), gold), lifecycle.Save{}))
	sync(true)
}

// TestDeprecatedForEver: through redeploy, re-save, a restart, and the import of what was
// exported before.
func TestDeprecatedForEver(t *testing.T) {
	r := newRig(t)
	r.ops(save("first", true, gold), publish)
	before := r.export()
	r.ops(deprecate, stop, unpublish)
	check := func(when string) {
		t.Helper()
		if a, _ := r.Get("orders"); !a.Deprecated {
			t.Errorf("not deprecated any more after %s", when)
		}
	}
	r.ops(save("second", true, gold), start)
	check("a redeploy")
	r.reopen()
	check("a restart")
	r.load(before)
	check("the import of an older state")
	a, _ := r.Get("orders")
	if !a.Published || a.Started != true {
		t.Errorf("the rest was not imported: %+v", a)
	}
	r.carry()
	check("export and import")
	_, err := r.Publish(ctx, "ann", "orders", 0)
	refused(t, err, lifecycle.Conflict, "for ever")
}

func TestPathsAreTaken(t *testing.T) {
	r := newRig(t)
	r.must(r.save("orders", define("orders", "", gold), lifecycle.Save{Deploy: true}))
	_, err := r.save("other", define("orders", "", gold), lifecycle.Save{})
	refused(t, err, lifecycle.Conflict, "API orders has the path /orders")
	nested := define("orders/new", "", gold)
	r.must(r.save("nested", nested, lifecycle.Save{Deploy: true}))
	// The saved definition has moved away, but the deployed one is still served there.
	r.must(r.save("orders", define("moved", "", gold), lifecycle.Save{}))
	_, err = r.save("other", define("orders", "", gold), lifecycle.Save{})
	refused(t, err, lifecycle.Conflict, "API orders has the path /orders")
	_, err = r.save("other", define("moved", "", gold), lifecycle.Save{})
	refused(t, err, lifecycle.Conflict, "API orders has the path /moved")
	r.must(r.Deploy(ctx, "ann", "orders", 0))
	r.must(r.save("other", define("orders", "", gold), lifecycle.Save{Deploy: true}))
	if p := r.Problems(); len(p) > 0 {
		t.Errorf("problems: %v", p)
	}
}

func TestDeleteBeginsANewLife(t *testing.T) {
	r := newRig(t)
	r.ops(save("first", true, gold), publish, deprecate, inUse, stop, closePlan, deletePlan)
	r.closed = nil
	r.closeErr = errors.New("the storage is full")
	if err := remove(r); !errors.Is(err, r.closeErr) {
		t.Fatalf("got %v, want that closing failed", err)
	}
	if _, ok := r.Get("orders"); !ok {
		t.Fatal("it is gone, and its subscriptions are not")
	}
	r.closeErr = nil
	r.ops(remove)
	if want := "orders/gold: the API was deleted"; !slices.Contains(r.closed, want) {
		t.Errorf("closed %q, want %q", r.closed, want)
	}
	if err := remove(r); err == nil {
		t.Error("it was deleted twice")
	} else {
		refused(t, err, lifecycle.NotFound)
	}
	r.reopen()
	again := r.must(r.save("orders", define("orders", "again", planOf("gold", "jwt")), lifecycle.Save{Deploy: true, CreateOnly: true}))
	if again.Deprecated || again.Published || len(again.Stages) > 0 || len(again.Members) > 0 || again.Saved.Number != 1 {
		t.Errorf("something of the old life is left: %+v", again)
	}
	if s, ok := r.Stage("orders", "gold"); s != lifecycle.Published || !ok {
		t.Errorf("plan gold is %q", s)
	}
}

// TestDeleteClosesWhatIsDeployed: plans that only the deployed definition still has.
func TestDeleteClosesWhatIsDeployed(t *testing.T) {
	r := newRig(t)
	r.ops(save("first", true, gold), stop, save("first", false))
	r.subscribe("orders", "gold", 3) // somebody came after it was taken out
	r.closing = func() {
		if s, _ := r.Stage("orders", "gold"); s != lifecycle.Closed {
			t.Errorf("the plan is %s, so somebody may subscribe meanwhile", s)
		}
	}
	r.ops(remove)
	if n := r.subscriptions("orders", "gold"); n != 0 {
		t.Errorf("%d subscriptions live on", n)
	}
}

func TestCatalogue(t *testing.T) {
	r := newRig(t)
	r.declare(map[string][]lifecycle.Plan{"open": nil, "hidden": nil})
	for _, id := range []string{"open", "team", "mine"} {
		if id != "open" {
			r.must(r.save(id, define(id, ""), lifecycle.Save{}))
		}
		r.must(r.Publish(ctx, "ann", id, 0))
	}
	r.must(r.MakePublic(ctx, "ann", "open", 0))
	r.must(r.MakePublic(ctx, "ann", "hidden", 0))
	r.must(r.SetMembers(ctx, "ann", "team", 0, []string{"group:dev", "group:ops", "group:dev"}))
	r.must(r.SetMembers(ctx, "ann", "mine", 0, []string{"ann", "group"}))
	for _, c := range []struct {
		user   string
		groups []string
		want   string
	}{
		{"", nil, "open"},
		{"ann", nil, "mine open"},
		{"ann", []string{"ops", "hr"}, "mine open team"},
		{"bob", []string{"dev"}, "open team"},
		{"group:dev", []string{""}, "open"},
		{"dev", nil, "open"},
	} {
		var ids []string
		for _, a := range r.Catalogue(c.user, c.groups) {
			ids = append(ids, a.ID)
		}
		if got := strings.Join(ids, " "); got != c.want {
			t.Errorf("%q of %q sees %q, want %q", c.user, c.groups, got, c.want)
		}
	}
	for _, bad := range []string{"", "group:", "a\nb", strings.Repeat("x", 257)} {
		_, err := r.SetMembers(ctx, "ann", "team", 0, []string{bad})
		refused(t, err, lifecycle.Invalid, "members")
	}
	_, err := r.SetMembers(ctx, "ann", "team", 0, make([]string, 1001))
	refused(t, err, lifecycle.Invalid, "too many")
	if a, _ := r.Get("team"); fmt.Sprint(a.Members) != "[group:dev group:ops]" {
		t.Errorf("members: %q", a.Members)
	}
}
