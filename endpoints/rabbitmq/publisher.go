package rabbitmq

import (
	"context"
	"errors"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// publisher writes to one exchange with one routing key, on behalf of one request or of
// all.
type publisher struct {
	p        *producer
	exchange string
	key      string
	// facts are told of each message that was stored.
	facts []message.Field
}

func (p *producer) publisher(exchange, key string) *publisher {
	return &publisher{p: p, exchange: exchange, key: key, facts: []message.Field{
		message.Text("exchange", exchange), message.Text("routing_key", key),
	}}
}

// Publish implements message.Publisher. All messages go out on one channel, in their
// order, before the first confirmation is waited for.
func (p *publisher) Publish(ctx context.Context, qos message.QoS, messages ...*message.Message) []message.Result {
	results := make([]message.Result, len(messages))
	if len(messages) == 0 {
		return results
	}
	late := make(chan struct{}) // a timer's channel would tell only one of the messages
	defer time.AfterFunc(patience, func() { close(late) }).Stop()
	under := make([]publication, len(messages))
	pipe, err := p.open(ctx)
	for i, m := range messages {
		u := &under[i]
		u.exchange, u.key, u.id, u.size = p.exchange, p.key, m.ID, len(m.Payload)
		if u.id == "" {
			u.id = p.p.nextID()
		}
		if err == nil {
			results[i].Err = p.send(ctx, late, pipe, u, m)
			// What is wrong with this message harms no other.
			if k := message.KindOf(results[i].Err); results[i].Err != nil && k != message.BadInput && k != message.TooLarge {
				err = results[i].Err
			}
		} else {
			results[i].Err = err
		}
		if results[i].Err != nil {
			results[i].Status = message.Refused
		}
	}
	for i := range under {
		switch {
		case results[i].Status == message.Refused:
		case qos == message.None:
			pipe.hand(ctx, &under[i])
			results[i] = message.Result{Status: message.Handed, ID: under[i].id}
		default:
			results[i] = p.wait(ctx, late, pipe, &under[i])
		}
	}
	shareDenial(results)
	return results
}

// shareDenial tells the cause of messages that did not leave because the broker had closed the
// channel for one before them: all go to the same exchange with the same key, so that what is
// denied to one is denied to all.
func shareDenial(results []message.Result) {
	var denied error
	for i := range results {
		switch {
		case results[i].Status != message.Refused:
		case message.KindOf(results[i].Err) == message.Denied:
			denied = results[i].Err
		case denied != nil && errors.Is(results[i].Err, amqp.ErrClosed):
			results[i].Err = denied
		}
	}
}

// open returns a channel that takes messages now.
func (p *publisher) open(ctx context.Context) (*pipe, error) {
	if err := ctx.Err(); err != nil {
		return nil, message.Errorf(message.Unavailable, "not sent: %w", err)
	}
	for {
		conn, err := living(ctx, p.p.link)
		if err != nil {
			return nil, err
		}
		pipe, err := p.on(ctx, conn)
		if err == nil || !conn.IsClosed() || ctx.Err() != nil {
			return pipe, err
		}
	}
}

// on returns a channel of a connection.
func (p *publisher) on(ctx context.Context, conn *connection) (*pipe, error) {
	if why := conn.blocked.Load(); why != nil {
		e := message.Errorf(message.Unavailable, "RabbitMQ at %s takes no messages at the moment (%s)", p.p.link.Address(), *why)
		e.RetryAfter = retryAfter
		return nil, e
	}
	if !conn.exchanges.knows(p.exchange) {
		if err := p.p.ensure(ctx, conn, p.exchange); err != nil {
			return nil, err
		}
	}
	return conn.outlet(ctx, p.p)
}

// send gives a message to the library. Whatever it returns, an error means that the
// message did not leave.
func (p *publisher) send(ctx context.Context, late <-chan struct{}, pipe *pipe, u *publication, m *message.Message) error {
	msg, err := encode(m, u.id, p.p.mode, pipe.conn.Config.FrameSize)
	if err != nil {
		return err
	}
	if err := pipe.admit(ctx, late); err != nil {
		return p.unavailable(err)
	}
	if err := pipe.publish(u, p.p.mandatory, msg); err != nil {
		return p.unavailable(err)
	}
	return nil
}

func (p *publisher) unavailable(err error) error {
	if e, ok := errors.AsType[*message.Error](err); ok {
		return e
	}
	e := message.Errorf(message.Unavailable, "not sent to RabbitMQ at %s: %w", p.p.link.Address(), reason(err))
	e.RetryAfter = time.Second
	return e
}

// wait waits for the confirmation of one message, or for ctx.
func (p *publisher) wait(ctx context.Context, late <-chan struct{}, pipe *pipe, u *publication) message.Result {
	var err error
	select {
	case <-u.confirm.Done():
	default:
		select {
		case <-u.confirm.Done():
		case <-ctx.Done():
			err = ctx.Err()
		case <-late:
			err = context.DeadlineExceeded
		}
	}
	if err != nil {
		pipe.hand(ctx, u) // so that a return is not left lying, and a loss is told
		return message.Result{Status: message.Unknown, ID: u.id, Err: message.Errorf(message.OutcomeUnknown,
			"RabbitMQ at %s did not confirm the message in time, and may have it: %w", p.p.link.Address(), err)}
	}
	status, err := pipe.outcome(u)
	r := message.Result{Status: status, ID: u.id, Err: err}
	if status == message.Stored {
		r.Metadata = p.facts
	}
	return r
}

// deliveryMode is how the protocol says persistent.
func deliveryMode(persistent bool) uint8 {
	if persistent {
		return amqp.Persistent
	}
	return amqp.Transient
}

var _ message.Publisher = (*publisher)(nil)
