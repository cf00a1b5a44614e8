package mqtt

import (
	"context"
	"errors"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/caddy-message-api/caddy-message-api/bench/load"
	"github.com/caddy-message-api/caddy-message-api/bench/plain"
)

// PublishArgs say how plain clients publish.
type PublishArgs struct {
	Addr, Topic string
	// Callers share so many clients, each with a connection of its own.
	Callers, Clients int
	For              time.Duration
}

// Publish publishes with QoS 1, and each caller waits for the PUBACK.
func Publish(args PublishArgs) (plain.Calls, error) {
	clients := make([]*paho.Client, 0, args.Clients)
	var err error
	for len(clients) < args.Clients && err == nil {
		var c *paho.Client
		if c, err = connect(args.Addr, "publisher", nil); err == nil {
			clients = append(clients, c)
		}
	}
	var calls plain.Calls
	if err == nil {
		content := load.Content()
		calls, err = plain.Repeat(args.Callers, args.For, func(ctx context.Context, caller, _ int) error {
			_, err := clients[caller%len(clients)].Publish(ctx, &paho.Publish{Topic: args.Topic, QoS: 1, Payload: content})
			return err
		})
	}
	for _, c := range clients {
		err = errors.Join(err, c.Disconnect(&paho.Disconnect{}))
	}
	return calls, err
}
