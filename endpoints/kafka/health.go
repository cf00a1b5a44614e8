package kafka

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// health is what the outcomes of real calls say about the connection.
type health struct {
	state atomic.Pointer[healthState]
	// served: there has been an answer, at some time.
	served atomic.Bool
}

type healthState struct {
	state endpoints.State
	err   *message.Error
	since time.Time
}

func (h *health) enter(state endpoints.State, err *message.Error) {
	next := &healthState{state: state, err: err, since: time.Now()}
	for {
		old := h.state.Load()
		if old != nil && old.state == state {
			next.since = old.since
		}
		if h.state.CompareAndSwap(old, next) {
			return
		}
	}
}

// up is called after every good answer, so it must cost nothing when nothing changed.
func (h *health) up() {
	if h.state.Load().state != endpoints.Up {
		h.served.Store(true)
		h.enter(endpoints.Up, nil)
	}
}

func (h *health) connecting() {
	if h.state.Load().state == endpoints.Idle {
		h.enter(endpoints.Connecting, nil)
	}
}

// downFor tells for how long nothing has answered; 0 while something does.
func (h *health) downFor() time.Duration {
	if s := h.state.Load(); s.state == endpoints.Down {
		return time.Since(s.since)
	}
	return 0
}

func (h *health) status(address string) endpoints.Status {
	s := h.state.Load()
	status := endpoints.Status{State: s.state, Address: address, Since: s.since}
	if s.err != nil {
		status.Error = s.err.Error()
	}
	return status
}

// idleCloser closes connections that were not used for a while. It costs one store per
// use, and one timer per idle period.
type idleCloser struct {
	after time.Duration
	close func()
	last  atomic.Int64 // Unix nanoseconds of the last use
	armed atomic.Bool

	mu      sync.Mutex
	timer   *time.Timer
	stopped bool
}

func (i *idleCloser) touch() {
	i.last.Store(time.Now().UnixNano())
	if i.after > 0 && i.armed.CompareAndSwap(false, true) {
		i.arm(i.after)
	}
}

func (i *idleCloser) arm(d time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.stopped {
		i.timer = time.AfterFunc(d, i.fire)
	}
}

func (i *idleCloser) fire() {
	if left := i.after - time.Duration(time.Now().UnixNano()-i.last.Load()); left > 0 {
		i.arm(left)
		return
	}
	i.armed.Store(false)
	i.close()
}

func (i *idleCloser) stop() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.stopped = true
	if i.timer != nil {
		i.timer.Stop()
	}
}
