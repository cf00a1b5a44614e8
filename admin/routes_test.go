package admin

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// operation is a route with what makes each of its answers.
type operation struct {
	method, path string
	// body is a good one; empty for none.
	body string
	// ok is the status of success, for which ready makes everything so that it can be.
	ready func(b *bench) (values []any)
	ok    int
	// missing is the path of something that is not there; empty where nothing is named.
	missing string
	// conflict makes a state that does not allow it; nil where every state does.
	conflict func(b *bench) (values []any)
	// bad is a body that is not taken.
	bad string
	// etag: it honours If-Match.
	etag bool
	// silent: it changes nothing, and so is not in the audit log.
	silent bool
	// long: its body has another bound.
	long bool
	// lines: it answers with lines.
	lines bool
}

func saved(b *bench) []any {
	b.must(nil, http.MethodPut, "apis/orders", definition("/orders", "gold", "manual"))
	return nil
}

func deployed(b *bench) []any {
	b.must(nil, http.MethodPut, "apis/orders?deploy=true", definition("/orders", "gold", "manual"))
	return nil
}

func nothing(*bench) []any { return nil }

// staged has a plan in staging.
func staged(b *bench) []any {
	deployed(b)
	b.must(nil, http.MethodPut, "apis/orders/plans/silver", `{"plan":{"type":"api_key"}}`)
	return nil
}

func subscribed(plan string) func(b *bench) []any {
	return func(b *bench) []any {
		deployed(b)
		b.application("app")
		return []any{b.subscription("orders", plan, "app").ID}
	}
}

// did is a subscription after an action.
func did(plan, action string) func(b *bench) []any {
	return func(b *bench) []any {
		ids := subscribed(plan)(b)
		b.must(nil, http.MethodPost, fmt.Sprintf("subscriptions/%s/%s", ids[0], action), "")
		return ids
	}
}

func keyed(b *bench) []any {
	deployed(b)
	b.application("app")
	return []any{b.subscription("orders", "gold", "app").NewKey.ID}
}

func revoked(b *bench) []any {
	ids := keyed(b)
	b.must(nil, http.MethodPost, fmt.Sprintf("keys/%s/revoke", ids[0]), "")
	return ids
}

// after is a deployed API after an action.
func after(action string) func(b *bench) []any {
	return func(b *bench) []any {
		deployed(b)
		b.must(nil, http.MethodPost, "apis/orders/"+action, "")
		return nil
	}
}

var deprecated = after("deprecate")

func closedPlan(b *bench) []any {
	deployed(b)
	b.must(nil, http.MethodPost, "apis/orders/plans/gold/close", "")
	return nil
}

func deletable(b *bench) []any {
	b.must(nil, http.MethodPut, "apis/orders", definition("/orders"))
	return nil
}

func static(*bench) []any { return []any{audit} }

// runs is a delivery that has not failed.
func runs(b *bench) []any {
	b.pushed.deliveries[0].State = DeliveryRunning
	return static(b)
}

func archived(b *bench) []any {
	b.application("app")
	b.must(nil, http.MethodDelete, "applications/app", "")
	return nil
}

func applied(b *bench) []any { b.application("app"); return nil }

const oneRecord = `{"format":"message_api/export","version":1,"records":[{"kind":"application","id":"a","version":1,"time":"2026-01-01T00:00:00Z","data":{"id":"a","name":"A"}}]}`

const unknownMember = `{"nothing_like_this":1}`

