package admin

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"strconv"
)

// PageQuery is which part of a list is wanted.
type PageQuery struct {
	// Limit is how many items a page has at most. Default: 100; at most 1000.
	Limit int
	// After is Next of the page before.
	After string
}

func (q PageQuery) values() url.Values {
	v := url.Values{}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.After != "" {
		v.Set("after", q.After)
	}
	return v
}

func setIf(v url.Values, name, value string) {
	if value != "" {
		v.Set(name, value)
	}
}

// All reads page after page. It ends after the first error.
func All[T any](q PageQuery, page func(PageQuery) (Page[T], error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		if q.Limit == 0 {
			q.Limit = 1000
		}
		for {
			p, err := page(q)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, item := range p.Items {
				if !yield(item, nil) {
					return
				}
			}
			if q.After = p.Next; q.After == "" {
				return
			}
		}
	}
}

// APIQuery selects APIs.
type APIQuery struct {
	PageQuery
	// VisibleTo and Groups ask for the catalogue that a user with these groups sees. With
	// neither, it is every API.
	VisibleTo string
	Groups    []string
}

// APIPage is one page of the APIs, in the order of their ids.
func (c *Client) APIPage(ctx context.Context, q APIQuery) (page Page[API], err error) {
	v := q.values()
	setIf(v, "visible_to", q.VisibleTo)
	for _, group := range q.Groups {
		v.Add("group", group)
	}
	return page, c.do(ctx, call{method: http.MethodGet, path: []string{"apis"}, query: v}, &page)
}

// APIs are all APIs, or a user's catalogue, in the order of their ids.
func (c *Client) APIs(ctx context.Context, q APIQuery) iter.Seq2[API, error] {
	return All(q.PageQuery, func(p PageQuery) (Page[API], error) {
		q.PageQuery = p
		return c.APIPage(ctx, q)
	})
}

// API is one API, with the definitions of its revisions.
func (c *Client) API(ctx context.Context, id string) (api API, err error) {
	return api, c.do(ctx, call{method: http.MethodGet, path: []string{"apis", id}}, &api)
}

// Save says how a definition is saved.
type Save struct {
	// IfMatch is as in Write.
	IfMatch string
	// CreateOnly refuses to replace what is there already, with a 412.
	CreateOnly bool
	// Deploy deploys it too: both happen, or neither.
	Deploy bool
}

// SaveAPI saves the definition of a managed API, and makes the API if there is none.
func (c *Client) SaveAPI(ctx context.Context, id string, definition json.RawMessage, s Save) (api API, err error) {
	request := call{method: http.MethodPut, path: []string{"apis", id}, body: definition, ifMatch: s.IfMatch}
	if s.CreateOnly {
		request.ifNoneMatch = "*"
	}
	if s.Deploy {
		request.query = url.Values{"deploy": {"true"}}
	}
	return api, c.do(ctx, request, &api)
}

// CheckAPI says what SaveAPI would, and changes nothing.
func (c *Client) CheckAPI(ctx context.Context, id string, definition json.RawMessage, deploy bool) (dry Dry, err error) {
	query := url.Values{"dry_run": {"true"}}
	if deploy {
		query.Set("deploy", "true")
	}
	return dry, c.do(ctx, call{method: http.MethodPut, path: []string{"apis", id}, query: query, body: definition}, &dry)
}

// DeleteAPI deletes a managed API that is stopped and has no plans.
func (c *Client) DeleteAPI(ctx context.Context, id string, w Write) error {
	return c.do(ctx, call{method: http.MethodDelete, path: []string{"apis", id}, body: w.reason(), ifMatch: w.IfMatch}, nil)
}

// reason is the body of an action; nil if there is nothing to say.
func (w Write) reason() any {
	if w.Reason == "" {
		return nil
	}
	return Reason{Reason: w.Reason}
}

func (c *Client) act(ctx context.Context, w Write, out any, path ...string) error {
	return c.do(ctx, call{method: http.MethodPost, path: path, body: w.reason(), ifMatch: w.IfMatch}, out)
}

// DeployAPI serves what is saved, on every node. The first time it starts the API too.
func (c *Client) DeployAPI(ctx context.Context, id string, w Write) (api API, err error) {
	return api, c.act(ctx, w, &api, "apis", id, "deploy")
}

