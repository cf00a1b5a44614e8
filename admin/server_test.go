package admin

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	flags "flag"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// What is parallel here waits: for a connection that net/http keeps for half a second
	// after it has refused a body.
	if err := flags.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	// certmagic's goroutine that refreshes a lock sleeps for up to 5 s after the unlock.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh"))
}

func TestWhatIsNotThere(t *testing.T) {
	b := newBench(t)
	for _, path := range []string{"", "nothing", "apis/", "apis/a/b/c/d/e", "apis/a/explode", "keys", "sessions/1/2"} {
		if p := b.refused(404, NotFound, http.MethodGet, path, ""); !strings.Contains(p.Detail, Prefix) {
			t.Errorf("%s: %s", path, p.Detail)
		}
	}
	for path, allow := range map[string]string{
		"apis":                   "GET, HEAD, OPTIONS",
		"apis/a":                 "DELETE, GET, HEAD, OPTIONS, PUT",
		"apis/a/start":           "OPTIONS, POST",
		"apis/a/plans/p":         "DELETE, GET, HEAD, OPTIONS, PUT",
		"applications":           "GET, HEAD, OPTIONS, POST",
		"applications/a":         "DELETE, GET, HEAD, OPTIONS, PATCH",
		"subscriptions/a":        "GET, HEAD, OPTIONS, PATCH",
		"subscriptions/a/accept": "OPTIONS, POST",
		"keys/k":                 "GET, HEAD, OPTIONS",
		"export":                 "GET, HEAD, OPTIONS",
		"import":                 "OPTIONS, POST",
	} {
		a := b.send("TRACE", path, "")
		if p := a.problem(t); p.Slug() != MethodNotAllowed || a.status != 405 || a.header.Get("Allow") != allow {
			t.Errorf("%s: %d, Allow %q, want %q", path, a.status, a.header.Get("Allow"), allow)
		}
		if a := b.send("OPTIONS", path, ""); a.status != 204 || a.header.Get("Allow") != allow {
			t.Errorf("OPTIONS %s: %d, Allow %q", path, a.status, a.header.Get("Allow"))
		}
	}
	if all := b.audit.All(); len(all) != 0 {
		t.Errorf("audit: %v", all)
	}
}

func TestQueries(t *testing.T) {
	b := newBench(t)
	for query, says := range map[string]string{
		"limit=0":                 "from 1 to 1000",
		"limit=1001":              "from 1 to 1000",
		"limit=x":                 "from 1 to 1000",
		"limit=1&limit=2":         "twice",
		"after=***":               "what next was",
		"after=AAAA":              "what next was",
		"stauts=pending":          "there are api, plan, application, status, limit, after",
		"status=open":             "pending, accepted, paused",
		"status=%zz":              "can't be read",
		"status=pending;limit=10": "can't be read",
	} {
		if p := b.refused(400, BadRequest, http.MethodGet, "subscriptions?"+query, ""); !strings.Contains(p.Detail, says) {
			t.Errorf("%s: %q does not say %q", query, p.Detail, says)
		}
	}
	for _, query := range []string{"deploy=yes", "dry_run=1", "dryrun=true", "deploy=true&deploy=true"} {
		b.refused(400, BadRequest, http.MethodPut, "apis/orders?"+query, definition("/orders"))
	}
	if _, ok := b.lifecycle.Get("orders"); ok {
		t.Error("a slip of the pen saved it")
	}
}

func TestETags(t *testing.T) {
	b := newBench(t)
	deployed(b)
	b.application("app")
	s := b.subscription("orders", "gold", "app")
	for _, path := range []string{"apis/orders", "apis/orders/plans/gold", "applications/app", "subscriptions/" + s.ID, "keys/" + s.NewKey.ID} {
		var shown struct {
			ETag string `json:"etag"`
		}
		a := b.must(&shown, http.MethodGet, path, "")
		tag := a.header.Get("ETag")
		if tag == "" || shown.ETag == "" || strings.Trim(strings.Split(tag, "-")[0], `"`) != strings.Trim(shown.ETag, `"`) {
			t.Errorf("%s: ETag %s, in the body %s", path, tag, shown.ETag)
		}
		for header, status := range map[string]int{tag: 304, `"x", ` + tag: 304, "W/" + tag: 304, "*": 304, `"x"`: 200} {
			a := b.send(http.MethodGet, path, "", "If-None-Match", header)
			if a.status != status || (len(a.body) == 0) != (status == 304) || a.header.Get("ETag") != tag {
				t.Errorf("%s with If-None-Match %s: %d", path, header, a.status)
			}
		}
		if a := b.send(http.MethodHead, path, ""); a.status != 200 || len(a.body) != 0 || a.header.Get("ETag") != tag {
			t.Errorf("HEAD %s: %d, ETag %s", path, a.status, a.header.Get("ETag"))
		}
	}
}

