package worker

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// Options are all that a worker needs to know.
type Options struct {
	// Stream is read until Run returns, which closes it. Settles says whether the broker
	// keeps account of its deliveries.
	Stream  message.Stream
	Settles bool
	// QoS: at message.AtMostOnce a message is settled before its only attempt; at any other
	// level, after it was delivered.
	QoS message.QoS
	// Capabilities are those of the endpoint. OrderedSettle and MaxHold bound how long a
	// message may wait for its next attempt.
	Capabilities message.Capabilities
	// HoldsAll: the endpoint can tell its broker of settlements only in the order of all its
	// deliveries, so that one that is not settled fills the window with all that come after
	// it, of whatever lane (MQTT).
	HoldsAll bool
	// Window is that of the stream. Zero values mean 500 messages and 4 MiB.
	Window message.Window

	// Concurrency is how many calls of Send may be in flight, at least 1. With 1, order is
	// that of the stream, whatever Order says.
	Concurrency int
	Order       Order
	Retry       Retry
	// Timeout is how long a call of Send takes at most. It is the margin before the
	// endpoint's MaxHold; Send itself is to keep to it.
	Timeout time.Duration

	// OnClientError is what happens to a message that the client refuses, OnExhausted to
	// one whose attempts are over. OnExhausted is not Skip.
	OnClientError, OnExhausted Action

	// Identity returns the fingerprint by which a message is known when it comes again, and
	// its webhook-id. The fingerprint is taken to be of the content where the delivery has
	// neither Mark nor ID.
	Identity func(d *message.Delivery) (fingerprint, id string)
	// Send makes one attempt. attempt counts all attempts for the message, from 1. It is
	// called from several goroutines, and must end soon when ctx does.
	Send func(ctx context.Context, d *message.Delivery, id string, attempt int) Result
	// DeadLetter puts a letter where dead ones go. It returns once that is confirmed. Nil
	// means that there is no such place.
	DeadLetter func(ctx context.Context, letter entrypoints.Letter) error

	// Progress is what was kept last, or nil. Keep is given what is to be kept from now on;
	// neither is changed afterwards.
	Progress *entrypoints.Progress
	Keep     func(*entrypoints.Progress)

	// Pace waits until an attempt may be made; nil means that there is no rate.
	Pace func(ctx context.Context) error
	// Sent counts what was delivered. It may be nil.
	Sent func(messages, bytes int)
	// DrainTimeout is how long calls of Send may go on once the worker is to end. Default
	// 15s.
	DrainTimeout time.Duration
	Logger       *zap.Logger
}

// Result is what came of an attempt. Send fills in Outcome, Status, Error, At and Duration.
type Result struct {
	entrypoints.Attempt
	// RetryAfter is for how long the client wants to be left alone; 0 says nothing.
	RetryAfter time.Duration
}

// Order says what waits for what, when several attempts may be in flight.
type Order uint8

// The orders.
const (
	ByKey  Order = iota // messages with the same key, and those without one per lane of the broker
	ByLane              // messages of the same lane of the broker
	None                // nothing
)

var orderNames = [...]string{ByKey: "key", ByLane: "lane", None: "none"}

func (o Order) String() string { return orderNames[o] }

// Action is what becomes of a message that is not to be tried again.
type Action uint8

// The actions.
const (
	Stop       Action = iota // the worker ends with a Failure, and the message stays at the broker
	DeadLetter               // it goes to the dead letters
	Skip                     // it is counted, and settled as if it had been delivered
)

var actionNames = [...]string{Stop: "stop", DeadLetter: "dead_letter", Skip: "skip"}

func (a Action) String() string { return actionNames[a] }

const (
	defaultMessages     = 500
	defaultBytes        = 4 << 20
	defaultDrainTimeout = 15 * time.Second
)

func (o *Options) defaults() {
	o.Concurrency = max(o.Concurrency, 1)
	if o.Window.Messages <= 0 {
		o.Window.Messages = defaultMessages
	}
	if o.Window.Bytes <= 0 {
		o.Window.Bytes = defaultBytes
	}
	if o.DrainTimeout <= 0 {
		o.DrainTimeout = defaultDrainTimeout
	}
	if o.Progress == nil {
		o.Progress = new(entrypoints.Progress)
	}
	if o.Keep == nil {
		o.Keep = func(*entrypoints.Progress) {}
	}
	if o.Sent == nil {
		o.Sent = func(int, int) {}
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.Concurrency == 1 {
		o.Order = ByLane // within the one lane that there is
	}
}
