package sse

import (
	"sync/atomic"
	"time"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
)

// signals are how everything else speaks to the stream's goroutine: a flag, and one slot
// to be woken by. The goroutine waits for a single channel, which is what makes a
// thousand idle streams cheap to wake.
type signals struct {
	wake  chan struct{}
	gone  atomic.Bool
	pulse atomic.Bool
	end   atomic.Pointer[entrypoints.End]
	// lastWrite is when bytes were last written, in Unix nanoseconds.
	lastWrite atomic.Int64
}

// wakeUp may be called by anyone, and never blocks.
func (s *signals) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *signals) clientGone() {
	s.gone.Store(true)
	s.wakeUp()
}

// endBy ends the stream, unless it is ending already.
func (s *signals) endBy(end entrypoints.End) {
	s.end.CompareAndSwap(nil, &end)
	s.wakeUp()
}

// sweep is called now and then by a clock that all streams share.
type sweep struct {
	*signals
	heartbeat time.Duration
	rotateAt  time.Time // zero: never
}

// sweepsPerHeartbeat is how often the clock looks within one heartbeat interval.
const sweepsPerHeartbeat = 4

// interval is how often the clock must look.
func (s sweep) interval() time.Duration {
	interval := s.heartbeat / sweepsPerHeartbeat
	if !s.rotateAt.IsZero() && (interval == 0 || interval > time.Second) {
		interval = time.Second
	}
	return interval
}

func (s sweep) check(now time.Time) {
	if !s.rotateAt.IsZero() && !now.Before(s.rotateAt) {
		s.endBy(entrypoints.End{
			Reason: entrypoints.EndRotate, Detail: "the stream is as old as one may get: please reconnect", Retry: reconnectDelay(),
		})
	}
	if s.heartbeat == 0 {
		return
	}
	// The clock is not exact, and must not make the interval one look longer each time.
	tolerance := s.heartbeat / (2 * sweepsPerHeartbeat)
	if silence := now.UnixNano() - s.lastWrite.Load(); silence >= int64(s.heartbeat-tolerance) {
		s.pulse.Store(true)
		s.wakeUp()
	}
}
