package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/lifecycle"
	"github.com/caddy-message-api/caddy-message-api/subscriptions"
)

// writeTimeout bounds a write: each of its steps has a bound of its own, and closing a plan has
// many. It is not bound to the client's connection: one that goes away half way leaves no plan
// half closed.
const writeTimeout = 10 * time.Minute

// Deps are what the server works on.
type Deps struct {
	Lifecycle     *lifecycle.Registry
	Subscriptions *subscriptions.Registry
	Hooks         Hooks
	// Audit gets one line for every change, also for refused ones. Default: none.
	Audit *zap.Logger
	// Logger gets what failed on this side. Default: none.
	Logger *zap.Logger
	// By says who makes a request. Default: By.
	By func(*http.Request) string
}

// Hooks are what the server knows of the node it runs on.
type Hooks struct {
	// Running says what is served of an API, if it is served here.
	Running func(id string) (Running, bool)
	// Endpoints are the connections to brokers.
	Endpoints func() []Endpoint
	// Sessions are the open sessions that q selects; its page does not matter.
	Sessions func(q SessionQuery) []Session
	// EndSession ends a session, if there is one of that id.
	EndSession func(id uint64) bool
	Store      StoreHooks
	// Push is about subscriptions whose consumers are called. What is nil in it is answered
	// for with a 503.
	Push PushHooks
}

// Server answers the admin API. It keeps nothing, so there may be several on the same
// registries.
type Server struct {
	Deps
	mux        *http.ServeMux
	audit, log atomic.Pointer[zap.Logger]
}

// SetLoggers replaces Deps.Audit and Deps.Logger. A server outlives the configuration that its
// loggers belong to: those of the one before write nowhere.
func (s *Server) SetLoggers(audit, log *zap.Logger) {
	s.audit.Store(cmp.Or(audit, zap.NewNop()))
	s.log.Store(cmp.Or(log, zap.NewNop()))
}

// New makes a server. Lifecycle, Subscriptions and every hook but those of Push must be given.
func New(deps Deps) *Server {
	if deps.By == nil {
		deps.By = By
	}
	s := &Server{Deps: deps, mux: http.NewServeMux()}
	s.SetLoggers(deps.Audit, deps.Logger)
	for pattern, methods := range s.byPattern() {
		s.mux.Handle(Prefix+pattern, methods)
	}
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(http.StatusNotFound, NotFound, "the admin API has no %s", clip(r.URL.Path)).write(w)
	})
	return s
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// By names who makes a request by what can't be made up: the client certificate that Caddy's
// remote admin endpoint has verified, else the host it comes from.
func By(r *http.Request) string {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		certificate := r.TLS.VerifiedChains[0][0]
		if name := certificate.Subject.CommonName; name != "" {
			return "cert:" + name
		}
		return "cert:" + certificate.SerialNumber.String()
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil { // a unix socket has no such address
		return "local"
	}
	return host
}

// request is one request on its way through a handler.
type request struct {
	*http.Request
	w  http.ResponseWriter
	by string
	// ctx is what changes go by: see writeTimeout.
	ctx   context.Context
	audit *entry // nil if nothing can change
}

// reply is what a handler answers with, unless it fails.
type reply struct {
	// status is 200 if it is left out.
	status int
	body   any
	// etag makes the answer one that a client may keep and ask for again.
	etag     string
	location string
	// secret answers are kept by nobody on the way.
	secret bool
}

// route is one operation.
type route struct {
	method  string
	pattern string // below Prefix
	// action and kind are for the audit log; empty if nothing can change.
	action, kind string
	// query are the parameters that it knows.
	query []string
	// long: it takes as long as what it carries, and ends with the connection.
	long   bool
	handle func(*request) (reply, error)
}

// methods are the routes of one pattern.
type methods struct {
	server *Server
	routes map[string]route
}

func (s *Server) byPattern() map[string]methods {
	all := map[string]methods{}
	for _, r := range s.routes() {
		if _, ok := all[r.pattern]; !ok {
			all[r.pattern] = methods{s, map[string]route{}}
		}
		all[r.pattern].routes[r.method] = r
	}
	return all
}

// allow lists the methods of the pattern.
func (m methods) allow() string {
	names := []string{http.MethodOptions}
	for method := range m.routes {
		names = append(names, method)
		if method == http.MethodGet {
			names = append(names, http.MethodHead)
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func (m methods) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	found, ok := m.routes[method]
	if !ok {
		w.Header().Set("Allow", m.allow())
		if method == http.MethodOptions { // Caddy has said the rest
			w.WriteHeader(http.StatusNoContent)
			return
		}
		refuse(http.StatusMethodNotAllowed, MethodNotAllowed, "%s takes %s, not %s", clip(r.URL.Path), m.allow(), clip(r.Method)).write(w)
		return
	}
	m.server.serve(found, w, r)
}

// serve runs one operation.
func (s *Server) serve(route route, w http.ResponseWriter, r *http.Request) {
	q := &request{Request: r, w: w, by: clip(s.Deps.By(r)), ctx: r.Context()}
	if route.action != "" {
		q.audit = newEntry(route, q)
	}
	switch {
	case route.long:
		q.unhurried()
	case route.method != http.MethodGet:
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), writeTimeout)
		defer cancel()
		q.ctx = ctx
	}
	answer, err := s.run(route, q)
	var problem *ProblemDetails
	if err != nil {
		problem = s.problemOf(err, r)
	}
	// Before the answer: who sees that it was done can find it in the log.
	q.audit.write(s.audit.Load(), problem)
	switch {
	case problem != nil:
		problem.write(w)
	case answer.status != sent:
		answer.write(w, r)
	}
}

// sent is the status of a reply that the handler has written by itself.
const sent = -1

func (s *Server) run(route route, q *request) (reply, error) {
	if route.method != http.MethodGet {
		if err := checkMediaType(q.Request); err != nil {
			return reply{}, err
		}
	}
	if err := checkQuery(q.Request, route.query); err != nil {
		return reply{}, err
	}
	return route.handle(q)
}

func (a reply) write(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	if a.secret {
		h.Set("Cache-Control", "no-store")
	}
	if a.location != "" {
		h.Set("Location", a.location)
	}
	if a.etag != "" {
		h.Set("ETag", a.etag)
		if (r.Method == http.MethodGet || r.Method == http.MethodHead) && noneMatch(r, a.etag) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	if a.body == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	h.Set("Content-Type", "application/json")
	if a.status != 0 {
		w.WriteHeader(a.status)
	}
	_ = json.NewEncoder(w).Encode(a.body) // a client that has vanished is no news
}

// location is where something new is.
func location(path ...string) string { return call{path: path}.uri() }

// Interface guard.
var _ http.Handler = (*Server)(nil)
