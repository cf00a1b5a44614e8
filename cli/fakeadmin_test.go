package cli_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/admin"
)

// fakeAdmin answers with fixed things and notes what it was asked: the real admin API is in
// the tests with a gateway.
type fakeAdmin struct {
	*httptest.Server
	mu   sync.Mutex
	seen []string
}

func newFakeAdmin(t *testing.T) *fakeAdmin {
	t.Helper()
	f := new(fakeAdmin)
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *fakeAdmin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	note := r.Method + " " + r.RequestURI
	for _, name := range []string{"If-Match", "If-None-Match"} {
		if v := r.Header.Get(name); v != "" {
			note += " " + name + ": " + v
		}
	}
	if len(body) > 0 {
		note += " " + string(body)
	}
	f.mu.Lock()
	f.seen = append(f.seen, note)
	f.mu.Unlock()
	answer, ok := answers[r.Method+" "+strings.TrimPrefix(r.URL.Path, admin.Prefix)]
	if choose, isChoice := answer.(func(body string) any); isChoice {
		answer = choose(string(body))
	}
	switch v := answer.(type) {
	case nil:
		if ok {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		problem(w, &admin.ProblemDetails{Type: admin.ProblemPrefix + admin.NotFound, Title: "Not Found", Status: 404, Detail: "there is nothing at " + r.URL.Path})
	case *admin.ProblemDetails:
		problem(w, v)
	case string:
		_, _ = io.WriteString(w, v)
	default:
		if dry := r.URL.Query().Get("dry_run"); dry == "true" {
			v = admin.Dry{Valid: true, Definition: json.RawMessage(`{}`), Paths: []string{"/orders"}, Plans: []admin.Plan{{Name: "api_key"}}}
		}
		_ = json.NewEncoder(w).Encode(v)
	}
}

func problem(w http.ResponseWriter, p *admin.ProblemDetails) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}

// requests are those since the last call.
func (f *fakeAdmin) requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	seen := f.seen
	f.seen = nil
	return seen
}

var (
	goldPlan  = admin.Plan{API: "orders", Name: "gold", Kind: "api_key", Stage: "published", Saved: true, Deployed: true, ETag: `"7"`}
	freePlan  = admin.Plan{API: "orders", Name: "free", Kind: "keyless", Stage: "staging", Saved: true, ETag: `"7"`}
	ordersAPI = admin.API{
		ID: "orders", Name: "Orders", Version: "1.2", Labels: []string{"shop", "b2b"}, Paths: []string{"/orders"},
		Managed: true, State: "started", OutOfSync: true, Published: true, Members: []string{"ann", "group:sales"},
		Plans:    []admin.Plan{goldPlan, freePlan},
		Saved:    &admin.Revision{Number: 3, At: today.Add(-5 * time.Minute), By: "ann", Definition: json.RawMessage(`{"id":"orders","paths":["/orders"]}`)},
		Deployed: &admin.Revision{Number: 2, At: today.Add(-26 * time.Hour)},
		Running: &admin.Running{
			Hash: "abc", Sessions: 12,
			Entrypoints: []admin.Entrypoint{{Type: "http_post", QoS: "auto", Publish: "kafka"}, {Type: "sse", QoS: "auto", Subscribe: "kafka"}},
			Endpoints:   []admin.Endpoint{{API: "orders", Name: "kafka", Type: "kafka", State: "up", Address: "kafka-1:9092"}},
		},
		CreatedAt: today.AddDate(0, -3, 0), UpdatedAt: today.Add(-5 * time.Minute), UpdatedBy: "ann", ETag: `"7"`,
	}
	ticksAPI = admin.API{ID: "ticks", Paths: []string{"/ticks", "/t"}, State: "stopped", Published: true, Public: true, Deprecated: true, Plans: []admin.Plan{{Name: "keyless"}}, ETag: `"0"`}
	shop     = admin.Application{ID: "a1", Name: "Web shop", Description: "the one\nin the cloud", ClientID: "shop-client", Owner: "ann", CreatedAt: today.Add(-90 * time.Minute), UpdatedAt: today.Add(-30 * time.Second), ETag: `"2"`}
	pending  = admin.Subscription{
		ID: "s1", API: "orders", Plan: "gold", Application: "a1", Status: "pending", Message: "please", CreatedAt: today.Add(-time.Hour),
		Limits: &admin.Limits{RateLimit: "10/1s", MaxSessions: 3}, Metadata: map[string]string{"cost": "42", "team": "web"}, ETag: `"4"`,
	}
	newKey = admin.NewKey{Key: admin.Key{ID: "k1", Subscription: "s1", Hint: "wxyz", CreatedAt: today, Expires: today.Add(90 * 24 * time.Hour), ETag: `"1"`}, Secret: "cma_thesecretwxyz"}
)

