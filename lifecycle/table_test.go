package lifecycle_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/lifecycle"
)

var update = flag.Bool("update", false, "write the golden table anew")

const (
	golden = "testdata/rules.md"
	page   = "../docs/lifecycle.md"
)

// state is how an API stands before the operation. A nil function: there is no such state.
type state struct {
	name              string
	managed, declared func(*rig)
}

var gold = planOf("gold", "api_key")

// ops are short for operations of the right user on the one API.
func (r *rig) ops(ops ...func(*rig) error) {
	r.t.Helper()
	for _, op := range ops {
		if err := op(r); err != nil {
			r.t.Fatal(err)
		}
	}
}

type flagOp = func(context.Context, string, string, uint64) (lifecycle.API, error)

func do(method func(*rig) flagOp) func(*rig) error {
	return func(r *rig) error {
		_, err := method(r)(context.Background(), "ann", "orders", 0)
		return err
	}
}

func save(description string, deploy bool, plans ...plan) func(*rig) error {
	return func(r *rig) error {
		_, err := r.Save(context.Background(), "ann", "orders", define("orders", description, plans...), lifecycle.Save{Deploy: deploy})
		return err
	}
}

var (
	deploy     = do(func(r *rig) flagOp { return r.Deploy })
	start      = do(func(r *rig) flagOp { return r.Start })
	stop       = do(func(r *rig) flagOp { return r.Stop })
	publish    = do(func(r *rig) flagOp { return r.Publish })
	unpublish  = do(func(r *rig) flagOp { return r.Unpublish })
	public     = do(func(r *rig) flagOp { return r.MakePublic })
	private    = do(func(r *rig) flagOp { return r.MakePrivate })
	deprecate  = do(func(r *rig) flagOp { return r.Deprecate })
	remove     = do(func(r *rig) flagOp { return r.Delete })
	deletePlan = func(r *rig) error {
		_, err := r.DeletePlan(context.Background(), "ann", "orders", "gold", 0)
		return err
	}
	closePlan = func(r *rig) error {
		_, err := r.ClosePlan(context.Background(), "ann", "orders", "gold", "too old", 0)
		return err
	}
	members = func(r *rig) error {
		_, err := r.SetMembers(context.Background(), "ann", "orders", 0, []string{"ann"})
		return err
	}
	// inUse is an API with members, whose plan has subscriptions.
	inUse = func(r *rig) error {
		r.subscribe("orders", "gold", 2)
		return members(r)
	}
)

var operations = []struct {
	name string
	do   func(*rig) error
}{
	{"save", save("changed", false, gold)},
	{"save+deploy", save("changed", true, gold)},
	{"deploy", deploy},
	{"start", start},
	{"stop", stop},
	{"publish", publish},
	{"unpublish", unpublish},
	{"make public", public},
	{"make private", private},
	{"deprecate", deprecate},
	{"plan close", closePlan},
	{"plan delete", deletePlan},
	{"delete", remove},
}

func declared(ops ...func(*rig) error) func(*rig) {
	return func(r *rig) {
		r.declare(map[string][]lifecycle.Plan{"orders": {{Name: "gold", Kind: "api_key"}}})
		r.ops(append([]func(*rig) error{inUse}, ops...)...)
	}
}

func managed(ops ...func(*rig) error) func(*rig) {
	return func(r *rig) {
		r.ops(append([]func(*rig) error{save("first", true, gold), inUse}, ops...)...)
	}
}

var states = []state{
	{"absent", func(*rig) {}, func(*rig) {}},
	{"saved", func(r *rig) { r.ops(save("first", false, gold), members) }, nil},
	{"started", managed(), declared()},
	{"out of sync", managed(save("second", false, gold)), nil},
	{"stopped", managed(stop), declared(stop)},
	{"published", managed(publish), declared(publish)},
	{"public", managed(publish, public), declared(publish, public)},
	{"deprecated", managed(publish, deprecate), declared(publish, deprecate)},
	{"plan closed", managed(closePlan), declared(closePlan)},
	{"stopped, no plan", managed(stop, closePlan, deletePlan), nil},
}

// view is what can be seen of the API from outside, a line for each thing.
func (r *rig) view() map[string]string {
	a, ok := r.Get("orders")
	if !ok {
		return map[string]string{"": "gone"}
	}
	v := map[string]string{"a": a.State(), "b": "in sync", "c": "seen by nobody", "d": "subscriptions open"}
	if a.OutOfSync() {
		v["b"] = "out of sync"
	}
	if len(r.Catalogue("ann", nil)) > 0 {
		v["c"] = "seen by members"
	}
	if len(r.Catalogue("", nil)) > 0 {
		v["c"] = "seen by everybody"
	}
	if a.Saved != nil {
		v["b1"] = fmt.Sprintf("rev %d saved", a.Saved.Number)
	}
	if a.Deployed != nil {
		v["b2"] = fmt.Sprintf("rev %d deployed", a.Deployed.Number)
	}
	v["s"] = "has subscriptions"
	if r.subscriptions("orders", "gold") == 0 {
		v["s"] = "subscriptions closed"
	}
	if a.Public {
		v["f"] = "public"
	} else {
		v["f"] = "private"
	}
	if a.Deprecated {
		v["d"] = "no new subscriptions"
	}
	if served := len(r.Serving()) > 0 || !a.Managed && r.IsStarted("orders"); served != (a.State() == lifecycle.StateStarted) {
		r.t.Errorf("it is %s, and served: %v", a.State(), served)
	}
	plans, _ := r.Plans("orders")
	if len(plans) == 0 {
		v["plan"] = "no plan"
	}
	for _, p := range plans {
		v["plan"] = "plan " + string(p.Stage)
		if !p.Saved {
			v["plan"] += ", not saved"
		}
	}
	return v
}