// StartAPI serves what is deployed.
func (c *Client) StartAPI(ctx context.Context, id string, w Write) (api API, err error) {
	return api, c.act(ctx, w, &api, "apis", id, "start")
}

// StopAPI ends the sessions of the API and answers 404 in its place.
func (c *Client) StopAPI(ctx context.Context, id string, w Write) (api API, err error) {
	return api, c.act(ctx, w, &api, "apis", id, "stop")
}

// PublishAPI puts the API into the catalogue.
func (c *Client) PublishAPI(ctx context.Context, id string, w Write) (api API, err error) {
	return api, c.act(ctx, w, &api, "apis", id, "publish")
}

// UnpublishAPI takes the API out of the catalogue.
func (c *Client) UnpublishAPI(ctx context.Context, id string, w Write) (api API, err error) {
	return api, c.act(ctx, w, &api, "apis", id, "unpublish")
}

// MakeAPIPublic shows a published API to everybody.
func (c *Client) MakeAPIPublic(ctx context.Context, id string, w Write) (api API, err error) {
	return api, c.act(ctx, w, &api, "apis", id, "make_public")
}

// MakeAPIPrivate shows a published API to its members alone.
func (c *Client) MakeAPIPrivate(ctx context.Context, id string, w Write) (api API, err error) {
	return api, c.act(ctx, w, &api, "apis", id, "make_private")
}

// DeprecateAPI refuses new subscriptions to the API for ever.
func (c *Client) DeprecateAPI(ctx context.Context, id string, w Write) (api API, err error) {
	return api, c.act(ctx, w, &api, "apis", id, "deprecate")
}

// SetMembers replaces the members of an API.
func (c *Client) SetMembers(ctx context.Context, id string, members []string, ifMatch string) (api API, err error) {
	body := Members{Members: append([]string{}, members...)} // never null
	return api, c.do(ctx, call{method: http.MethodPut, path: []string{"apis", id, "members"}, body: body, ifMatch: ifMatch}, &api)
}

// Plans are the plans of an API, in the order in which they are asked.
func (c *Client) Plans(ctx context.Context, api string) iter.Seq2[Plan, error] {
	return All(PageQuery{}, func(q PageQuery) (page Page[Plan], err error) {
		return page, c.do(ctx, call{method: http.MethodGet, path: []string{"apis", api, "plans"}, query: q.values()}, &page)
	})
}

// Plan is one plan of an API, with its definition.
func (c *Client) Plan(ctx context.Context, api, plan string) (p Plan, err error) {
	return p, c.do(ctx, call{method: http.MethodGet, path: []string{"apis", api, "plans", plan}}, &p)
}

// PutPlan saves a plan of a managed API. A new one is in staging. ifMatch is the API's.
func (c *Client) PutPlan(ctx context.Context, api, plan string, definition json.RawMessage, ifMatch string) (p Plan, err error) {
	return p, c.do(ctx, call{method: http.MethodPut, path: []string{"apis", api, "plans", plan}, body: definition, ifMatch: ifMatch}, &p)
}

// DeletePlan takes a plan out of the saved definition of a managed API.
func (c *Client) DeletePlan(ctx context.Context, api, plan string, w Write) error {
	return c.do(ctx, call{method: http.MethodDelete, path: []string{"apis", api, "plans", plan}, body: w.reason(), ifMatch: w.IfMatch}, nil)
}

// PublishPlan lets applications subscribe to a plan in staging.
func (c *Client) PublishPlan(ctx context.Context, api, plan string, w Write) (p Plan, err error) {
	return p, c.act(ctx, w, &p, "apis", api, "plans", plan, "publish")
}

// DeprecatePlan refuses new subscriptions to a plan.
func (c *Client) DeprecatePlan(ctx context.Context, api, plan string, w Write) (p Plan, err error) {
	return p, c.act(ctx, w, &p, "apis", api, "plans", plan, "deprecate")
}

// ClosePlan closes a plan and every subscription to it, for ever.
func (c *Client) ClosePlan(ctx context.Context, api, plan string, w Write) (p Plan, err error) {
	return p, c.act(ctx, w, &p, "apis", api, "plans", plan, "close")
}
