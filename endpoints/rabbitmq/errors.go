package rabbitmq

import (
	"context"
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// reply is an error of the protocol in the broker's own words.
type reply struct{ cause *amqp.Error }

func (e *reply) Error() string { return fmt.Sprintf("%s (AMQP %d)", e.cause.Reason, e.cause.Code) }
func (e *reply) Unwrap() error { return e.cause }

// reason makes the library's errors legible.
func reason(err error) error {
	if e, ok := errors.AsType[*amqp.Error](err); ok {
		return &reply{e}
	}
	return err
}

// codeOf is the protocol's code of an error, or 0.
func codeOf(err error) int {
	if e, ok := errors.AsType[*amqp.Error](err); ok {
		return e.Code
	}
	return 0
}

func kindOf(code int) message.Kind {
	switch code {
	case amqp.AccessRefused, amqp.NotAllowed:
		return message.Denied
	case amqp.NotFound:
		return message.NotFound
	case amqp.ContentTooLarge:
		return message.TooLarge
	case amqp.ResourceLocked:
		return message.Busy
	case amqp.PreconditionFailed, amqp.CommandInvalid, amqp.NotImplemented:
		return message.Mismatch
	}
	return message.Unavailable
}

// endsConnection reports whether the broker closes the whole connection with that code,
// and not only a channel.
func endsConnection(code int) bool {
	switch code {
	case 0, amqp.ContentTooLarge, amqp.NoRoute, amqp.NoConsumers, amqp.AccessRefused, amqp.NotFound, amqp.ResourceLocked, amqp.PreconditionFailed:
		return false
	}
	return true
}

// fault says what a failed exchange with the broker means to clients.
func fault(what string, err error) *message.Error {
	if e, ok := errors.AsType[*message.Error](err); ok {
		return e
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		e := message.Errorf(message.Unavailable, "%s: RabbitMQ did not answer in time: %w", what, err)
		e.RetryAfter = retryAfter
		return e
	}
	kind := kindOf(codeOf(err))
	e := message.Errorf(kind, "%s: %w", what, reason(err))
	if kind == message.Unavailable || kind == message.Busy {
		e.RetryAfter = retryAfter
	}
	return e
}