// effect is what has changed in the view.
func effect(before, after map[string]string) string {
	keys := []string{}
	for k, v := range after {
		if before[k] != v {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 && len(before) == len(after) {
		return "no change"
	}
	slices.Sort(keys)
	words := make([]string, 0, len(keys))
	fresh := len(before) == 1
	for _, k := range keys {
		// Of a new API everything is new; what it is by default goes without saying.
		if w := after[k]; !fresh || !slices.Contains([]string{"subscriptions closed", "seen by nobody", "subscriptions open", "private"}, w) {
			words = append(words, w)
		}
	}
	return strings.Join(words, ", ")
}

// notes number what is said when something is refused.
type notes struct{ list []string }

func (n *notes) number(text string) int {
	if i := slices.Index(n.list, text); i >= 0 {
		return i + 1
	}
	n.list = append(n.list, text)
	return len(n.list)
}

var statuses = map[lifecycle.Kind]int{lifecycle.NotFound: 404, lifecycle.Conflict: 409, lifecycle.Invalid: 400, lifecycle.Precondition: 412}

func cell(t *testing.T, n *notes, before map[string]string, r *rig, err error) string {
	t.Helper()
	var e *lifecycle.Error
	switch {
	case errors.As(err, &e):
		if got := effect(before, r.view()); got != "no change" {
			t.Errorf("it was refused (%v), and yet: %s", e, got)
		}
		if e.Kind == lifecycle.NotFound {
			return "404"
		}
		return fmt.Sprintf("%d (%d)", statuses[e.Kind], n.number(e.Detail))
	case err != nil:
		t.Errorf("%v", err)
		return err.Error()
	}
	return effect(before, r.view())
}

// between happens between an API's coming into its state and the operation.
var between = map[string]func(*rig){
	"running":               func(*rig) {},
	"restarted":             (*rig).reopen,
	"exported and imported": (*rig).carry,
}

// TestRules does every operation in every state, and compares the outcome with the table
// that the documentation shows; and again after a restart, and after moving to an empty
// store. What an operation has done is also there after both.
func TestRules(t *testing.T) {
	tables := map[string]string{}
	for name, pass := range between {
		t.Run(name, func(t *testing.T) { tables[name] = rules(t, pass) })
	}
	if *update {
		if err := os.MkdirAll(filepath.Dir(golden), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(tables["running"]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	for name, table := range tables {
		if table != string(want) {
			t.Errorf("%s: the rules are not those of %s (write them anew with -update if they are right):\n%s", name, golden, table)
		}
	}
}

// TestThePageShowsTheRules: the table in the documentation is the one that is tested.
func TestThePageShowsTheRules(t *testing.T) {
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- rules:begin -->\n", "<!-- rules:end -->\n"
	before, rest, ok := strings.Cut(string(text), begin)
	shown, after, ended := strings.Cut(rest, end)
	if !ok || !ended {
		t.Fatalf("%s has no place for the rules", page)
	}
	if shown == string(want) {
		return
	}
	if !*update {
		t.Fatalf("%s does not show the rules of %s: write them with -update", page, golden)
	}
	if err := os.WriteFile(page, []byte(before+begin+string(want)+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

func rules(t *testing.T, pass func(*rig)) string {
	var text strings.Builder
	var n notes
	for _, kind := range []string{"Managed API", "API of the Caddyfile"} {
		fmt.Fprintf(&text, "**%s**\n\n| | %s |\n|---|%s\n", kind, strings.Join(names(kind), " | "), strings.Repeat("---|", len(names(kind))))
		for _, op := range operations {
			cells := []string{}
			for _, s := range states {
				if setup := s.of(kind); setup != nil {
					t.Run(op.name+"/"+s.name, func(t *testing.T) { cells = append(cells, try(t, &n, setup, pass, op.do)) })
				}
			}
			fmt.Fprintf(&text, "| %s | %s |\n", op.name, strings.Join(cells, " | "))
		}
		text.WriteString("\n")
	}
	for i, note := range n.list {
		fmt.Fprintf(&text, "%d. %s\n", i+1, note)
	}
	return text.String()
}

func (s state) of(kind string) func(*rig) {
	if kind == "Managed API" {
		return s.managed
	}
	return s.declared
}

func names(kind string) []string {
	var names []string
	for _, s := range states {
		if s.of(kind) != nil {
			names = append(names, s.name)
		}
	}
	return names
}

func try(t *testing.T, n *notes, setup, pass func(*rig), op func(*rig) error) string {
	r := newRig(t)
	setup(r)
	pass(r)
	before := r.view()
	c := cell(t, n, before, r, op(r))
	after := r.view()
	pass(r)
	if lost := effect(after, r.view()); lost != "no change" {
		t.Errorf("it was not kept: %s", lost)
	}
	return c
}
