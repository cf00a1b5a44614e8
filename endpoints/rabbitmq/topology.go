package rabbitmq

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// maxKnown is how many exchanges are remembered: their names may come from clients.
const maxKnown = 512

// exchanges are those that a connection need not ask for again.
type exchanges struct {
	mu    sync.RWMutex
	names map[string]struct{}
}

func (x *exchanges) knows(name string) bool {
	if name == "" {
		return true
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	_, ok := x.names[name]
	return ok
}

func (x *exchanges) learn(name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.names == nil || len(x.names) >= maxKnown {
		x.names = make(map[string]struct{})
	}
	x.names[name] = struct{}{}
}

func (x *exchanges) forget() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.names = nil
}

// vetting tries a declaration on a connection of its own before it is made where others
// work: for some of what a configuration can say (an unknown type of exchange), the broker
// closes not the channel but the whole connection. Once is enough, because what differs
// from one request to the next are only names.
type vetting struct {
	cfg  *connConfig
	done atomic.Bool
}

// try makes the declaration, if it was not made before.
func (v *vetting) try(ctx context.Context, address string, declare func(ch *amqp.Channel) error) error {
	if v.done.Load() {
		return nil
	}
	conn, _, err := v.cfg.dial(ctx, address, "declare")
	if err != nil {
		return err
	}
	defer conn.end()
	if err := onChannel(ctx, conn, declare); err != nil {
		return err
	}
	v.done.Store(true)
	return nil
}

// onChannel does something on a channel that nobody else uses, because what goes wrong
// closes it.
func onChannel(ctx context.Context, conn *connection, do func(ch *amqp.Channel) error) error {
	_, err := within(ctx, func() (struct{}, error) {
		ch, err := conn.Channel()
		if err != nil {
			return struct{}{}, err
		}
		if err := do(ch); err != nil {
			return struct{}{}, err // and the channel is closed
		}
		return struct{}{}, ch.Close()
	}, nil)
	return err
}

// exchangeSpec is an exchange as it is declared, without its name.
type exchangeSpec struct {
	declare    bool
	kind       string
	durable    bool
	autoDelete bool
	arguments  amqp.Table
}

func (x *Exchange) spec() exchangeSpec {
	if x == nil {
		return exchangeSpec{}
	}
	arguments, _ := table(x.Argument) // it was checked
	return exchangeSpec{x.declares(), x.Type, on(x.Durable), x.AutoDelete, arguments}
}

// ensure declares an exchange, or asks whether it is there.
func (x *exchangeSpec) ensure(ch *amqp.Channel, name string) error {
	if name == "" {
		return nil
	}
	if !x.declare {
		return ch.ExchangeDeclarePassive(name, "direct", true, false, false, false, nil) // only the name counts
	}
	return ch.ExchangeDeclare(name, x.kind, x.durable, x.autoDelete, false, false, x.arguments)
}

// queueSpec is a queue as it is declared, without its name.
type queueSpec struct {
	declare    bool
	durable    bool
	autoDelete bool
	exclusive  bool
	arguments  amqp.Table
}

// clash says what it means that a declaration was refused.
func clash(what string, err error) *message.Error {
	switch code := codeOf(err); {
	case code == amqp.PreconditionFailed:
		return message.Errorf(message.Mismatch, "%s exists at RabbitMQ in another way than the endpoint's configuration says: %w", what, reason(err))
	case code == amqp.CommandInvalid, code == amqp.NotImplemented:
		return message.Errorf(message.Mismatch, "RabbitMQ can't declare %s: %w", what, reason(err))
	case errors.Is(err, amqp.ErrClosed):
		return fault("declaring "+what, err)
	}
	return fault(what, err)
}
