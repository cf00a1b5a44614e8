package module

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/endpoints/endpointtest"
	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/plans"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must come.
const patience = 10 * time.Second

// eventually waits until ok says yes.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// receive waits for a value.
func receive[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("%s: not within %s", what, patience)
		panic("unreachable")
	}
}

// testUnit is a unit without guests, as far as sessions and logs need one.
func testUnit(id string) *unit {
	u := &unit{def: &Definition{ID: id, LogSize: defaultLogSize}, log: zap.NewNop(), ids: newIdentities(), receipts: newReceipts(zap.NewNop())}
	u.logs = newLogs(u)
	return u
}

// fakeEndpoint wraps a fake as a loaded endpoint.
func fakeEndpoint(name string, f *endpointtest.Fake) *endpoint {
	return &endpoint{name: name, kind: "fake", key: name, caps: f.Caps, guest: f, pub: f, sub: f}
}

func testApp(t *testing.T) *App {
	t.Helper()
	names, err := newIdentityNames("X-Gravitee-")
	if err != nil {
		t.Fatal(err)
	}
	m, err := newMetrics(prometheus.NewPedanticRegistry())
	if err != nil {
		t.Fatal(err)
	}
	app := &App{names: names, metrics: m, log: zap.NewNop()}
	app.started.Store(true)
	app.managed = newManaged(app)
	return app
}

// testSession opens a session for a principal, which ends with the test at the latest.
func testSession(t *testing.T, u *unit, w *way, p plans.Principal) *session {
	t.Helper()
	s, err := openTestSession(t, u, w, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if len(sessions.selected(Selector{ID: s.id}, 1)) == 1 {
			s.close(nil)
		}
	})
	return s
}

func openTestSession(t *testing.T, u *unit, w *way, p plans.Principal) (*session, error) {
	t.Helper()
	if w == nil {
		w = &way{needs: entrypoints.Needs{Type: "sse"}}
	}
	if w.log == nil {
		w.log = zap.NewNop()
	}
	g := &grant{
		principal: p, inferred: "client",
		identity: entrypoints.Identity{RequestID: "request", TransactionID: "transaction", Client: "client"},
	}
	if p.Limits != nil {
		g.maxSessions = p.Limits.MaxSessions
	}
	return openSession(u, w, testApp(t), g, httptest.NewRequest(http.MethodGet, "/", nil))
}

// unique makes an API id that no other test has counted under: the metrics are the process's.
func unique(name string) string { return name + "-" + newID()[:8] }
