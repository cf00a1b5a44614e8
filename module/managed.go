package module

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/lifecycle"
)

// managed are the APIs from the store that a configuration serves, wherever it says
// `message_api` without a path.
type managed struct {
	app    *App
	routes atomic.Pointer[[]route] // the longest path first
	ready  atomic.Bool             // the store is open and what it holds is served

	mu       sync.Mutex
	stopped  bool
	serving  map[string]*served
	problems map[string]string // why an API that should be served is not
}

// served is the handler of a managed API, with what it was made from.
type served struct {
	Handler
	started  bool
	deployed *byte // the definition: another one is elsewhere in memory
}

// route is a context path of a managed API. A handler without a unit is one that is not
// served now, which is answered and goes to nobody else.
type route struct {
	path    string
	handler *Handler
}

func newManaged(app *App) *managed {
	m := &managed{app: app, serving: make(map[string]*served), problems: make(map[string]string)}
	m.routes.Store(new([]route))
	return m
}

// applyAll brings what is served in line with the store.
func (m *managed) applyAll(f *facts) {
	m.mu.Lock()
	defer m.mu.Unlock()
	wanted := make(map[string]bool)
	for _, api := range f.lifecycle.List() {
		if api.Managed {
			wanted[api.ID] = true
			m.apply(&api, f.lifecycle.IsStarted(api.ID))
		}
	}
	for id := range m.serving {
		if !wanted[id] {
			m.drop(id)
		}
	}
	m.route()
	m.ready.Store(true)
	pushChanged()
}

// apply loads the deployed definition, unless it is being served already. The unit that it
// replaces goes after the new one has come, so that no request finds none.
func (m *managed) apply(api *lifecycle.API, started bool) {
	if m.stopped {
		return
	}
	old := m.serving[api.ID]
	if api.Deployed == nil || m.app.declares(api.ID) {
		m.drop(api.ID)
		return
	}
	if old != nil && old.started == started && old.deployed == &api.Deployed.Definition[0] {
		return
	}
	h, err := m.load(api, started)
	delete(m.problems, api.ID)
	if err != nil {
		m.problems[api.ID] = err.Error()
		m.app.log.Error("a managed message API can't be served", zap.String("api", api.ID), zap.Error(err))
	}
	m.serving[api.ID] = h
	if old != nil && old.unit != nil {
		old.unit.release()
	}
}

// load makes the handler of a managed API: with a unit if it is to be served and can be.
func (m *managed) load(api *lifecycle.API, started bool) (*served, error) {
	h := &served{started: started, deployed: &api.Deployed.Definition[0]}
	h.app, h.names, h.log = m.app, m.app.names, m.app.log
	if err := json.Unmarshal(api.Deployed.Definition, &h.Definition); err != nil {
		h.ID = api.ID
		return h, err
	}
	h.ID = api.ID
	if err := h.normalize(); err != nil {
		return h, err
	}
	if !started {
		return h, nil
	}
	u, err := acquireUnit(m.app.ctx, m.app, &h.Definition, "")
	h.unit = u
	if err == nil {
		u.startPlans()
	}
	return h, err
}

func (m *managed) drop(id string) {
	if h := m.serving[id]; h != nil && h.unit != nil {
		h.unit.release()
	}
	delete(m.serving, id)
	delete(m.problems, id)
}

// route makes the table that requests are looked up in.
func (m *managed) route() {
	var routes []route
	for _, h := range m.serving {
		for _, p := range h.Paths {
			routes = append(routes, route{path: p, handler: &h.Handler})
		}
	}
	slices.SortFunc(routes, func(a, b route) int {
		return cmp.Or(cmp.Compare(len(b.path), len(a.path)), cmp.Compare(a.path, b.path), cmp.Compare(a.handler.ID, b.handler.ID))
	})
	m.routes.Store(&routes)
}

// close gives the units back, when the configuration is over.
func (m *managed) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopped = true
	for id := range m.serving {
		m.drop(id)
	}
	m.route()
}

// problem says why an API that should be served is not.
func (m *managed) problem(id string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.problems[id]
}

// allProblems says of each API that should be served and is not, why.
func (m *managed) allProblems() map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.problems)
}

// units are those of the managed APIs that are served.
func (m *managed) units() []*unit {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []*unit
	for _, h := range m.serving {
		if h.unit != nil {
			list = append(list, h.unit)
		}
	}
	return list
}

// ids are the managed APIs that are started, served or not.
func (m *managed) ids() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var ids []string
	for id, h := range m.serving {
		if h.unit != nil || m.problems[id] != "" {
			ids = append(ids, id)
		}
	}
	return ids
}

// ServeHTTP serves the managed API whose context path covers the request's most closely, and
// hands all other requests on.
func (m *managed) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if !m.ready.Load() {
		h := &Handler{app: m.app, names: m.app.names, log: m.app.log}
		return h.fail(w, r, "", notOpen())
	}
	path := strings.ToLower(caddyhttp.CleanPath(r.URL.Path, true))
	for _, route := range *m.routes.Load() {
		if !covers(route.path, path) {
			continue
		}
		if route.handler.unit == nil {
			return route.handler.fail(w, r, "", m.unserved(route.handler.ID))
		}
		return route.handler.enter(w, r)
	}
	return next.ServeHTTP(w, r)
}

// unserved is the answer for an API that is stopped, or that this gateway refuses to serve.
func (m *managed) unserved(id string) error {
	if m.problem(id) != "" {
		return &entrypoints.Problem{Status: http.StatusServiceUnavailable, Slug: "api-not-served",
			Detail: "this gateway can't serve the API as it is deployed; its operator finds the cause in the log, and by `caddy message-api store status`"}
	}
	return errStopped
}

// errStopped is the answer for an API that is stopped.
var errStopped = &entrypoints.Problem{Status: http.StatusNotFound, Slug: "api-stopped", Detail: "this API is stopped"}