// What is running has no version, but whoever has an old answer must get the new one.
func TestETagCountsWhatRuns(t *testing.T) {
	b := newBench(t)
	deployed(b)
	first := b.must(nil, http.MethodGet, "apis/orders", "").header.Get("ETag")
	b.mu.Lock()
	b.running["orders"] = Running{Name: "Running orders", Paths: []string{"/o"}, Hash: "h", Sessions: 3}
	b.mu.Unlock()
	var api API
	second := b.must(&api, http.MethodGet, "apis/orders", "", "If-None-Match", first).header.Get("ETag")
	if api.Running == nil || api.Running.Sessions != 3 || api.Name != "Running orders" || second == first {
		t.Errorf("%+v, ETag %s after %s", api, second, first)
	}
	for i, tag := range []string{first, second, api.ETag} {
		if i > 0 {
			b.must(&api, http.MethodGet, "apis/orders", "")
			tag = api.ETag
		}
		b.must(nil, http.MethodPost, "apis/orders/"+[]string{"publish", "make_public", "unpublish"}[i], "", "If-Match", tag)
	}
}

func TestIfMatchAndIfNoneMatchOnPut(t *testing.T) {
	b := newBench(t)
	put := func(status int, header, value string) {
		t.Helper()
		if a := b.send(http.MethodPut, "apis/orders", definition("/orders"), header, value); a.status != status {
			t.Errorf("%s: %s: %d %s, want %d", header, value, a.status, a.body, status)
		}
	}
	put(412, "If-Match", "*")
	put(412, "If-Match", `"1"`)
	put(400, "If-None-Match", `"1"`)
	put(201, "If-None-Match", "*")
	put(412, "If-None-Match", "*")
	put(412, "If-Match", `"0"`)
	put(200, "If-Match", "*")
	put(200, "If-Match", `"1"`)
	put(400, "If-Match", "1")
	put(400, "If-Match", `"1", "2"`)
	put(400, "If-Match", `W/"1"`)
	if a := b.send(http.MethodPut, "apis/orders/plans/gold", `{"plan":{"type":"api_key"}}`, "If-None-Match", "*"); a.status != 201 {
		t.Errorf("a new plan: %d %s", a.status, a.body)
	}
	b.refused(412, Precondition, http.MethodPut, "apis/orders/plans/gold", `{"plan":{"type":"api_key"}}`, "If-None-Match", "*")
}

// Nothing is stored about a declared API until somebody changes it: its version is 0, which
// means any version to the registry.
func TestFirstWriteOfADeclaredAPI(t *testing.T) {
	b := newBench(t)
	var api API
	b.must(&api, http.MethodGet, "apis/declared", "")
	if api.ETag != `"0"` || api.Managed || api.State != "started" || len(api.Plans) != 2 {
		t.Fatalf("%+v", api)
	}
	var done sync.WaitGroup
	statuses := make([]int, 8)
	for i := range statuses {
		done.Go(func() {
			statuses[i] = b.send(http.MethodPut, "apis/declared/members", fmt.Sprintf(`{"members":["user-%d"]}`, i), "If-Match", api.ETag).status
		})
	}
	done.Wait()
	slices.Sort(statuses)
	if statuses[0] != 200 || statuses[1] != 412 || statuses[7] != 412 {
		t.Errorf("%v: one of them is the first", statuses)
	}
}

