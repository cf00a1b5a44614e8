package lifecycle_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/lifecycle"
)

var jwtPlan = json.RawMessage(`{"plan":{"type":"jwt"}}`)

// TestStages does every step from every stage, on managed APIs and on declared ones.
func TestStages(t *testing.T) {
	type step = func(*rig) error
	steps := map[lifecycle.Stage]step{
		lifecycle.Published: func(r *rig) error { _, err := r.PublishPlan(ctx, "ann", "orders", "x", 0); return err },
		lifecycle.Deprecated: func(r *rig) error {
			_, err := r.DeprecatePlan(ctx, "ann", "orders", "x", 0)
			return err
		},
		lifecycle.Closed: func(r *rig) error { _, err := r.ClosePlan(ctx, "ann", "orders", "x", "old", 0); return err },
	}
	put := func(r *rig) error { _, err := r.PutPlan(ctx, "ann", "orders", "x", jwtPlan, 0); return err }
	ways := map[lifecycle.Stage][]step{
		lifecycle.Staging:    {},
		lifecycle.Published:  {steps[lifecycle.Published]},
		lifecycle.Deprecated: {steps[lifecycle.Published], steps[lifecycle.Deprecated]},
		lifecycle.Closed:     {steps[lifecycle.Closed]},
	}
	order := []lifecycle.Stage{lifecycle.Staging, lifecycle.Published, lifecycle.Deprecated, lifecycle.Closed}
	for _, declared := range []bool{false, true} {
		for i, from := range order {
			for j, to := range order[1:] {
				if declared && from == lifecycle.Staging {
					continue // what is in the configuration is served
				}
				t.Run(fmt.Sprintf("declared=%v/%s to %s", declared, from, to), func(t *testing.T) {
					r := newRig(t)
					if declared {
						r.declare(map[string][]lifecycle.Plan{"orders": {{Name: "x", Kind: "jwt"}}})
					} else {
						r.ops(save("first", true, gold), put)
					}
					r.ops(ways[from]...)
					err := steps[to](r)
					legal := j+1 >= i && (from != lifecycle.Staging || to != lifecycle.Deprecated)
					want := to
					if !legal {
						want = from
						refused(t, err, lifecycle.Conflict, "plan x of API orders")
					} else if err != nil {
						t.Error(err)
					}
					for _, when := range []string{"at once", "after a restart"} {
						if got, ok := r.Stage("orders", "x"); got != want || !ok {
							t.Errorf("%s it is %q, want %q", when, got, want)
						}
						r.reopen()
					}
				})
			}
		}
	}
}

// TestPlansByTheirWay: written, published, deployed, deprecated, closed, deleted.
func TestPlansByTheirWay(t *testing.T) {
	r := newRig(t)
	r.ops(save("first", true, gold))
	a := r.must(r.PutPlan(ctx, "ann", "orders", "silver", json.RawMessage(`{"plan":{"type":"jwt"},"selection_rule":"true"}`), 0))
	r.plans("orders", "gold api_key published saved deployed", "silver jwt staging saved")
	if raw, ok := a.Plan("silver"); !ok || !strings.Contains(string(raw), "selection_rule") || !strings.Contains(string(raw), `"name":"silver"`) {
		t.Errorf("the plan is %s", raw)
	}
	if _, ok := a.Plan("tin"); ok {
		t.Error("there is a plan tin")
	}
	// A deploy leaves it out, and so serves what is served.
	r.must(r.Deploy(ctx, "ann", "orders", 0))
	r.plans("orders", "gold api_key published saved deployed", "silver jwt staging saved")
	a = r.must(r.PublishPlan(ctx, "ann", "orders", "silver", 0))
	if !a.OutOfSync() || a.Saved.Number != 3 {
		t.Errorf("out of sync: %v, revision %d", a.OutOfSync(), a.Saved.Number)
	}
	a = r.must(r.Deploy(ctx, "ann", "orders", 0))
	if !strings.Contains(string(a.Deployed.Definition), "silver") || a.Deployed.Number != 3 {
		t.Errorf("deployed is %d: %s", a.Deployed.Number, a.Deployed.Definition)
	}
	// Writing it anew keeps its stage.
	r.must(r.DeprecatePlan(ctx, "ann", "orders", "silver", 0))
	r.must(r.PutPlan(ctx, "ann", "orders", "silver", jwtPlan, 0))
	r.plans("orders", "gold api_key published saved deployed", "silver jwt deprecated saved deployed")
	r.must(r.ClosePlan(ctx, "ann", "orders", "silver", "nobody needs it", 0))
	if want := []string{"orders/silver: nobody needs it"}; !slices.Equal(r.closed, want) {
		t.Errorf("closed %q, want %q", r.closed, want)
	}
	_, err := r.PutPlan(ctx, "ann", "orders", "silver", jwtPlan, 0)
	refused(t, err, lifecycle.Conflict, "closed", "another name")
	r.must(r.DeletePlan(ctx, "ann", "orders", "silver", 0))
	r.plans("orders", "gold api_key published saved deployed", "silver jwt closed deployed")
	_, err = r.DeletePlan(ctx, "ann", "orders", "silver", 0)
	refused(t, err, lifecycle.NotFound, "until the next deploy")
	r.must(r.Deploy(ctx, "ann", "orders", 0))
	r.plans("orders", "gold api_key published saved deployed")
	if s, ok := r.Stage("orders", "silver"); s != lifecycle.Closed || !ok {
		t.Errorf("what was closed and deleted is %q", s)
	}
}

