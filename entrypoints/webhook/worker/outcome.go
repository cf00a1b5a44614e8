package worker

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
)

const (
	// longestRest bounds what a client can ask for by Retry-After.
	longestRest = time.Hour
	// maxError bounds what is kept of an error's text, in bytes.
	maxError = 512
)

// Why a message is dead although it was to be tried again.
const (
	reasonExhausted = "exhausted"     // its attempts are over
	reasonHeld      = "held_too_long" // the broker wants it back before the next attempt
	reasonWindow    = "window_full"   // what waits behind it would keep others from being delivered
)

// failed takes note of an attempt that failed, and does what is to be done then.
func (e *engine) failed(l *lane, it *item, r Result) {
	r.Error = short(r.Error)
	e.Failed++
	e.recent(r.Attempt)
	if e.opt.Logger.Core().Enabled(zap.DebugLevel) {
		e.opt.Logger.Debug("an attempt failed", zap.String("message", r.ID), zap.Int("attempt", r.Number),
			zap.String("outcome", string(r.Outcome)), zap.Int("status", r.Status), zap.String("error", r.Error))
	}
	t := e.trial(it)
	t.Attempts, t.Outcome, t.Status, t.Error = r.Number, r.Outcome, r.Status, r.Error
	t.Round++
	t.seen = e.Delivered
	if t.First.IsZero() {
		t.First = r.At
	}
	switch r.Outcome {
	case entrypoints.Gone:
		e.stop(l, it, &entrypoints.Failure{Gone: true, Cause: describe(it) + ": the client has said that it wants no more messages"})
	case entrypoints.Blocked:
		e.stop(l, it, &entrypoints.Failure{Cause: describe(it) + ": the gateway must not call this address"})
	case entrypoints.ClientError:
		e.act(l, it, e.opt.OnClientError, "on_client_error", string(r.Outcome))
	case entrypoints.Unsendable:
		action := e.opt.OnClientError
		if action == Stop && e.opt.DeadLetter != nil {
			action = DeadLetter // another attempt can't help it
		}
		e.act(l, it, action, "on_client_error", string(r.Outcome))
	default:
		e.again(l, it, r)
	}
}

// again parks the lane of a message that is to be tried again, if it is.
func (e *engine) again(l *lane, it *item, r Result) {
	t := it.trial
	if e.once || e.opt.Retry.over(t.Round) {
		e.exhausted(l, it, reasonExhausted)
		return
	}
	if it.stale() {
		e.rest()
		e.forget(l)
		return
	}
	delay := max(e.opt.Retry.After(t.Round, rand.Float64()), min(r.RetryAfter, longestRest))
	t.Next = time.Now().Add(delay)
	if e.holds() && t.Next.Add(e.margin()).After(it.at.Add(e.opt.Capabilities.MaxHold)) {
		e.exhausted(l, it, reasonHeld)
		return
	}
	e.keep(it)
	e.rest()
	e.park(l)
}

// exhausted does what is to be done with a message that is not tried again.
func (e *engine) exhausted(l *lane, it *item, why string) {
	e.act(l, it, e.opt.OnExhausted, "on_exhausted", why+":"+string(it.trial.Outcome))
}

// act applies a policy to the head of a lane.
func (e *engine) act(l *lane, it *item, action Action, policy, reason string) {
	if it.stale() && !e.once { // it comes again, and is judged then
		e.rest()
		e.forget(l)
		return
	}
	switch {
	case action == Skip || action == Stop && e.once: // the broker has forgotten it already
		e.rest()
		e.Skipped++
		e.counted()
		e.opt.Logger.Warn("a message was skipped", fields(it, reason)...)
		e.done(l)
	case action == DeadLetter && e.opt.DeadLetter != nil:
		e.bury(l, it, reason)
	case action == DeadLetter:
		e.stop(l, it, &entrypoints.Failure{Cause: describe(it) + ": " + policy + " is dead_letter, and there is no place for dead letters"})
	default:
		e.stop(l, it, &entrypoints.Failure{Cause: describe(it) + why(reason) + "; " + policy + " is stop"})
	}
}

// stop ends the worker because of the head of a lane, which stays at the broker. When it
// comes again, all its attempts are before it.
func (e *engine) stop(l *lane, it *item, f *entrypoints.Failure) {
	e.rest()
	if e.failure == nil {
		e.failure = f
	}
	e.end(f)
	it.trial.Round, it.trial.Next = 0, time.Time{}
	if e.once {
		e.Dropped++ // it was settled before it was sent
		e.done(l)
		return
	}
	e.keep(it)
	e.leave(l)
}

// trial is what is known of a message that has failed.
func (e *engine) trial(it *item) *trial {
	if it.trial == nil {
		it.trial = &trial{held: true}
		it.trial.ID, it.trial.Fingerprint, it.trial.Lane = it.id, it.fingerprint, it.d.Lane
	}
	return it.trial
}

// park has a lane wait until its head is due.
func (e *engine) park(l *lane) {
	it := l.head
	if it.stale() {
		e.forget(l)
		return
	}
	e.parked.park(l, it.trial.Next)
	if l.due.Before(e.armed) {
		e.nudge()
	}
	e.wake(e.relieve())
	if e.busy == 0 && e.ready.head == nil {
		e.trouble(it.trial)
	}
}

// why puts a reason into words.
func why(reason string) string {
	switch kind, _, _ := strings.Cut(reason, ":"); kind {
	case reasonHeld:
		return ", and the broker wants the message back before it could be tried again"
	case reasonWindow:
		return ", and what waits behind it keeps others from being delivered"
	case reasonExhausted:
		return ", and no attempt is left"
	}
	return ""
}

// describe says which message has failed, how often, and of what, for people.
func describe(it *item) string {
	t := it.trial
	text := "message " + t.ID
	if at := position(it); at != "" {
		text += " (" + at + ")"
	}
	text += " failed with " + string(t.Outcome)
	if t.Status != 0 {
		text += " (HTTP status " + strconv.Itoa(t.Status) + ")"
	}
	text += fmt.Sprintf(" at attempt %d", t.Attempts)
	if t.Error != "" {
		text += ": " + t.Error
	}
	return text
}

func fields(it *item, reason string) []zap.Field {
	t := it.trial
	return []zap.Field{
		zap.String("message", t.ID), zap.String("position", position(it)), zap.String("reason", reason),
		zap.Int("attempts", t.Attempts), zap.Int("status", t.Status), zap.String("error", t.Error),
	}
}

// position is where a message stands at the broker, for people.
func position(it *item) string {
	switch d := &it.d; {
	case d.Mark.Channel != "":
		return d.Lane + "@" + strconv.FormatInt(d.Mark.Next-1, 10)
	case d.ID != "":
		return d.Lane + " " + d.ID
	default:
		return d.Lane
	}
}

// short cuts a text to what is kept of it.
func short(text string) string {
	if len(text) <= maxError {
		return text
	}
	n := maxError
	for n > 0 && text[n]&0xc0 == 0x80 { // not within a character
		n--
	}
	return text[:n]
}