func accepted() admin.Subscription {
	s := pending
	s.Status, s.ProcessedAt, s.ProcessedBy, s.Reason = "accepted", today, "ann", "welcome"
	s.Ends = today.AddDate(1, 0, 0)
	return s
}

func withKey() admin.Subscription {
	s := accepted()
	s.NewKey = &newKey
	return s
}

// hinted is a consumer as it is shown, and madeNow as it is shown when it was made.
const (
	hinted  = `{"callback":"https://shop.example.com/hook","headers":{"X-Team":["web"]},"secrets":[{"hint":"…bGQ="}]}`
	madeNow = `{"callback":"https://shop.example.com/hook","secrets":["whsec_c2VjcmV0"]}`
)

func pushing(consumer string) admin.Subscription {
	return admin.Subscription{
		ID: "s5", API: "orders", Plan: "push", Application: "a1", Status: "accepted", CreatedAt: today, Consumer: json.RawMessage(consumer),
		Proposed: &admin.Proposed{Consumer: json.RawMessage(`{"callback":"https://new.example.com/hook"}`), At: today.Add(-time.Minute), By: "ann"}, ETag: `"6"`,
	}
}

func subscribe(body string) any {
	if !strings.Contains(body, `"consumer"`) {
		return withKey()
	}
	s := pushing(madeNow)
	s.Proposed = nil
	return s
}

var (
	backlog  = int64(1200)
	troubled = admin.Delivery{
		Subscription: "s5", API: "orders", Plan: "push", Application: "a1", State: "trouble", Cause: "all 2 messages that it may hold wait for another attempt",
		Since: today.Add(-5 * time.Minute), Owner: "n1", Here: true, Callback: "https://shop.example.com/hook", Backlog: &backlog,
		Delivered: 1000, Failed: 8, Dead: 1, Skipped: 2, ParkedMessages: 2,
		Parked: []admin.Parked{
			{ID: "msg_1", Lane: "orders/2", Attempts: 3, Status: 503, First: today.Add(-time.Minute), Next: today.Add(8 * time.Second)},
			{ID: "msg_2", Attempts: 1, Error: "connection refused", First: today.Add(-time.Second), Next: today.Add(time.Second)},
		},
		Recent: []admin.Attempt{
			{ID: "msg_1", At: today.Add(-2 * time.Second), Number: 3, Outcome: "throttled", Status: 503, Duration: admin.Duration(20 * time.Millisecond)},
			{ID: "msg_2", At: today.Add(-time.Second), Number: 1, Outcome: "unreachable", Error: "connection refused", Duration: admin.Duration(time.Millisecond)},
		},
	}
	static = admin.Delivery{Subscription: "orders.audit", API: "orders", Static: true, State: "waiting", Callback: "https://audit.example.com"}
)

// deliveryRow is a delivery as lists have it.
func deliveryRow(d admin.Delivery) admin.Delivery {
	d.Parked, d.Recent, d.Backlog = nil, nil, nil
	return d
}

