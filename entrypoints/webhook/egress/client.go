package egress

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// NewClient makes a client that follows no redirect and keeps no cookie: a redirect is an
// answer like others. timeout bounds a whole attempt, the response's body included; 0 is no
// bound but that of the request's context.
func NewClient(t http.RoundTripper, timeout time.Duration) *http.Client {
	return &http.Client{
		Transport:     &attempts{next: t, timeout: timeout},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// MayRepeat permits a request to be sent once more, at once, when a kept connection turns out to be
// closed before there is an answer. Servers close connections that are idle, many after 5 s, and
// without it each such close costs an attempt. The server may have had the request: it is
// for deliveries at least once only. Its body must have GetBody. No header is sent for it.
func MayRepeat(r *http.Request) { r.Header["Idempotency-Key"] = nil }

// maxDials is how many connections one attempt may make. More than one is needed where others
// take the new connection first; but a host that takes HTTP/2 connections and no calls over
// them would be given one after the other.
const maxDials = 16

var errTooManyDials = errors.New("the host takes connections, and no calls over them")

// attempts bounds attempts by time. http.Client.Timeout would do that with a goroutine for each, because it
// doesn't know this type.
type attempts struct {
	next    http.RoundTripper
	timeout time.Duration
}

// RoundTrip makes one attempt.
func (a *attempts) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := r.Context(), context.CancelFunc(func() {})
	if a.timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, a.timeout)
	}
	response, err := a.next.RoundTrip(r.WithContext(&attempt{Context: ctx}))
	if err != nil {
		cancel()
		return nil, err
	}
	response.Body = &bounded{ReadCloser: response.Body, cancel: cancel}
	return readable(r, response), nil
}

// attempt is the context of an attempt, which counts its connections.
type attempt struct {
	context.Context
	dials atomic.Int32
}

type attemptKey struct{}

// Value finds the attempt itself.
func (a *attempt) Value(key any) any {
	if key == (attemptKey{}) {
		return a
	}
	return a.Context.Value(key)
}

// mayDial counts a connection.
func mayDial(ctx context.Context) error {
	if a, ok := ctx.Value(attemptKey{}).(*attempt); ok && a.dials.Add(1) > maxDials {
		return errTooManyDials
	}
	return nil
}

// readable takes a Location away that can't be read: http.Client fails on it, even where it is not
// to follow, and the status would be lost.
func readable(r *http.Request, response *http.Response) *http.Response {
	if response.StatusCode/100 == 3 {
		if _, err := r.URL.Parse(response.Header.Get("Location")); err != nil {
			response.Header.Del("Location")
		}
	}
	return response
}

// CloseIdleConnections is what http.Client passes on.
func (a *attempts) CloseIdleConnections() {
	if t, ok := a.next.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// bounded is a body whose attempt ends when it is closed.
type bounded struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b *bounded) Close() error {
	err := b.ReadCloser.Close()
	b.cancel()
	return err
}

// Interface guards
var (
	_ http.RoundTripper = (*attempts)(nil)
	_ io.ReadCloser     = (*bounded)(nil)
)
