package feed

import (
	"context"
	"time"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// Options say how one session reads.
type Options struct {
	Mode    message.Mode
	QoS     message.QoS
	Encoder entrypoints.Encoder
	// Wake is called when there is something to poll. It must not block.
	Wake func()
	// ClientAcks: the client settles deliveries itself, by Feed.Settle.
	ClientAcks bool
	// Bookmark: what was written is stored as the identity's position from time to time.
	Bookmark bool
	// Slow says what happens to a session that falls out of the log. It is called at
	// most once, instead of a gap, when it is not nil.
	Slow func()
	// Dropped counts messages that were dropped because they could not be settled
	// before hand-over (at_most_once). It may be nil.
	Dropped func(messages int)
}

const (
	// chunkBytes bounds a chunk before encoding; a larger message is a chunk of its own.
	chunkBytes = 16 << 10
	// burstBytes is about how much one Poll returns: enough to make the write worth its
	// system call, little enough that a client that stops reading holds no more.
	burstBytes = 24 << 10
	// wakeEvery is the shortest time between two rounds of waking the sessions of a log.
	// It makes batching independent of luck when messages come one by one.
	wakeEvery = time.Millisecond
	// settleTimeout bounds what a session waits for the broker to settle.
	settleTimeout = 5 * time.Second
	// bookmarkEvery is how often a running session stores its position.
	bookmarkEvery = time.Second
)

// Opener opens a stream that continues at a position; nil means where the subscription says.
type Opener func(ctx context.Context, at *message.Position) (message.Stream, error)
