package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
)

// DeliveryQuery selects deliveries. What is empty selects all.
type DeliveryQuery struct {
	PageQuery
	API, State string
}

// DeliveryPage is one page of the deliveries, in the order of their ids.
func (c *Client) DeliveryPage(ctx context.Context, q DeliveryQuery) (page Page[Delivery], err error) {
	v := q.values()
	setIf(v, "api", q.API)
	setIf(v, "state", q.State)
	return page, c.do(ctx, call{method: http.MethodGet, path: []string{"deliveries"}, query: v}, &page)
}

// Deliveries are the deliveries that q selects, in the order of their ids.
func (c *Client) Deliveries(ctx context.Context, q DeliveryQuery) iter.Seq2[Delivery, error] {
	return All(q.PageQuery, func(p PageQuery) (Page[Delivery], error) {
		q.PageQuery = p
		return c.DeliveryPage(ctx, q)
	})
}

// Delivery is one, with its backlog, its parked messages and last attempts.
func (c *Client) Delivery(ctx context.Context, id string) (d Delivery, err error) {
	return d, c.do(ctx, call{method: http.MethodGet, path: []string{"subscriptions", id, "delivery"}}, &d)
}

// RetryDelivery has one that has failed start again.
func (c *Client) RetryDelivery(ctx context.Context, id string, w Write) (d Delivery, err error) {
	return d, c.act(ctx, w, &d, "subscriptions", id, "retry")
}

// TestDelivery sends a message to the consumer at once. What came of it is in the Attempt; an
// error means that nothing was sent.
func (c *Client) TestDelivery(ctx context.Context, id string, r TestRequest) (a Attempt, err error) {
	return a, c.do(ctx, call{method: http.MethodPost, path: []string{"subscriptions", id, "test"}, body: r}, &a)
}

// DeadLetters are the first dead letters of a subscription, at most limit; 0 is 100.
func (c *Client) DeadLetters(ctx context.Context, id string, limit int) ([]DeadLetter, error) {
	query := url.Values{}
	if limit > 0 {
		query.Set("limit", strconv.Itoa(limit))
	}
	var page Page[DeadLetter]
	err := c.do(ctx, call{method: http.MethodGet, path: []string{"subscriptions", id, "dead_letters"}, query: query}, &page)
	return page.Items, err
}

// Redeliver sends dead letters once more, and calls each after every one of them. When each
// fails, no further one is sent. The report is there with an error too, as far as the gateway
// has told it.
func (c *Client) Redeliver(ctx context.Context, id string, r RedeliverRequest, each func(Redelivered) error) (report RedeliveryReport, err error) {
	text, err := json.Marshal(r)
	if err != nil {
		return report, fmt.Errorf("encoding the request: %w", err)
	}
	path := []string{"subscriptions", id, "dead_letters", "redeliver"}
	response, err := c.send(ctx, call{method: http.MethodPost, path: path}, bytes.NewReader(text))
	if err != nil {
		return report, err
	}
	defer response.Body.Close() // which ends it at the gateway
	lines := json.NewDecoder(response.Body)
	for {
		line := redeliveryLine{Redelivered: new(Redelivered)}
		switch err := lines.Decode(&line); {
		case err == io.EOF:
			return report, fmt.Errorf("the answer broke off: what it told was sent, and perhaps one letter more")
		case err != nil:
			return report, fmt.Errorf("the answer broke off: what it told was sent, and perhaps one letter more: %w", err)
		}
		if line.Done != nil {
			report = *line.Done
		}
		switch {
		case line.Problem != nil:
			return report, line.Problem
		case line.Done != nil:
			return report, nil
		}
		if err := each(*line.Redelivered); err != nil {
			return report, err
		}
	}
}
