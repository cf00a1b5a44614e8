package module

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/plans/limits"
	"github.com/caddy-message-api/caddy-message-api/workers"
)

// worker delivers one subscription, on the node that owns it. It is a session that no client
// has opened, so that whatever ends sessions ends it too. It implements entrypoints.Push.
type worker struct {
	*pushed
	s      *session
	whole  json.RawMessage
	values endpoints.Values
	keeper workers.Keeper

	progress atomic.Pointer[entrypoints.Progress]

	mu      sync.Mutex
	stream  message.Stream // the one that is being read
	counted entrypoints.Progress
}

// errEnded is how a worker ends that was told to, while others may still want it to go on: it
// is then started again, by what is current then.
var errEnded = errors.New("the session of this worker was ended")

// work is what the registry of workers runs.
func (p *pushed) work(f *facts) func(context.Context, workers.Keeper) error {
	return func(ctx context.Context, keeper workers.Keeper) error {
		err := p.workOnce(ctx, f, keeper)
		if errors.Is(err, errEnded) {
			// What ended the session mostly has the list of what is wanted made anew, too, and
			// then nothing has to wait for a work that ended by itself.
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(endedPatience):
			}
		}
		return err
	}
}

// endedPatience is how long a worker whose session was ended waits for the word that it is not
// wanted any more, or wanted otherwise.
const endedPatience = 2 * time.Second

func (p *pushed) workOnce(ctx context.Context, f *facts, keeper workers.Keeper) error {
	if !p.unit.enter() {
		return errEnded
	}
	defer p.unit.leave()
	app := currentApp()
	if app == nil || caddy.Exiting() {
		return errEnded
	}
	w, err := p.newWorker(app, keeper)
	if err != nil {
		return failed{&entrypoints.Failure{Cause: err.Error(), Err: err}}
	}
	return w.run(ctx, f)
}

// newWorker makes a worker that is no session yet. Without a keeper it forgets what it has
// done.
func (p *pushed) newWorker(app *App, keeper workers.Keeper) (*worker, error) {
	whole, err := p.consumer()
	if err != nil {
		return nil, fmt.Errorf("the configuration of this subscription can't be read: %w", err)
	}
	w := &worker{pushed: p, whole: whole, values: p.values(), keeper: keeper}
	w.progress.Store(new(entrypoints.Progress))
	g := &grant{principal: p.principal, inferred: p.client}
	g.identity.Client = p.client
	if p.limits.ReceiveRate != nil {
		g.account = accounts.Account(limits.Key{API: p.unit.def.ID, Plan: p.principal.Plan, Who: p.client}, p.limits, p.principal.Since, counters())
		g.paced = true
	}
	w.s = newSession(p.unit, p.way, app, g, nil)
	return w, nil
}

// run delivers until ctx ends, the session is ended, or it can't go on.
func (w *worker) run(ctx context.Context, f *facts) error {
	if err := w.restore(); err != nil {
		w.Logger().Warn("what was kept of this subscription can't be read: it starts anew", zap.Error(err))
	}
	if err := w.s.open(); err != nil {
		return err
	}
	own, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() {
		cause := context.Cause(ctx)
		if errors.Is(cause, workers.ErrFenced) {
			cause = entrypoints.ErrFenced
		}
		cancel(cause)
	})()
	forget := w.s.OnEnd(func(entrypoints.End) { cancel(errEnded) })
	defer forget()
	f.pushing.here.Store(w.id, w)
	defer f.pushing.here.CompareAndDelete(w.id, w)
	err := w.way.push.Deliver(own, w)
	return w.ended(ctx, f, err)
}

// ended closes the session and says what the registry of workers has to know.
func (w *worker) ended(ctx context.Context, f *facts, err error) error {
	failure, isFailure := errors.AsType[*entrypoints.Failure](err)
	if isFailure {
		w.s.finish(entrypoints.End{Reason: entrypoints.EndFailed, Detail: failure.Cause})
	}
	w.s.close(err)
	switch {
	case isFailure && failure.Gone && !w.static:
		return w.closeSubscription(f, failure)
	case isFailure:
		w.Logger().Error("the subscription has failed: nothing is delivered until it is retried or changed", zap.String("cause", failure.Cause))
		return failed{failure}
	case err == nil && ctx.Err() == nil:
		return errEnded
	}
	return err
}

// closeSubscription ends a subscription whose client has said that it wants no more.
func (w *worker) closeSubscription(f *facts, failure *entrypoints.Failure) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if _, err := f.subscriptions.CloseSubscription(ctx, "gateway", w.id, failure.Cause); err != nil {
		return failed{&entrypoints.Failure{Cause: fmt.Sprintf("%s; the subscription could not be closed: %v", failure.Cause, err), Err: err}}
	}
	w.Logger().Info("the subscription was closed by its client", zap.String("cause", failure.Cause))
	return errEnded
}

