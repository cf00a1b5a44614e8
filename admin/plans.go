package admin

import (
	"context"
	"net/http"
	"slices"

	"github.com/caddy-message-api/caddy-message-api/lifecycle"
)

func (s *Server) planRoutes() []route {
	const all, one = "apis/{id}/plans", "apis/{id}/plans/{plan}"
	routes := []route{
		{method: http.MethodGet, pattern: all, query: pages, handle: s.listPlans},
		{method: http.MethodGet, pattern: one, handle: s.getPlan},
		{method: http.MethodPut, pattern: one, action: "plan.save", kind: "plan", handle: s.putPlan},
		{method: http.MethodDelete, pattern: one, action: "plan.delete", kind: "plan", handle: s.deletePlan},
	}
	action := func(name string, act func(*request) planAction) route {
		return route{
			method: http.MethodPost, pattern: one + "/" + name, action: "plan." + name, kind: "plan",
			handle: func(q *request) (reply, error) { return s.actPlan(q, act(q)) },
		}
	}
	return append(routes,
		action("publish", func(*request) planAction { return (*lifecycle.Registry).PublishPlan }),
		action("deprecate", func(*request) planAction { return (*lifecycle.Registry).DeprecatePlan }),
		action("close", closePlan))
}

// closePlan gives the reason to the subscriptions that it closes.
func closePlan(q *request) planAction {
	return func(r *lifecycle.Registry, ctx context.Context, by, id, plan string, version uint64) (lifecycle.API, error) {
		return r.ClosePlan(ctx, by, id, plan, q.audit.reason, version)
	}
}

type planAction func(r *lifecycle.Registry, ctx context.Context, by, id, plan string, version uint64) (lifecycle.API, error)

// listPlans keeps the order in which they stand in the definition; there are few.
func (s *Server) listPlans(q *request) (reply, error) {
	w, err := readWindow(q.Request)
	if err != nil {
		return reply{}, err
	}
	a, ok := s.Lifecycle.Get(q.PathValue("id"))
	if !ok {
		return reply{}, noSuch("message API", q.PathValue("id"))
	}
	plans := s.plansOf(a)
	if w.after != "" {
		plans = plans[slices.IndexFunc(plans, func(p Plan) bool { return p.Name == w.after })+1:]
	}
	return reply{body: pageOf(w, slices.Values(plans), func(p Plan) string { return p.Name })}, nil
}

func (s *Server) getPlan(q *request) (reply, error) {
	a, ok := s.Lifecycle.Get(q.PathValue("id"))
	if !ok {
		return reply{}, noSuch("message API", q.PathValue("id"))
	}
	return s.planReply(a, q.PathValue("plan"))
}

func (s *Server) planReply(a lifecycle.API, name string) (reply, error) {
	plans := s.plansOf(a)
	i := slices.IndexFunc(plans, func(p Plan) bool { return p.Name == name })
	if i < 0 {
		return reply{}, refuse(http.StatusNotFound, NotFound, "API %s has no plan %q", a.ID, clip(name))
	}
	p := plans[i]
	p.Definition, _ = a.Plan(name)
	return reply{body: p, etag: etagWith(a.Version, p)}, nil
}

func (s *Server) putPlan(q *request) (reply, error) {
	createOnly, err := ifNoneMatchAny(q.Request)
	if err != nil {
		return reply{}, err
	}
	definition, err := readDefinition(q)
	if err != nil {
		return reply{}, err
	}
	before, version, done, err := s.api(q)
	defer done()
	if err != nil {
		return reply{}, err
	}
	name := q.PathValue("plan")
	_, there := before.Plan(name)
	if createOnly {
		if there {
			return reply{}, failed("API %s has a plan %s already", before.ID, name)
		}
		version = before.Version // nobody else may make it meanwhile
	}
	after, err := s.Lifecycle.PutPlan(q.ctx, q.by, q.PathValue("id"), name, definition, version)
	if err != nil {
		return reply{}, err
	}
	q.changed(before.Version, after.Version, "saved")
	q.audit.revision = revisionOf(after.Saved)
	answer, err := s.planReply(after, name)
	if err == nil && !there {
		answer.status, answer.location = http.StatusCreated, location("apis", after.ID, "plans", name)
	}
	return answer, err
}

func (s *Server) deletePlan(q *request) (reply, error) {
	before, after, err := s.planChange(q, (*lifecycle.Registry).DeletePlan)
	if err != nil {
		return reply{}, err
	}
	q.changed(before.Version, after.Version, "saved")
	q.audit.revision = revisionOf(after.Saved)
	return reply{}, nil
}

func (s *Server) actPlan(q *request, act planAction) (reply, error) {
	before, after, err := s.planChange(q, act)
	if err != nil {
		return reply{}, err
	}
	q.changed(before.Version, after.Version, "stage")
	return s.planReply(after, q.PathValue("plan"))
}

func (s *Server) planChange(q *request, act planAction) (before, after lifecycle.API, err error) {
	if err := q.readReason(); err != nil {
		return before, after, err
	}
	before, version, done, err := s.api(q)
	defer done()
	if err != nil {
		return before, after, err
	}
	after, err = act(s.Lifecycle, q.ctx, q.by, q.PathValue("id"), q.PathValue("plan"), version)
	return before, after, err
}
