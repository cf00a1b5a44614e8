package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
)

// counted is a server that counts its connections.
type counted struct {
	*httptest.Server
	opened, open, most atomic.Int64
}

func newCounted(t *testing.T, secure bool, change func(*http.Server), h http.HandlerFunc) *counted {
	t.Helper()
	c := &counted{Server: httptest.NewUnstartedServer(h)}
	c.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			c.opened.Add(1)
			now := c.open.Add(1)
			for most := c.most.Load(); now > most && !c.most.CompareAndSwap(most, now); most = c.most.Load() {
			}
		case http.StateClosed, http.StateHijacked:
			c.open.Add(-1)
		}
	}
	c.Config.ErrorLog = log.New(io.Discard, "", 0)
	if change != nil {
		change(c.Config)
	}
	if secure {
		c.EnableHTTP2 = true
		c.StartTLS()
	} else {
		c.Start()
	}
	t.Cleanup(c.Close)
	return c
}

func (c *counted) options() Options {
	opt := Options{Policy: Policy{AllowHTTP: true, Networks: networks("loopback")}}
	if c.TLS != nil {
		opt.TLS = must(NewTLS(TLSOptions{CA: []string{caOf(c.Server)}}))
	}
	return opt
}

// storm makes calls from many at once, and returns how many failed.
func storm(client *http.Client, url string, atOnce, each int) (failed int64, first error) {
	var wg sync.WaitGroup
	var failures atomic.Int64
	var once sync.Once
	for range atOnce {
		wg.Go(func() {
			for range each {
				if status, err := post(client, url); err != nil || status != http.StatusOK {
					failures.Add(1)
					once.Do(func() { first = fmt.Errorf("%d: %w", status, err) })
				}
			}
		})
	}
	wg.Wait()
	return failures.Load(), first
}

func TestConnectionsAreKept(t *testing.T) {
	// All must be in flight at once, or fewer connections would do.
	gate := make(chan struct{})
	var arrived atomic.Int64
	server := newCounted(t, false, nil, func(http.ResponseWriter, *http.Request) {
		if arrived.Add(1) == 64 {
			close(gate)
		}
		<-gate
	})
	client := newClient(t, server.options())
	if failed, err := storm(client, server.URL, 64, 50); failed > 0 {
		t.Fatalf("%d of %d calls failed: %v", failed, 64*50, err)
	}
	if n := server.opened.Load(); n != 64 {
		t.Errorf("%d connections for 64 in flight, 50 times: want 64", n)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	server := newCounted(t, false, nil, func(http.ResponseWriter, *http.Request) {})
	opt := server.options()
	opt.Connections = 3
	if failed, err := storm(newClient(t, opt), server.URL, 50, 20); failed > 0 {
		t.Fatalf("%d calls failed: %v", failed, err)
	}
	if most := server.most.Load(); most > 3 {
		t.Errorf("%d connections at once, want 3", most)
	}
}

func TestHTTPIsRefused(t *testing.T) {
	server := newCounted(t, false, nil, func(http.ResponseWriter, *http.Request) {})
	client := newClient(t, Options{Policy: Policy{Networks: networks("loopback")}})
	_, err := post(client, server.URL)
	if outcome, text := Classify(err); outcome != entrypoints.Blocked || !strings.Contains(text, "allow_http") || server.opened.Load() != 0 {
		t.Errorf("%s: %s, after %d connections", outcome, text, server.opened.Load())
	}
}

func TestOnlyListedHostsAreCalled(t *testing.T) {
	server := newCounted(t, false, nil, func(http.ResponseWriter, *http.Request) {})
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	opt := server.options()
	opt.Policy.Hosts = []string{"hooks.example.com", "*.example.org"}
	opt.Resolver = resolver(t, func(_ string, v6 bool, _ int) []string {
		if v6 {
			return nil
		}
		return []string{"127.0.0.1"}
	})
	client := newClient(t, opt)
	for _, host := range []string{"hooks.example.com", "HOOKS.example.com", "a.example.org"} {
		if status, err := post(client, "http://"+host+":"+port); err != nil || status != http.StatusOK {
			t.Errorf("%s: %d, %v", host, status, err)
		}
	}
	before := server.opened.Load()
	for _, host := range []string{"example.com", "example.org", "a.hooks.example.com", "127.0.0.1", "localhost"} {
		_, err := post(client, "http://"+host+":"+port)
		if outcome, text := Classify(err); outcome != entrypoints.Blocked || !strings.Contains(text, "allow_hosts") {
			t.Errorf("%s: %s %s", host, outcome, text)
		}
	}
	if n := server.opened.Load(); n != before {
		t.Errorf("%d connections", n-before)
	}
}

func TestProxiesOfTheEnvironmentAreNotUsed(t *testing.T) {
	tr := newTrap(t, "127.0.0.1")
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"} {
		t.Setenv(name, "http://127.0.0.1:"+tr.port)
	}
	server := newCounted(t, true, nil, func(http.ResponseWriter, *http.Request) {})
	if status, err := post(newClient(t, server.options()), server.URL); err != nil || status != http.StatusOK {
		t.Errorf("%d, %v", status, err)
	}
	if n := tr.connected.Load(); n != 0 {
		t.Errorf("%d connections to a proxy that nobody configured", n)
	}
}

