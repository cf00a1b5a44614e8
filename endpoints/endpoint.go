// Package endpoints is the contract between the gateway and whatever talks to a
// broker. A guest lives in a folder of its own, is a Caddy module in the namespace
// message_api.endpoints, and implements Endpoint plus Publishing, Subscribing or both.
//
// What every guest promises is tested by endpoints/endpointtest; docs/writing-an-endpoint.md
// is the tour.
package endpoints

import (
	"context"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// Namespace is where endpoint modules are registered.
const Namespace = "message_api.endpoints"

// Endpoint is what every guest is. Provision does no network traffic: connections are
// made on first use, supervised, re-made with jittered back-off, and closed when nothing
// has used them for a while. Cleanup ends them.
type Endpoint interface {
	// Capabilities tells what the endpoint can do as it is configured. It is called
	// after Provision and always answers the same.
	Capabilities() message.Capabilities
	// Status tells how the connection is, without asking the broker.
	Status() Status
}

// Publishing is implemented by endpoints that can have a producer.
type Publishing interface {
	// Publisher returns a publisher for one request, whose placeholders are expanded
	// now. Without placeholders it is always the same one. Errors are about the values.
	Publisher(values Values) (message.Publisher, error)
}

// Subscribing is implemented by endpoints that can have a consumer.
type Subscribing interface {
	// Channel expands the request's placeholders into what will be read.
	Channel(values Values) (Channel, error)
	// Subscribe begins to read. It returns within five seconds, with a
	// message.Unavailable error that names address and cause if the broker can't be
	// reached. The stream outlives ctx, and ends with Close.
	Subscribe(ctx context.Context, channel Channel, sub message.Subscription) (message.Stream, error)
}

// Channel is what is read at the broker. Key identifies it within the endpoint: equal
// keys mean the same channel, and one broadcast subscription. Spec is the guest's own.
type Channel struct {
	Key  string
	Spec any
}

// Values expands placeholders from one request.
type Values interface {
	// Text expands s; a value may hold anything.
	Text(s string) (string, error)
	// Name expands s for the name of a channel: each value must be 1 to 128 characters
	// of A-Z a-z 0-9 . _ ~ -, so that nobody can widen a pattern or leave a hierarchy.
	Name(s string) (string, error)
}

// Status is how an endpoint's connection to its broker is.
type Status struct {
	// State is one of idle (not needed yet, or no longer), connecting, up and down.
	State State `json:"state"`
	// Address is where the broker is, without credentials.
	Address string `json:"address,omitempty"`
	// Error is the last failure, without secrets; empty while up.
	Error string `json:"error,omitempty"`
	// Since is when State was entered.
	Since time.Time `json:"since,omitzero"`
}

// State is the state of a connection.
type State string

// The states of a connection.
const (
	Idle       State = "idle"
	Connecting State = "connecting"
	Up         State = "up"
	Down       State = "down"
)

// Prober is the side power of endpoints that can find out whether their broker would
// serve them now. It is what message_api_health asks.
type Prober interface {
	Probe(ctx context.Context) error
}

// Scope is what the gateway tells a guest about where it stands. Guests that need it
// implement Scoped.
type Scope struct {
	// Owner is the API's id, or "" for an endpoint that several APIs share.
	Owner string
	// Name is the endpoint's name within its owner.
	Name string
}

// Scoped is the side power of endpoints that want to know where they stand. SetScope is
// called once, after Provision and before anything else.
type Scoped interface {
	SetScope(Scope)
}