func TestDryRun(t *testing.T) {
	b := newBench(t)
	var dry Dry
	b.must(&dry, http.MethodPut, "apis/orders?dry_run=true&deploy=true", definition("/orders", "gold"))
	if !dry.Valid || len(dry.Plans) != 1 || dry.Plans[0].Kind != "api_key" || !slices.Equal(dry.Paths, []string{"/orders"}) {
		t.Errorf("%+v", dry)
	}
	b.refused(409, Conflict, http.MethodPut, "apis/orders?dry_run=true&deploy=true", definition("/orders"))
	if p := b.refused(400, InvalidValue, http.MethodPut, "apis/orders?dry_run=true", `{"wrong":[1,2]}`); len(p.Problems) != 2 || p.Problems[1].Path != "wrong[1]" {
		t.Errorf("%+v", p)
	}
	if _, ok := b.lifecycle.Get("orders"); ok || b.audit.Len() != 0 {
		t.Errorf("it was not dry: %v", b.audit.All())
	}
}

// All that is wrong is told at once, with its places.
func TestAllProblemsAtOnce(t *testing.T) {
	b := newBench(t)
	p := b.refused(400, InvalidBody, http.MethodPost, "subscriptions",
		`{"api":"orders","limits":{"rate_limit":"fast","quota":"1/1s","max_sessions":-1}}`)
	var paths []string
	for _, one := range p.Problems {
		paths = append(paths, one.Path)
	}
	if want := []string{"limits.rate_limit", "limits.quota", "limits.max_sessions"}; !slices.Equal(paths, want) {
		t.Errorf("%v, want %v", paths, want)
	}
	p = b.refused(400, InvalidValue, http.MethodPost, "subscriptions", `{"metadata":{"a b":"c"}}`)
	if len(p.Problems) < 4 {
		t.Errorf("%+v", p)
	}
}

func TestPatchTakesAway(t *testing.T) {
	b := newBench(t)
	deployed(b)
	b.application("app")
	var s Subscription
	b.must(&s, http.MethodPost, "subscriptions", `{"api":"orders","plan":"gold","application":"app","ends":"2090-01-01T00:00:00Z",
		"limits":{"rate_limit":"10/1s","quota":"1000/1mo calendar","max_sessions":3},"metadata":{"team":"blue"}}`)
	path := "subscriptions/" + s.ID
	if s.Limits == nil || *s.Limits != (Limits{RateLimit: "10/1s", Quota: "1000/1mo calendar", MaxSessions: 3}) {
		t.Fatalf("%+v", s.Limits)
	}
	b.must(&s, http.MethodPatch, path, `{}`)
	if s.Limits == nil || s.Metadata["team"] != "blue" || s.Ends.IsZero() {
		t.Errorf("nothing took something away: %+v", s)
	}
	s = Subscription{}
	b.must(&s, http.MethodPatch, path, `{"limits":null,"metadata":null,"ends":null}`)
	if s.Limits != nil || s.Metadata != nil || !s.Ends.IsZero() {
		t.Errorf("it is all still there: %+v", s)
	}
	b.must(nil, http.MethodPatch, "applications/app", `{"client_id":"c","owner":"o"}`)
	var a Application
	b.must(&a, http.MethodPatch, "applications/app", `{"client_id":null}`)
	if a.ClientID != "" || a.Owner != "o" {
		t.Errorf("%+v", a)
	}
}

// Who may not read the answer of another site's page must not be able to write either. What
// Caddy checks before is not repeated here.
func TestCrossSiteWrites(t *testing.T) {
	b := newBench(t)
	deployed(b)
	for _, contentType := range []string{"text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"} {
		for _, body := range []string{"", `{"reason":"x"}`} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.server.URL+Prefix+"apis/orders/stop", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", contentType)
			response, err := b.transport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			if response.StatusCode != http.StatusUnsupportedMediaType {
				t.Errorf("%s with %q: %d", contentType, body, response.StatusCode)
			}
		}
	}
	if a, _ := b.lifecycle.Get("orders"); !a.Started {
		t.Error("it was stopped")
	}
}

