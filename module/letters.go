package module

import (
	"context"
	"errors"
	"fmt"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// deadLetters is the endpoint that takes what a worker can't deliver.
type deadLetters struct{ w *worker }

// Name implements entrypoints.DeadLetters.
func (d *deadLetters) Name() string { return d.w.way.dead.name }

// Put implements entrypoints.DeadLetters. A queue that nobody has read yet is not there yet,
// if it is who reads it that declares it.
func (d *deadLetters) Put(ctx context.Context, messages ...*message.Message) error {
	err := d.put(ctx, messages)
	if err == nil || message.KindOf(err) != message.NotFound {
		return err
	}
	stream, _, readErr := d.Read(ctx, message.Window{Messages: 1})
	if readErr != nil {
		return err
	}
	if closeErr := stream.Close(ctx); closeErr != nil {
		return errors.Join(err, closeErr)
	}
	return d.put(ctx, messages)
}

func (d *deadLetters) put(ctx context.Context, messages []*message.Message) error {
	p, err := d.w.way.dead.pub.Publisher(d.w.values)
	if err != nil {
		return err
	}
	for _, r := range p.Publish(ctx, message.AtLeastOnce, messages...) {
		if r.Status == message.Stored {
			continue
		}
		if r.Err == nil {
			return message.Errorf(message.OutcomeUnknown, "endpoint %s has not confirmed a dead letter", d.Name())
		}
		return fmt.Errorf("endpoint %s has not taken a dead letter: %w", d.Name(), r.Err)
	}
	return nil
}

// Read implements entrypoints.DeadLetters. A log is read from its beginning and keeps what it
// has; a queue lends, and what is acknowledged is gone.
func (d *deadLetters) Read(ctx context.Context, window message.Window) (message.Stream, bool, error) {
	ep := d.w.way.dead
	sub := message.Subscription{QoS: message.AtLeastOnce, Window: window}
	switch {
	case ep.caps.Subscribe && ep.caps.Positions:
		sub.Mode, sub.From = message.Assigned, message.Start{Kind: message.StartEarliest}
	case ep.caps.Subscribe && ep.caps.Shared:
		sub.Mode = message.Shared
	default:
		return nil, false, message.Errorf(message.BadInput,
			"the dead letters of endpoint %s can't be read: give it a consumer that reads what its producer writes, a topic, or a queue with `shared`", d.Name())
	}
	ctx, cancel := context.WithTimeout(ctx, subscribeTimeout)
	defer cancel()
	ch, err := ep.sub.Channel(d.w.values)
	if err != nil {
		return nil, false, err
	}
	stream, err := ep.sub.Subscribe(ctx, ch, sub)
	return stream, sub.Mode == message.Shared, err
}

// Interface guard.
var _ entrypoints.DeadLetters = (*deadLetters)(nil)
