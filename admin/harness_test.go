package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-message-api/caddy-message-api/lifecycle"
	"github.com/caddy-message-api/caddy-message-api/store"
	"github.com/caddy-message-api/caddy-message-api/store/storetest"
	"github.com/caddy-message-api/caddy-message-api/subscriptions"
)

// bench is a server on real registries on a real store of its own.
type bench struct {
	*testing.T
	store         *store.Store
	lifecycle     *lifecycle.Registry
	subscriptions *subscriptions.Registry
	server        *httptest.Server
	client        *Client
	transport     *http.Transport
	audit, log    *observer.ObservedLogs

	mu       sync.Mutex
	sessions []Session
	running  map[string]Running
	pushed   *pushed
}

func newBench(t *testing.T) *bench {
	t.Helper()
	return newBenchOn(t, storetest.NewMemory())
}

func newBenchOn(t *testing.T, storage certmagic.Storage) *bench {
	t.Helper()
	b := &bench{T: t, running: map[string]Running{}, transport: new(http.Transport), pushed: newPushed()}
	b.openStore(storage)
	b.openRegistries()
	audit, auditLog := observer.New(zap.InfoLevel)
	logger, log := observer.New(zap.InfoLevel)
	b.audit, b.log = auditLog, log
	b.server = httptest.NewServer(New(Deps{
		Lifecycle: b.lifecycle, Subscriptions: b.subscriptions, Hooks: b.hooks(),
		Audit: zap.New(audit), Logger: zap.New(logger), By: func(*http.Request) string { return "alice" },
	}))
	b.client = &Client{Base: b.server.URL}
	t.Cleanup(func() { b.client.Close(); b.transport.CloseIdleConnections(); b.server.Close() })
	return b
}

func (b *bench) openStore(storage certmagic.Storage) {
	b.Helper()
	opened, err := store.Open(b.Context(), store.Options{Storage: storage, Interval: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	b.store = opened
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = opened.Close(ctx) // some tests break the storage
	})
}

