package message

import "time"

// Capabilities are what an endpoint, as it is configured, can do. They are compared
// with the entrypoints' needs when the configuration is loaded, without any network
// traffic. What only the broker knows is checked at the first connect.
type Capabilities struct {
	// Publish: a producer is configured. Confirm: the broker tells when it has a message.
	Publish, Confirm bool
	// Subscribe: a consumer is configured.
	Subscribe bool
	// Copy: every process can have its own copy of the channel (broadcast).
	Copy bool
	// PerSession: auto gives each session, even an anonymous one, a stream of its own
	// instead of the broadcast. Only sensible where streams cost nothing at a broker.
	PerSession bool
	// Exclusive: a named identity can have a subscription of its own that the broker tracks.
	Exclusive bool
	// Shared: the configuration says that sessions may compete for an existing queue.
	Shared bool
	// ManualSettle: deliveries can be settled after the client has them.
	ManualSettle bool
	// OrderedSettle: settling one delivery settles all before it in its lane.
	OrderedSettle bool
	// HoldsBehind: the broker hears of settlements in the order of delivery alone, over all
	// lanes. What is settled behind a delivery that is not still takes up room in the window.
	HoldsBehind bool
	// Positions: the history can be read from any place, again and again.
	Positions bool
	// Earliest: where nothing else says where to begin, the configuration says at the
	// earliest position. Only with Positions.
	Earliest bool
	// MaxHold is how long a delivery can be held unsettled; 0 means as long as one likes. An
	// endpoint whose broker lends for less renews the loan by itself until then.
	MaxHold time.Duration
	// DeadLetter: Reject puts a message aside at the broker.
	DeadLetter bool
	// Fenced: a settlement that returned without error is known to be in force, so
	// that at_most_once can be promised.
	Fenced bool
	// MaxPayload is the largest message in bytes that the endpoint takes; 0 means that
	// only the broker knows.
	MaxPayload int
}
