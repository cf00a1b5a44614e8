package patience

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// A WebSocket and an SSE stream get a message a second, whoever else is connected, and the
// same over TLS.
func TestQuickStartStreams(t *testing.T) {
	length := 60 * time.Second
	if testing.Short() {
		length = 5 * time.Second
	}
	want := int(length / time.Second)
	g := gateway.Start(t, "", `http://localhost:PORT, https://localhost:TLSPORT {
		message_api /qs-message-api {
			entrypoint http_get
			entrypoint sse
			entrypoint websocket
			endpoint mock
			plan keyless
		}
	}`)
	var wg sync.WaitGroup
	for i, url := range []string{g.URL("/qs-message-api"), g.TLS("/qs-message-api")} {
		for client := range 2 {
			name := fmt.Sprint(url, " client ", client)
			time.Sleep(time.Duration(i*2+client) * 77 * time.Millisecond) // their clocks are their own
			wg.Go(func() { countFrames(t, g, url, name, length, want) })
			wg.Go(func() { countEvents(t, g, url, name, length, want) })
		}
	}
	wg.Wait()
}

func countFrames(t *testing.T, g *gateway.Gateway, url, name string, length time.Duration, want int) {
	conn, _, err := gateway.TrySocket(g, url, nil)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	defer conn.Close()
	end := time.Now().Add(length)
	n := 0
	for {
		_ = conn.SetReadDeadline(end)
		kind, payload, err := conn.ReadMessage()
		if err != nil {
			break
		}
		if kind != 1 || string(payload) != "mock message" {
			t.Errorf("%s: frame %d %q", name, kind, payload)
		}
		n++
	}
	if n < want-1 || n > want+1 {
		t.Errorf("%s: %d text frames in %s", name, n, length)
	}
}

func countEvents(t *testing.T, g *gateway.Gateway, url, name string, length time.Duration, want int) {
	client := g.Client(0)
	if strings.HasPrefix(url, "https") {
		client = g.Client(1)
	}
	e, err := gateway.TryEvents(client, url)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	time.AfterFunc(length, e.Close)
	n := 0
	for {
		ev, err := e.Message()
		if err != nil {
			break
		}
		if ev.Type != "message" || ev.Data != "mock message" {
			t.Errorf("%s: %+v", name, ev)
		}
		n++
	}
	if n < want-1 || n > want+1 {
		t.Errorf("%s: %d events in %s", name, n, length)
	}
}
