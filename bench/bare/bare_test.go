//go:build linux

package bare_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-message-api/caddy-message-api/bench/bare"
	"github.com/caddy-message-api/caddy-message-api/bench/load"
)

const patience = 10 * time.Second

// start serves the handler by HTTP/1.1 and by HTTP/2 without TLS.
func start(t *testing.T) (addr string) {
	t.Helper()
	h := new(bare.Handler)
	if err := h.Provision(caddy.Context{}); err != nil {
		t.Fatal(err)
	}
	next := caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		http.Error(w, "nothing is here", http.StatusNotFound)
		return nil
	})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := h.ServeHTTP(w, r, next); err != nil {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// connect makes a fan-out, which ends with the test.
func connect(t *testing.T, target load.Target, n int, pub string) *load.FanOut {
	t.Helper()
	f := &load.FanOut{Patience: patience}
	var err error
	if f.Subs, err = load.Connect(target, n, patience); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, f.Subs) })
	if f.Pub, err = load.NewPublisher(target.Addr, pub, patience); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, f.Pub) })
	return f
}

func closed(t *testing.T, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestFanOut also tests the load: everybody receives everything once, or Settle fails.
func TestFanOut(t *testing.T) {
	const n = 20
	for kind, path := range map[load.Kind]string{load.SSE: "/sse", load.SSE2: "/sse", load.WS: "/ws"} {
		t.Run(string(kind), func(t *testing.T) {
			f := connect(t, load.Target{Addr: start(t), Path: path, Kind: kind}, n, "/pub")
			if err := f.Closed(50*time.Millisecond, 16); err != nil {
				t.Error(err)
			}
			took, err := f.Open(50*time.Millisecond, 5*time.Millisecond)
			if err != nil {
				t.Error(err)
			}
			if len(took) == 0 || f.Subs.Messages() != f.Pub.Sent()*n || f.Subs.Bytes() < f.Subs.Messages()*load.Size {
				t.Errorf("%d messages were sent; %d came in %d bytes, and %d of them were timed",
					f.Pub.Sent(), f.Subs.Messages(), f.Subs.Bytes(), len(took))
			}
		})
	}
}

func TestLossIsNoticed(t *testing.T) {
	target := load.Target{Addr: start(t), Path: "/sse", Kind: load.SSE}
	f := connect(t, target, 2, "/ws") // which publishes nothing
	f.Patience = 50 * time.Millisecond
	if err := f.Closed(10*time.Millisecond, 1); err == nil || !strings.Contains(err.Error(), "lost") {
		t.Errorf("the error is %v", err)
	}
}

func TestOtherPathsAreSomebodyElses(t *testing.T) {
	addr := start(t)
	_, err := load.Connect(load.Target{Addr: addr, Path: "/elsewhere", Kind: load.SSE}, 1, patience)
	if err == nil || !strings.Contains(err.Error(), "nothing is here") {
		t.Errorf("the error is %v", err)
	}
}