const redelivered = `{"id":"msg_a","number":6,"outcome":"delivered","status":204,"duration":"12ms","removed":true}
{"id":"msg_b","number":2,"outcome":"timeout","error":"no answer within 10s","duration":"10s","removed":false}
`

func pageOf[T any](items ...T) admin.Page[T] { return admin.Page[T]{Items: items} }

var storeStatus = admin.StoreStatus{
	Node:     "n1",
	Nodes:    []admin.StoreNode{{ID: "n1", Sequence: 1234, Seen: today, Self: true, Alive: true}, {ID: "n2", Sequence: 7, Seen: today.Add(-3 * time.Second)}},
	Records:  map[string]int{"subscription": 200000, "api": 2, "key": 3},
	Problems: []admin.StoreProblem{{Path: "log/n3/5", Detail: "is damaged and was skipped", At: today.Add(-time.Hour)}},
}

// answers are by method and path. nil is a 204.
var answers = map[string]any{
	"GET apis":                                               pageOf(ordersAPI, ticksAPI),
	"GET apis/orders":                                        ordersAPI,
	"GET apis/ticks":                                         ticksAPI,
	"PUT apis/orders":                                        ordersAPI,
	"PUT apis/bad":                                           &admin.ProblemDetails{Type: admin.ProblemPrefix + admin.InvalidValue, Title: "Bad Request", Status: 400, Detail: "the definition is not valid", Problems: []admin.Problem{{Path: "plans[0].rate_limit", Detail: `"x": write a number, a slash and a time, like 10/1s`}, {Detail: "no endpoint can do what entrypoint sse needs"}}},
	"POST apis/orders/deploy":                                ordersAPI,
	"POST apis/orders/start":                                 ordersAPI,
	"POST apis/orders/stop":                                  ordersAPI,
	"POST apis/orders/publish":                               ordersAPI,
	"POST apis/orders/unpublish":                             ordersAPI,
	"POST apis/orders/make_public":                           ordersAPI,
	"POST apis/orders/make_private":                          ordersAPI,
	"POST apis/orders/deprecate":                             ordersAPI,
	"POST apis/ticks/deploy":                                 &admin.ProblemDetails{Type: admin.ProblemPrefix + admin.Conflict, Title: "Conflict", Status: 409, Detail: "ticks is written in the Caddyfile; change it there"},
	"PUT apis/orders/members":                                ordersAPI,
	"DELETE apis/orders":                                     nil,
	"GET apis/orders/plans":                                  pageOf(goldPlan, freePlan),
	"PUT apis/orders/plans/gold":                             goldPlan,
	"POST apis/orders/plans/gold/publish":                    goldPlan,
	"POST apis/orders/plans/gold/deprecate":                  goldPlan,
	"POST apis/orders/plans/gold/close":                      goldPlan,
	"DELETE apis/orders/plans/gold":                          nil,
	"GET applications":                                       pageOf(shop, admin.Application{ID: "a2", Name: "Old", Archived: true}),
	"GET applications/a1":                                    shop,
	"POST applications":                                      shop,
	"PATCH applications/a1":                                  shop,
	"DELETE applications/a1":                                 shop,
	"GET subscriptions":                                      pageOf(pending, accepted()),
	"GET subscriptions/s1":                                   pending,
	"POST subscriptions":                                     subscribe,
	"GET subscriptions/s5":                                   pushing(hinted),
	"PATCH subscriptions/s5":                                 pushing(hinted),
	"POST subscriptions/s1/accept":                           withKey(),
	"POST subscriptions/s1/reject":                           pending,
	"POST subscriptions/s1/pause":                            pending,
	"POST subscriptions/s1/resume":                           accepted(),
	"POST subscriptions/s1/close":                            pending,
	"POST subscriptions/s2/accept":                           &admin.ProblemDetails{Title: "Precondition Failed", Status: 412, Detail: "somebody else changed it: look at it again"},
	"POST subscriptions/s3/accept":                           pending,
	"PATCH subscriptions/s1":                                 accepted(),
	"GET subscriptions/s1/keys":                              pageOf(newKey.Key, admin.Key{ID: "k2", Subscription: "s1", RevokedAt: today}, admin.Key{ID: "k3", Subscription: "s1", Expires: today.Add(-49 * time.Hour), Custom: true}),
	"POST subscriptions/s1/keys":                             newKey,
	"POST keys/k1/renew":                                     newKey,
	"POST keys/k1/revoke":                                    newKey.Key,
	"POST keys/k1/expire":                                    newKey.Key,
	"GET deliveries":                                         pageOf(deliveryRow(troubled), deliveryRow(static)),
	"GET subscriptions/s5/delivery":                          troubled,
	"GET subscriptions/orders.audit/delivery":                static,
	"POST subscriptions/orders.audit/retry":                  static,
	"POST subscriptions/s5/retry":                            &admin.ProblemDetails{Type: admin.ProblemPrefix + admin.Conflict, Title: "Conflict", Status: 409, Detail: "the delivery has not failed: it is in trouble"},
	"POST subscriptions/s5/test":                             admin.Attempt{ID: "msg_t1", At: today, Number: 1, Outcome: "delivered", Status: 204, Duration: admin.Duration(12345678)},
	"POST subscriptions/orders.audit/test":                   admin.Attempt{ID: "msg_t2", At: today, Number: 1, Outcome: "timeout", Error: "no answer within 10s", Duration: admin.Duration(10 * time.Second)},
	"GET subscriptions/s5/dead_letters":                      pageOf(admin.DeadLetter{ID: "msg_a", Reason: "exhausted:timeout", Attempts: 5, Error: "no answer within 10s", Position: "orders/2@117", Time: today.Add(-2 * time.Hour), Size: 512, Key: "k"}, admin.DeadLetter{ID: "msg_b", Reason: "client_error", Attempts: 1, Status: 422, Time: today.Add(-time.Minute)}),
	"POST subscriptions/s5/dead_letters/redeliver":           redelivered + `{"done":{"read":3,"delivered":1,"failed":1,"removed":1,"missing":["msg_x"]}}` + "\n",
	"POST subscriptions/s6/dead_letters/redeliver":           `{"id":"msg_a","number":6,"outcome":"delivered","status":204,"duration":"12ms","removed":false}` + "\n" + `{"done":{"read":1,"delivered":1,"failed":0,"removed":0}}` + "\n",
	"POST subscriptions/s7/dead_letters/redeliver":           redelivered + `{"done":{"read":2,"delivered":1,"failed":1,"removed":1},"problem":{"type":"urn:message-api:problem:broker-unavailable","title":"Service Unavailable","status":503,"detail":"the broker is away"}}` + "\n",
	"POST subscriptions/s8/dead_letters/redeliver":           redelivered,
	"POST subscriptions/orders.audit/dead_letters/redeliver": `{"done":{"read":0,"delivered":0,"failed":0,"removed":0}}` + "\n",
	"GET endpoints":                                          pageOf(admin.Endpoint{API: "orders", Name: "kafka", Type: "kafka", State: "down", Since: today.Add(-10 * time.Second), Address: "kafka-1:9092", Error: "connection refused"}),
	"GET sessions":                                           pageOf(admin.Session{ID: 17, API: "orders", Entrypoint: "sse", Plan: "gold", Application: "a1", Client: "s1", Since: today.Add(-time.Minute), Sent: 1000, Received: 0}),
	"DELETE sessions/17":                                     nil,
	"GET store":                                              storeStatus,
	"POST store/sync":                                        storeStatus,
	"GET export":                                             `{"export":1}` + "\n",
	"POST import":                                            admin.ImportReport{Added: 3, Updated: 1, Unchanged: 5, Skipped: []admin.Skipped{{Kind: "key", ID: "k9", Reason: "its subscription is not there"}}},
}
