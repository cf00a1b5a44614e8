package module

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/endpointtest"
)

// probed is an endpoint whose probes the test decides.
type probed struct {
	*endpointtest.Fake
	err    error
	status endpoints.Status
	probes atomic.Int64
	wait   func(ctx context.Context) error
}

func (p *probed) Probe(ctx context.Context) error {
	p.probes.Add(1)
	if p.wait != nil {
		return p.wait(ctx)
	}
	return p.err
}

func (p *probed) Status() endpoints.Status { return p.status }

// serveUnits makes APIs of endpoints, as if they were being served.
func serveUnits(t *testing.T, apis map[string]map[string]*probed) *App {
	t.Helper()
	app := testApp(t)
	app.apis = make(map[string]place)
	for id, eps := range apis {
		app.apis[id] = place{}
		if eps == nil {
			continue // registered, and not served
		}
		u := testUnit(id)
		for name, p := range eps {
			u.eps = append(u.eps, &endpoint{name: name, kind: "fake", guest: p})
		}
		runtime.add(u)
		t.Cleanup(func() { runtime.remove(u) })
	}
	return app
}

func askHealth(t *testing.T, h *Health) (int, healthReport) {
	t.Helper()
	w := httptest.NewRecorder()
	if err := h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/healthz", nil), nil); err != nil {
		t.Fatal(err)
	}
	if w.Header().Get("Content-Type") != "application/json" || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("headers %v", w.Header())
	}
	var report healthReport
	if err := json.Unmarshal(w.Body.Bytes(), &report); err != nil {
		t.Fatalf("%s: %v", w.Body, err)
	}
	return w.Code, report
}

func TestHealthReport(t *testing.T) {
	good := func() *probed { return &probed{status: endpoints.Status{State: endpoints.Up}} }
	for name, tc := range map[string]struct {
		apis    map[string]map[string]*probed
		failing []string // APIs
		detail  string
	}{
		"no API":   {nil, nil, ""},
		"all good": {map[string]map[string]*probed{"h1": {"a": good(), "b": good()}, "h2": {"a": good()}}, nil, ""},
		"idle":     {map[string]map[string]*probed{"h1": {"a": {status: endpoints.Status{State: endpoints.Idle}}}}, nil, ""},
		"one broker down": {map[string]map[string]*probed{
			"h1": {"a": good(), "b": {err: errors.New("connection refused")}}, "h2": {"a": good()}}, []string{"h1"}, "connection refused"},
		"down by its own account": {map[string]map[string]*probed{
			"h1": {"a": {status: endpoints.Status{State: endpoints.Down, Error: "no route"}}}}, []string{"h1"}, "no route"},
		"not served": {map[string]map[string]*probed{"h1": nil, "h2": {"a": good()}}, []string{"h1"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			status, report := askHealth(t, &Health{app: serveUnits(t, tc.apis)})
			bad := make(map[string]bool)
			for _, id := range tc.failing {
				bad[id] = true
			}
			if (status == http.StatusOK) != (len(bad) == 0) || (report.Status == healthy) != (len(bad) == 0) {
				t.Errorf("%d %s", status, report.Status)
			}
			if len(report.APIs) != len(tc.apis) {
				t.Errorf("%d APIs of %d", len(report.APIs), len(tc.apis))
			}
			var details []string
			for id, api := range report.APIs {
				if (api.Status == failing) != bad[id] {
					t.Errorf("%s is %s", id, api.Status)
				}
				for _, e := range api.Endpoints {
					details = append(details, e.Error)
				}
			}
			if !strings.Contains(strings.Join(details, " "), tc.detail) {
				t.Errorf("details %q", details)
			}
		})
	}
}

// Endpoints are asked all at a time, and APIs that are not served stand between them.
func TestHealthAsksAllAtATime(t *testing.T) {
	const n = 20
	var asked sync.WaitGroup
	asked.Add(n)
	apis := make(map[string]map[string]*probed)
	for i := range n {
		apis[fmt.Sprintf("parallel-%02d", i)] = map[string]*probed{"a": {wait: func(context.Context) error {
			asked.Done()
			asked.Wait() // nobody is answered before everybody was asked
			return errors.New("down")
		}}}
		apis[fmt.Sprintf("parallel-%02d-gone", i)] = nil
	}
	_, report := askHealth(t, &Health{app: serveUnits(t, apis)})
	for id, api := range report.APIs {
		if api.Status != failing {
			t.Errorf("%s is %s", id, api.Status)
		}
	}
}

// However many ask, a broker is asked once a second; a load balancer that hangs up does
// not spoil the answer for the others, and a mute broker is waited for in bounds.
func TestHealthAsksOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &probed{}
		h := &Health{app: serveUnits(t, map[string]map[string]*probed{"crowded": {"a": p}})}
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { h.report(t.Context()) })
		}
		wg.Wait()
		time.Sleep(probeLifetime - 1)
		h.report(t.Context())
		if n := p.probes.Load(); n != 1 {
			t.Errorf("%d probes within a second", n)
		}
		time.Sleep(time.Nanosecond)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if report := h.report(gone); report.Status != healthy || p.probes.Load() != 2 {
			t.Errorf("for one that is gone: %s, %d probes", report.Status, p.probes.Load())
		}
		p.wait = func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}
		time.Sleep(probeLifetime)
		start := time.Now()
		if report := h.report(t.Context()); report.Status != failing || time.Since(start) != probeTimeout {
			t.Errorf("a mute broker: %s after %s", report.Status, time.Since(start))
		}
	})
}

// Caddy's servers may take requests before the store was asked for, and nothing is served then.
func TestHealthBeforeTheStart(t *testing.T) {
	app := serveUnits(t, map[string]map[string]*probed{"early": {"a": {}}})
	app.started.Store(false)
	if status, report := askHealth(t, &Health{app: app}); status != 503 || report.Store == "" {
		t.Errorf("before the store was asked for: %d %+v", status, report)
	}
	app.started.Store(true)
	if status, report := askHealth(t, &Health{app: app}); status != 200 {
		t.Errorf("afterwards: %d %+v", status, report)
	}
}
