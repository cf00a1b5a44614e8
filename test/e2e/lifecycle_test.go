package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// stream is one of many that must see every number once, in order.
type stream struct {
	name string
	next int
	err  error
}

func (s *stream) take(text string) {
	n, err := strconv.Atoi(text)
	if s.err != nil {
		return
	}
	switch {
	case err != nil:
		s.err = fmt.Errorf("%s: got %q", s.name, text)
	case s.next > 0 && n != s.next:
		s.err = fmt.Errorf("%s: got %d instead of %d", s.name, n, s.next)
	}
	s.next = n + 1
}

// Fifty reloads under load end no stream of an API that did not change, double no message
// and lose none; what the reloads took is given back.
func TestReloadsThatNobodyNotices(t *testing.T) {
	perKind, reloads := 700, 50
	if testing.Short() {
		perKind, reloads = 50, 10
	}
	config := func(i int) string {
		return siteTLS(api("/p", playground), api("/other", fmt.Sprintf("name generation-%d\n%s", i, playground)))
	}
	g := gateway.Start(t, "", config(0))
	clients := map[string]*http.Client{"h1": g.Client(1), "h2": g.Client(2), "plain": g.Client(0)}
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		streams []*stream
		last    atomic.Int64
	)
	last.Store(-1)
	open := func(name string, read func(*stream) bool) {
		s := &stream{name: name}
		mu.Lock()
		streams = append(streams, s)
		mu.Unlock()
		wg.Go(func() {
			for s.err == nil && int64(s.next-1) != last.Load() {
				if !read(s) {
					break
				}
			}
		})
	}
	var opening sync.WaitGroup
	for kind, client := range clients {
		n := perKind
		if kind == "plain" {
			n = perKind / 2
		}
		for i := range n {
			opening.Go(func() {
				e, err := gateway.TryEvents(client, map[bool]string{true: g.URL("/p"), false: g.TLS("/p")}[kind == "plain"])
				if err != nil || e.Answer.Status != 200 {
					t.Errorf("opening %s %d: %v", kind, i, err)
					return
				}
				t.Cleanup(e.Close)
				open(fmt.Sprint(kind, " ", i), func(s *stream) bool {
					ev, err := e.Message()
					if err != nil || ev.Type != "message" {
						s.err = fmt.Errorf("%s ended after %d: %+v %v", s.name, s.next, ev, err)
						return false
					}
					s.take(ev.Data)
					return true
				})
			})
		}
		opening.Wait()
	}
	for i := range perKind / 2 {
		conn := gateway.OpenSocket(t, g, g.URL("/p"), nil)
		open(fmt.Sprint("ws ", i), func(s *stream) bool {
			_, payload, err := conn.ReadMessage()
			if err != nil {
				s.err = fmt.Errorf("%s ended after %d: %v", s.name, s.next, err)
				return false
			}
			s.take(string(payload))
			return true
		})
	}

	stop := make(chan struct{})
	var load sync.WaitGroup
	var sent atomic.Int64
	load.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := post(clients["h2"], g.TLS("/p"), fmt.Sprint(sent.Load())); err != nil {
				t.Errorf("POST %d: %v", sent.Load(), err)
				return
			}
			sent.Add(1)
		}
	})
	for i := range reloads {
		if err := g.Load("", config(i+1)); err != nil {
			t.Fatalf("reload %d: %v", i, err)
		}
		before := sent.Load()
		gateway.Eventually(t, 20*time.Second, "messages between two reloads", func() bool {
			return sent.Load() > before+5 || t.Failed()
		})
	}
	close(stop)
	load.Wait()
	// One more marks the end: every stream must come to it.
	last.Store(sent.Load())
	if err := post(clients["h2"], g.TLS("/p"), fmt.Sprint(sent.Load())); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	for _, s := range streams {
		if s.err != nil {
			t.Error(s.err)
		}
	}
	t.Logf("%d streams saw %d messages each over %d reloads", len(streams), sent.Load()+1, reloads)
}

// post publishes over HTTP/2, which hands requests over to a new connection when a server
// stops. It tries again where no connection came about: a listening socket that Caddy
// replaces takes the connections in its queue with it, whatever handler is behind.
func post(client *http.Client, url, body string) error {
	a, err := tryPost(client, url, body)
	if err == nil && a.Status != http.StatusAccepted {
		err = fmt.Errorf("%d %s", a.Status, a.Body)
	}
	return err
}

func tryPost(client *http.Client, url, body string) (gateway.Answer, error) {
	for try := 0; ; try++ {
		a, err := gateway.TryDo(client, "POST", url, body)
		if err == nil || try == 20 || !notConnected(err) {
			return a, err
		}
	}
}

// notConnected says that a request failed before it was sent: in dialing, or in the
// handshake.
func notConnected(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && (op.Op == "dial" || op.Op == "read") || errors.Is(err, io.EOF)
}

