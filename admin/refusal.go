package admin

import (
	"encoding/json"
	"errors"
	"net/http"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/lifecycle"
	"github.com/caddy-message-api/caddy-message-api/subscriptions"
)

// problemOf makes a problem of any error. What nobody foresaw goes to the log alone.
func (s *Server) problemOf(err error, r *http.Request) *ProblemDetails {
	if problem, ok := errors.AsType[*ProblemDetails](err); ok {
		return problem
	}
	if e, ok := errors.AsType[*lifecycle.Error](err); ok {
		return refusal(lifecycleKinds[e.Kind], e.Detail, convertEach(e.Problems, func(p lifecycle.Problem) Problem { return Problem(p) }))
	}
	if e, ok := errors.AsType[*subscriptions.Error](err); ok {
		return refusal(subscriptionKinds[e.Kind], e.Detail, convertEach(e.Problems, func(p subscriptions.Problem) Problem { return Problem(p) }))
	}
	s.log.Load().Error("admin request failed", zap.String("method", r.Method), zap.String("path", r.URL.Path), zap.Error(err))
	return storeProblem(err)
}

var lifecycleKinds = map[lifecycle.Kind]string{
	lifecycle.NotFound: NotFound, lifecycle.Conflict: Conflict, lifecycle.Invalid: InvalidValue, lifecycle.Precondition: Precondition,
}

var subscriptionKinds = map[subscriptions.Kind]string{
	subscriptions.NotFound: NotFound, subscriptions.Conflict: Conflict, subscriptions.Invalid: InvalidValue, subscriptions.Precondition: Precondition,
}

var refusals = map[string]int{
	NotFound: http.StatusNotFound, Conflict: http.StatusConflict,
	InvalidValue: http.StatusBadRequest, Precondition: http.StatusPreconditionFailed,
}

func refusal(slug, detail string, problems []Problem) *ProblemDetails {
	status, ok := refusals[slug]
	if !ok {
		slug, status = Internal, http.StatusInternalServerError
	}
	problem := refuse(status, slug, "%s", detail)
	problem.Problems = problems
	return problem
}

// write answers with the problem.
func (p *ProblemDetails) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	if p.Status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "5")
	}
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // a client that has vanished is no news
}
