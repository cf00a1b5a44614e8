package module

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

func init() {
	caddy.RegisterModule(new(Handler))
}

// Handler serves a message API: HTTP clients read from and write to message brokers by
// plain requests, Server-Sent Events and WebSockets.
//
// The definition is the API. Handlers with the same definition, on several ports or paths,
// are one API; the same id with another definition is an error. A reload that does not
// change the definition ends none of its sessions.
//
// Requests to the context path and below it are answered here, also when the answer is an
// error; all others go on to the next handler.
//
// Without a definition it serves the managed APIs, which are kept in the store, each on its
// own context paths.
type Handler struct {
	Definition

	app   *App
	unit  *unit
	names identityNames
	log   *zap.Logger
}

// CaddyModule implements caddy.Module.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.message_api", New: func() caddy.Module { return new(Handler) }}
}

// Provision implements caddy.Provisioner.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.log = ctx.Logger()
	val, err := ctx.App(AppID)
	if err != nil {
		return err
	}
	h.app = val.(*App)
	h.names = h.app.names
	if h.isManaged() {
		return nil
	}
	if err := h.normalize(); err != nil {
		return err
	}
	h.unit, err = acquireUnit(ctx, h.app, &h.Definition, h.where(ctx))
	if err != nil {
		return err
	}
	h.endBeforeSocketsClose(ctx)
	return nil
}

// isManaged says that there is no definition here.
func (d *Definition) isManaged() bool {
	return d.ID == "" && len(d.Paths) == 0 && len(d.EntrypointsRaw) == 0 && len(d.Endpoints) == 0 && len(d.Plans) == 0 && len(d.Subscriptions) == 0
}

// where names the place of the definition in the configuration, for error messages.
func (h *Handler) where(ctx caddy.Context) string {
	paths := strings.Join(h.Paths, " ")
	if srv, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		return fmt.Sprintf("%s on %s", paths, strings.Join(srv.Listen, " "))
	}
	return paths
}

// endBeforeSocketsClose tells HTTP/3 sessions to go when their server stops in a reload
// with a grace period: Caddy then closes its UDP sockets, whatever streams are open.
func (h *Handler) endBeforeSocketsClose(ctx caddy.Context) {
	srv, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok {
		return
	}
	u := h.unit
	srv.RegisterOnShutdown(func() {
		if graceful() {
			sessions.end(Selector{unit: u, h3: true}, entrypoints.End{
				Reason: entrypoints.EndChanged, Detail: "the server's HTTP/3 sockets are being replaced"})
		}
	})
}

// graceful says whether a grace period is configured.
func graceful() bool {
	app, err := caddy.ActiveContext().AppIfConfigured("http")
	if err != nil {
		return false
	}
	http, ok := app.(*caddyhttp.App)
	return ok && http.GracePeriod > 0
}

// Cleanup implements caddy.CleanerUpper.
func (h *Handler) Cleanup() error {
	if h.unit != nil {
		h.unit.release()
	}
	return nil
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if h.unit == nil {
		return h.app.managed.ServeHTTP(w, r, next)
	}
	if !h.covers(r.URL.Path) {
		return next.ServeHTTP(w, r)
	}
	return h.enter(w, r)
}

// enter serves the request by the unit.
func (h *Handler) enter(w http.ResponseWriter, r *http.Request) error {
	// The unit of a configuration that was just replaced serves nobody any more; its
	// successor can.
	u := h.unit
	if !u.enter() {
		if u = runtime.current(h.ID); u == nil || !u.enter() {
			if err := h.gate(); err != nil {
				return h.fail(w, r, "", err)
			}
			return h.fail(w, r, "", &message.Error{Kind: message.Unavailable, RetryAfter: time.Second,
				Detail: "this API is being redeployed: try again"})
		}
	}
	defer u.leave()
	return h.serve(w, r, u)
}

func (h *Handler) covers(path string) bool {
	path = strings.ToLower(caddyhttp.CleanPath(path, true))
	return slices.ContainsFunc(h.Paths, func(context string) bool { return covers(context, path) })
}

// serve is the pipeline. Its order is that of the package comment.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request, u *unit) error {
	g := new(grant)
	var err error
	if g.identity.RequestID, g.identity.TransactionID, err = h.names.ids(r); err != nil {
		return h.fail(w, r, "", err)
	}
	h.names.setRequestHeaders(w.Header(), &g.identity)
	done, err := u.cors(w, r, &h.names)
	if done || err != nil {
		return h.failOr(w, r, g.identity.RequestID, err)
	}
	s, err := h.open(w, r, u, g)
	if err != nil {
		return h.fail(w, r, g.identity.RequestID, err)
	}
	way := s.way
	h.logFields(r, s)
	r, span := s.trace(r)
	err = way.guest.Serve(w, r, s)
	begun := s.close(err)
	span.end(err)
	if begun {
		return nil
	}
	return h.failOr(w, r, g.identity.RequestID, err)
}

