// Package entrypoints is the contract between the gateway and the ways in which a client
// reaches an API. A guest lives in a folder of its own, is a Caddy module in the namespace
// message_api.entrypoints, and knows nothing of brokers: it sees a Session.
package entrypoints

import (
	"context"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// Namespace is where entrypoint modules are registered.
const Namespace = "message_api.entrypoints"

// Entrypoint is what every guest is. It is Serving, if clients come to it, or Pushing, if it
// goes to them.
type Entrypoint interface {
	// Needs tells what it needs of an endpoint, as it is configured.
	Needs() Needs
}

// Serving is one way in. Of all entrypoints of an API, the one with the highest Match serves
// the request.
type Serving interface {
	Entrypoint
	// Match says how specifically the request asks for this entrypoint; 0 is not at all.
	Match(r *http.Request) int
	// Methods are the HTTP methods that the entrypoint can serve, for Allow and CORS.
	Methods() []string
	// Serve runs the exchange to its end. Before the first byte it may return a
	// *Problem or a *message.Error, which the gateway renders; after it, it ends the
	// exchange in band and returns nil, or an *Ended (or an error of a Writer) for the log.
	Serve(w http.ResponseWriter, r *http.Request, s Session) error
}

// Needs are compared with the endpoints' capabilities when the configuration is loaded.
type Needs struct {
	// Type is the module's name, for messages.
	Type string
	// Publish and Subscribe say in which directions it works.
	Publish, Subscribe bool
	// QoS is the configured level, and Levels are those that the entrypoint could do.
	QoS    message.QoS
	Levels []message.QoS
	// Resume: "the client has it" is told by a cursor it presents (needs positions).
	// Acks: it is told by an explicit word of the client, or by a receipt that it presents
	// (needs manual settle). With both, either will do.
	Resume, Acks bool
	// Hold is for how long, at most, a message is held until the client has it, where that
	// is known: an endpoint must be able to lend it for so long. 0 is not known.
	Hold time.Duration
	// HoldFrom are the options that Hold comes from, for messages.
	HoldFrom string
	// From is the configured start: "", latest, earliest or client.
	From string
	// Via names the endpoint to use; empty picks the first that can do it. Fallback names
	// the one to use instead while that one is down, as long as nothing was sent.
	Via, Fallback string
	// DeadLetter names the endpoint that takes what can't be delivered. It must confirm.
	DeadLetter string
}

// Session is one client's exchange, as an entrypoint sees it.
type Session interface {
	// Identity are the ids of this exchange.
	Identity() Identity
	// Withheld says that a request header is not for messages: a credential, or one of the
	// gateway's own ids. The name is in canonical form.
	Withheld(header string) bool
	// Logger is named after the entrypoint and carries the session's fields.
	Logger() *zap.Logger
	// Publish sends messages to the API's endpoint at the entrypoint's level, and
	// returns one result each. An error means that none was tried.
	Publish(ctx context.Context, messages ...*message.Message) ([]message.Result, error)
	// Subscribe begins to read.
	Subscribe(ctx context.Context, want Want) (Feed, error)
	// OnEnd has f called once, from another goroutine, when the gateway ends the
	// session: at once if it has ended already. It returns a function that forgets f.
	OnEnd(f func(End)) (forget func())
	// Every has f called about every d, from a shared sweep, until stop is called. f
	// must not block. It replaces a timer per session.
	Every(d time.Duration, f func(now time.Time)) (stop func())
	// Sent counts what was written to the client, Received what came from it.
	Sent(messages, bytes int)
	Received(messages, bytes int)
}

// Want is what an entrypoint asks of Subscribe.
type Want struct {
	// Cursor is what the client presented, unread; Resuming tells that it did.
	Cursor   string
	Resuming bool
	// From is the client's own wish (?from=), honoured only where `from client` is
	// configured; it is refused otherwise.
	From string
	// Brief says that the exchange ends soon, so that it is not worth starting a shared
	// subscription for it when a stream of its own does.
	Brief bool
	// Limit is how many messages a brief exchange takes at most; 0 is not known. It keeps
	// the endpoint from fetching what nobody will see.
	Limit int
	// AckWait is for how long the client of a brief exchange may take to confirm what it got,
	// where the endpoint only lends: Feed.Cursor is then a receipt, good for that long.
	AckWait time.Duration
	// Encoder makes the wire form of each message.
	Encoder Encoder
	// Wake is called when Poll, having returned nothing, would return something. It is
	// called from another goroutine, must not block, and may be called once too often.
	Wake func()
}

// Encoder makes the wire form of one message. Events that several sessions share are
// encoded once for all encoders with the same Format.
type Encoder interface {
	// Format names the wire form with all that changes its bytes.
	Format() string
	// Append appends the complete wire form of d: what is written to a client is a
	// sequence of such forms. cursor is the printable position after d; it is empty
	// when the session can't be resumed or WantsCursor is false.
	Append(dst []byte, d *message.Delivery, cursor []byte) []byte
	// WantsCursor says whether Append uses the cursor.
	WantsCursor() bool
}

// Feed is what a session reads. It never blocks; all methods but Close are called from
// one goroutine.
type Feed interface {
	// Poll returns what is ready, at most limit messages (0 is no limit). An empty
	// burst means that nothing is, and that Wake will be called. A burst is valid until
	// the next call of Poll. Errors are final.
	Poll(limit int) (Burst, error)
	// Written tells that all bursts so far were written and flushed. Levels that settle
	// when the client has it by being written settle now.
	Written(ctx context.Context) error
	// Settle settles deliveries by their sequence numbers (Burst.First and on), for
	// entrypoints whose clients say so themselves. Unknown numbers are reported.
	Settle(ctx context.Context, how message.Settlement, seqs ...uint64) error
	// Cursor appends the printable position after all that was polled, or the receipt for
	// it; it returns dst as it was when the session can't be resumed.
	Cursor(dst []byte) []byte
	// Close ends the subscription and gives back what is unsettled, within five seconds.
	Close(ctx context.Context) error
}

// Burst is what is ready to be written, in order.
type Burst struct {
	// Gap, if there is one, is told to the client before the messages.
	Gap *message.Gap
	// Frames are pieces of wire form, each holding one or more whole messages. They are
	// shared with other sessions and must not be changed.
	Frames [][]byte
	// Messages is how many messages the frames hold, Bytes how many bytes.
	Messages int
	Bytes    int
	// First is the sequence number of the first message in this session; they count up
	// from 1.
	First uint64
}

// Empty reports whether there is nothing to write.
func (b *Burst) Empty() bool { return b.Messages == 0 && b.Gap == nil }

// Identity are the ids of one exchange.
type Identity struct {
	RequestID     string
	TransactionID string
	// Client is the combined client identifier: inferred, or "<inferred>-<provided>".
	Client string
	// Anonymous: nothing but the network address tells who this is.
	Anonymous bool
}
