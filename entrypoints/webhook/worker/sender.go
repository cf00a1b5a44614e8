package worker

import (
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
)

// sender is one of the goroutines that send: it takes the head of a runnable lane, sees it
// through to an outcome, and takes the next.
func (e *engine) sender() {
	settled := make(chan error, 1)
	e.mu.Lock()
	for l := e.take(); l != nil; l = e.take() {
		e.busy++
		e.process(l, settled)
	}
	e.workers--
	e.mu.Unlock()
}

// take waits for a runnable lane. It returns nil when nothing is to be begun any more, or
// there are more to do it than are needed. e.mu is held.
func (e *engine) take() *lane {
	for {
		if e.draining {
			return nil
		}
		if l := e.ready.pop(); l != nil {
			return l
		}
		if e.retire > 0 {
			e.retire--
			return nil
		}
		e.idle++
		e.work.Wait()
	}
}

// process does what is to be done with the head of a lane. e.mu is held, but not meanwhile.
func (e *engine) process(l *lane, settled chan error) {
	it := l.head
	switch {
	case it.stale():
		e.rest()
		e.forget(l)
		return
	case it.trial != nil && it.trial.verdict != "":
		e.exhausted(l, it, it.trial.verdict)
		return
	}
	e.mu.Unlock()
	result, what := e.attempt(it, settled)
	e.mu.Lock()
	switch what {
	case sent:
		e.conclude(l, it, result)
	case unsent:
		e.rest()
		e.leave(l)
	case early:
		e.rest()
		e.park(l)
	case late:
		e.rest()
		e.giveBack(l)
	case unsettled:
		e.rest()
		e.free(e.remove(l))
		e.goOn(l)
	}
}

// step is what came of taking up a message.
type step uint8

const (
	sent      step = iota
	unsent         // the worker ends, or the lane went away
	early          // it has failed before, and is not due
	late           // it can't be held for as long as an attempt may take
	unsettled      // at_most_once: it could not be settled
)

// attempt makes one attempt, if it is time for that.
func (e *engine) attempt(it *item, settled chan error) (Result, step) {
	if it.id == "" {
		it.fingerprint, it.id = e.opt.Identity(&it.d)
		if e.known.Load() > 0 && e.resume(it) && time.Until(it.trial.Next) > 0 {
			return Result{}, early
		}
	}
	id, number := it.id, 1
	if t := it.trial; t != nil {
		id, number = t.ID, t.Attempts+1
	}
	if e.opt.Pace != nil {
		if err := e.opt.Pace(e.read); err != nil {
			e.paceless(err)
			return Result{}, unsent
		}
		if e.left(it) {
			return Result{}, unsent
		}
	}
	if e.stopped.Load() {
		return Result{}, unsent
	}
	if e.holds() && time.Until(it.at.Add(e.opt.Capabilities.MaxHold-e.margin())) < 0 {
		return Result{}, late
	}
	if e.once && e.opt.Settles && !e.settleFirst(it, settled) {
		return Result{}, unsettled
	}
	result := e.opt.Send(e.send, &it.d, id, number)
	result.ID, result.Number = id, number
	if result.Outcome == entrypoints.Delivered {
		e.opt.Sent(1, len(it.d.Payload))
		return result, sent
	}
	if e.send.Err() != nil && result.Status == 0 && !e.once {
		return result, unsent // we cut it ourselves, which says nothing about the client
	}
	return result, sent
}

// paceless ends the worker, if it was not ending anyway, because its rate can't be kept.
func (e *engine) paceless(err error) {
	if e.read.Err() == nil {
		e.mu.Lock()
		e.end(fmt.Errorf("keeping to the rate: %w", err))
		e.mu.Unlock()
	}
}

// left reports whether the lane of a message went away while it was waiting.
func (e *engine) left(it *item) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return it.stale()
}

// holds says that the broker wants its deliveries back after a while.
func (e *engine) holds() bool { return e.tracked && e.opt.Capabilities.MaxHold > 0 }

// margin is how long before the end of MaxHold the last attempt begins.
func (e *engine) margin() time.Duration {
	return min(e.opt.Timeout, e.opt.Capabilities.MaxHold/2)
}

// conclude takes note of an attempt. e.mu is held, but not while a dead letter is put away.
func (e *engine) conclude(l *lane, it *item, r Result) {
	if r.Outcome == entrypoints.Delivered {
		e.rest()
		e.delivered(r.Attempt)
		e.done(l)
		return
	}
	e.failed(l, it, r)
}

// rest notes that the head of a lane is not under way any more.
func (e *engine) rest() { e.busy-- }

// ordered says that settling one delivery settles all before it in its lane.
func (e *engine) ordered() bool { return e.tracked && e.opt.Capabilities.OrderedSettle }

// done finishes the head of a lane: it was delivered, put away or skipped.
func (e *engine) done(l *lane) {
	it := e.remove(l)
	if it.trial != nil {
		e.over(it.trial)
	}
	switch {
	case !e.tracked || it.stale():
		e.free(it)
	case e.ordered():
		it.finished = true
		e.settleHead(it.from)
	default:
		e.settle.acks = append(e.settle.acks, it.d)
		e.free(it)
	}
	e.goOn(l)
	e.hurrySettler()
	if e.pressed {
		e.wake(e.relieve())
	}
}

// settleHead has the finished beginning of a source settled: an acknowledgement counts for
// all that came before it.
func (e *engine) settleHead(s *source) {
	n := 0
	for ; n < len(s.unsettled) && s.unsettled[n].finished; n++ {
		it := s.unsettled[n]
		s.unsettled[n] = nil
		e.settle.acks = append(e.settle.acks, it.d)
		e.free(it)
	}
	s.unsettled = s.unsettled[n:]
}

// forget drops the head of a lane, which comes again elsewhere, or later.
func (e *engine) forget(l *lane) {
	it := e.remove(l)
	if it.trial != nil {
		e.lost(it.trial)
	}
	e.free(it)
	e.goOn(l)
}

// leave puts a lane back as it was: for the end of the worker, which gives it back, or
// because its head went away.
func (e *engine) leave(l *lane) {
	if l.head.stale() {
		e.forget(l)
		return
	}
	e.ready.pushFront(l)
}

// giveBack gives all of a lane back to the broker, which wants it back anyway. None of it
// may be sent before it comes again, or it would overtake what was given back.
func (e *engine) giveBack(l *lane) {
	e.opt.Logger.Warn("messages have waited for almost as long as the broker lends them, and are given back",
		zap.String("lane", l.head.from.name), zap.Int("messages", l.messages))
	if e.ordered() {
		e.returnAll(l.head.from)
		e.wake(e.unparkStale())
	}
	for first := true; l.head != nil && (first || !e.ordered()); first = false {
		e.release(e.remove(l))
	}
	e.goOn(l)
	e.hurrySettler()
}

// returnAll gives back all that a source has lent, where settling one settles all before it:
// what comes after a message that was given back can't be settled any more.
func (e *engine) returnAll(s *source) {
	for _, it := range s.unsettled {
		e.settle.releases = append(e.settle.releases, it.d)
	}
	s.gen++
	e.outdate(s)
}

// release gives back what was taken from its lane.
func (e *engine) release(it *item) {
	if it.trial != nil {
		e.lost(it.trial)
	}
	if e.opt.Settles && !it.stale() {
		e.settle.releases = append(e.settle.releases, it.d)
	}
	e.free(it)
}
