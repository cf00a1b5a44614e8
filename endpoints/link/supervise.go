package link

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
)

// errUnused ends a connection that nobody needs any more.
var errUnused = errors.New("nothing uses the connection")

// supervisor is the one goroutine of a link that is in use.
type supervisor[C any] struct {
	*Link[C]
	addresses []string // the one that worked last stands first
	look      <-chan time.Time
	unused    int // looks since the last use
	tries     int // attempts since the last connection that held
	began     time.Time
}

// run starts the supervisor, if it does not run. l.mu is held.
func (l *Link[C]) run() {
	if l.running || l.closed {
		return
	}
	l.running = true
	l.enter(endpoints.Connecting, nil)
	l.wg.Go(func() {
		s := &supervisor[C]{Link: l, addresses: slices.Clone(l.opt.Addresses)}
		if l.opt.Idle > 0 {
			ticker := time.NewTicker(max(l.opt.Idle/idleChecks, time.Millisecond))
			defer ticker.Stop()
			s.look = ticker.C
		}
		for s.connected() {
		}
	})
}

// connected makes a connection and keeps it until it is lost. It is false when there is no
// need for another.
func (s *supervisor[C]) connected() bool {
	s.began = time.Now()
	conn, lost, err := s.attempt()
	if err != nil {
		s.failed(err)
	} else {
		err = s.keep(conn, lost)
		if time.Since(s.began) > maxBackoff {
			s.tries = 0 // what holds for a moment only is no better than a failure
		}
	}
	for {
		if err == nil || !errors.Is(err, errUnused) && !errors.Is(err, errClosed) {
			err = s.pause()
		}
		if err == nil {
			return true
		}
		if s.leave(err) {
			return false
		}
		err = nil // somebody came at the last moment
	}
}

// attempt tries the addresses in turn.
func (s *supervisor[C]) attempt() (conn C, lost <-chan error, err error) {
	select {
	case <-s.poke: // it is for this attempt
	default:
	}
	var failures []error
	deadline := s.began.Add(attemptTimeout)
	for i, address := range s.addresses {
		share := time.Until(deadline) / time.Duration(len(s.addresses)-i)
		conn, lost, err := s.dial(address, share)
		if err == nil {
			s.addresses = append(append([]string{address}, s.addresses[:i]...), s.addresses[i+1:]...)
			return conn, lost, nil
		}
		if len(s.addresses) > 1 {
			err = fmt.Errorf("%s: %w", address, err)
		}
		failures = append(failures, err)
	}
	if len(failures) == 1 {
		return conn, nil, failures[0]
	}
	return conn, nil, errors.Join(failures...)
}

// dial ends when the link is closed, whatever the broker does.
func (s *supervisor[C]) dial(address string, timeout time.Duration) (C, <-chan error, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	return s.opt.Dial(ctx, address)
}

// keep makes the connection known until it is lost, and says why it is no more.
func (s *supervisor[C]) keep(conn C, lost <-chan error) error {
	gone := make(chan struct{})
	s.up(conn, gone)
	err := s.watch(lost)
	if errors.Is(err, errUnused) || errors.Is(err, errClosed) {
		s.cur.Store(nil)
	} else {
		s.lost(err)
	}
	close(gone) // after the status, so that whoever waited for it finds the cause
	s.opt.Close(conn)
	return err
}

// watch returns when the connection is lost, or not wanted any more.
func (s *supervisor[C]) watch(lost <-chan error) error {
	for {
		select {
		case err := <-lost:
			if err == nil {
				err = errors.New("the connection was closed")
			}
			return err
		case err := <-s.drops:
			return err
		case <-s.look:
			if s.isUnused() {
				return errUnused
			}
		case <-s.ctx.Done():
			return errClosed
		}
	}
}

// pause waits before the next attempt: for less time when somebody asks for one.
func (s *supervisor[C]) pause() error {
	s.tries++
	wait := maxBackoff
	if s.tries < 6 {
		wait = spacing << (s.tries - 1)
	}
	timer := time.NewTimer(max(spacing/2, wait/2+rand.N(wait/2)))
	defer timer.Stop()
	poke := s.poke
	for {
		select {
		case <-timer.C:
			return nil
		case <-poke:
			poke = nil
			if soon := time.Until(s.began.Add(spacing)); soon > 0 {
				timer.Reset(soon)
				continue
			}
			return nil
		case <-s.look:
			if s.isUnused() {
				return errUnused
			}
		case <-s.ctx.Done():
			return errClosed
		}
	}
}

// isUnused is asked some times per idle period.
func (s *supervisor[C]) isUnused() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used.Swap(false) || s.wanted > 0 {
		s.unused = 0
		return false
	}
	s.unused++
	return s.unused >= idleChecks
}

// leave ends the supervisor, unless it is needed after all.
func (s *supervisor[C]) leave(err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(err, errUnused) && (s.wanted > 0 || s.used.Load()) {
		s.unused = 0
		s.enter(endpoints.Connecting, nil)
		return false
	}
	s.running = false
	s.enter(endpoints.Idle, nil)
	return true
}

// up makes a connection known.
func (l *Link[C]) up(conn C, gone <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.drops: // about the one before, which broke meanwhile
	default:
	}
	select {
	case <-l.poke: // whoever asked for a connection has one
	default:
	}
	l.epoch++
	l.cur.Store(&Conn[C]{C: conn, Epoch: l.epoch, Gone: gone})
	l.enter(endpoints.Up, nil)
}

func (l *Link[C]) failed(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.failures++
	if l.state != endpoints.Down {
		l.opt.Logger.Warn("the broker can't be reached", zap.String("address", l.Address()), zap.Error(err))
	}
	l.enter(endpoints.Down, l.unavailable(err))
}

func (l *Link[C]) lost(err error) {
	l.opt.Logger.Warn("the connection to the broker was lost", zap.String("address", l.Address()), zap.Error(err))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cur.Store(nil)
	l.enter(endpoints.Down, l.unavailable(fmt.Errorf("the connection was lost: %w", err)))
}
