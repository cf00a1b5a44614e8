package module

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-message-api/caddy-message-api/caddyfile/parse"
	"github.com/caddy-message-api/caddy-message-api/endpoints"
)

func init() {
	caddy.RegisterModule(new(Health))
}

// Health answers load balancers: 200 when every message API of this configuration that is
// not stopped can do its work, 503 when one can't, with a JSON body that says which and why. It asks each
// broker whether it would serve now, all at a time, at most every second whoever asks.
//
//	message_api_health [<path>]
type Health struct {
	app *App

	mu   sync.Mutex
	at   time.Time
	last healthReport
}

// healthReport is the body of the answer.
type healthReport struct {
	Status string `json:"status"` // ok or failing
	// Store says what is wrong with the store, without which no API is served.
	Store string                `json:"store,omitempty"`
	APIs  map[string]*apiHealth `json:"apis"`
}

type apiHealth struct {
	// Status is ok, failing or stopped.
	Status    string                     `json:"status"`
	Endpoints map[string]*endpointHealth `json:"endpoints"`
}

type endpointHealth struct {
	Type   string `json:"type"`
	Status string `json:"status"`
	Error  string `json:"error,omitempty"`
}

const (
	healthy       = "ok"
	stopped       = "stopped"
	failing       = "failing"
	probeTimeout  = 3 * time.Second
	probeLifetime = time.Second
)

// CaddyModule implements caddy.Module.
func (*Health) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.message_api_health", New: func() caddy.Module { return new(Health) }}
}

// UnmarshalCaddyfile implements caddyfile.Unmarshaler.
func (h *Health) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if err := parse.NoArgs(d); err != nil {
		return err
	}
	return parse.Block(d, "message_api_health")
}

// Provision implements caddy.Provisioner.
func (h *Health) Provision(ctx caddy.Context) error {
	val, err := ctx.App(AppID)
	if err != nil {
		return err
	}
	h.app = val.(*App)
	return nil
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *Health) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	report := h.report(r.Context())
	body, err := json.Marshal(report)
	if err != nil {
		return caddyhttp.Error(http.StatusInternalServerError, err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if report.Status != healthy {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, err = w.Write(body)
	return err
}

// report asks the brokers, or repeats what they just said. Whoever comes meanwhile waits
// for the same answer.
func (h *Health) report(ctx context.Context) healthReport {
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.at) < probeLifetime {
		return h.last
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeTimeout)
	defer cancel()
	report := checkAll(ctx, append(h.app.registered(), h.app.managed.ids()...))
	if !h.app.started.Load() || theKeeper.Load() != nil && theFacts.Load() == nil {
		report.Status, report.Store = failing, "it is not open"
	}
	h.last, h.at = report, time.Now()
	return h.last
}

func checkAll(ctx context.Context, ids []string) healthReport {
	report := healthReport{Status: healthy, APIs: make(map[string]*apiHealth)}
	var (
		wg sync.WaitGroup
		mu sync.Mutex
	)
	for _, id := range ids {
		api := &apiHealth{Status: healthy, Endpoints: make(map[string]*endpointHealth)}
		report.APIs[id] = api
		if f := theFacts.Load(); f != nil {
			if a, ok := f.lifecycle.Get(id); ok && !a.Started {
				api.Status = stopped // somebody wants it so
				continue
			}
		}
		u := runtime.current(id)
		if u == nil {
			mu.Lock()
			api.Status, report.Status = failing, failing
			mu.Unlock()
			continue
		}
		for _, e := range u.eps {
			wg.Go(func() {
				eh := probe(ctx, e)
				mu.Lock()
				defer mu.Unlock()
				api.Endpoints[e.name] = eh
				if eh.Status != healthy {
					api.Status, report.Status = failing, failing
				}
			})
		}
	}
	wg.Wait()
	return report
}

func probe(ctx context.Context, e *endpoint) *endpointHealth {
	eh := &endpointHealth{Type: e.kind, Status: healthy}
	if err := e.probe(ctx); err != nil {
		eh.Status, eh.Error = failing, err.Error()
	} else if st := e.guest.Status(); st.State == endpoints.Down {
		eh.Status, eh.Error = failing, st.Error
	}
	return eh
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*Health)(nil)
	_ caddyhttp.MiddlewareHandler = (*Health)(nil)
	_ caddyfile.Unmarshaler       = (*Health)(nil)
)
