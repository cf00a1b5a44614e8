// Package soak lets clients come and go for a long time. It runs only with
// MESSAGE_API_SOAK=1 (make soak); SOAK_FOR sets the length, 30m by default.
package soak

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/caddy-message-api/caddy-message-api"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

func TestMain(m *testing.M) { gateway.Main(m) }

const site = `http://localhost:PORT {
	message_api /clock {
		log_size 4MiB
		entrypoint http_get {
			duration_limit 200ms
		}
		entrypoint sse {
			qos none
		}
		entrypoint websocket
		endpoint mock {
			message_interval 5ms
		}
		plan keyless
	}
	message_api /loop {
		log_size 4MiB
		entrypoint http_post
		entrypoint sse
		entrypoint websocket
		endpoint mock {
			loopback
		}
		plan keyless
	}
}`

// Clients of every kind come and go; no request fails, and memory does not grow.
func TestChurn(t *testing.T) {
	if os.Getenv("MESSAGE_API_SOAK") != "1" {
		t.Skip("a soak test: run it with `make soak`")
	}
	length := 30 * time.Minute
	if text := os.Getenv("SOAK_FOR"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	p := gateway.Run(t, "", site)
	g := &gateway.Gateway{Port: p.Port}
	// Those who publish end last: the others wait for messages.
	stop, stopPosting := make(chan struct{}), make(chan struct{})
	var wg, posting sync.WaitGroup
	var done, failed atomic.Int64
	for i := range 60 {
		visit, until, group := visits[i%len(visits)], stop, &wg
		if i%len(visits) == len(visits)-1 {
			until, group = stopPosting, &posting
		}
		group.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for {
				select {
				case <-until:
					return
				default:
				}
				if err := visit(g, client); err != nil {
					failed.Add(1)
					t.Errorf("after %d visits: %v", done.Load(), err)
					return
				}
				done.Add(1)
			}
		})
	}
	time.Sleep(length / 4) // what is allocated once is allocated now
	early := memory(t, p.PID())
	time.Sleep(length * 3 / 4)
	late := memory(t, p.PID())
	close(stop)
	wg.Wait()
	close(stopPosting)
	posting.Wait()
	t.Logf("%d visits in %s, %d failed; memory %d MiB after a quarter, %d MiB at the end", done.Load(), length, failed.Load(), early>>20, late>>20)
	if late > early+early/5+8<<20 {
		t.Errorf("memory grew from %d to %d MiB", early>>20, late>>20)
	}
}

// visits are what clients do; the last one publishes.
var visits = []func(*gateway.Gateway, *http.Client) error{
	func(g *gateway.Gateway, c *http.Client) error { return watch(g, c, "/clock") },
	func(g *gateway.Gateway, c *http.Client) error { return watch(g, c, "/loop") },
	func(g *gateway.Gateway, _ *http.Client) error { return socket(g, "/clock") },
	func(g *gateway.Gateway, _ *http.Client) error { return socket(g, "/loop") },
	func(g *gateway.Gateway, c *http.Client) error { return request(c, "GET", g.URL("/clock"), "", 200) },
	func(g *gateway.Gateway, c *http.Client) error {
		return request(c, "POST", g.URL("/loop"), strings.Repeat("x", rand.IntN(4096)+1), 202)
	},
}

func watch(g *gateway.Gateway, c *http.Client, path string) error {
	ev, err := gateway.TryEvents(c, g.URL(path))
	if err != nil {
		return err
	}
	defer ev.Close()
	for range rand.IntN(100) {
		if _, err := ev.Message(); err != nil {
			return err
		}
	}
	return nil
}

func socket(g *gateway.Gateway, path string) error {
	ws, _, err := gateway.TrySocket(g, g.URL(path), nil)
	if err != nil {
		return err
	}
	defer ws.Close()
	for range rand.IntN(100) {
		if _, _, err := ws.ReadMessage(); err != nil {
			return err
		}
	}
	return nil
}

func request(c *http.Client, method, url, body string, want int) error {
	a, err := gateway.TryDo(c, method, url, body)
	if err == nil && a.Status != want {
		err = fmt.Errorf("%s %s: %d %s", method, url, a.Status, a.Body)
	}
	return err
}

func memory(t *testing.T, pid int) int64 {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(raw))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
