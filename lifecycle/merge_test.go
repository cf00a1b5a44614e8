package lifecycle_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/lifecycle"
	"github.com/caddy-message-api/caddy-message-api/store"
)

func TestMerge(t *testing.T) {
	rec := func(data string) store.Record {
		return store.Record{Ref: store.Ref{Kind: "api", ID: "orders"}, Data: json.RawMessage(data)}
	}
	rev := func(n int, plan string) string {
		return fmt.Sprintf(`{"number":%d,"definition":{"description":"%d"},"plans":[{"name":"gold","kind":"%s"}],"at":"2026-01-01T00:00:00Z"}`, n, n, plan)
	}
	for _, c := range []struct{ name, old, in, want, err string }{
		{"deprecated stays", `{"deprecated":true}`, `{"published":true}`, `{"published":true,"deprecated":true}`, ""},
		{"deprecating goes on", `{}`, `{"deprecated":true}`, `{"deprecated":true}`, ""},
		{"closed stays", `{"stages":{"gold":"closed"},"kinds":{"gold":"jwt"}}`, `{"stages":{"gold":"deprecated"},"kinds":{"gold":"jwt"}}`, `{"stages":{"gold":"closed"},"kinds":{"gold":"jwt"}}`, ""},
		{"closing goes on", `{"stages":{"gold":"deprecated"},"kinds":{"gold":"jwt"}}`, `{"stages":{"gold":"closed"},"kinds":{"gold":"jwt"}}`, `{"stages":{"gold":"closed"},"kinds":{"gold":"jwt"}}`, ""},
		{"published stays", `{"kinds":{"gold":"jwt"}}`, `{"stages":{"gold":"staging"},"kinds":{"gold":"jwt"}}`, `{"kinds":{"gold":"jwt"}}`, ""},
		{"what the import does not know", `{"stages":{"gold":"closed"},"kinds":{"gold":"jwt"}}`, `{}`, `{"stages":{"gold":"closed"},"kinds":{"gold":"jwt"}}`, ""},
		{"another kind", `{"stages":{"gold":"closed"},"kinds":{"gold":"jwt"}}`, `{"kinds":{"gold":"api_key"}}`, ``, "give it another name"},
		{"another kind, never closed", `{"kinds":{"gold":"jwt"}}`, `{"kinds":{"gold":"api_key"}}`, `{"kinds":{"gold":"api_key"}}`, ""},
		{"unreadable old", `[`, `{"published":true}`, `{"published":true}`, ""},
		{"unreadable new", `{}`, `[`, ``, "can't be read"},
		{"definition stays", `{"managed":true,"saved":` + rev(3, "jwt") + `}`, `{"public":true}`, `{"managed":true,"saved":` + rev(3, "jwt") + `,"public":true}`, ""},
		{"newer revision", `{"managed":true,"saved":` + rev(3, "jwt") + `}`, `{"managed":true,"saved":` + rev(5, "jwt") + `}`, `{"managed":true,"saved":` + rev(5, "jwt") + `}`, ""},
		{"older revision", `{"managed":true,"saved":` + rev(3, "jwt") + `}`, `{"managed":true,"saved":` + rev(2, "jwt") + `}`,
			`{"managed":true,"saved":` + strings.Replace(rev(2, "jwt"), `"number":2`, `"number":4`, 1) + `}`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			old := rec(c.old)
			got, err := lifecycle.Merge(&old, rec(c.in))
			switch {
			case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
				t.Errorf("got %v, want an error that says %q", err, c.err)
			case c.err == "" && err != nil:
				t.Error(err)
			case c.err == "" && string(got.Data) != c.want:
				t.Errorf("got  %s\nwant %s", got.Data, c.want)
			}
		})
	}
	other := store.Record{Ref: store.Ref{Kind: "key", ID: "1"}, Data: json.RawMessage(`[`)}
	if got, err := lifecycle.Merge(nil, other); err != nil || got.ID != "1" {
		t.Errorf("a record of another kind: %v, %v", got, err)
	}
	if _, err := lifecycle.Merge(nil, rec(`{"deprecated":true}`)); err != nil {
		t.Error(err)
	}
}

// TestImportingTheSameAgain changes nothing, and a record that can't be taken is told of.
func TestImportingTheSameAgain(t *testing.T) {
	r := newRig(t)
	r.ops(save("first", true, gold, planOf("silver", "jwt")), members, publish, closePlan)
	file := r.export()
	before, _ := r.Get("orders")
	if report := r.load(file); report.Unchanged == 0 || report.Updated+report.Added+report.NotTaken > 0 {
		t.Errorf("importing changed something: %+v", report)
	}
	if after, _ := r.Get("orders"); after.Version != before.Version {
		t.Errorf("version %d became %d", before.Version, after.Version)
	}
	other := newRig(t)
	other.ops(save("first", true, planOf("gold", "jwt")))
	if report := r.load(other.export()); report.NotTaken != 1 || !strings.Contains(report.Skipped[0].Reason, "give it another name") {
		t.Errorf("a closed plan came back: %+v", report)
	}
}

// TestTwoOnOnePath: an import can bring what no save would allow. One is served, the same
// one everywhere.
func TestTwoOnOnePath(t *testing.T) {
	a, b := newRig(t), newRig(t)
	a.must(a.save("second", define("orders", "", gold), lifecycle.Save{Deploy: true}))
	b.must(b.save("other", define("other", "", gold), lifecycle.Save{Deploy: true}))
	b.must(b.save("zero", define("orders", "", gold), lifecycle.Save{Deploy: true}))
	b.load(a.export())
	if s := b.Serving(); len(s) != 2 || s[0].ID != "other" || s[1].ID != "second" || b.IsStarted("zero") || !b.IsStarted("second") {
		t.Errorf("serving %v", s)
	}
	if p := b.Problems(); len(p) != 1 || p[0].Path != "apis/zero" || !strings.Contains(p[0].Detail, "API second has its path /orders") {
		t.Errorf("problems: %v", p)
	}
	_, err := b.Deploy(ctx, "ann", "zero", 0)
	refused(t, err, lifecycle.Conflict, "API second has the path")
	b.must(b.Stop(ctx, "ann", "second", 0))
	if !b.IsStarted("zero") || len(b.Problems()) > 0 {
		t.Errorf("the other one does not take over: %v", b.Problems())
	}
}

func (r *rig) export() *bytes.Buffer {
	r.t.Helper()
	var file bytes.Buffer
	if err := r.store.Export(ctx, &file); err != nil {
		r.t.Fatal(err)
	}
	return &file
}
