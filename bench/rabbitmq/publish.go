package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/caddy-message-api/caddy-message-api/bench/load"
	"github.com/caddy-message-api/caddy-message-api/bench/plain"
)

// PublishArgs say how a plain client publishes.
type PublishArgs struct {
	Place
	// Queue is published to by way of the default exchange.
	Queue string
	// Callers publish on one connection, and share so many channels.
	Callers, Channels int
	For               time.Duration
}

// Publish publishes persistent, mandatory messages, each of which a caller waits for until
// it is confirmed: what the gateway does for a POST.
func Publish(args PublishArgs) (plain.Calls, error) {
	conn, err := Dial(args.Place)
	if err != nil {
		return plain.Calls{}, err
	}
	channels := make([]*amqp.Channel, args.Channels)
	returned := make([]chan amqp.Return, args.Channels)
	for i := range channels {
		if channels[i], err = conn.Channel(); err == nil {
			err = channels[i].Confirm(false)
		}
		if err != nil {
			return plain.Calls{}, errors.Join(err, conn.Close())
		}
		returned[i] = channels[i].NotifyReturn(make(chan amqp.Return, args.Callers))
	}
	content := load.Content()
	calls, err := plain.Repeat(args.Callers, args.For, func(ctx context.Context, caller, _ int) error {
		confirmation, err := channels[caller%len(channels)].PublishWithDeferredConfirmWithContext(ctx, "", args.Queue, true, false,
			amqp.Publishing{DeliveryMode: amqp.Persistent, ContentType: "text/plain", Body: content})
		if err != nil {
			return err
		}
		ok, err := confirmation.WaitContext(ctx)
		if err == nil && !ok {
			err = errors.New("the broker has not taken the message")
		}
		return err
	})
	for _, r := range returned {
		if len(r) > 0 {
			err = errors.Join(err, fmt.Errorf("there is no queue %s", args.Queue))
		}
	}
	return calls, errors.Join(err, conn.Close())
}