func (r *rig) plans(id string, want ...string) {
	r.t.Helper()
	plans, err := r.Plans(id)
	if err != nil {
		r.t.Fatal(err)
	}
	var got []string
	for _, p := range plans {
		text := fmt.Sprintf("%s %s %s", p.Name, p.Kind, p.Stage)
		if p.Saved {
			text += " saved"
		}
		if p.Deployed {
			text += " deployed"
		}
		got = append(got, text)
	}
	if !slices.Equal(got, want) {
		r.t.Errorf("plans are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestPlanRefusals(t *testing.T) {
	r := newRig(t)
	r.ops(save("first", true, gold))
	for name, c := range map[string]struct{ plan, definition, says string }{
		"no object":    {"x", `3`, "JSON object"},
		"null":         {"x", `null`, "JSON object"},
		"another name": {"x", `{"name":"y","plan":{"type":"jwt"}}`, "make both the same"},
		"no name":      {"", `{"plan":{"type":"jwt"}}`, "needs a name"},
		"odd plan":     {"x", `{"plan":"jwt"}`, "plan"},
		"unknown type": {"x", `{"plan":{"type":"nonsense"}}`, "plans[1].plan.type"},
		"too big":      {"x", `{"a":"` + strings.Repeat("x", 1<<20) + `"}`, "at most"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := r.PutPlan(ctx, "ann", "orders", c.plan, json.RawMessage(c.definition), 0)
			refused(t, err, lifecycle.Invalid, c.says)
		})
	}
	for _, err := range []error{
		second(r.PublishPlan(ctx, "ann", "orders", "x", 0)), second(r.DeprecatePlan(ctx, "ann", "orders", "x", 0)),
		second(r.ClosePlan(ctx, "ann", "orders", "x", "", 0)), second(r.DeletePlan(ctx, "ann", "orders", "x", 0)),
	} {
		refused(t, err, lifecycle.NotFound, `no plan "x"`)
	}
	_, err := r.Plans("bills")
	refused(t, err, lifecycle.NotFound, "bills")
}

func second(_ lifecycle.API, err error) error { return err }

func TestPlanNamesStayWithTheirKind(t *testing.T) {
	r := newRig(t)
	r.ops(save("first", true, gold, planOf("silver", "jwt")))
	other := define("orders", "", planOf("gold", "jwt"), planOf("silver", "jwt"))
	_, err := r.save("orders", other, lifecycle.Save{})
	refused(t, err, lifecycle.Conflict, "while it is deployed")
	_, err = r.PutPlan(ctx, "ann", "orders", "gold", jwtPlan, 0)
	refused(t, err, lifecycle.Conflict, "while it is deployed")
	r.ops(closePlan, deletePlan, deploy)
	_, err = r.save("orders", other, lifecycle.Save{})
	refused(t, err, lifecycle.Conflict, "can't come back", "another name")
	// Under its own kind it can be written down again, and stays closed.
	r.ops(save("first", true, gold, planOf("silver", "jwt")))
	r.plans("orders", "gold api_key closed saved", "silver jwt published saved deployed")
	// A plan that was only ever in staging can become another.
	r.must(r.PutPlan(ctx, "ann", "orders", "tin", jwtPlan, 0))
	r.must(r.PutPlan(ctx, "ann", "orders", "tin", json.RawMessage(`{"plan":{"type":"api_key"}}`), 0))
	r.must(r.DeletePlan(ctx, "ann", "orders", "tin", 0))
	r.ops(save("first", false, gold, planOf("silver", "jwt"), planOf("tin", "jwt")))
	r.plans("orders", "gold api_key closed saved", "silver jwt published saved deployed", "tin jwt published saved")
}

// TestPlansInUseStay: whoever drops a plan that has subscriptions is told to close it.
func TestPlansInUseStay(t *testing.T) {
	r := newRig(t)
	silver := planOf("silver", "jwt")
	r.ops(save("first", true, gold, silver))
	r.subscribe("orders", "gold", 2)
	for name, err := range map[string]error{
		"delete plan": deletePlan(r), "save": save("second", false, silver)(r), "save+deploy": save("second", true, silver)(r),
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, err, lifecycle.Conflict, "2 live subscriptions", "close the plan first")
		})
	}
	// Somebody subscribes between taking it out and deploying.
	r.subscribe("orders", "gold", 0)
	r.ops(deletePlan)
	r.subscribe("orders", "gold", 1)
	refused(t, deploy(r), lifecycle.Conflict, "1 live subscriptions")
	r.ops(closePlan, deploy)
	r.plans("orders", "silver jwt published saved deployed")
}

