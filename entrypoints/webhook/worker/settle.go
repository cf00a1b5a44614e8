package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

const (
	// settleTimeout bounds what one settlement waits for the broker.
	settleTimeout = 5 * time.Second
	// gather is for how long settlements wait for others while there is more to come. It
	// makes batching independent of luck.
	gather = time.Millisecond
)

// settlements are what the settler is to do next.
type settlements struct {
	pending
	due     sync.Cond
	idle    bool // the settler waits
	closing bool
	// noisy says that the last settlement failed, and that this was told. It is the
	// settler's alone.
	noisy bool
}

// pending are settlements that gather.
type pending struct {
	acks     []message.Delivery
	releases []message.Delivery
	// firsts are to be settled before they are sent, and each has somebody waiting for it.
	firsts  []message.Delivery
	waiters []chan error
}

func (s *pending) empty() bool {
	return len(s.acks) == 0 && len(s.releases) == 0 && len(s.firsts) == 0
}

// hurrySettler wakes the settler. e.mu is held.
func (e *engine) hurrySettler() {
	if e.settle.idle && !e.settle.empty() {
		e.settle.idle = false
		e.settle.due.Signal()
	}
}

// settleAll is the goroutine that settles. While the broker is at it, others gather.
func (e *engine) settleAll() {
	var spare pending
	s := &e.settle
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		for s.empty() {
			if s.closing {
				return
			}
			s.idle = true
			s.due.Wait()
		}
		if !e.urgent() {
			e.mu.Unlock()
			time.Sleep(gather)
			e.mu.Lock()
		}
		now := s.pending
		s.pending = spare
		e.mu.Unlock()
		e.settleNow(&now)
		e.mu.Lock()
		spare = now
	}
}

// urgent says that settlements are not to wait for others.
func (e *engine) urgent() bool {
	s := &e.settle
	return len(s.firsts) > 0 || len(s.releases) > 0 || e.draining || e.busy == 0 || len(s.acks) > e.opt.Window.Messages/8
}

// settleNow tells the broker, and empties s.
func (e *engine) settleNow(s *pending) {
	if len(s.firsts) > 0 {
		err := e.settleWith(message.Ack, s.firsts)
		stale := len(s.firsts) == 1 && errors.Is(err, message.ErrStale)
		for _, w := range s.waiters {
			if stale {
				w <- message.ErrStale
			} else {
				w <- tellApart(err)
			}
		}
	}
	e.report(e.settleWith(message.Ack, s.acks), len(s.acks))
	e.report(e.settleWith(message.Release, s.releases), len(s.releases))
	clear(s.acks)
	clear(s.releases)
	clear(s.firsts)
	clear(s.waiters)
	s.acks, s.releases, s.firsts, s.waiters = s.acks[:0], s.releases[:0], s.firsts[:0], s.waiters[:0]
}

// errSome: of several deliveries some were stale, and nobody knows which.
var errSome = errors.New("one of several deliveries went away before it could be settled, and the broker does not say which")

func tellApart(err error) error {
	if errors.Is(err, message.ErrStale) {
		return errSome
	}
	return err
}

func (e *engine) settleWith(how message.Settlement, deliveries []message.Delivery) error {
	if len(deliveries) == 0 {
		return nil
	}
	if e.fenced() {
		return entrypoints.ErrFenced
	}
	ctx, cancel := context.WithTimeout(e.settling, settleTimeout)
	defer cancel()
	return e.opt.Stream.Settle(ctx, how, deliveries...)
}

// report logs the first of several settlements that fail. What was not settled comes again.
func (e *engine) report(err error, n int) {
	switch {
	case n == 0, errors.Is(err, entrypoints.ErrFenced):
	case err == nil:
		e.settle.noisy = false
	case errors.Is(err, message.ErrStale):
		e.opt.Logger.Debug("deliveries went away before they could be settled; they come again", zap.Int("messages", n))
	case !e.settle.noisy:
		e.settle.noisy = true
		e.opt.Logger.Warn("messages could not be settled; they come again", zap.Int("messages", n), zap.Error(err))
	}
}

// settleFirst settles a message before it is sent. If that fails it is not sent, and gone
// for good, unless the broker has taken it back.
func (e *engine) settleFirst(it *item, settled chan error) bool {
	e.mu.Lock()
	e.settle.firsts = append(e.settle.firsts, it.d)
	e.settle.waiters = append(e.settle.waiters, settled)
	e.hurrySettler()
	e.mu.Unlock()
	err := <-settled
	if err == nil {
		return true
	}
	if errors.Is(err, message.ErrStale) || errors.Is(err, entrypoints.ErrFenced) {
		return false // it comes again
	}
	e.opt.Logger.Warn("a message could not be settled before it was sent, and was dropped",
		zap.String("message", it.id), zap.String("position", position(it)), zap.Error(err))
	e.mu.Lock()
	defer e.mu.Unlock()
	e.Dropped++
	e.recent(entrypoints.Attempt{ID: it.id, At: time.Now(), Outcome: entrypoints.Unsettled, Error: short(err.Error())})
	return false
}
