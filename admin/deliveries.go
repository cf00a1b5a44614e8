package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"
)

func (s *Server) deliveryRoutes() []route {
	const one, letters, kind = "subscriptions/{id}", "subscriptions/{id}/dead_letters", "subscription"
	return []route{
		{method: http.MethodGet, pattern: "deliveries", query: append([]string{"api", "state"}, pages...), handle: s.listDeliveries},
		// What asks the broker or the consumer takes as long as they do.
		{method: http.MethodGet, pattern: one + "/delivery", long: true, handle: s.getDelivery},
		{method: http.MethodPost, pattern: one + "/retry", action: "subscription.retry", kind: kind, handle: s.retry},
		{method: http.MethodPost, pattern: one + "/test", action: "subscription.test", kind: kind, handle: s.test},
		{method: http.MethodGet, pattern: letters, query: []string{"limit"}, long: true, handle: s.listDeadLetters},
		{method: http.MethodPost, pattern: letters + "/redeliver", action: "subscription.redeliver", kind: kind, long: true, handle: s.redeliver},
	}
}

func (s *Server) listDeliveries(q *request) (reply, error) {
	w, err := readWindow(q.Request)
	if err != nil {
		return reply{}, err
	}
	v := q.URL.Query()
	state := v.Get("state")
	if state != "" && !slices.Contains(deliveryStates, state) {
		return reply{}, refuse(http.StatusBadRequest, BadRequest, "state is %q: it is %s", clip(state), strings.Join(deliveryStates, ", "))
	}
	if s.Hooks.Push.Deliveries == nil {
		return reply{}, noWebhooks()
	}
	found := slices.DeleteFunc(s.Hooks.Push.Deliveries(v.Get("api")), func(d Delivery) bool { return state != "" && d.State != state })
	id := func(d Delivery) string { return d.Subscription }
	page := pageOf(w, sortedAfter(w, found, id), id)
	for i := range page.Items {
		d := &page.Items[i]
		d.ParkedMessages, d.Parked, d.Recent = len(d.Parked), nil, nil
	}
	return reply{body: page}, nil
}

func (s *Server) getDelivery(q *request) (reply, error) {
	if s.Hooks.Push.Delivery == nil {
		return reply{}, noWebhooks()
	}
	d, err := s.Hooks.Push.Delivery(q.ctx, q.PathValue("id"))
	if err != nil {
		return reply{}, pushProblem(err)
	}
	d.ParkedMessages = len(d.Parked)
	return reply{body: d}, nil
}

// retry answers with the delivery as it is afterwards.
func (s *Server) retry(q *request) (reply, error) {
	if err := q.readReason(); err != nil {
		return reply{}, err
	}
	if s.Hooks.Push.Retry == nil {
		return reply{}, noWebhooks()
	}
	if err := s.Hooks.Push.Retry(q.ctx, q.by, q.PathValue("id")); err != nil {
		return reply{}, pushProblem(err)
	}
	// Whatever comes of looking at it: it is done.
	q.audit.changed = []string{"state"}
	q.audit.write(s.audit.Load(), nil)
	q.audit = nil
	return s.getDelivery(q)
}

const (
	// maxTest bounds the payload of a test, in bytes.
	maxTest = 256 << 10
	// maxContentType bounds its content type.
	maxContentType = 256
)

func (s *Server) test(q *request) (reply, error) {
	var body TestRequest
	if err := readBody(q.w, q.Request, &body, true); err != nil {
		return reply{}, err
	}
	m, err := body.message(q.PathValue("id"))
	if err != nil {
		return reply{}, err
	}
	if s.Hooks.Push.Test == nil {
		return reply{}, noWebhooks()
	}
	attempt, err := s.Hooks.Push.Test(q.ctx, q.PathValue("id"), m)
	if err != nil {
		return reply{}, pushProblem(err)
	}
	q.audit.changed = []string{"1 sent"}
	return reply{body: attempt}, nil
}

// message makes what is sent of what was asked for.
func (t *TestRequest) message(id string) (TestMessage, error) {
	m := TestMessage{ContentType: "application/json"}
	var text string
	switch raw := bytes.TrimSpace(t.Payload); {
	case len(raw) == 0 || string(raw) == "null":
		m.Payload, _ = json.Marshal(map[string]string{"type": "test", "subscription": id}) // texts always marshal
	case json.Unmarshal(raw, &text) == nil:
		m.Payload, m.ContentType = []byte(text), "text/plain; charset=utf-8"
	default:
		m.Payload = raw
	}
	if t.ContentType != "" {
		m.ContentType = t.ContentType
	}
	var problems []Problem
	if len(m.Payload) > maxTest {
		problems = append(problems, Problem{Path: "payload", Detail: fmt.Sprintf("it has %d bytes; at most %d", len(m.Payload), maxTest)})
	}
	kind, _, err := mime.ParseMediaType(m.ContentType)
	if err != nil || !strings.Contains(kind, "/") || len(m.ContentType) > maxContentType || !visible(m.ContentType) {
		problems = append(problems, Problem{Path: "content_type", Detail: "it is none: write it like application/json"})
	}
	return m, wrongBody(problems)
}

// visible says that a header can carry the text.
func visible(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' })
}

// wrongBody is the answer to a body with problems; nil if there are none.
func wrongBody(problems []Problem) error {
	if len(problems) == 0 {
		return nil
	}
	problem := invalidBody("the body is not what this request takes")
	problem.Problems = problems
	return problem
}

// noSubscription is the answer about a subscription that is not in the store.
func (s *Server) noSubscription(id string) error {
	if err := s.declared(id); err != nil {
		return err
	}
	return noSuch("subscription", id)
}

// declared is the answer to who wants to change a subscription that is written in the
// Caddyfile; nil if id is none of those. Other ids have no dot.
func (s *Server) declared(id string) error {
	i := strings.LastIndexByte(id, '.')
	if i < 0 || s.Hooks.Push.Deliveries == nil {
		return nil
	}
	if !slices.ContainsFunc(s.Hooks.Push.Deliveries(id[:i]), func(d Delivery) bool { return d.Static && d.Subscription == id }) {
		return nil
	}
	return refuse(http.StatusNotFound, NotFound,
		"the subscription %q is written in the Caddyfile, and is changed there: here it has only delivery, retry, test and dead_letters", clip(id))
}
