package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// quickstart is the example as it is shipped, on this test's ports.
func quickstart(t *testing.T) *gateway.Gateway {
	t.Helper()
	raw, err := os.ReadFile("../../examples/quickstart/Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	return gateway.Start(t, "", strings.Replace(string(raw), ":8080 {", "http://localhost:PORT, https://localhost:TLSPORT {", 1))
}

// Twenty times in a row, while fifty other clients come at odd moments, a GET of the quick
// start answers with exactly four messages after five seconds.
func TestQuickStartGET(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for two responses of five seconds")
	}
	g := quickstart(t)
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := make(chan struct{})
	defer close(stop)
	for i := range 50 {
		wg.Go(func() { disturb(g, i, stop) })
	}
	var rounds sync.WaitGroup
	for i := range 20 {
		// Started a quarter of a second apart and overlapping, so that 20 take 10 s.
		rounds.Go(func() { oneGET(t, g) })
		if i < 19 {
			time.Sleep(250 * time.Millisecond)
		}
	}
	rounds.Wait()
}

// disturb connects, reads a while and goes, again and again.
func disturb(g *gateway.Gateway, i int, stop chan struct{}) {
	for {
		conn, _, err := gateway.TrySocket(g, g.URL("/qs-message-api"), nil)
		if err != nil {
			return
		}
		select {
		case <-time.After(time.Duration(rand.IntN(1500)+i) * time.Millisecond):
			_ = conn.Close()
		case <-stop:
			_ = conn.Close()
			return
		}
	}
}

func oneGET(t *testing.T, g *gateway.Gateway) {
	began := time.Now()
	a, err := gateway.TryDo(http.DefaultClient, "GET", g.URL("/qs-message-api"), "")
	took := time.Since(began)
	if err != nil || a.Status != 200 || a.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%d %v %q: %v", a.Status, a.Header, a.Body, err)
		return
	}
	if n := strings.Count(a.Body, `"mock message"`); n != 4 {
		t.Errorf("%d messages in %s", n, a.Body)
	}
	latest := 5500 * time.Millisecond
	if testing.Short() {
		latest = 8 * time.Second // the machine is full of other tests
	}
	if took < 4900*time.Millisecond || took > latest {
		t.Errorf("took %s", took)
	}
}

// What is POSTed into the playground arrives at an open SSE stream and WebSocket.
func TestPlayground(t *testing.T) {
	g := quickstart(t)
	ev := gateway.OpenEvents(t, g.Client(0), g.URL("/playground"))
	ws := gateway.OpenSocket(t, g, g.URL("/playground"), nil)
	for i := range 10 {
		body := fmt.Sprintf("hello %d\nsecond line", i)
		if a := gateway.Do(t, http.DefaultClient, "POST", g.URL("/playground"), body); a.Status != 202 {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
		if got := ev.MustMessage(t); got.Data != body {
			t.Fatalf("the SSE stream got %+v", got)
		}
		_ = ws.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, got, err := ws.ReadMessage(); err != nil || string(got) != body {
			t.Fatalf("the WebSocket got %q, %v", got, err)
		}
	}
	if err := ws.WriteMessage(1, []byte("from a socket")); err != nil {
		t.Fatal(err)
	}
	if got := ev.MustMessage(t); got.Data != "from a socket" {
		t.Fatalf("the SSE stream got %+v", got)
	}
}
