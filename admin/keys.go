package admin

import (
	"net/http"
	"slices"

	"github.com/caddy-message-api/caddy-message-api/subscriptions"
)

func (s *Server) keyRoutes() []route {
	const all, one, kind = "subscriptions/{id}/keys", "keys/{id}", "key"
	return []route{
		{method: http.MethodGet, pattern: all, query: pages, handle: s.listKeys},
		{method: http.MethodPost, pattern: all, action: "key.create", kind: kind, handle: s.addKey},
		{method: http.MethodGet, pattern: one, handle: s.getKey},
		{method: http.MethodPost, pattern: one + "/revoke", action: "key.revoke", kind: kind, handle: s.revokeKey},
		{method: http.MethodPost, pattern: one + "/renew", action: "key.renew", kind: kind, handle: s.renewKey},
		{method: http.MethodPost, pattern: one + "/expire", action: "key.expire", kind: kind, handle: s.expireKey},
	}
}

// listKeys are in the order in which they were made.
func (s *Server) listKeys(q *request) (reply, error) {
	w, err := readWindow(q.Request)
	if err != nil {
		return reply{}, err
	}
	if _, ok := s.Subscriptions.Subscription(q.PathValue("id")); !ok {
		return reply{}, s.noSubscription(q.PathValue("id"))
	}
	keys := convertEach(s.Subscriptions.Keys(q.PathValue("id")), showKey)
	if w.after != "" {
		at := slices.IndexFunc(keys, func(k Key) bool { return k.ID == w.after })
		if at < 0 {
			return reply{}, badAfter(q.URL.Query().Get("after"))
		}
		keys = keys[at+1:]
	}
	return reply{body: pageOf(w, slices.Values(keys), func(k Key) string { return k.ID })}, nil
}

func (s *Server) getKey(q *request) (reply, error) {
	k, ok := s.Subscriptions.Key(q.PathValue("id"))
	if !ok {
		return reply{}, noSuch("key", q.PathValue("id"))
	}
	return keyReply(k), nil
}

func keyReply(k subscriptions.Key) reply { return reply{body: showKey(k), etag: etagOf(k.Version)} }

func newKeyReply(k subscriptions.NewKey) reply {
	return reply{
		status: http.StatusCreated, location: location("keys", k.ID), body: showNewKey(k), etag: etagOf(k.Version), secret: true,
	}
}

// addKey takes the ETag of the subscription.
func (s *Server) addKey(q *request) (reply, error) {
	var body KeyRequest
	q.audit.id, q.audit.of = "", q.audit.id
	if err := readBody(q.w, q.Request, &body, true); err != nil {
		return reply{}, err
	}
	_, when, err := s.subscription(q)
	if err != nil {
		return reply{}, err
	}
	k, err := s.Subscriptions.AddKey(q.ctx, q.by, q.PathValue("id"), subscriptions.KeyRequest{Key: body.Key, Expires: body.Expires}, when)
	if err != nil {
		return reply{}, err
	}
	q.audit.id = k.ID
	q.changed(0, k.Version)
	return newKeyReply(k), nil
}

// key prepares a change of a key: it reads If-Match, and returns what there is now.
func (s *Server) key(q *request) (before subscriptions.Key, when subscriptions.IfVersion, err error) {
	expected, err := ifMatch(q.Request)
	if err != nil {
		return before, 0, err
	}
	before, there := s.Subscriptions.Key(q.PathValue("id"))
	return before, subscriptions.IfVersion(expected.version), expected.check("key "+clip(q.PathValue("id")), before.Version, there)
}

func (s *Server) revokeKey(q *request) (reply, error) {
	if err := q.readReason(); err != nil {
		return reply{}, err
	}
	before, when, err := s.key(q)
	if err != nil {
		return reply{}, err
	}
	after, err := s.Subscriptions.RevokeKey(q.ctx, q.by, q.PathValue("id"), q.audit.reason, when)
	if err != nil {
		return reply{}, err
	}
	q.changed(before.Version, after.Version, "revoked_at")
	return keyReply(after), nil
}

func (s *Server) renewKey(q *request) (reply, error) {
	if err := q.readReason(); err != nil {
		return reply{}, err
	}
	_, when, err := s.key(q)
	if err != nil {
		return reply{}, err
	}
	k, err := s.Subscriptions.RenewKey(q.ctx, q.by, q.PathValue("id"), when)
	if err != nil {
		return reply{}, err
	}
	q.audit.newKey = k.ID
	q.changed(0, k.Version, "expires")
	return newKeyReply(k), nil
}

func (s *Server) expireKey(q *request) (reply, error) {
	var body ExpireRequest
	if err := readBody(q.w, q.Request, &body, false); err != nil {
		return reply{}, err
	}
	if !body.At.Set {
		problem := invalidBody("the body is not what this request takes")
		problem.Problems = []Problem{{Path: "at", Detail: "it is missing: write a time like 2026-12-31T23:59:59Z, or null"}}
		return reply{}, problem
	}
	before, when, err := s.key(q)
	if err != nil {
		return reply{}, err
	}
	after, err := s.Subscriptions.ExpireKey(q.ctx, q.by, q.PathValue("id"), body.At.Value, when)
	if err != nil {
		return reply{}, err
	}
	q.changed(before.Version, after.Version, "expires")
	return keyReply(after), nil
}
