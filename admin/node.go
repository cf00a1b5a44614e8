package admin

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
)

func (s *Server) nodeRoutes() []route {
	sessionQuery := append([]string{"api", "plan", "application", "subscription"}, pages...)
	return []route{
		{method: http.MethodGet, pattern: "endpoints", query: pages, handle: s.listEndpoints},
		{method: http.MethodGet, pattern: "sessions", query: sessionQuery, handle: s.listSessions},
		{method: http.MethodDelete, pattern: "sessions/{id}", action: "session.end", kind: "session", handle: s.endSession},
		{method: http.MethodGet, pattern: "store", handle: s.getStore},
		{method: http.MethodPost, pattern: "store/sync", handle: s.syncStore},
		// What leaves the house with an export is as good as a change.
		{method: http.MethodGet, pattern: "export", action: "store.export", kind: "store", long: true, handle: s.export},
		{method: http.MethodPost, pattern: "import", action: "store.import", kind: "store", long: true, handle: s.importAll},
	}
}

func (s *Server) listEndpoints(q *request) (reply, error) {
	w, err := readWindow(q.Request)
	if err != nil {
		return reply{}, err
	}
	key := func(e Endpoint) string { return e.API + "\x00" + e.Name }
	return reply{body: pageOf(w, sortedAfter(w, s.Hooks.Endpoints(), key), key)}, nil
}

// listSessions sorts by number: the ids grow, so that sessions that are opened meanwhile come
// last.
func (s *Server) listSessions(q *request) (reply, error) {
	w, err := readWindow(q.Request)
	if err != nil {
		return reply{}, err
	}
	after := uint64(0)
	if w.after != "" {
		if after, err = strconv.ParseUint(w.after, 10, 64); err != nil {
			return reply{}, badAfter(q.URL.Query().Get("after"))
		}
	}
	v := q.URL.Query()
	sessions := s.Hooks.Sessions(SessionQuery{
		API: v.Get("api"), Plan: v.Get("plan"), Application: v.Get("application"), Subscription: v.Get("subscription"),
	})
	slices.SortFunc(sessions, func(a, b Session) int { return cmp.Compare(a.ID, b.ID) })
	start, found := slices.BinarySearchFunc(sessions, after, func(one Session, id uint64) int { return cmp.Compare(one.ID, id) })
	if found {
		start++
	}
	return reply{body: pageOf(w, slices.Values(sessions[start:]), func(one Session) string { return strconv.FormatUint(one.ID, 10) })}, nil
}

func (s *Server) endSession(q *request) (reply, error) {
	if err := q.readReason(); err != nil {
		return reply{}, err
	}
	text := q.PathValue("id")
	id, err := strconv.ParseUint(text, 10, 64)
	if err != nil || id == 0 {
		return reply{}, refuse(http.StatusBadRequest, BadRequest, "the id of a session is a number, not %q", clip(text))
	}
	if !s.Hooks.EndSession(id) {
		return reply{}, refuse(http.StatusNotFound, NotFound, "there is no session %d on this node", id)
	}
	return reply{}, nil
}

// status adds to what the store says what the registries found in it.
func (s *Server) status() StoreStatus {
	status := s.Hooks.Store.Status()
	for _, p := range s.Lifecycle.Problems() {
		status.Problems = append(status.Problems, StoreProblem{Path: p.Path, Detail: p.Detail})
	}
	for _, p := range s.Subscriptions.Problems() {
		status.Problems = append(status.Problems, StoreProblem{Path: p.Path, Detail: p.Detail})
	}
	if status.Problems == nil {
		status.Problems = []StoreProblem{}
	}
	return status
}

func (s *Server) getStore(*request) (reply, error) { return reply{body: s.status()}, nil }

func (s *Server) syncStore(q *request) (reply, error) {
	if err := readBody(q.w, q.Request, &struct{}{}, true); err != nil {
		return reply{}, err
	}
	if err := s.Hooks.Store.Sync(q.ctx); err != nil {
		return reply{}, fmt.Errorf("reading the store: %w", err)
	}
	return reply{body: s.status()}, nil
}
