package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"

	"github.com/caddy-message-api/caddy-message-api/plans"
	"github.com/caddy-message-api/caddy-message-api/subscriptions"
)

func (s *Server) subscriptionRoutes() []route {
	const all, one, kind = "subscriptions", "subscriptions/{id}", "subscription"
	filter := append([]string{"api", "plan", "application", "status"}, pages...)
	routes := []route{
		{method: http.MethodGet, pattern: all, query: filter, handle: s.listSubscriptions},
		{method: http.MethodPost, pattern: all, action: "subscription.create", kind: kind, handle: s.subscribe},
		{method: http.MethodGet, pattern: one, handle: s.getSubscription},
		{method: http.MethodPatch, pattern: one, action: "subscription.update", kind: kind, handle: s.patchSubscription},
		{method: http.MethodPost, pattern: one + "/accept", action: "subscription.accept", kind: kind, handle: s.accept},
	}
	actions := []struct {
		name string
		act  subscriptionAction
	}{
		{"reject", (*subscriptions.Registry).Reject},
		{"pause", (*subscriptions.Registry).Pause},
		{"resume", (*subscriptions.Registry).Resume},
		{"close", (*subscriptions.Registry).CloseSubscription},
	}
	for _, a := range actions {
		routes = append(routes, route{
			method: http.MethodPost, pattern: one + "/" + a.name, action: "subscription." + a.name, kind: kind,
			handle: func(q *request) (reply, error) { return s.actSubscription(q, a.act) },
		})
	}
	return routes
}

type subscriptionAction func(r *subscriptions.Registry, ctx context.Context, by, id, reason string, when ...subscriptions.IfVersion) (subscriptions.Subscription, error)

func (s *Server) listSubscriptions(q *request) (reply, error) {
	w, err := readWindow(q.Request)
	if err != nil {
		return reply{}, err
	}
	v := q.URL.Query()
	status := subscriptions.Status(v.Get("status"))
	if known := []subscriptions.Status{"", subscriptions.Pending, subscriptions.Accepted, subscriptions.Paused, subscriptions.Closed, subscriptions.Rejected}; !slices.Contains(known, status) {
		return reply{}, refuse(http.StatusBadRequest, BadRequest, "status is %q: it is pending, accepted, paused, closed or rejected", clip(string(status)))
	}
	found, err := s.Subscriptions.Subscriptions(subscriptions.Filter{
		API: v.Get("api"), Plan: v.Get("plan"), Application: v.Get("application"), Status: status, After: w.after,
	})
	if err != nil {
		return reply{}, badAfter(v.Get("after"))
	}
	page := pageOf(w, found, func(one subscriptions.Subscription) string { return one.Cursor() })
	return reply{body: Page[Subscription]{Next: page.Next, Items: convertEach(page.Items, showSubscription)}}, nil
}

func (s *Server) getSubscription(q *request) (reply, error) {
	one, ok := s.Subscriptions.Subscription(q.PathValue("id"))
	if !ok {
		return reply{}, s.noSubscription(q.PathValue("id"))
	}
	return subscriptionReply(one, nil), nil
}

// subscriptionReply shows the key that was made with the subscription, if there is one, and
// its consumer configuration with all its secrets, if that was made.
func subscriptionReply(one subscriptions.Subscription, key *subscriptions.NewKey) reply {
	shown := showSubscription(one)
	if key != nil {
		shown.NewKey = showNewKey(*key)
	}
	if one.NewConsumer != nil {
		shown.Consumer = one.NewConsumer
	}
	return reply{body: shown, etag: etagOf(one.Version), secret: key != nil || one.NewConsumer != nil}
}

func (s *Server) subscribe(q *request) (reply, error) {
	var body SubscribeRequest
	if err := readBody(q.w, q.Request, &body, false); err != nil {
		return reply{}, err
	}
	q.audit.of = clip(body.API) + "/" + clip(body.Plan) + "/" + clip(body.Application)
	limits, err := body.Limits.parse()
	if err != nil {
		return reply{}, err
	}
	one, key, err := s.Subscriptions.Subscribe(q.ctx, q.by, subscriptions.SubscribeRequest{
		API: body.API, Plan: body.Plan, Application: body.Application, Message: body.Message, Metadata: body.Metadata,
		ConditionsAccepted: body.ConditionsAccepted, Starts: body.Starts, Ends: body.Ends, Limits: limits, Key: body.Key,
		Consumer: noNull(body.Consumer),
	})
	if err != nil {
		return reply{}, err
	}
	q.audit.id = one.ID
	q.made(key)
	q.changed(0, one.Version)
	answer := subscriptionReply(one, key)
	answer.status, answer.location = http.StatusCreated, location("subscriptions", one.ID)
	return answer, nil
}

