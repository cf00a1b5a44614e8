package httpget

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
)

// Serve collects messages and answers with them.
func (e *Entrypoint) Serve(w http.ResponseWriter, r *http.Request, s entrypoints.Session) error {
	start := time.Now()
	header := w.Header()
	header.Add("Vary", "Accept")
	f, ok := negotiate(r.Header["Accept"])
	if !ok {
		return notAcceptable()
	}
	ask, err := e.parseAsk(r)
	if err != nil {
		return err
	}
	c := newCollector(e, ask.limit, start.Add(time.Duration(e.DurationLimit)))
	defer c.stop()
	feed, err := s.Subscribe(r.Context(), entrypoints.Want{
		Cursor: ask.cursor, Resuming: ask.resuming, From: ask.from,
		Encoder: f.encoder(e), Wake: c.wakeUp, Brief: true, Limit: ask.limit,
		AckWait: time.Duration(e.AckWait),
	})
	if err != nil {
		return err
	}
	defer closeFeed(r.Context(), feed, s)
	c.collect(r.Context(), feed, s)
	if r.Context().Err() != nil {
		return fmt.Errorf("the client left before its answer: %w", context.Cause(r.Context()))
	}
	if c.err != nil && c.messages == 0 {
		return c.err
	}
	return e.answer(w, r, s, feed, f, &c.collected, ask)
}

// answer writes the response, and tells the feed only when it is out.
func (e *Entrypoint) answer(w http.ResponseWriter, r *http.Request, s entrypoints.Session, feed entrypoints.Feed,
	f *format, c *collected, ask ask,
) error {
	if c.err != nil {
		s.Logger().Warn("reading failed in the middle of a response", zap.Error(c.err), zap.Int("messages", c.messages))
	}
	head := f.head
	items := c.items
	if f.separated && len(items) > 0 {
		items = items[1:] // each item brings a separator before it, also the first
	}
	tail := f.tail(nil, c, feed.Cursor(nil), ask)

	h := w.Header()
	h.Set("Content-Type", f.contentType)
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(head)+len(items)+len(tail)))
	out := entrypoints.NewWriter(w, r, 0)
	defer out.Finish()
	for _, part := range [...][]byte{head, items, tail} {
		if err := out.Put(part); err != nil {
			return err
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	s.Sent(c.messages, c.bytes)
	if c.messages == 0 && len(c.gaps) == 0 {
		return nil
	}
	if err := feed.Written(context.WithoutCancel(r.Context())); err != nil {
		s.Logger().Warn("messages that were delivered could not be settled", zap.Error(err))
	}
	return nil
}

func closeFeed(ctx context.Context, feed entrypoints.Feed, s entrypoints.Session) {
	if err := feed.Close(context.WithoutCancel(ctx)); err != nil {
		s.Logger().Warn("ending the subscription failed", zap.Error(err))
	}
}

// ask is what the client asks for by query parameters.
type ask struct {
	limit    int
	limited  bool
	cursor   string
	resuming bool
	from     string
}

func (e *Entrypoint) parseAsk(r *http.Request) (ask, error) {
	a := ask{limit: e.MessagesLimit}
	query, err := entrypoints.ParseQuery(r)
	if err != nil {
		return a, err
	}
	limit, given, err := query.Get("limit")
	if err != nil {
		return a, err
	}
	if given {
		n, err := parseLimit(limit)
		if err != nil {
			return a, err
		}
		a.limit, a.limited = int(min(n, int64(e.MessagesLimit))), true
	}
	if a.cursor, _, err = query.Get("cursor"); err != nil {
		return a, err
	}
	a.resuming = a.cursor != "" // a first request may well say "cursor=" and nothing
	a.from, _, err = query.Get("from")
	return a, err
}

func parseLimit(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 1 || s[0] == '+' {
		return 0, &entrypoints.Problem{
			Status: http.StatusBadRequest, Slug: "bad-limit",
			Detail: fmt.Sprintf("limit %.40q is not a whole number of at least 1", s), Err: err,
		}
	}
	return n, nil
}