var operations = []operation{
	{method: "GET", path: "apis", ready: saved, ok: 200},
	{method: "GET", path: "apis/orders", ready: saved, ok: 200, missing: "apis/none"},
	{method: "PUT", path: "apis/orders", body: definition("/orders"), ready: nothing, ok: 201, bad: `{"wrong":[1]}`, etag: true},
	{method: "PUT", path: "apis/declared", body: definition("/orders"), conflict: nothing},
	{method: "DELETE", path: "apis/orders", ready: deletable, ok: 204, missing: "apis/none", conflict: deployed, bad: unknownMember, etag: true},
	{method: "PUT", path: "apis/orders/members", body: `{"members":["bob","group:staff"]}`, ready: saved, ok: 200, missing: "apis/none/members", bad: `{}`, etag: true},
	{method: "POST", path: "apis/orders/deploy", ready: saved, ok: 200, missing: "apis/none/deploy", conflict: deletable, bad: unknownMember, etag: true},
	{method: "POST", path: "apis/orders/start", ready: after("stop"), ok: 200, missing: "apis/none/start", conflict: saved, bad: unknownMember, etag: true},
	{method: "POST", path: "apis/orders/stop", ready: deployed, ok: 200, missing: "apis/none/stop", bad: unknownMember, etag: true},
	{method: "POST", path: "apis/orders/publish", ready: deployed, ok: 200, missing: "apis/none/publish", conflict: deprecated, bad: unknownMember, etag: true},
	{method: "POST", path: "apis/orders/unpublish", ready: after("publish"), ok: 200, missing: "apis/none/unpublish", bad: unknownMember, etag: true},
	{method: "POST", path: "apis/orders/make_public", ready: deployed, ok: 200, missing: "apis/none/make_public", conflict: deprecated, bad: unknownMember, etag: true},
	{method: "POST", path: "apis/orders/make_private", ready: after("make_public"), ok: 200, missing: "apis/none/make_private", conflict: deprecated, bad: unknownMember, etag: true},
	{method: "POST", path: "apis/orders/deprecate", ready: deployed, ok: 200, missing: "apis/none/deprecate", bad: unknownMember, etag: true},

	{method: "GET", path: "apis/orders/plans", ready: saved, ok: 200, missing: "apis/none/plans"},
	{method: "GET", path: "apis/orders/plans/gold", ready: saved, ok: 200, missing: "apis/orders/plans/none"},
	{method: "PUT", path: "apis/orders/plans/silver", body: `{"plan":{"type":"api_key"}}`, ready: saved, ok: 201, missing: "apis/none/plans/silver", bad: `{"name":"x"}`, etag: true},
	{method: "PUT", path: "apis/orders/plans/gold", body: `{"plan":{"type":"api_key"}}`, conflict: closedPlan},
	{method: "DELETE", path: "apis/orders/plans/gold", ready: saved, ok: 204, missing: "apis/orders/plans/none", conflict: subscribed("gold"), bad: unknownMember, etag: true},
	{method: "POST", path: "apis/orders/plans/silver/publish", ready: staged, ok: 200, missing: "apis/orders/plans/none/publish", bad: unknownMember, etag: true},
	{method: "POST", path: "apis/orders/plans/gold/publish", conflict: closedPlan},
	{method: "POST", path: "apis/orders/plans/gold/deprecate", ready: deployed, ok: 200, missing: "apis/orders/plans/none/deprecate", conflict: closedPlan, bad: unknownMember, etag: true},
	{method: "POST", path: "apis/orders/plans/gold/close", ready: subscribed("gold"), ok: 200, missing: "apis/orders/plans/none/close", bad: unknownMember, etag: true},

	{method: "GET", path: "applications", ready: applied, ok: 200},
	{method: "POST", path: "applications", body: `{"id":"app","name":"A"}`, ready: nothing, ok: 201, conflict: applied, bad: `{"name":""}`},
	{method: "GET", path: "applications/app", ready: applied, ok: 200, missing: "applications/none"},
	{method: "PATCH", path: "applications/app", body: `{"name":"B"}`, ready: applied, ok: 200, missing: "applications/none", conflict: archived, bad: `{"id":"x"}`, etag: true},
	{method: "DELETE", path: "applications/app", ready: applied, ok: 200, missing: "applications/none", bad: unknownMember, etag: true},

	{method: "GET", path: "subscriptions?api=orders", ready: subscribed("gold"), ok: 200},
	{method: "POST", path: "subscriptions", body: `{"api":"orders","plan":"gold","application":"app"}`, ready: func(b *bench) []any { deployed(b); applied(b); return nil }, ok: 201,
		conflict: subscribed("gold"), bad: `{"api":"orders"}`},
	{method: "GET", path: "subscriptions/%s", ready: subscribed("gold"), ok: 200, missing: "subscriptions/none"},
	{method: "PATCH", path: "subscriptions/%s", body: `{"limits":{"rate_limit":"7/1s"}}`, ready: subscribed("gold"), ok: 200, missing: "subscriptions/none",
		conflict: did("gold", "close"), bad: `{"limits":{"rate_limit":"seven"}}`, etag: true},
	{method: "POST", path: "subscriptions/%s/accept", ready: subscribed("manual"), ok: 200, missing: "subscriptions/none/accept", conflict: subscribed("gold"), bad: unknownMember, etag: true},
	{method: "POST", path: "subscriptions/%s/reject", ready: subscribed("manual"), ok: 200, missing: "subscriptions/none/reject", conflict: subscribed("gold"), bad: unknownMember, etag: true},
	{method: "POST", path: "subscriptions/%s/pause", ready: subscribed("gold"), ok: 200, missing: "subscriptions/none/pause", conflict: subscribed("manual"), bad: unknownMember, etag: true},
	{method: "POST", path: "subscriptions/%s/resume", ready: did("gold", "pause"), ok: 200, missing: "subscriptions/none/resume", conflict: subscribed("gold"), bad: unknownMember, etag: true},
	{method: "POST", path: "subscriptions/%s/close", ready: subscribed("gold"), ok: 200, missing: "subscriptions/none/close", conflict: did("manual", "reject"), bad: unknownMember, etag: true},

	{method: "GET", path: "subscriptions/%s/keys", ready: subscribed("gold"), ok: 200, missing: "subscriptions/none/keys"},
	{method: "POST", path: "subscriptions/%s/keys", ready: subscribed("gold"), ok: 201, missing: "subscriptions/none/keys", conflict: subscribed("manual"), bad: `{"key":"short"}`, etag: true},
	{method: "GET", path: "keys/%s", ready: keyed, ok: 200, missing: "keys/none"},
	{method: "POST", path: "keys/%s/revoke", ready: keyed, ok: 200, missing: "keys/none/revoke", bad: unknownMember, etag: true},
	{method: "POST", path: "keys/%s/renew", ready: keyed, ok: 201, missing: "keys/none/renew", conflict: revoked, bad: unknownMember, etag: true},
	{method: "POST", path: "keys/%s/expire", body: `{"at":"2090-01-01T00:00:00Z"}`, ready: keyed, ok: 200, missing: "keys/none/expire", conflict: revoked, bad: `{}`, etag: true},

	{method: "GET", path: "deliveries?api=orders&state=failed", ready: nothing, ok: 200},
	{method: "GET", path: "subscriptions/%s/delivery", ready: static, ok: 200, missing: "subscriptions/none/delivery"},
	{method: "POST", path: "subscriptions/%s/retry", body: `{"reason":"it is back"}`, ready: static, ok: 200, missing: "subscriptions/none/retry", conflict: runs, bad: unknownMember},
	{method: "POST", path: "subscriptions/%s/test", body: `{"payload":{"a":1}}`, ready: static, ok: 200, missing: "subscriptions/none/test", bad: `{"content_type":"json"}`},
	{method: "GET", path: "subscriptions/%s/dead_letters?limit=2", ready: static, ok: 200, missing: "subscriptions/none/dead_letters"},
	{method: "POST", path: "subscriptions/%s/dead_letters/redeliver", body: `{"all":true}`, ready: static, ok: 200, missing: "subscriptions/none/dead_letters/redeliver", bad: `{}`, lines: true},

	{method: "GET", path: "endpoints", ready: nothing, ok: 200},
	{method: "GET", path: "sessions?api=a", ready: nothing, ok: 200},
	{method: "DELETE", path: "sessions/7", ready: func(b *bench) []any { b.sessions = []Session{{ID: 7}}; return nil }, ok: 204, missing: "sessions/8", bad: unknownMember},
	{method: "GET", path: "store", ready: nothing, ok: 200},
	{method: "POST", path: "store/sync", ready: nothing, ok: 200, bad: unknownMember, silent: true},
	{method: "GET", path: "export", ready: nothing, ok: 200},
	{method: "POST", path: "import", body: oneRecord, ready: nothing, ok: 200, bad: `{"nothing":1}`, long: true},
}