// openEvents opens an SSE stream, again where no connection came about.
func openEvents(t *testing.T, client *http.Client, url string) *gateway.Events {
	t.Helper()
	for try := 0; ; try++ {
		ev, err := gateway.TryEvents(client, url)
		if err == nil {
			t.Cleanup(ev.Close)
			return ev
		}
		if try == 20 || !notConnected(err) {
			t.Fatalf("opening %s: %v", url, err)
		}
	}
}

// After many reloads and sessions nothing is left: no goroutine, no session, no unit.
func TestReloadsLeaveNothingBehind(t *testing.T) {
	config := func(i int) string {
		return site(api("/p", fmt.Sprintf("name generation-%d\n%s", i, playground)))
	}
	g := gateway.Start(t, "", config(0))
	round := func(i int) {
		ev := openEvents(t, g.Client(0), g.URL("/p"))
		ws := gateway.OpenSocket(t, g, g.URL("/p"), nil)
		if err := g.Load("", config(i)); err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := ev.Message(); err != nil {
				break
			}
		}
		for {
			if _, _, err := ws.ReadMessage(); err != nil {
				break
			}
		}
		ev.Close()
		_ = ws.Close()
	}
	for i := range 5 {
		round(i + 1)
	}
	base := settled(t, g)
	for i := range 30 {
		round(i + 100)
	}
	gateway.Eventually(t, 10*time.Second, "goroutines back to the base line", func() bool {
		return runtime.NumGoroutine() <= base+5
	})
}

// settled waits until no session is open, and returns the number of goroutines.
func settled(t *testing.T, g *gateway.Gateway) int {
	t.Helper()
	gateway.Eventually(t, 10*time.Second, "all sessions to end", func() bool {
		var rows []any
		g.AdminList("/message_api/sessions", &rows)
		return len(rows) == 0
	})
	n := runtime.NumGoroutine()
	gateway.Eventually(t, 10*time.Second, "goroutines to settle", func() bool {
		was := n
		n = runtime.NumGoroutine()
		return n == was
	})
	return n
}

// A changed API tells its sessions to come again, a removed one that there is no point.
func TestReloadEndsChangedAPIs(t *testing.T) {
	for name, tc := range map[string]struct {
		sites     string
		reason    string
		code      int
		reconnect bool
	}{
		"changed": {site(api("/p", "name changed\n"+playground)), "api_changed", websocket.CloseServiceRestart, true},
		"removed": {site("respond 200"), "api_stopped", websocket.ClosePolicyViolation, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := gateway.Start(t, "", site(api("/p", playground)))
			ev := gateway.OpenEvents(t, g.Client(0), g.URL("/p"))
			ws := gateway.OpenSocket(t, g, g.URL("/p"), nil)
			if err := g.Load("", tc.sites); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			retry := ""
			for {
				got, err := ev.Next()
				if err != nil {
					t.Fatalf("the stream ended without goaway: %v", err)
				}
				if got.Retry != "" {
					retry = got.Retry
				}
				if got.Type == "goaway" {
					if !strings.Contains(got.Data, `"`+tc.reason+`"`) {
						t.Errorf("goaway says %s", got.Data)
					}
					break
				}
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("the end took %s", took)
			}
			if retry == "" {
				t.Errorf("no retry hint")
			}
			_, _, err := ws.ReadMessage()
			var ce *websocket.CloseError
			if !errors.As(err, &ce) || ce.Code != tc.code {
				t.Errorf("the socket ended with %v, want code %d", err, tc.code)
			}
		})
	}
}

// An operator ends a session through the admin endpoint.
func TestEndThroughAdmin(t *testing.T) {
	g := gateway.Start(t, "", site(api("/p", playground)))
	ev := gateway.OpenEvents(t, g.Client(0), g.URL("/p"), "X-Gravitee-Request-Id", "find-me")
	var rows []struct {
		ID         uint64
		API        string
		Entrypoint string
		RequestID  string `json:"request_id"`
	}
	g.AdminList("/message_api/sessions?api=p", &rows)
	if len(rows) != 1 || rows[0].RequestID != "find-me" || rows[0].Entrypoint != "sse" {
		t.Fatalf("sessions %+v", rows)
	}
	if status := g.Admin("DELETE", fmt.Sprintf("/message_api/sessions/%d", rows[0].ID), nil); status != 204 {
		t.Fatalf("status %d", status)
	}
	if got := ev.MustMessage(t); got.Type != "goaway" || !strings.Contains(got.Data, "operator") {
		t.Errorf("%+v", got)
	}
	if status := g.Admin("DELETE", "/message_api/sessions/999999", nil); status != 404 {
		t.Errorf("status %d", status)
	}
}