// TestClosingThatFails: the plan is closed at once, and closing it again goes on with the
// subscriptions.
func TestClosingThatFails(t *testing.T) {
	r := newRig(t)
	r.ops(save("first", true, gold), inUse)
	r.closeErr = errors.New("the storage is full")
	if err := closePlan(r); !errors.Is(err, r.closeErr) || !strings.Contains(err.Error(), "do it again") {
		t.Errorf("got %v", err)
	}
	if s, _ := r.Stage("orders", "gold"); s != lifecycle.Closed {
		t.Errorf("the plan is %s", s)
	}
	r.closeErr = nil
	r.ops(closePlan)
	if n := r.subscriptions("orders", "gold"); n != 0 {
		t.Errorf("%d subscriptions live on", n)
	}
}

// TestStagingIsForgotten: a plan that was taken out before anybody saw it leaves nothing.
func TestStagingIsForgotten(t *testing.T) {
	r := newRig(t)
	r.ops(save("first", true, gold))
	r.must(r.PutPlan(ctx, "ann", "orders", "x", jwtPlan, 0))
	r.must(r.DeletePlan(ctx, "ann", "orders", "x", 0))
	if s, ok := r.Stage("orders", "x"); ok {
		t.Errorf("it is still %s", s)
	}
	// Saving what was read keeps what is in staging there.
	a := r.must(r.PutPlan(ctx, "ann", "orders", "y", jwtPlan, 0))
	r.must(r.save("orders", a.Saved.Definition, lifecycle.Save{}))
	r.plans("orders", "gold api_key published saved deployed", "y jwt staging saved")
}

// TestADeprecatedPlanStaysDeprecated, also when it was deleted meanwhile.
func TestADeprecatedPlanStaysDeprecated(t *testing.T) {
	r := newRig(t)
	silver := planOf("silver", "jwt")
	r.ops(save("first", true, gold, silver))
	r.must(r.DeprecatePlan(ctx, "ann", "orders", "silver", 0))
	r.must(r.DeletePlan(ctx, "ann", "orders", "silver", 0))
	r.ops(deploy)
	r.must(r.PutPlan(ctx, "ann", "orders", "silver", jwtPlan, 0))
	r.plans("orders", "gold api_key published saved deployed", "silver jwt deprecated saved")
	r.must(r.DeletePlan(ctx, "ann", "orders", "silver", 0))
	r.ops(save("first", true, gold, silver))
	r.plans("orders", "gold api_key published saved deployed", "silver jwt deprecated saved deployed")
}

// FuzzPutPlan: whatever is written, it is saved as a plan of that name, or refused.
func FuzzPutPlan(f *testing.F) {
	for _, seed := range []string{`{"plan":{"type":"jwt"}}`, `{"name":"x"}`, `null`, `[]`, `{"plan":null,"name":null}`, `{"Name":"y","plan":{"type":"jwt"}}`, `{"plan":{"type":"jwt"}}x`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r := newRig(t)
		r.ops(save("first", true, gold))
		a, err := r.PutPlan(ctx, "ann", "orders", "x", raw, 0)
		if err != nil {
			refused(t, err, lifecycle.Invalid)
			return
		}
		if len(a.Saved.Plans) != 2 || a.Saved.Plans[1].Name != "x" || a.Stages["x"] != lifecycle.Staging {
			t.Errorf("%q was saved as %+v %v", raw, a.Saved.Plans, a.Stages)
		}
	})
}

// TestOnlyStaging: a deploy says which plans could be published.
func TestOnlyStaging(t *testing.T) {
	r := newRig(t)
	r.ops(save("first", false))
	r.must(r.PutPlan(ctx, "ann", "orders", "x", jwtPlan, 0))
	refused(t, deploy(r), lifecycle.Conflict, "publish one first", "x")
	r.must(r.PublishPlan(ctx, "ann", "orders", "x", 0))
	r.ops(deploy)
}
