package admin

import (
	"context"
	"iter"
	"net/http"
	"time"
)

// ApplicationPage is one page of the applications.
func (c *Client) ApplicationPage(ctx context.Context, q PageQuery) (page Page[Application], err error) {
	return page, c.do(ctx, call{method: http.MethodGet, path: []string{"applications"}, query: q.values()}, &page)
}

// Applications are all applications, archived ones too.
func (c *Client) Applications(ctx context.Context) iter.Seq2[Application, error] {
	return All(PageQuery{}, func(q PageQuery) (Page[Application], error) { return c.ApplicationPage(ctx, q) })
}

// Application is one application.
func (c *Client) Application(ctx context.Context, id string) (a Application, err error) {
	return a, c.do(ctx, call{method: http.MethodGet, path: []string{"applications", id}}, &a)
}

// CreateApplication makes an application.
func (c *Client) CreateApplication(ctx context.Context, n NewApplication) (a Application, err error) {
	return a, c.do(ctx, call{method: http.MethodPost, path: []string{"applications"}, body: n}, &a)
}

// UpdateApplication changes what the patch names.
func (c *Client) UpdateApplication(ctx context.Context, id string, patch ApplicationPatch, ifMatch string) (a Application, err error) {
	return a, c.do(ctx, call{method: http.MethodPatch, path: []string{"applications", id}, body: patch, ifMatch: ifMatch}, &a)
}

// ArchiveApplication closes the subscriptions of an application, and it gets no new ones.
func (c *Client) ArchiveApplication(ctx context.Context, id string, w Write) (a Application, err error) {
	return a, c.do(ctx, call{method: http.MethodDelete, path: []string{"applications", id}, body: w.reason(), ifMatch: w.IfMatch}, &a)
}

// SubscriptionQuery selects subscriptions. What is empty selects all.
type SubscriptionQuery struct {
	PageQuery
	API, Plan, Application, Status string
}

// SubscriptionPage is one page of the subscriptions, oldest first.
func (c *Client) SubscriptionPage(ctx context.Context, q SubscriptionQuery) (page Page[Subscription], err error) {
	v := q.values()
	setIf(v, "api", q.API)
	setIf(v, "plan", q.Plan)
	setIf(v, "application", q.Application)
	setIf(v, "status", q.Status)
	return page, c.do(ctx, call{method: http.MethodGet, path: []string{"subscriptions"}, query: v}, &page)
}

// Subscriptions are all subscriptions that q selects, oldest first.
func (c *Client) Subscriptions(ctx context.Context, q SubscriptionQuery) iter.Seq2[Subscription, error] {
	return All(q.PageQuery, func(p PageQuery) (Page[Subscription], error) {
		q.PageQuery = p
		return c.SubscriptionPage(ctx, q)
	})
}

// Subscription is one subscription.
func (c *Client) Subscription(ctx context.Context, id string) (s Subscription, err error) {
	return s, c.do(ctx, call{method: http.MethodGet, path: []string{"subscriptions", id}}, &s)
}

// Subscribe makes a subscription. Where the plan accepts by itself and goes by API keys,
// NewKey holds the key.
func (c *Client) Subscribe(ctx context.Context, r SubscribeRequest) (s Subscription, err error) {
	return s, c.do(ctx, call{method: http.MethodPost, path: []string{"subscriptions"}, body: r}, &s)
}

// UpdateSubscription changes what the patch names.
func (c *Client) UpdateSubscription(ctx context.Context, id string, patch SubscriptionPatch, ifMatch string) (s Subscription, err error) {
	return s, c.do(ctx, call{method: http.MethodPatch, path: []string{"subscriptions", id}, body: patch, ifMatch: ifMatch}, &s)
}

// Accept accepts a pending subscription. Where the plan goes by API keys, NewKey holds the
// key.
func (c *Client) Accept(ctx context.Context, id string, r AcceptRequest, ifMatch string) (s Subscription, err error) {
	return s, c.do(ctx, call{method: http.MethodPost, path: []string{"subscriptions", id, "accept"}, body: r, ifMatch: ifMatch}, &s)
}

// Reject refuses a pending subscription.
func (c *Client) Reject(ctx context.Context, id string, w Write) (s Subscription, err error) {
	return s, c.act(ctx, w, &s, "subscriptions", id, "reject")
}

// Pause lets nobody in by an accepted subscription until it is resumed.
func (c *Client) Pause(ctx context.Context, id string, w Write) (s Subscription, err error) {
	return s, c.act(ctx, w, &s, "subscriptions", id, "pause")
}

// Resume ends a pause.
func (c *Client) Resume(ctx context.Context, id string, w Write) (s Subscription, err error) {
	return s, c.act(ctx, w, &s, "subscriptions", id, "resume")
}

// CloseSubscription ends a subscription for ever.
func (c *Client) CloseSubscription(ctx context.Context, id string, w Write) (s Subscription, err error) {
	return s, c.act(ctx, w, &s, "subscriptions", id, "close")
}

// Keys are the keys of a subscription, those that are no good any more too.
func (c *Client) Keys(ctx context.Context, subscription string) iter.Seq2[Key, error] {
	return All(PageQuery{}, func(q PageQuery) (page Page[Key], err error) {
		return page, c.do(ctx, call{method: http.MethodGet, path: []string{"subscriptions", subscription, "keys"}, query: q.values()}, &page)
	})
}

// Key is one key.
func (c *Client) Key(ctx context.Context, id string) (k Key, err error) {
	return k, c.do(ctx, call{method: http.MethodGet, path: []string{"keys", id}}, &k)
}

// AddKey makes one more key.
func (c *Client) AddKey(ctx context.Context, subscription string, r KeyRequest) (k NewKey, err error) {
	return k, c.do(ctx, call{method: http.MethodPost, path: []string{"subscriptions", subscription, "keys"}, body: r}, &k)
}

// RenewKey makes a new key, and has all others of the subscription end soon.
func (c *Client) RenewKey(ctx context.Context, id string, w Write) (k NewKey, err error) {
	return k, c.act(ctx, w, &k, "keys", id, "renew")
}

// RevokeKey takes a key back at once.
func (c *Client) RevokeKey(ctx context.Context, id string, w Write) (k Key, err error) {
	return k, c.act(ctx, w, &k, "keys", id, "revoke")
}

// ExpireKey has a key end at a time, at the latest with its subscription, which is also what
// the zero time means.
func (c *Client) ExpireKey(ctx context.Context, id string, at time.Time, ifMatch string) (k Key, err error) {
	return k, c.do(ctx, call{method: http.MethodPost, path: []string{"keys", id, "expire"}, body: ExpireRequest{At: Some(at)}, ifMatch: ifMatch}, &k)
}