func (b *bench) openRegistries() {
	b.Helper()
	var err error
	b.lifecycle, err = lifecycle.New(b.store, lifecycle.Options{
		Validate:          validate,
		LiveSubscriptions: func(api, plan string) int { return b.subscriptions.LiveSubscriptions(api, plan) },
		ClosePlan: func(ctx context.Context, by, api, plan, reason string) error {
			_, err := b.subscriptions.ClosePlan(ctx, by, api, plan, reason)
			return err
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(b.lifecycle.Close)
	b.lifecycle.Declare(map[string][]lifecycle.Plan{"declared": {{Name: "keyless", Kind: "keyless"}, {Name: "gold", Kind: "api_key"}}})
	b.subscriptions, err = subscriptions.New(b.store, subscriptions.Options{Plan: b.plan, CustomKeys: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(b.subscriptions.Close)
}

// plan knows plans by their names: "manual" ones are accepted by somebody.
func (b *bench) plan(api, plan string) (subscriptions.PlanInfo, error) {
	a, ok := b.lifecycle.Get(api)
	infos, err := b.lifecycle.Plans(api)
	i := slices.IndexFunc(infos, func(p lifecycle.PlanInfo) bool { return p.Name == plan })
	if !ok || err != nil || i < 0 {
		return subscriptions.PlanInfo{}, fmt.Errorf("there is no plan %q of %q", plan, api)
	}
	info := subscriptions.PlanInfo{Kind: infos[i].Kind, Stage: string(infos[i].Stage), Deprecated: a.Deprecated, Validation: "auto"}
	if strings.HasPrefix(plan, "manual") {
		info.Validation = "manual"
	}
	if info.Kind == "push" {
		info.Consumer = consumer
	}
	return info, nil
}

func (b *bench) hooks() Hooks {
	return Hooks{
		Running: func(id string) (Running, bool) {
			b.mu.Lock()
			defer b.mu.Unlock()
			r, ok := b.running[id]
			return r, ok
		},
		Endpoints: func() []Endpoint {
			return []Endpoint{{API: "b", Name: "mock", Type: "mock", State: "up"}, {API: "a", Name: "kafka", Type: "kafka", State: "down", Error: "refused"}}
		},
		Sessions: func(q SessionQuery) []Session {
			b.mu.Lock()
			defer b.mu.Unlock()
			return slices.DeleteFunc(slices.Clone(b.sessions), func(s Session) bool { return q.API != "" && s.API != q.API })
		},
		EndSession: func(id uint64) bool {
			b.mu.Lock()
			defer b.mu.Unlock()
			before := len(b.sessions)
			b.sessions = slices.DeleteFunc(b.sessions, func(s Session) bool { return s.ID == id })
			return len(b.sessions) < before
		},
		Store: StoreHooksOf(b.store, lifecycle.Merge),
		Push:  b.pushed.hooks(),
	}
}

// validate stands in for the gateway's check of definitions.
func validate(_ context.Context, _ string, definition json.RawMessage, _ bool) (json.RawMessage, []lifecycle.Plan, []string, error) {
	var d struct {
		Paths []string `json:"paths"`
		Plans []struct {
			Name string `json:"name"`
			Plan struct {
				Type string `json:"type"`
			} `json:"plan"`
		} `json:"plans"`
		Wrong []any `json:"wrong"`
	}
	if err := json.Unmarshal(definition, &d); err != nil {
		return nil, nil, nil, &lifecycle.Error{Kind: lifecycle.Invalid, Detail: "the definition is not valid"}
	}
	var problems []lifecycle.Problem
	for i := range d.Wrong {
		problems = append(problems, lifecycle.Problem{Path: fmt.Sprintf("wrong[%d]", i), Detail: "there is no such option"})
	}
	if len(problems) > 0 {
		return nil, nil, nil, &lifecycle.Error{Kind: lifecycle.Invalid, Detail: "the definition is not valid", Problems: problems}
	}
	var plans []lifecycle.Plan
	for _, p := range d.Plans {
		if p.Name == "" {
			p.Name = p.Plan.Type
		}
		plans = append(plans, lifecycle.Plan{Name: p.Name, Kind: p.Plan.Type})
	}
	return definition, plans, d.Paths, nil
}

// definition is one with these plans, which are api_key plans unless they are called keyless.
func definition(path string, plans ...string) string {
	var list []string
	for _, p := range plans {
		kind := "api_key"
		switch {
		case p == "keyless" || p == "jwt":
			kind = p
		case strings.HasSuffix(p, "push"):
			kind = "push"
		}
		list = append(list, fmt.Sprintf(`{"name":%q,"plan":{"type":%q}}`, p, kind))
	}
	return fmt.Sprintf(`{"name":"Orders","paths":[%q],"entrypoints":[{"type":"sse"}],"endpoints":[{"endpoint":{"type":"mock"}}],"plans":[%s]}`, path, strings.Join(list, ","))
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// problem reads the answer as a problem.
func (a answer) problem(t testing.TB) ProblemDetails {
	t.Helper()
	var p ProblemDetails
	if ct := a.header.Get("Content-Type"); ct != "application/problem+json" {
		t.Fatalf("%d with content type %q: %s", a.status, ct, a.body)
	}
	if err := json.Unmarshal(a.body, &p); err != nil || p.Status != a.status || p.Title == "" || p.Slug() == "" {
		t.Fatalf("%v: %s", err, a.body)
	}
	return p
}

// send sends a request as it is. headers are names and values in turn.
func (b *bench) send(method, path, body string, headers ...string) answer {
	b.Helper()
	r, err := http.NewRequestWithContext(b.Context(), method, b.server.URL+Prefix+path, strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	response, err := b.transport.RoundTrip(r)
	if err != nil {
		b.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		b.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, text}
}

// must sends what must succeed, and reads the answer into v unless that is nil.
func (b *bench) must(v any, method, path, body string, headers ...string) answer {
	b.Helper()
	a := b.send(method, path, body, headers...)
	if a.status/100 != 2 {
		b.Fatalf("%s %s: %d %s", method, path, a.status, a.body)
	}
	if v != nil {
		if err := json.Unmarshal(a.body, v); err != nil {
			b.Fatalf("%s %s: %v: %s", method, path, err, a.body)
		}
	}
	return a
}

// refused sends what must be refused.
func (b *bench) refused(status int, slug, method, path, body string, headers ...string) ProblemDetails {
	b.Helper()
	a := b.send(method, path, body, headers...)
	if a.status != status {
		b.Fatalf("%s %s: %d %s, want %d", method, path, a.status, a.body, status)
	}
	p := a.problem(b)
	if p.Slug() != slug {
		b.Fatalf("%s %s: %s, want %s", method, path, p.Type, slug)
	}
	return p
}

// lines are the audit log as JSON.
func (b *bench) lines() string {
	var out bytes.Buffer
	for _, e := range b.audit.All() {
		text, err := json.Marshal(e.ContextMap())
		if err != nil {
			b.Fatal(err)
		}
		fmt.Fprintf(&out, "%s %s\n", e.Message, text)
	}
	return out.String()
}

// application makes an application, and subscription one of it to a plan.
func (b *bench) application(id string) {
	b.Helper()
	b.must(nil, http.MethodPost, "applications", fmt.Sprintf(`{"id":%q,"name":"An application"}`, id))
}

func (b *bench) subscription(api, plan, application string) Subscription {
	b.Helper()
	var s Subscription
	b.must(&s, http.MethodPost, "subscriptions", fmt.Sprintf(`{"api":%q,"plan":%q,"application":%q}`, api, plan, application))
	return s
}

var errBroken = errors.New("the disk is on fire")