// failed tells the registry of workers that nobody should try again by himself.
type failed struct{ *entrypoints.Failure }

// WorkFailed implements workers.Failure.
func (f failed) WorkFailed() string { return f.Cause }

// restore reads what was kept.
func (w *worker) restore() error {
	raw := w.keeper.Load()
	if len(raw) == 0 {
		return nil
	}
	p := new(entrypoints.Progress)
	if err := json.Unmarshal(raw, p); err != nil {
		return err
	}
	w.progress.Store(p)
	w.counted = *p
	return nil
}

// API implements entrypoints.Push.
func (w *worker) API() string { return w.unit.def.ID }

// Subscription implements entrypoints.Push.
func (w *worker) Subscription() string { return w.id }

// Consumer implements entrypoints.Push.
func (w *worker) Consumer() json.RawMessage { return w.whole }

// Capabilities implements entrypoints.Push.
func (w *worker) Capabilities() message.Capabilities { return w.way.sub.caps }

// Logger implements entrypoints.Push.
func (w *worker) Logger() *zap.Logger {
	return w.s.log.With(zap.Uint64("session", w.s.id), zap.String("subscription", w.id))
}

// Subscribe implements entrypoints.Push.
func (w *worker) Subscribe(ctx context.Context, window message.Window) (message.Stream, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, subscribeTimeout)
	defer cancel()
	ep := w.way.sub
	ch, err := ep.sub.Channel(w.values)
	if err != nil {
		return nil, false, err
	}
	mode, err := w.way.mode(&ep.caps, false, false)
	if err != nil {
		return nil, false, err
	}
	sub := message.Subscription{Mode: mode, QoS: w.way.needs.QoS, Window: window}
	settles := mode == message.Member || mode == message.Shared
	if mode == message.Member {
		sub.Name = w.unit.def.ID + "." + brokerSafe(w.client)
	}
	stream, err := ep.sub.Subscribe(ctx, ch, sub)
	if err != nil {
		return nil, false, err
	}
	w.mu.Lock()
	w.stream = stream
	w.mu.Unlock()
	return stream, settles, nil
}

// DeadLetters implements entrypoints.Push.
func (w *worker) DeadLetters() entrypoints.DeadLetters {
	if w.way.dead == nil {
		return nil
	}
	return &deadLetters{w}
}

// Progress implements entrypoints.Push.
func (w *worker) Progress() *entrypoints.Progress { return w.progress.Load() }

// Keep implements entrypoints.Push.
func (w *worker) Keep(p *entrypoints.Progress) {
	w.progress.Store(p)
	w.count(p)
	if w.keeper == nil {
		return
	}
	raw, err := json.Marshal(p)
	if err != nil {
		w.Logger().Error("what was delivered can't be kept", zap.Error(err))
		return
	}
	w.keeper.Keep(raw)
}

// count brings the metrics to what the worker says it has done.
func (w *worker) count(p *entrypoints.Progress) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.s.app.metrics
	for _, c := range []struct {
		now, before int64
		what        string
	}{
		{p.Failed, w.counted.Failed, "attempt_failed"}, {p.Dead, w.counted.Dead, "dead_letter"}, {p.Skipped, w.counted.Skipped, "skipped"},
	} {
		if c.now > c.before {
			m.undelivered.WithLabelValues(w.unit.def.ID, w.way.needs.Type, c.what).Add(float64(c.now - c.before))
		}
	}
	w.counted = *p
}

// Sent implements entrypoints.Push.
func (w *worker) Sent(messages, bytes int) { w.s.Sent(messages, bytes) }

// Paced implements entrypoints.Push.
func (w *worker) Paced() bool { return w.s.paced }

// Pace implements entrypoints.Push.
func (w *worker) Pace(ctx context.Context) error {
	for w.s.paced {
		allowed, wait := w.s.account.Receive(1)
		if allowed > 0 {
			return nil
		}
		w.s.pacedOut()
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
	return nil
}

// backlog is how many messages wait at the broker, where that can be told.
func (w *worker) backlog(ctx context.Context) (n int64, known bool) {
	w.mu.Lock()
	stream := w.stream
	w.mu.Unlock()
	b, ok := stream.(message.Backlogger)
	if !ok {
		return 0, false
	}
	n, err := b.Backlog(ctx)
	return n, err == nil
}

// Interface guard.
var _ entrypoints.Push = (*worker)(nil)