// open lets the request in: it becomes a session, or an error.
func (h *Handler) open(w http.ResponseWriter, r *http.Request, u *unit, g *grant) (*session, error) {
	before := changes.Load()
	if err := h.gate(); err != nil {
		return nil, err
	}
	if !u.serves() {
		return nil, errPushes
	}
	if err := h.authorize(r, u, g); err != nil {
		return nil, err
	}
	h.names.setClientHeader(w.Header(), &g.identity)
	way, err := u.match(r)
	if err != nil {
		return nil, err
	}
	if err := h.charge(w, r, u, g); err != nil {
		return nil, err
	}
	s, err := openSession(u, way, h.app, g, r)
	if err != nil {
		return nil, err
	}
	// Something was withdrawn while this one came in, and may have missed it.
	if changes.Load() != before {
		err = h.gate()
		if err == nil {
			err = h.authorize(r, u, new(grant))
		}
		if err != nil {
			s.close(err)
			return nil, err
		}
	}
	u.withhold(r)
	return s, nil
}

// serves says whether there is an entrypoint that clients come to.
func (u *unit) serves() bool {
	return slices.ContainsFunc(u.ways, func(w *way) bool { return w.guest != nil })
}

// errPushes is the answer of an API whose entrypoints all go to their clients.
var errPushes = &entrypoints.Problem{Status: http.StatusNotFound, Slug: "not-found",
	Detail: "this API calls its subscribers: there is nothing to be had by calling it"}

// match finds the entrypoint that the request asks for most specifically.
func (u *unit) match(r *http.Request) (*way, error) {
	var best *way
	most := 0
	for _, w := range u.ways {
		if w.guest == nil {
			continue
		}
		if m := w.guest.Match(r); m > most {
			best, most = w, m
		}
	}
	if best != nil {
		return best, nil
	}
	methods := u.methods()
	if r.Method == http.MethodOptions {
		return nil, &entrypoints.Problem{Status: http.StatusMethodNotAllowed, Slug: "method-not-allowed",
			Detail: "OPTIONS is answered for CORS preflights only", Allow: methods}
	}
	if slices.Contains(methods, r.Method) {
		return nil, &entrypoints.Problem{Status: http.StatusNotAcceptable, Slug: "not-acceptable",
			Detail: "no entrypoint of this API answers such a request; it has " + u.entrypointList()}
	}
	return nil, &entrypoints.Problem{Status: http.StatusMethodNotAllowed, Slug: "method-not-allowed",
		Detail: r.Method + " is not for this API; it has " + u.entrypointList(), Allow: methods}
}

func (u *unit) entrypointList() string {
	var names []string
	for _, w := range u.ways {
		if w.guest != nil {
			names = append(names, w.needs.Type)
		}
	}
	return strings.Join(names, ", ")
}

// clientIP is the client's address as Caddy sees it, trusted proxies honoured.
func clientIP(r *http.Request) string {
	if ip, ok := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string); ok {
		return ip
	}
	return r.RemoteAddr
}

// logFields adds what is known of the exchange to Caddy's access log, if there is one.
func (h *Handler) logFields(r *http.Request, s *session) {
	if fields := accessFields(r); fields != nil {
		fields.Add(zap.Inline(logIdentity{s}))
	}
}

// accessFields is where to add to the access log; nil if there is none.
func accessFields(r *http.Request) *caddyhttp.ExtraLogFields {
	if srv, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); !ok || srv.Logs == nil {
		return nil
	}
	fields, _ := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields)
	return fields
}

func (h *Handler) failOr(w http.ResponseWriter, r *http.Request, requestID string, err error) error {
	if err == nil {
		return nil
	}
	return h.fail(w, r, requestID, err)
}

// fail answers with a problem, or hands it to handle_errors where the API says so. Errors
// of clients that are gone are only logged.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, requestID string, err error) error {
	if _, isProblem := errors.AsType[*entrypoints.Problem](err); !isProblem {
		if _, isKnown := errors.AsType[*message.Error](err); !isKnown && r.Context().Err() != nil {
			h.log.Debug("client went away", zap.Error(err), zap.String("request_id", requestID))
			return nil
		}
	}
	p := entrypoints.AsProblem(err)
	if p.Status >= http.StatusInternalServerError {
		h.log.Warn("request failed", zap.String("api", h.ID), zap.String("request_id", requestID),
			zap.Int("status", p.Status), zap.String("problem", p.Slug), zap.Error(err))
	}
	if h.Errors == "caddy" {
		p.WriteHeaders(w.Header())
		return caddyhttp.Error(p.Status, p)
	}
	p.Write(w, requestID)
	return nil
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
