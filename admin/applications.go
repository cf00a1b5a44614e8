package admin

import (
	"net/http"

	"github.com/caddy-message-api/caddy-message-api/subscriptions"
)

func (s *Server) applicationRoutes() []route {
	const all, one, kind = "applications", "applications/{id}", "application"
	return []route{
		{method: http.MethodGet, pattern: all, query: pages, handle: s.listApplications},
		{method: http.MethodPost, pattern: all, action: "application.create", kind: kind, handle: s.createApplication},
		{method: http.MethodGet, pattern: one, handle: s.getApplication},
		{method: http.MethodPatch, pattern: one, action: "application.update", kind: kind, handle: s.patchApplication},
		{method: http.MethodDelete, pattern: one, action: "application.archive", kind: kind, handle: s.archiveApplication},
	}
}

func (s *Server) listApplications(q *request) (reply, error) {
	w, err := readWindow(q.Request)
	if err != nil {
		return reply{}, err
	}
	page := pageOf(w, s.Subscriptions.ApplicationsAfter(w.after), func(a subscriptions.Application) string { return a.ID })
	return reply{body: Page[Application]{Next: page.Next, Items: convertEach(page.Items, showApplication)}}, nil
}

func (s *Server) getApplication(q *request) (reply, error) {
	a, ok := s.Subscriptions.Application(q.PathValue("id"))
	if !ok {
		return reply{}, noSuch("application", q.PathValue("id"))
	}
	return applicationReply(a), nil
}

func applicationReply(a subscriptions.Application) reply {
	return reply{body: showApplication(a), etag: etagOf(a.Version)}
}

func (s *Server) createApplication(q *request) (reply, error) {
	var body NewApplication
	if err := readBody(q.w, q.Request, &body, false); err != nil {
		return reply{}, err
	}
	q.audit.id = clip(body.ID)
	a, err := s.Subscriptions.CreateApplication(q.ctx, q.by, subscriptions.Application{
		ID: body.ID, Name: body.Name, Description: body.Description, ClientID: body.ClientID, Owner: body.Owner,
	})
	if err != nil {
		return reply{}, err
	}
	q.audit.id = a.ID
	q.changed(0, a.Version)
	answer := applicationReply(a)
	answer.status, answer.location = http.StatusCreated, location("applications", a.ID)
	return answer, nil
}

// application prepares a change of an application: it reads If-Match, and returns what there
// is now.
func (s *Server) application(q *request) (before subscriptions.Application, version uint64, err error) {
	expected, err := ifMatch(q.Request)
	if err != nil {
		return before, 0, err
	}
	before, there := s.Subscriptions.Application(q.PathValue("id"))
	return before, expected.version, expected.check("application "+clip(q.PathValue("id")), before.Version, there)
}

func (s *Server) patchApplication(q *request) (reply, error) {
	var body ApplicationPatch
	if err := readBody(q.w, q.Request, &body, false); err != nil {
		return reply{}, err
	}
	before, version, err := s.application(q)
	if err != nil {
		return reply{}, err
	}
	q.audit.changed = body.names()
	after, err := s.Subscriptions.UpdateApplication(q.ctx, q.by, q.PathValue("id"), version, subscriptions.ApplicationPatch{
		Name: body.Name.pointer(), Description: body.Description.pointer(), ClientID: body.ClientID.pointer(), Owner: body.Owner.pointer(),
	})
	if err != nil {
		return reply{}, err
	}
	q.changed(before.Version, after.Version, body.names()...)
	return applicationReply(after), nil
}

func (p *ApplicationPatch) names() []string {
	return set(map[string]bool{"name": p.Name.Set, "description": p.Description.Set, "client_id": p.ClientID.Set, "owner": p.Owner.Set})
}

func (s *Server) archiveApplication(q *request) (reply, error) {
	if err := q.readReason(); err != nil {
		return reply{}, err
	}
	before, version, err := s.application(q)
	if err != nil {
		return reply{}, err
	}
	after, err := s.Subscriptions.ArchiveApplication(q.ctx, q.by, q.PathValue("id"), version)
	if err != nil {
		return reply{}, err
	}
	q.changed(before.Version, after.Version, "archived")
	return applicationReply(after), nil
}
