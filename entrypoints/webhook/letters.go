package webhook

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

const (
	// letterWait is how long the first dead letter may take, letterIdle how long each one
	// after it, before there are taken to be no more.
	letterWait = 5 * time.Second
	letterIdle = 2 * time.Second
	// settleTime bounds what is settled after the one who asked has gone.
	settleTime = 5 * time.Second
)

// letterWindow is how many dead letters can be looked at without taking any away.
var letterWindow = message.Window{Messages: 10_000, Bytes: 64 << 20}

// Letters implements entrypoints.Pushing. Dead letters of other subscriptions at the same
// place are left there.
func (e *Entrypoint) Letters(ctx context.Context, p entrypoints.Push, f func(entrypoints.Letter) (entrypoints.LetterFate, error)) (err error) {
	place := p.DeadLetters()
	if place == nil {
		return message.Errorf(message.NotFound, "the API has no place for dead letters: name an endpoint by `dead_letter` at its entrypoint %s", moduleName)
	}
	stream, settles, err := place.Read(ctx, letterWindow)
	if err != nil {
		return fmt.Errorf("reading dead letters at %s: %w", place.Name(), err)
	}
	r := &letterReader{stream: stream, settles: settles, api: p.API(), subscription: p.Subscription(), each: f, wait: e.letterWait, idle: e.letterIdle}
	err = r.run(ctx)
	return errors.Join(err, r.end(ctx))
}

// letterReader goes once through the dead letters.
type letterReader struct {
	stream            message.Stream
	settles           bool
	api, subscription string
	each              func(entrypoints.Letter) (entrypoints.LetterFate, error)
	wait, idle        time.Duration

	stays       []message.Delivery // not settled yet
	held, bytes int                // of all that stays
}

func (r *letterReader) run(ctx context.Context) error {
	for wait := r.wait; ; wait = r.idle {
		batch, err := r.receive(ctx, wait)
		if err != nil || len(batch.Deliveries) == 0 && batch.Gap == nil && len(batch.Revoked) == 0 {
			return err
		}
		if batch.Gap != nil && batch.Gap.Reason != message.GapExpired { // what the broker has dropped by age is gone for everybody
			return fmt.Errorf("reading dead letters was cut (%s): %s", batch.Gap.Reason, batch.Gap.Detail)
		}
		if err = r.take(ctx, batch.Deliveries); err != nil {
			return err
		}
		if r.settles && (r.held >= letterWindow.Messages || r.bytes >= letterWindow.Bytes) {
			return message.Errorf(message.TooLarge, "only the first %d dead letters could be looked at, because none of them is to be taken away: "+
				"take some away, or give each API a place of its own", r.held)
		}
	}
}

// receive returns an empty batch if nothing has come in time.
func (r *letterReader) receive(ctx context.Context, wait time.Duration) (message.Batch, error) {
	timed, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	batch, err := r.stream.Receive(timed)
	switch {
	case err == nil:
		return batch, nil
	case ctx.Err() != nil:
		return batch, context.Cause(ctx)
	case timed.Err() != nil:
		return message.Batch{}, nil
	}
	return batch, fmt.Errorf("reading dead letters: %w", err)
}

// take asks about each letter, and notes what stays. After an error the rest is not asked
// about, and stays.
func (r *letterReader) take(ctx context.Context, deliveries []message.Delivery) (err error) {
	for i := range deliveries {
		d := &deliveries[i]
		fate := entrypoints.LetterStays
		if letter, mine := letterOf(r.api, r.subscription, d.Message); mine && err == nil {
			fate, err = r.each(letter)
		}
		switch {
		case !r.settles:
		case fate == entrypoints.LetterRemoved:
			err = errors.Join(err, r.remove(ctx, d))
		default:
			r.held++
			r.bytes += d.Size()
			r.stays = append(r.stays, *d)
		}
	}
	return err
}

// remove takes away what is done with, at once and also when the one who asked has gone
// meanwhile: otherwise it would be delivered once more.
func (r *letterReader) remove(ctx context.Context, d *message.Delivery) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
	defer cancel()
	if err := r.stream.Settle(ctx, message.Ack, *d); err != nil {
		return fmt.Errorf("a dead letter was delivered and can't be taken away, so that it will come again: %w", err)
	}
	return nil
}

// end gives back what stays.
func (r *letterReader) end(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
	defer cancel()
	if len(r.stays) > 0 {
		err = r.stream.Settle(ctx, message.Release, r.stays...)
		if errors.Is(err, message.ErrStale) {
			err = nil // the broker has them back already
		}
	}
	if cerr := r.stream.Close(ctx); cerr != nil && err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("giving dead letters back: %w", err)
	}
	return nil
}