// Every route × {ok, not found, conflict, bad body, stale If-Match}. What is refused has no
// effect, and what changes or is refused to change is in the audit log.
func TestRoutes(t *testing.T) {
	for _, o := range operations {
		t.Run(o.method+" "+o.path, func(t *testing.T) {
			t.Parallel()
			o.test(t)
		})
	}
}

func (o *operation) test(t *testing.T) {
	b := newBench(t)
	if o.missing != "" {
		if strings.Contains(o.missing, "orders") {
			saved(b)
		}
		b.refused(404, NotFound, o.method, o.missing, o.body)
		b = newBench(t)
	}
	if o.conflict != nil {
		p := b.refused(409, Conflict, o.method, o.at(o.conflict(b)), o.body)
		if p.Detail == "" {
			t.Error("nothing says what to do")
		}
		b.lastLine("refused", Conflict)
		b = newBench(t)
	}
	if o.ready == nil {
		return
	}
	path := o.at(o.ready(b))
	if o.bad != "" {
		slug := b.send(o.method, path, o.bad).problem(t)
		if slug.Status != 400 || slug.Slug() != InvalidBody && slug.Slug() != InvalidValue {
			t.Errorf("bad body: %+v", slug)
		}
		if !o.silent {
			b.lastLine("refused", slug.Slug())
		}
		b.refused(400, InvalidBody, o.method, path, `{"reason":`)
		b.refused(415, MediaType, o.method, path, "{}", "Content-Type", "text/plain")
	}
	if o.bad != "" && !o.long {
		b.refused(413, TooLarge, o.method, path, `{"reason":"`+strings.Repeat("x", maxBody)+`"}`)
	}
	b.refused(400, BadRequest, o.method, join1(path, "nothing=1"), o.body)
	if o.etag {
		b.refused(412, Precondition, o.method, path, o.body, "If-Match", `"4711"`)
		b.lastLine("refused", Precondition)
		b.refused(400, BadRequest, o.method, path, o.body, "If-Match", "4711")
	}
	if o.ok != 0 {
		o.succeed(b, path)
	}
}

