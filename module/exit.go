package module

import (
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
)

// exitWatch ends all sessions when the process is to exit. It looks while sessions are
// open, because none of Caddy's hooks is certain to fire: a stream that outlived a reload
// belongs to a server whose shutdown is long over, and module contexts end only after
// the streams have.
var exitWatch struct {
	mu      sync.Mutex
	running bool
}

const exitTick = 100 * time.Millisecond

// watchExit makes sure that the watch runs.
func watchExit() {
	exitWatch.mu.Lock()
	defer exitWatch.mu.Unlock()
	if exitWatch.running {
		return
	}
	exitWatch.running = true
	go func() {
		t := time.NewTicker(exitTick)
		defer t.Stop()
		idle := 0
		for range t.C {
			if caddy.Exiting() {
				sessions.end(Selector{}, entrypoints.End{Reason: entrypoints.EndShutdown, Detail: "the gateway is shutting down"})
			}
			if sessions.len() > 0 {
				idle = 0
				continue
			}
			if idle++; idle > 3 && stopWatching() {
				return
			}
		}
	}()
}

func stopWatching() bool {
	exitWatch.mu.Lock()
	defer exitWatch.mu.Unlock()
	if sessions.len() > 0 {
		return false
	}
	exitWatch.running = false
	return true
}
