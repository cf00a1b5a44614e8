package admin

import (
	"context"
	"errors"
	"net/http"
)

// PushHooks are what the server needs of deliveries. Ids are those of subscriptions, or
// "<api>.<name>" of one that is written in the Caddyfile. Errors that are a
// *subscriptions.Error or a *ProblemDetails (see NewProblem) are answered with as they are;
// all others are a 500, and go to the log. A hook that is nil is answered for with a 503.
type PushHooks struct {
	// Deliveries are those of an API, or all where api is empty, from memory.
	Deliveries func(api string) []Delivery
	// Delivery is one, with its backlog where the broker tells it.
	Delivery func(ctx context.Context, id string) (Delivery, error)
	// Retry has one that has failed start again. One that has not is a conflict.
	Retry func(ctx context.Context, by, id string) error
	// Test sends a message at once, and tells what came of it. An error means that nothing
	// was sent.
	Test func(ctx context.Context, id string, m TestMessage) (Attempt, error)
	// DeadLetters are the first of the subscription, at most limit.
	DeadLetters func(ctx context.Context, id string, limit int) ([]DeadLetter, error)
	// Redeliver sends those that q selects, and calls each after each of them, from one
	// goroutine. If each fails, or ctx is done, it sends no further one, and returns that
	// error. It fills in Read alone of the report, also with an error.
	Redeliver func(ctx context.Context, id string, q Redelivery, each func(Redelivered) error) (RedeliveryReport, error)
}

// NewProblem makes an error that a hook can return: slug is the end of its type.
func NewProblem(status int, slug, detail string) *ProblemDetails {
	return refuse(status, slug, "%s", detail)
}

// noWebhooks is the answer while there is nobody to ask.
func noWebhooks() error {
	return refuse(http.StatusServiceUnavailable, NoWebhooks, "this gateway delivers to no consumers at the moment: it is starting, or has no API with the entrypoint webhook")
}

// pushProblem tells a hook that has run out of time from a storage that has: what the store
// says of its own is left as it is.
func pushProblem(err error) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return refuse(http.StatusGatewayTimeout, Unknown, "it took too long, and part of it may have been done")
	case errors.Is(err, context.Canceled):
		return refuse(http.StatusGatewayTimeout, Unknown, "the request broke off, and part of it may have been done")
	}
	return err
}
