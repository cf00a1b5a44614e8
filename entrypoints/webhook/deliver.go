package webhook

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/entrypoints/webhook/envelope"
	"github.com/caddy-message-api/caddy-message-api/entrypoints/webhook/worker"
	"github.com/caddy-message-api/caddy-message-api/message"
)

const (
	// firstPause and longestPause are between two tries to read from a broker.
	firstPause   = time.Second
	longestPause = time.Minute
	// steady is how long reading must have gone well for the pauses to begin anew.
	steady = time.Minute

	leastWindow = 64 // messages
	perCall     = 8  // messages of the window for each call in flight
	windowBytes = 16 << 20
)

// Deliver implements entrypoints.Pushing.
func (e *Entrypoint) Deliver(ctx context.Context, p entrypoints.Push) error {
	courier, err := e.couriers.lend(p.API(), p.Consumer())
	if err != nil {
		return &entrypoints.Failure{Cause: "the subscription's configuration can't be used: " + err.Error(), Err: err}
	}
	defer e.couriers.giveBack(courier)
	for pause := e.firstPause; ; pause = min(2*pause, longestPause) {
		began := time.Now()
		err := e.read(ctx, p, courier)
		if failure, ok := errors.AsType[*entrypoints.Failure](err); ok {
			return failure
		}
		if err == nil || ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > steady {
			pause = e.firstPause
		}
		e.trouble(p, err)
		if !wait(ctx, pause/2+rand.N(pause/2+1)) {
			return nil
		}
	}
}

// read delivers what one stream brings. It returns nil if ctx has ended.
func (e *Entrypoint) read(ctx context.Context, p entrypoints.Push, c *lent) error {
	window := message.Window{Messages: max(leastWindow, perCall*c.settings.concurrency), Bytes: windowBytes}
	stream, settles, err := p.Subscribe(ctx, window)
	if err != nil {
		return fmt.Errorf("subscribing at the broker: %w", err)
	}
	if before := p.Progress(); before != nil && before.Trouble != "" {
		now := *before // whatever is wrong now, the worker will find out
		now.Trouble, now.Since = "", time.Time{}
		p.Keep(&now)
	}
	opt := e.workerOptions(p, c)
	opt.Stream, opt.Settles, opt.Window = stream, settles, window
	return worker.Run(ctx, opt)
}

func (e *Entrypoint) workerOptions(p entrypoints.Push, c *lent) worker.Options {
	s, api := &c.settings, p.API()
	opt := worker.Options{
		QoS: e.QoS, Capabilities: p.Capabilities(), HoldsAll: p.Capabilities().HoldsBehind, Concurrency: s.concurrency, Retry: s.retry, Timeout: s.timeout,
		Order:         map[string]worker.Order{orderKey: worker.ByKey, orderLane: worker.ByLane, orderNone: worker.None}[s.order],
		OnClientError: actions[s.onClientError], OnExhausted: actions[s.onExhausted],
		Identity: func(d *message.Delivery) (fingerprint, id string) { return envelope.Identify(api, d) },
		Send:     c.send,
		Progress: p.Progress(), Keep: p.Keep, Sent: p.Sent, Logger: p.Logger(),
		// An attempt that has begun may end by itself, unless others would wait for it for long.
		DrainTimeout: min(s.timeout+drainMargin, longestDrain),
	}
	if p.Paced() {
		opt.Pace = p.Pace
	}
	if place := p.DeadLetters(); place != nil {
		opt.DeadLetter = func(ctx context.Context, l entrypoints.Letter) error {
			l.Subscription = p.Subscription()
			return place.Put(ctx, deadMessage(api, &l))
		}
	}
	return opt
}

var actions = map[string]worker.Action{deadLetter: worker.DeadLetter, stop: worker.Stop, skip: worker.Skip}

const (
	// drainMargin is what an attempt may need beyond its timeout to be over.
	drainMargin = time.Second
	// longestDrain is for how long attempts hold up the end of a worker. One that is cut comes
	// again.
	longestDrain = 15 * time.Second
)

// trouble tells why nothing is delivered for now. What was kept before is changed by nobody,
// so this makes a copy.
func (e *Entrypoint) trouble(p entrypoints.Push, err error) {
	p.Logger().Warn("nothing is delivered for now; the broker is asked again later", zap.Error(err))
	var now entrypoints.Progress
	if before := p.Progress(); before != nil {
		now = *before
	}
	if now.Trouble == "" {
		now.Since = time.Now()
	}
	now.Trouble = err.Error()
	p.Keep(&now)
}

// wait reports whether ctx lasted for as long.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Try implements entrypoints.Pushing.
func (e *Entrypoint) Try(ctx context.Context, p entrypoints.Push, l entrypoints.Letter) (entrypoints.Attempt, error) {
	courier, err := e.couriers.lend(p.API(), p.Consumer())
	if err != nil {
		return entrypoints.Attempt{}, message.Errorf(message.Mismatch, "the subscription's configuration can't be used: %w", err)
	}
	defer e.couriers.giveBack(courier)
	if l.Message == nil {
		return entrypoints.Attempt{}, message.Errorf(message.BadInput, "there is no message to send")
	}
	sent := *l.Message
	sent.Headers = withoutLetter(sent.Headers)
	d := &message.Delivery{Message: &sent}
	id := l.ID
	if id == "" {
		_, id = envelope.Identify(p.API(), d)
	}
	result := courier.send(ctx, d, id, l.Attempts+1)
	if result.Outcome == entrypoints.Delivered {
		p.Sent(1, len(sent.Payload))
	}
	return result.Attempt, nil
}
