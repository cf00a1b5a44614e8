// Package workers shares work out among the nodes of the gateway: what every node is able to
// do is done by one of them at a time.
//
// Who does it stands in a record of the store, one for each piece of work, and is good for as
// long as that node holds its lease (store.Lease). A node that is not seen alive for two TTLs
// loses its work to the others; it has stopped itself one TTL after it was last able to write.
// Among the nodes the highest hash of node and work decides who takes it, so that each gets
// about the same share, and little changes owner when nodes come and go.
//
// The first to claim is who the hash points to. Nobody knows what the others are able to do:
// work that is not claimed for a TTL is anybody's.
package workers

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/store"
)

// Kind is the kind of the records.
const Kind = "worker"

// MaxKept is how much a work can keep, in bytes. What is longer is not kept.
const MaxKept = 1 << 20

// Work is something that one node is to do at a time.
type Work struct {
	// ID is the same on every node, of 1 to 512 bytes of UTF-8.
	ID string
	// Version is another one where the work is to be begun anew, and is the same on nodes
	// that would do the same.
	Version string
	// Run does it until ctx is done, and then ends what it has begun and returns. If the
	// cause of ctx is ErrFenced it lets go at once: another node may do the work already.
	// An error that is a Failure stops the work everywhere. After any other end Run is called
	// again, after a second at first and a minute at last. It is never called twice at a time.
	Run func(ctx context.Context, k Keeper) error
}

// Keeper keeps how far a work has come over restarts and changes of its owner.
type Keeper interface {
	// Load returns what was kept last, also by another node, or nil. It must not be changed.
	Load() json.RawMessage
	// Keep keeps a JSON value, at most MaxKept bytes. It returns at once, and the newest is
	// stored about a second later, or when Run ends. It must not be changed afterwards.
	Keep(json.RawMessage)
}

// Failure is an error after which a work is not begun again, by anybody, until Retry or until
// its Version changes.
type Failure interface {
	error
	// WorkFailed is why, for people.
	WorkFailed() string
}

// The errors of this package.
var (
	// ErrFenced is the cause of a Run's context when the lease is over.
	ErrFenced = errors.New("the lease is over: another node may have taken over this work")
	// ErrNotFailed: there is nothing to retry.
	ErrNotFailed = errors.New("the work has not failed")
)

// Options are for New.
type Options struct {
	// Store is where it stands who does what. Required, and for one Registry at a time.
	Store *store.Store
	// TTL is how long a node may go on without having written. Others take over within three
	// of it. Default: 5s, or the store's interval if that is longer.
	TTL time.Duration
	// Logger may be nil.
	Logger *zap.Logger
	// OnChange is told when the state, owner or cause of a work has changed, whatever node
	// brought it about; not when something was kept. It must not wait. May be nil.
	OnChange func(id string)
}

// State is how it stands with a work.
type State string

// The states of a work.
const (
	Waiting State = "waiting" // nobody does it yet
	Running State = "running"
	Failed  State = "failed" // until Retry, or another Version
)

// Status is how it stands with a work.
type Status struct {
	ID    string
	State State
	// Owner is the node that does it, or did last while nobody else has taken over; Here says
	// that it is this one.
	Owner string
	Here  bool
	// Cause is why it failed, waits or was begun again.
	Cause string
	Since time.Time
	// Kept is what it kept last, as far as is known here.
	Kept json.RawMessage
}

// leaseOf is where the context of a Run's lease is found.
type leaseOf struct{}

// LeaseContext is for what a Run ends after its ctx is done: it lives until Run returns, and
// is cancelled with ErrFenced if the lease ends before. ctx is Run's, or comes from it.
func LeaseContext(ctx context.Context) context.Context {
	if lease, ok := ctx.Value(leaseOf{}).(context.Context); ok {
		return lease
	}
	return ctx
}
