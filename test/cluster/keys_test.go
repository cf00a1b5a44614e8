package cluster

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/admin"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// A key that was made on one node lets in on the other, and what is withdrawn on one closes
// the streams on the other: soon, and with no reload.
func TestKeysWorkAndEndEverywhere(t *testing.T) {
	onEach(t, func(t *testing.T, storage string) {
		a, b := startTwo(t, storage, syncInterval)
		s := a.subscribe("orders")
		made := time.Now()
		if got := a.get("/orders", s.key).Status; got != http.StatusOK {
			t.Errorf("a new key gets %d where it was made", got)
		}
		b.sees(made, "a new key", "/orders", s.key, http.StatusOK)

		here, there := open(a, s.key), open(b, s.key)
		act(t, a.admin.Pause, s.subscription)
		paused := time.Now()
		here.ends(paused, "revoked")
		there.ends(paused, "revoked")
		b.sees(paused, "a paused subscription", "/orders", s.key, http.StatusForbidden)

		act(t, b.admin.Resume, s.subscription) // and the other way round
		a.sees(time.Now(), "a resumed subscription", "/orders", s.key, http.StatusOK)

		here, there = open(a, s.key), open(b, s.key)
		second, err := b.admin.AddKey(t.Context(), s.subscription, admin.KeyRequest{})
		if err != nil {
			t.Fatal(err)
		}
		a.sees(time.Now(), "a second key", "/orders", second.Secret, http.StatusOK)
		other := open(b, second.Secret)

		if _, err := a.admin.RevokeKey(t.Context(), s.keyID, admin.Write{Reason: "it leaked"}); err != nil {
			t.Fatal(err)
		}
		revoked := time.Now()
		here.ends(revoked, "revoked")
		there.ends(revoked, "revoked")
		b.sees(revoked, "a revoked key", "/orders", s.key, http.StatusUnauthorized)
		if got := a.get("/orders", s.key).Status; got != http.StatusUnauthorized {
			t.Errorf("a revoked key gets %d where it was revoked", got)
		}
		other.goesOn() // the stream of the other key

		act(t, a.admin.CloseSubscription, s.subscription)
		other.ends(time.Now(), "revoked")
		a.neverReloaded()
		b.neverReloaded()
	})
}

// act does something with a subscription.
func act[R any](t *testing.T, do func(ctx context.Context, id string, w admin.Write) (R, error), id string) {
	t.Helper()
	if _, err := do(t.Context(), id, admin.Write{Reason: "for the test"}); err != nil {
		t.Fatal(err)
	}
}

// stream is an open event stream that somebody reads.
type stream struct {
	n        *node
	messages chan struct{}
	end      chan string // the reason of its goaway, or the error without one
}

// open opens an event stream with a key.
func open(n *node, key string) *stream {
	n.t.Helper()
	client := &http.Client{Transport: n.client.Transport} // no timeout
	e := gateway.OpenEvents(n.t, client, n.URL("/orders"), keyHeader(key)...)
	if e.Answer.Status != http.StatusOK {
		n.t.Fatalf("opening a stream on %s: %d %s", n.name, e.Answer.Status, e.Answer.Body)
	}
	e.MustMessage(n.t)
	s := &stream{n, make(chan struct{}, 1), make(chan string, 1)}
	go s.read(e)
	return s
}

func (s *stream) read(e *gateway.Events) {
	for {
		switch ev, err := e.Message(); {
		case err != nil:
			s.end <- err.Error()
			return
		case ev.Type == "goaway":
			var end struct{ Reason string }
			if err := json.Unmarshal([]byte(ev.Data), &end); err != nil {
				end.Reason = ev.Data
			}
			s.end <- end.Reason
			return
		default:
			select {
			case s.messages <- struct{}{}:
			default:
			}
		}
	}
}

// ends waits for the end of the stream, which must come soon after since.
func (s *stream) ends(since time.Time, reason string) {
	s.n.t.Helper()
	select {
	case got := <-s.end:
		if got != reason {
			s.n.t.Errorf("%s: a stream ended with %q, want %s", s.n.name, got, reason)
		}
		s.n.t.Logf("%s: a stream got goaway %s: after %s", s.n.name, reason, time.Since(since).Round(time.Millisecond))
	case <-time.After(time.Until(since.Add(soon))):
		s.n.t.Errorf("%s: a stream has not ended within %s", s.n.name, soon)
	}
}

// goesOn makes sure that messages still come: two, because the first may have waited.
func (s *stream) goesOn() {
	s.n.t.Helper()
	for range 2 {
		select {
		case <-s.messages:
		case got := <-s.end:
			s.n.t.Fatalf("%s: a stream ended with %q", s.n.name, got)
		case <-time.After(5 * time.Second):
			s.n.t.Fatalf("%s: a stream brings nothing for 5 s", s.n.name)
		}
	}
}
