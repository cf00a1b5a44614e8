package e2e

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// SIGTERM with open streams ends them with goaway and 1001, and the process in time, also
// when a client has stopped reading.
func TestExit(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the caddy command")
	}
	p := gateway.Run(t, "", site(api("/p", `
		entrypoint http_post
		entrypoint sse
		entrypoint websocket
		endpoint mock {
			message_interval 1ms
			message_content `+strings.Repeat("x", 4096)+`
		}
		plan keyless`)))
	g := &gateway.Gateway{Port: p.Port}
	ev := gateway.OpenEvents(t, plainClient(t), p.URL("/p"))
	ws := gateway.OpenSocket(t, g, p.URL("/p"), nil)
	stalled := openStalled(t, p.Port)
	defer stalled.Close()

	events := make(chan string, 1)
	go func() {
		for {
			e, err := ev.Message()
			if err != nil {
				events <- "no goaway: " + err.Error()
				return
			}
			if e.Type == "goaway" {
				events <- e.Data
				return
			}
		}
	}()
	frames := make(chan error, 1)
	go func() {
		for {
			if _, _, err := ws.ReadMessage(); err != nil {
				frames <- err
				return
			}
		}
	}()
	took := p.Terminate(15 * time.Second)
	t.Logf("ended %s after SIGTERM", took)
	if got := <-events; !strings.Contains(got, `"shutdown"`) {
		t.Errorf("the SSE stream got %s", got)
	}
	var ce *websocket.CloseError
	if err := <-frames; !errors.As(err, &ce) || ce.Code != websocket.CloseGoingAway {
		t.Errorf("the WebSocket got %v", err)
	}
	if took > 12*time.Second {
		t.Errorf("took %s", took)
	}
}

// openStalled opens an SSE stream and never reads it.
func openStalled(t *testing.T, port int) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("localhost:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("GET /p HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	return conn
}
