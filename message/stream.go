package message

import "context"

// Delivery is a message that was lent to us: exactly one settlement is owed for it.
type Delivery struct {
	*Message

	// Mark is the message's place in the channel's history, where the endpoint has
	// positions; the zero Mark otherwise.
	Mark Mark
	// Lane names the scope within which order holds (a partition, a session).
	Lane string
	// Attempt counts how often this message was delivered to this consumer, from 1;
	// 0 when the broker does not say.
	Attempt int
	// Epoch is the connection or group generation that the delivery came by. A
	// delivery of an earlier epoch can no longer be settled.
	Epoch uint64
	// Handle is the endpoint's own note for the settlement. Nobody else looks at it.
	Handle any
}

// Batch is what one Receive returns. Gap comes before the deliveries.
type Batch struct {
	Deliveries []Delivery
	// Gap tells that something before these deliveries was missed or may have been.
	Gap *Gap
	// Revoked names lanes that went to another consumer. Their unsettled deliveries
	// come again there; settling them here reports ErrStale.
	Revoked []string
}

// Gap says that continuity can't be proven, and why.
type Gap struct {
	Reason GapReason `json:"reason"`
	Detail string    `json:"detail,omitempty"`
}

// GapReason is a stable word for clients and metrics.
type GapReason string

// The reasons for which a client is told of a gap.
const (
	GapExpired     GapReason = "expired"     // the position is older than what the broker still has
	GapForeign     GapReason = "foreign"     // the cursor belongs to another channel or endpoint
	GapRecreated   GapReason = "recreated"   // the channel was made anew since the cursor was given
	GapSlow        GapReason = "slow_client" // the client fell out of the shared log
	GapUnsettled   GapReason = "unsettled"   // at_most_once: a batch could not be settled, and was dropped
	GapConnection  GapReason = "connection"  // the broker's subscription was lost and it kept nothing for us
	GapRate        GapReason = "rate"        // paced too far behind
	GapUnresumable GapReason = "unresumable" // the endpoint has no positions, so a cursor means nothing
)

// Settlement is what a consumer says of a delivery.
type Settlement uint8

// The three ways to settle a delivery.
const (
	// Ack says that the client has it.
	Ack Settlement = iota
	// Release gives it back: it comes again, here or elsewhere.
	Release
	// Reject says that it will never be taken: dead-lettered where the broker can.
	Reject
)

// Stream is one subscription at a broker.
//
// Receive blocks until something is ready, and then returns all that is ready
// within the window, so that edges can write it in one go. It returns ctx.Err() when
// ctx ends; with a ctx that is over from the start it may still return what is ready,
// and so never blocks. Any other error is final: the stream is of no further use. A
// broker that goes away for a while is not an error: the endpoint reconnects and Receive
// blocks meanwhile.
//
// Settle may be called from another goroutine than Receive. A delivery of an earlier
// epoch touches nothing and yields ErrStale.
//
// Close gives unsettled deliveries back. It is safe to call more than once.
type Stream interface {
	Receive(ctx context.Context) (Batch, error)
	Settle(ctx context.Context, how Settlement, deliveries ...Delivery) error
	Close(ctx context.Context) error
}

// Positioned is the side power of streams on endpoints with positions.
type Positioned interface {
	// Position is where the next Receive reads: where the stream began before the first
	// one, and later after all that Receive has returned, with whatever the broker
	// has there that is no message (transaction markers, compacted holes) behind it.
	Position() Position
}

// Bookmarker is the side power of assigned streams that carry a name: the position
// is stored at the broker for that name, and a later assigned stream of the name
// without a cursor begins there. Bookmarks never go backwards.
type Bookmarker interface {
	Bookmark(ctx context.Context, at Position) error
}

// Stopper is the side power of streams that can stop taking messages before they end:
// Stop has the broker send no more, and gives back what Receive has not returned. What it
// has returned stays lent until it is settled or the stream is closed.
type Stopper interface {
	Stop(ctx context.Context) error
}

// Snapshotter is the side power of broadcast streams whose broker keeps the last message
// of a channel for those who come later (retained messages). Snapshot is what a client
// that joins the running broadcast gets first; it may repeat what Receive returns next.
type Snapshotter interface {
	Snapshot() []Delivery
}

// Backlogger is the side power of streams that can tell how much waits for them.
type Backlogger interface {
	// Backlog is how many messages wait at the broker for this subscription, those that are
	// lent to it and not settled included. It asks the broker.
	Backlog(ctx context.Context) (int64, error)
}

// Mode says whose a subscription is.
type Mode uint8

// The ways to subscribe.
const (
	// Broadcast is one subscription per channel and process, shared by all sessions.
	Broadcast Mode = iota
	// Assigned reads from a position of its own choice and competes with nobody.
	Assigned
	// Member reads as one of possibly several consumers of a named identity; the
	// broker keeps track of what was settled.
	Member
	// Shared competes for an existing queue with whoever else reads it.
	Shared
)

func (m Mode) String() string {
	return [...]string{"broadcast", "assigned", "member", "shared"}[m]
}

// Window bounds what a stream holds that is not yet settled (Member, Shared) or not
// yet received (Broadcast, Assigned). It is the only buffer between broker and client.
type Window struct {
	Messages int
	Bytes    int
}

// Subscription says what to read, for whom, and from where.
type Subscription struct {
	Mode Mode
	QoS  QoS
	// Name is the broker-side name of the identity, "<api>.<identifier>"; empty for
	// Broadcast and for anonymous sessions.
	Name string
	// Position is where to continue. Nil means From, or the name's bookmark if there is one.
	Position *Position
	// From is where to begin when neither Position nor bookmark says it.
	From Start
	// Window bounds the stream. Zero values mean the endpoint's own default.
	Window Window
}

// Publisher hands messages to a broker. It is safe for concurrent use.
type Publisher interface {
	// Publish returns one result per message, in the order of the messages. With
	// QoS None the result tells only that the client library took the message; with
	// any other level it waits for the broker's confirmation or for ctx.
	Publish(ctx context.Context, qos QoS, messages ...*Message) []Result
}

// Result is the outcome for one published message.
type Result struct {
	Status Status
	// ID is the id that the message has at the broker, if it has one.
	ID string
	// Metadata tells where the message was stored (topic, partition, offset …).
	Metadata []Field
	// Err says why, unless Status is Stored or Handed. It is an *Error where the
	// endpoint could classify it.
	Err error
}

// Status says what is known about a published message. The zero value is Unknown,
// because that is what silence means.
type Status uint8

// The outcomes of publishing.
const (
	// Unknown: it was cut after the write and before the answer. It may be stored.
	Unknown Status = iota
	// Stored: the broker confirmed it.
	Stored
	// Handed: QoS none; the client library took it and nobody will confirm it.
	Handed
	// Refused: it is not at the broker, and will not be.
	Refused
)

func (s Status) String() string {
	return [...]string{"unknown", "stored", "handed", "refused"}[s]
}

// OK reports whether the outcome is as good as the level that was asked for promises.
func (s Status) OK() bool { return s == Stored || s == Handed }
