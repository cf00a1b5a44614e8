package rabbitmq

import (
	"context"
	"errors"

	amqp "github.com/rabbitmq/amqp091-go"
)

// session is one channel on which a stream reads. A stream that loses its channel goes on
// with another session; what came by the old one can't be settled any more.
type session struct {
	conn  *connection
	ch    *amqp.Channel
	epoch uint64
	queue string
	tag   string        // of the consumer
	calls chan struct{} // taken by who talks to the broker and waits for an answer

	deliveries <-chan amqp.Delivery
	// peeked came before it was decided where to begin.
	peeked []amqp.Delivery
	start  start
	seen   int64  // the offset behind the last delivery of a stream; the reader's own
	last   uint64 // the last tag that was read in passing

	// What follows is guarded by the stream.
	next     uint64 // the tag that is handed out next
	flow     flow
	ledger   ledger
	held     []heldBack
	messages int // handed out and not settled
	bytes    int
}

// heldBack is what is to be told the broker when the consumer has been replaced.
type heldBack struct {
	tag     uint64
	requeue bool
}

// call does something on the channel that has an answer. The library can't tell the
// answers of two calls apart, so there is one at a time.
func (s *session) call(ctx context.Context, do func() error) error {
	select {
	case s.calls <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	_, err := within(ctx, func() (struct{}, error) {
		defer func() { <-s.calls }()
		return struct{}{}, do()
	}, nil)
	return err
}

// close closes the channel, if that takes no time.
func (s *session) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_ = s.call(ctx, s.ch.Close) // what it held, the broker has back
}

// step is something that failed on the way to a consumer.
type step struct {
	what string
	err  error
}

func (e *step) Error() string { return e.what + ": " + e.err.Error() }
func (e *step) Unwrap() error { return e.err }

// at names what was being done when err happened.
func at(what string, err error) error {
	if err == nil {
		return nil
	}
	return &step{what, err}
}

// explain makes a failed step into what clients are told.
func explain(err error) error {
	if err == nil {
		return nil
	}
	if s, ok := errors.AsType[*step](err); ok {
		return clash(s.what, s.err)
	}
	return fault("reading from RabbitMQ", err)
}