// made notes in the audit log the id of a key that was made on the way.
func (q *request) made(key *subscriptions.NewKey) {
	if key != nil {
		q.audit.newKey = key.ID
	}
}

// subscription prepares a change of a subscription: it reads If-Match, and returns what there
// is now.
func (s *Server) subscription(q *request) (before subscriptions.Subscription, when subscriptions.IfVersion, err error) {
	expected, err := ifMatch(q.Request)
	if err != nil {
		return before, 0, err
	}
	before, there := s.Subscriptions.Subscription(q.PathValue("id"))
	if !there {
		if err := s.declared(q.PathValue("id")); err != nil {
			return before, 0, err
		}
	}
	return before, subscriptions.IfVersion(expected.version), expected.check("subscription "+clip(q.PathValue("id")), before.Version, there)
}

func (s *Server) patchSubscription(q *request) (reply, error) {
	var body SubscriptionPatch
	if err := readBody(q.w, q.Request, &body, false); err != nil {
		return reply{}, err
	}
	patch, err := body.convert()
	if err != nil {
		return reply{}, err
	}
	before, when, err := s.subscription(q)
	if err != nil {
		return reply{}, err
	}
	q.audit.changed = body.names()
	after, err := s.Subscriptions.UpdateSubscription(q.ctx, q.by, q.PathValue("id"), uint64(when), patch)
	if err != nil {
		return reply{}, err
	}
	q.changed(before.Version, after.Version, body.names()...)
	return subscriptionReply(after, nil), nil
}

func (p *SubscriptionPatch) names() []string {
	return set(map[string]bool{"starts": p.Starts.Set, "ends": p.Ends.Set, "limits": p.Limits.Set, "metadata": p.Metadata.Set, "consumer": p.Consumer.Set})
}

// noNull makes null what it is elsewhere: as if it were absent.
func noNull(raw json.RawMessage) json.RawMessage {
	if string(raw) == "null" {
		return nil
	}
	return raw
}

// convert makes what is taken away into what the registry calls so.
func (p *SubscriptionPatch) convert() (subscriptions.SubscriptionPatch, error) {
	patch := subscriptions.SubscriptionPatch{Starts: p.Starts.pointer(), Ends: p.Ends.pointer()}
	if p.Metadata.Set {
		patch.Metadata = map[string]string{}
		maps.Copy(patch.Metadata, p.Metadata.Value)
	}
	if p.Consumer.Set {
		if patch.Consumer = noNull(p.Consumer.Value); patch.Consumer == nil {
			return patch, wrongBody([]Problem{{Path: "consumer", Detail: "it can't be taken away: pause or close the subscription instead"}})
		}
	}
	if !p.Limits.Set {
		return patch, nil
	}
	limits, err := p.Limits.Value.parse()
	patch.Limits = cmp.Or(limits, new(plans.Limits))
	return patch, err
}

// set are the names that are set, in order.
func set(names map[string]bool) []string {
	maps.DeleteFunc(names, func(_ string, is bool) bool { return !is })
	return slices.Sorted(maps.Keys(names))
}

func (s *Server) accept(q *request) (reply, error) {
	var body AcceptRequest
	if err := readBody(q.w, q.Request, &body, true); err != nil {
		return reply{}, err
	}
	if err := q.giveReason(body.Reason); err != nil {
		return reply{}, err
	}
	before, when, err := s.subscription(q)
	if err != nil {
		return reply{}, err
	}
	after, key, err := s.Subscriptions.Accept(q.ctx, q.by, q.PathValue("id"), subscriptions.AcceptRequest{
		Starts: body.Starts, Ends: body.Ends, Reason: body.Reason, Key: body.Key,
	}, when)
	if err != nil {
		return reply{}, err
	}
	q.made(key)
	q.changed(before.Version, after.Version, "status")
	return subscriptionReply(after, key), nil
}

func (s *Server) actSubscription(q *request, act subscriptionAction) (reply, error) {
	if err := q.readReason(); err != nil {
		return reply{}, err
	}
	before, when, err := s.subscription(q)
	if err != nil {
		return reply{}, err
	}
	after, err := act(s.Subscriptions, q.ctx, q.by, q.PathValue("id"), q.audit.reason, when)
	if err != nil {
		return reply{}, err
	}
	q.changed(before.Version, after.Version, "status")
	return subscriptionReply(after, nil), nil
}
