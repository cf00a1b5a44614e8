// Package patience holds tests that must wait. They are apart so that they wait beside the
// others.
package patience

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	_ "github.com/caddy-message-api/caddy-message-api"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

func TestMain(m *testing.M) { gateway.Main(m) }

// Streams on which nothing is said for three minutes, without heartbeat and ping, live on
// HTTP/1.1, 2 and 3, plain and under `encode`, with and without access logs.
func TestSilentStreams(t *testing.T) {
	silence := 3 * time.Minute
	if testing.Short() {
		silence = 3 * time.Second
	}
	const block = `
		entrypoint http_post
		entrypoint sse {
			heartbeat off
		}
		entrypoint websocket {
			ping off
		}
		endpoint mock {
			loopback
		}
		plan keyless
	}`
	g := gateway.Start(t, "", `http://localhost:PORT, https://localhost:TLSPORT {
		message_api /plain {`+block+`
		handle /encoded* {
			encode
			message_api /encoded {`+block+`
		}
	}
	http://127.0.0.1:PORT, https://127.0.0.1:TLSPORT {
		log {
			output file DIR/access.log {
				roll_disabled
			}
		}
		encode
		message_api /logged {
			id logged`+block+`
	}`)
	type target struct {
		name, url string
		client    *http.Client
	}
	var targets []target
	for version := 1; version <= 3; version++ {
		client := g.Client(version)
		for _, path := range []string{"plain", "encoded"} {
			targets = append(targets, target{fmt.Sprintf("h%d %s", version, path), g.TLS("/" + path), client})
		}
		targets = append(targets, target{fmt.Sprintf("h%d logged", version),
			fmt.Sprintf("https://127.0.0.1:%d/logged", g.TLSPort), client})
	}
	type open struct {
		target
		events *gateway.Events
	}
	var streams []open
	for _, x := range targets {
		streams = append(streams, open{x, gateway.OpenEvents(t, x.client, x.url, "Accept-Encoding", "gzip")})
	}
	sockets := map[string]interface {
		ReadMessage() (int, []byte, error)
	}{
		"plain":   gateway.OpenSocket(t, g, g.TLS("/plain"), nil),
		"encoded": gateway.OpenSocket(t, g, g.TLS("/encoded"), nil),
	}
	time.Sleep(silence) // the silence is what is tested
	for _, url := range []string{g.URL("/plain"), g.URL("/encoded"), fmt.Sprintf("http://127.0.0.1:%d/logged", g.Port)} {
		if a := gateway.Do(t, g.Client(0), "POST", url, "still there"); a.Status != 202 {
			t.Fatalf("POST %s: %d %s", url, a.Status, a.Body)
		}
	}
	var wg sync.WaitGroup
	for _, s := range streams {
		wg.Go(func() {
			ev, err := s.events.Message()
			if err != nil || ev.Data != "still there" {
				t.Errorf("%s after %s: %+v %v", s.name, silence, ev, err)
			}
		})
	}
	for name, ws := range sockets {
		wg.Go(func() {
			if _, payload, err := ws.ReadMessage(); err != nil || string(payload) != "still there" {
				t.Errorf("WebSocket %s after %s: %q %v", name, silence, payload, err)
			}
		})
	}
	wg.Wait()
}