// A server that takes connections, and never speaks.
func TestSilence(t *testing.T) {
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	t.Cleanup(func() { _ = l.Close() })
	opt := Options{Policy: Policy{AllowHTTP: true, Networks: networks("loopback")}, ConnectTimeout: 200 * time.Millisecond}
	for url, says := range map[string]string{"https://" + l.Addr().String(): "there was no TLS connection in time", "http://" + l.Addr().String(): "there was no answer in time"} {
		transport := NewTransport(opt)
		begun := time.Now()
		_, err := post(NewClient(transport, time.Second), url)
		if outcome, text := Classify(err); outcome != entrypoints.TimedOut || text != says {
			t.Errorf("%s: %s %s", url, outcome, text)
		}
		if took := time.Since(begun); took > 3*time.Second {
			t.Errorf("%s took %v", url, took)
		}
		transport.CloseIdleConnections()
	}
}

// The time of an attempt includes the body of the response.
func TestSlowBodies(t *testing.T) {
	server := newCounted(t, false, nil, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "begun")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	transport := NewTransport(server.options())
	t.Cleanup(transport.CloseIdleConnections)
	status, err := post(NewClient(transport, 200*time.Millisecond), server.URL)
	if outcome, text := Classify(err); status != http.StatusOK || outcome != entrypoints.TimedOut {
		t.Errorf("%d, %s: %s", status, outcome, text)
	}
}

func TestResponseHeadersAreBounded(t *testing.T) {
	for _, secure := range []bool{false, true} {
		server := newCounted(t, secure, nil, func(w http.ResponseWriter, _ *http.Request) {
			for i := range 100 {
				w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("a", 1000))
			}
		})
		_, err := post(newClient(t, server.options()), server.URL)
		if outcome, _ := Classify(err); outcome != entrypoints.Unreachable {
			t.Errorf("100 KiB of header are taken (TLS: %v): %v", secure, err)
		}
	}
}

// No cookie of one call comes with the next, nothing is unpacked, and the caller's context counts.
func TestCallsAreAlone(t *testing.T) {
	server := newCounted(t, false, nil, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Cookie") != "" || r.Header.Get("Accept-Encoding") != "" || r.Header.Get("Expect") != "" {
			w.WriteHeader(http.StatusTeapot)
		}
		http.SetCookie(w, &http.Cookie{Name: "a", Value: "b"})
	})
	client := newClient(t, server.options())
	for range 2 {
		if status, err := post(client, server.URL); err != nil || status != http.StatusOK {
			t.Errorf("%d, %v", status, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := client.Do(must(http.NewRequestWithContext(ctx, http.MethodPost, server.URL, nil)))
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A server that closes a connection just when it is used again.
func TestClosedConnections(t *testing.T) {
	var calls atomic.Int64
	var leaked atomic.Bool
	server := newCounted(t, false, nil, func(w http.ResponseWriter, r *http.Request) {
		if _, sent := r.Header["Idempotency-Key"]; sent {
			leaked.Store(true)
		}
		if n := calls.Add(1); n%2 == 0 {
			panic(http.ErrAbortHandler)
		}
		if body, err := io.ReadAll(r.Body); err != nil || string(body) != "message" {
			t.Errorf("%q, %v", body, err)
		}
	})
	client := newClient(t, server.options())
	call := func(repeat bool) error {
		r := must(http.NewRequest(http.MethodPost, server.URL, strings.NewReader("message")))
		if repeat {
			MayRepeat(r)
		}
		response, err := client.Do(r)
		if err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, response.Body)
		return response.Body.Close()
	}
	if err := errors.Join(call(false), call(true), call(true)); err != nil {
		t.Error(err)
	}
	if outcome, text := Classify(call(false)); outcome != entrypoints.Unreachable || text != "the connection was closed before there was an answer" {
		t.Errorf("%s %s", outcome, text)
	}
	if n := calls.Load(); n != 6 || leaked.Load() {
		t.Errorf("%d calls, want 6; a header was sent: %v", n, leaked.Load())
	}
}
