package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// retryAfter is what clients are told when the broker is down: it is looked for again
// with every request, so soon is good.
const retryAfter = 5 * time.Second

// callError is the failure of one exchange with a broker.
type callError struct {
	// sent: the request may have reached the broker.
	sent bool
	err  error
}

func (e *callError) Error() string { return e.err.Error() }
func (e *callError) Unwrap() error { return e.err }

// maybeSent reports whether the request behind err may have been acted on.
func maybeSent(err error) bool {
	e, ok := errors.AsType[*callError](err)
	return ok && e.sent
}

// unavailable says that the brokers can't be reached.
func (c *client) unavailable(err error) *message.Error {
	if e, ok := errors.AsType[*message.Error](err); ok {
		return e
	}
	e := message.Errorf(message.Unavailable, "Kafka at %s can't be reached: %w", c.address(), legible(err, c.health.served.Load()))
	e.RetryAfter = retryAfter
	return e
}

// legible turns the terse errors of the network into something that tells what to do. A
// broker that never served us may speak another protocol than we do.
func legible(err error, served bool) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer in time: %w", err)
	case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return err
	case served:
		return fmt.Errorf("the broker closed the connection: %w", err)
	}
	return fmt.Errorf("the broker closed the connection; does it expect TLS or SASL here? (%w)", err)
}

// brokerError turns an error code about a topic, partition or group into a message.Error.
func brokerError(what string, code kafkago.Error) *message.Error {
	return message.Errorf(kindOf(code), "%s: %w", what, kafkaError(code))
}

// kafkaError makes kafka-go's error text short: its title and number.
func kafkaError(code kafkago.Error) error { return &codeError{code} }

type codeError struct{ code kafkago.Error }

func (e *codeError) Error() string {
	if title := e.code.Title(); title != "" {
		return fmt.Sprintf("%s (Kafka error %d)", strings.ToLower(title), int(e.code))
	}
	return fmt.Sprintf("Kafka error %d", int(e.code))
}

func (e *codeError) Unwrap() error { return e.code }

func kindOf(code kafkago.Error) message.Kind {
	switch code {
	case kafkago.TopicAuthorizationFailed, kafkago.GroupAuthorizationFailed, kafkago.ClusterAuthorizationFailed,
		kafkago.TransactionalIDAuthorizationFailed:
		return message.Denied
	case kafkago.UnknownTopicOrPartition:
		return message.NotFound
	case kafkago.MessageSizeTooLarge, kafkago.RecordListTooLarge:
		return message.TooLarge
	case kafkago.InvalidTopic, kafkago.InvalidMessage, kafkago.InvalidMessageSize, kafkago.InvalidTimestamp,
		kafkago.InvalidRecord, kafkago.PolicyViolation, kafkago.InvalidGroupId:
		return message.BadInput
	case kafkago.UnsupportedVersion, kafkago.UnsupportedForMessageFormat, kafkago.UnsupportedCompressionType,
		kafkago.InconsistentGroupProtocol, kafkago.InvalidSessionTimeout:
		return message.Mismatch
	}
	return message.Unavailable
}

// transient reports whether a code passes by itself: a leader that moves, a coordinator
// that loads, a topic that is just being made.
func transient(code kafkago.Error) bool {
	switch kindOf(code) {
	case message.Unavailable, message.NotFound:
		return true
	}
	return false
}