func TestCatalogue(t *testing.T) {
	b := newBench(t)
	for _, id := range []string{"all", "some", "none"} {
		b.must(nil, http.MethodPut, "apis/"+id+"?deploy=true", definition("/"+id, "gold"))
		b.must(nil, http.MethodPost, "apis/"+id+"/publish", "")
	}
	b.must(nil, http.MethodPost, "apis/all/make_public", "")
	b.must(nil, http.MethodPut, "apis/some/members", `{"members":["bob","group:staff"]}`)
	for query, want := range map[string]string{
		"":                                  "all declared none some",
		"?visible_to=bob":                   "all some",
		"?visible_to=eve":                   "all",
		"?visible_to=":                      "all",
		"?group=staff":                      "all some",
		"?visible_to=e&group=a&group=staff": "all some",
		"?visible_to=group:staff":           "all",
	} {
		var page Page[API]
		b.must(&page, http.MethodGet, "apis"+query, "")
		var ids []string
		for _, a := range page.Items {
			ids = append(ids, a.ID)
			if a.Saved != nil && a.Saved.Definition != nil {
				t.Errorf("the list has the definition of %s", a.ID)
			}
		}
		if got := strings.Join(ids, " "); got != want {
			t.Errorf("%q: %s, want %s", query, got, want)
		}
	}
}

func TestSessionsAndEndpoints(t *testing.T) {
	b := newBench(t)
	for i := range 250 {
		b.sessions = append(b.sessions, Session{ID: uint64(300 - i), API: "a"}) // 51 … 300, and "100" < "51"
	}
	b.sessions = append(b.sessions, Session{ID: 7, API: "b"})
	var ids []uint64
	for s, err := range b.client.Sessions(t.Context(), SessionQuery{PageQuery: PageQuery{Limit: 60}, API: "a"}) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, s.ID)
	}
	if len(ids) != 250 || !slices.IsSorted(ids) {
		t.Errorf("%d sessions: %v", len(ids), ids)
	}
	if err := b.client.EndSession(t.Context(), 7); err != nil {
		t.Error(err)
	}
	b.refused(404, NotFound, http.MethodDelete, "sessions/7", "")
	for _, id := range []string{"x", "0", "-1", "99999999999999999999"} {
		b.refused(400, BadRequest, http.MethodDelete, "sessions/"+id, "")
	}
	var names []string
	for e, err := range b.client.Endpoints(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, e.API+"/"+e.Name)
	}
	if strings.Join(names, " ") != "a/kafka b/mock" {
		t.Error(names)
	}
}

func TestBy(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = "[::1]:4711"
	if by := By(r); by != "::1" {
		t.Error(by)
	}
	certificate := &x509.Certificate{Subject: pkix.Name{CommonName: "ops"}, SerialNumber: big.NewInt(7)}
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{certificate}}
	if by := By(r); by != "::1" {
		t.Errorf("%s, by a certificate that nobody has verified", by)
	}
	r.TLS.VerifiedChains = [][]*x509.Certificate{{certificate}}
	if by := By(r); by != "cert:ops" {
		t.Error(by)
	}
	certificate.Subject.CommonName = ""
	if by := By(r); by != "cert:7" {
		t.Error(by)
	}
	r.TLS = nil
	r.RemoteAddr = "@"
	if by := By(r); by != "local" {
		t.Error(by)
	}
}

// An id may be anything in a path, and names nothing then.
func TestStrangeIDs(t *testing.T) {
	b := newBench(t)
	for _, id := range []string{"%2F", "a%2Fb", "%00", "%0a", "..%2f..", strings.Repeat("x", 5000), "%ff", "%22%3e"} {
		for _, path := range []string{"apis/" + id, "apis/" + id + "/plans/" + id, "applications/" + id, "subscriptions/" + id, "keys/" + id} {
			if p := b.refused(404, NotFound, http.MethodGet, path, ""); len(p.Detail) > 1000 {
				t.Errorf("%s: %d bytes of detail", path, len(p.Detail))
			}
		}
		a := b.send(http.MethodPut, "apis/"+id, definition("/a"))
		if a.status != 400 && a.status != 404 {
			t.Errorf("PUT %.20s: %d", id, a.status)
		}
		if len(a.body) > 2000 {
			t.Errorf("%d bytes of answer", len(a.body))
		}
	}
	for _, e := range b.audit.All() {
		if text, _ := json.Marshal(e.ContextMap()); len(text) > 1000 {
			t.Errorf("a line of %d bytes", len(text))
		}
	}
}
