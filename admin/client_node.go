package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strconv"
)

// Endpoints are the connections to brokers of the node that answers.
func (c *Client) Endpoints(ctx context.Context) iter.Seq2[Endpoint, error] {
	return All(PageQuery{}, func(q PageQuery) (page Page[Endpoint], err error) {
		return page, c.do(ctx, call{method: http.MethodGet, path: []string{"endpoints"}, query: q.values()}, &page)
	})
}

// SessionQuery selects sessions. What is empty selects all.
type SessionQuery struct {
	PageQuery
	API, Plan, Application, Subscription string
}

// SessionPage is one page of the open sessions of the node that answers, oldest first.
func (c *Client) SessionPage(ctx context.Context, q SessionQuery) (page Page[Session], err error) {
	v := q.values()
	setIf(v, "api", q.API)
	setIf(v, "plan", q.Plan)
	setIf(v, "application", q.Application)
	setIf(v, "subscription", q.Subscription)
	return page, c.do(ctx, call{method: http.MethodGet, path: []string{"sessions"}, query: v}, &page)
}

// Sessions are the open sessions that q selects, oldest first.
func (c *Client) Sessions(ctx context.Context, q SessionQuery) iter.Seq2[Session, error] {
	return All(q.PageQuery, func(p PageQuery) (Page[Session], error) {
		q.PageQuery = p
		return c.SessionPage(ctx, q)
	})
}

// EndSession ends one session of the node that answers.
func (c *Client) EndSession(ctx context.Context, id uint64) error {
	return c.do(ctx, call{method: http.MethodDelete, path: []string{"sessions", strconv.FormatUint(id, 10)}}, nil)
}

// Store says how the store stands.
func (c *Client) Store(ctx context.Context) (s StoreStatus, err error) {
	return s, c.do(ctx, call{method: http.MethodGet, path: []string{"store"}}, &s)
}

// SyncStore has the node that answers read what the others changed, now.
func (c *Client) SyncStore(ctx context.Context) (s StoreStatus, err error) {
	return s, c.do(ctx, call{method: http.MethodPost, path: []string{"store", "sync"}}, &s)
}

// Export writes everything in the store to w, as one JSON value. There are no keys in it,
// but what the hashes of the keys are made with: keep it as you keep secrets. What was
// written before an error is no export.
func (c *Client) Export(ctx context.Context, w io.Writer) error {
	response, err := c.send(ctx, call{method: http.MethodGet, path: []string{"export"}}, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(w, response.Body); err != nil {
		return fmt.Errorf("the export broke off: %w", err)
	}
	return nil
}

// Import merges an export into the store.
func (c *Client) Import(ctx context.Context, r io.Reader) (report ImportReport, err error) {
	// The reader may be a file, which must stay open: its owner closes it.
	response, err := c.send(ctx, call{method: http.MethodPost, path: []string{"import"}}, io.NopCloser(r))
	if err != nil {
		return report, err
	}
	defer response.Body.Close()
	text, err := readAnswer(response.Body)
	if err != nil {
		return report, err
	}
	if err := json.Unmarshal(text, &report); err != nil {
		return report, fmt.Errorf("the answer to the import: %w", err)
	}
	return report, nil
}
