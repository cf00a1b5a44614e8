package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

const (
	// burialTimeout is for how long the place of dead letters may be away.
	burialTimeout = time.Minute
	// Between tries.
	firstBurialPause, longestBurialPause = time.Second, 10 * time.Second
)

// errInterrupted: the worker ends, and what it was about to do is left to the next.
var errInterrupted = errors.New("interrupted")

// bury puts the head of a lane to the dead letters. e.mu is held, but not meanwhile.
func (e *engine) bury(l *lane, it *item, reason string) {
	t := it.trial
	letter := entrypoints.Letter{
		ID: t.ID, Attempts: t.Attempts, Reason: reason, Status: t.Status, Error: t.Error,
		Position: position(it), Time: time.Now(), Message: it.d.Message,
	}
	deadline := letter.Time.Add(burialTimeout)
	if e.holds() {
		if end := it.at.Add(e.opt.Capabilities.MaxHold); end.Before(deadline) {
			deadline = end
		}
	}
	e.mu.Unlock()
	err := e.putAway(letter, deadline)
	e.mu.Lock()
	switch {
	case err == nil:
		e.rest()
		e.Dead++
		e.counted()
		e.opt.Logger.Warn("a message went to the dead letters", fields(it, reason)...)
		e.done(l)
	case errors.Is(err, errInterrupted) && !e.once:
		// The next worker makes the last attempt once more, and then judges by that.
		e.keep(it)
		e.rest()
		e.leave(l)
	case errors.Is(err, errInterrupted):
		e.rest()
		e.Dropped++
		e.counted()
		e.opt.Logger.Warn("a message could not be put to the dead letters before the worker had to end, and was dropped", fields(it, reason)...)
		e.done(l)
	default:
		e.stop(l, it, &entrypoints.Failure{
			Cause: fmt.Sprintf("%s. It could not be put to the dead letters: %v", describe(it), err), Err: err,
		})
	}
}

// putAway publishes a dead letter, for as long as its broker is only away.
func (e *engine) putAway(letter entrypoints.Letter, deadline time.Time) error {
	ctx, cancel := context.WithDeadline(e.send, deadline)
	defer cancel()
	for pause := firstBurialPause; ; pause = min(2*pause, longestBurialPause) {
		err := e.opt.DeadLetter(ctx, letter)
		switch {
		case err == nil:
			return nil
		case e.send.Err() != nil:
			return errInterrupted
		case !passing(err) || time.Now().Add(pause).After(deadline):
			return err
		}
		e.opt.Logger.Warn("the place for dead letters is away; it is tried again", zap.Error(err))
		if !e.pause(ctx, pause) {
			return errInterrupted
		}
	}
}

// passing says that a publish may do better in a while. One whose outcome is unknown is among
// them: the worst that follows is that a dead letter is there twice.
func passing(err error) bool {
	switch message.KindOf(err) {
	case message.Unavailable, message.OutcomeUnknown, message.Busy:
		return true
	}
	return false
}

// pause waits, and reports false when the worker ends.
func (e *engine) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	case <-e.read.Done():
		return false
	}
}
