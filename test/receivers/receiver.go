package receivers

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// kept is how many requests wait for Next before the receiver does.
const kept = 4096

// Receiver is a server that verifies each request with one secret. It answers 204 if the
// signature is right, else 401.
type Receiver struct {
	// URL is where it listens, on loopback and without TLS.
	URL      string
	received chan Received
	// ended is closed when nothing more will come, with the reason in err.
	ended chan struct{}
	err   error
}

// Received is a request as the receiver saw it.
type Received struct {
	// ID is its webhook-id.
	ID string
	// Verified is the library's word. Error is why not.
	Verified bool
	Error    string
	// Helped: the library takes no body that is not UTF-8, and had to be helped over that.
	Helped  bool
	Body    []byte
	Headers http.Header
}

// Next waits for the next request, in the order in which they were answered.
func (r *Receiver) Next(ctx context.Context) (Received, error) {
	select {
	case got := <-r.received:
		return got, nil
	default:
	}
	select {
	case got := <-r.received:
		return got, nil
	case <-r.ended:
		return Received{}, r.err
	case <-ctx.Done():
		return Received{}, context.Cause(ctx)
	}
}

// StartGo starts a receiver in this process, with the official library for Go. It ends with
// the test. secret has the form whsec_<base64>.
func StartGo(t testing.TB, secret string) *Receiver {
	t.Helper()
	webhook, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	r := &Receiver{received: make(chan Received, kept), ended: make(chan struct{}), err: errors.New("the receiver has ended")}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return // it was cut, and nobody waits for an answer
		}
		got := Received{ID: req.Header.Get(standardwebhooks.HeaderWebhookID), Body: body, Headers: req.Header}
		if err := webhook.Verify(body, req.Header); err != nil {
			got.Error = err.Error()
		}
		got.Verified = got.Error == ""
		select {
		case r.received <- got:
		case <-req.Context().Done():
		}
		if got.Verified {
			w.WriteHeader(http.StatusNoContent)
		} else {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	r.URL = server.URL + "/"
	t.Cleanup(func() {
		close(r.ended)
		server.CloseClientConnections() // so that none waits for room
		server.Close()
	})
	return r
}
