package endpointtest

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// Harness tells the suite how to set up an endpoint, and what its broker keeps of a
// message. Only New is required.
type Harness struct {
	// New provisions a fresh endpoint that publishes to and reads from fresh channels,
	// and undoes all of it with t.Cleanup. It is called once per promise. Endpoints whose
	// start is configured are set to begin at the latest message.
	New func(t *testing.T) *Rig

	// Keys: the broker keeps the key of a message.
	Keys bool
	// Headers: the broker keeps headers. HeaderOrder: with their order, and names that
	// repeat. BinaryHeaders: with values that are not UTF-8.
	Headers, HeaderOrder, BinaryHeaders bool

	// Patience is how long the suite waits for what must happen. Default: 15s.
	Patience time.Duration
	// Quiet is how long the suite listens before it believes that nothing comes. It
	// should be longer than a message takes through the broker. Default: 300ms.
	Quiet time.Duration
	// Ignore names goroutines that belong to the broker's double or the foreign client
	// and not to the endpoint. Those that run before New is called are ignored anyway.
	Ignore []goleak.Option
}

// Rig is an endpoint with fresh channels, and the hooks by which the suite reaches the
// broker behind its back. All hooks are called from the test's goroutine, and all but
// Endpoint are optional: a promise that needs a missing hook is not checked.
type Rig struct {
	// Endpoint is what is tested, provisioned and (where it wants one) with its Scope.
	Endpoint endpoints.Endpoint
	// Values expands placeholders. Default: Verbatim.
	Values endpoints.Values

	// Produce has a foreign client put messages (key, payload and headers) into the
	// channel that the endpoint reads, and returns when the broker has them.
	Produce func(t *testing.T, messages ...*message.Message)
	// Generates says that there is nothing to produce: the channel fills by itself with
	// messages whose IDs count up.
	Generates bool
	// Consume has a foreign client read the next n messages that the endpoint published,
	// with key, payload and headers, and fails the test if they are not there in time.
	Consume func(t *testing.T, n int) []*message.Message
	// DeadLetters has a foreign client read n messages that were put aside.
	DeadLetters func(t *testing.T, n int) []*message.Message

	// Again provisions another endpoint with the same configuration on the same
	// channels, as another process would have it. Default: Endpoint itself.
	Again func(t *testing.T) endpoints.Endpoint
	// Missing provisions an endpoint whose channels do not exist at the broker.
	Missing func(t *testing.T) endpoints.Endpoint
	// Unreachable provisions an endpoint with an address where nobody listens.
	Unreachable func(t *testing.T) endpoints.Endpoint

	// Cut makes the broker unreachable for the endpoint and breaks its connections;
	// Restore undoes it. Nothing that the broker has is lost.
	Cut, Restore func(t *testing.T)
	// CutAfterWrite arms a fault: the next publish reaches the broker, but its answer is
	// lost with the connection. Afterwards the broker is reachable again.
	CutAfterWrite func(t *testing.T)
	// Refuse arms a fault: the broker refuses the next publish.
	Refuse func(t *testing.T)
	// Restart kills the broker and starts it again with what it has on its disk. It
	// returns when the broker accepts connections.
	Restart func(t *testing.T)
	// Truncate deletes the messages that the channel holds now.
	Truncate func(t *testing.T)
	// Recreate deletes the channel and makes it anew, under the same name and empty.
	Recreate func(t *testing.T)
}

// Verbatim are placeholder values that leave every text as it is.
type Verbatim struct{}

// Text returns s.
func (Verbatim) Text(s string) (string, error) { return s, nil }

// Name returns s.
func (Verbatim) Name(s string) (string, error) { return s, nil }

func (h Harness) withDefaults() Harness {
	if h.Patience == 0 {
		h.Patience = 15 * time.Second
	}
	if h.Quiet == 0 {
		h.Quiet = 300 * time.Millisecond
	}
	return h
}

var _ endpoints.Values = Verbatim{}