// succeed has shown, if it succeeds, that nothing that was refused before had an effect.
func (o *operation) succeed(b *bench, path string) {
	b.Helper()
	a := b.send(o.method, path, o.body)
	if a.status != o.ok {
		b.Fatalf("%d %s, want %d", a.status, a.body, o.ok)
	}
	if o.method != http.MethodGet && !o.silent {
		b.lastLine("done", "")
	}
	want := "application/json"
	if o.lines {
		want = "application/x-ndjson"
	}
	if (a.header.Get("Content-Type") == want) != (o.ok != 204) || a.header.Get("Cache-Control") == "" {
		b.Errorf("headers %v", a.header)
	}
	if o.ok == 201 && !strings.HasPrefix(a.header.Get("Location"), Prefix) {
		b.Errorf("Location is %q", a.header.Get("Location"))
	}
}

// at puts ids into the path.
func (o *operation) at(values []any) string {
	if !strings.Contains(o.path, "%s") {
		return o.path
	}
	return fmt.Sprintf(o.path, values...)
}

func join1(path, query string) string {
	if strings.Contains(path, "?") {
		return path + "&" + query
	}
	return path + "?" + query
}

// lastLine checks the last line of the audit log.
func (b *bench) lastLine(outcome, problem string) {
	b.Helper()
	all := b.audit.All()
	if len(all) == 0 {
		b.Fatal("the audit log is empty")
	}
	last := all[len(all)-1].ContextMap()
	got, _ := last["problem"].(string)
	if last["outcome"] != outcome || got != problem || last["by"] != "alice" || last["action"] == "" || last["remote"] == "" {
		b.Errorf("audit: %v, want %s %s", last, outcome, problem)
	}
}

// The table has every route.
func TestEveryRouteIsTested(t *testing.T) {
	tested := map[string]bool{}
	for _, o := range operations {
		path, _, _ := strings.Cut(o.path, "?")
		path = strings.ReplaceAll(path, "%s", "{id}")
		for _, c := range [][2]string{{"apis/orders", "apis/{id}"}, {"apis/declared", "apis/{id}"}, {"applications/app", "applications/{id}"}, {"sessions/7", "sessions/{id}"},
			{"plans/gold", "plans/{plan}"}, {"plans/silver", "plans/{plan}"}} {
			path = strings.Replace(path, c[0], c[1], 1)
		}
		tested[o.method+" "+path] = true
	}
	for _, r := range new(Server).routes() {
		if !tested[r.method+" "+r.pattern] {
			t.Errorf("%s %s is not tested", r.method, r.pattern)
		}
		if (r.action == "") != (r.kind == "") || r.action == "" && r.method != http.MethodGet && r.pattern != "store/sync" {
			t.Errorf("%s %s has no action", r.method, r.pattern)
		}
	}
}
