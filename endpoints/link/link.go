// Package link keeps an endpoint connected to its broker: connections are made on first
// use, watched, re-made with jittered back-off, and closed when nothing has used them for
// a while. It is for brokers that are spoken to over one connection; what that connection
// is, the endpoint says.
package link

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// The times of a link.
const (
	// attemptTimeout bounds one try at all addresses: the promise to clients is five
	// seconds, and something is to be done with the connection.
	attemptTimeout = 4 * time.Second
	// spacing is how far apart attempts begin, however many callers ask for one.
	spacing    = 200 * time.Millisecond
	maxBackoff = 5 * time.Second
	retryAfter = time.Second
	// idleChecks is how often per idle period use is looked at.
	idleChecks = 4
)

// Options say what a Link connects to, and how.
type Options[C any] struct {
	// Name is the broker's, for people.
	Name string
	// Addresses are tried in turn, beginning with the one that worked last. They are shown
	// to clients, so they hold no secret.
	Addresses []string
	// Dial makes a connection; ctx has a deadline. lost must yield a value or be closed
	// when the connection has died.
	Dial func(ctx context.Context, address string) (conn C, lost <-chan error, err error)
	// Close ends a connection, and takes care not to take long.
	Close func(conn C)
	// Idle is after how long an unused connection is closed; 0 is never.
	Idle time.Duration
	// Logger may be nil.
	Logger *zap.Logger
}

// Conn is one of the connections that a Link makes in its life.
type Conn[C any] struct {
	C C
	// Epoch counts the connections, from 1.
	Epoch uint64
	// Gone is closed when the connection is lost or given up.
	Gone <-chan struct{}
}

// Link is a way to a broker, connected or not. It is safe for concurrent use.
type Link[C any] struct {
	opt  Options[C]
	cur  atomic.Pointer[Conn[C]] // nil while not connected
	used atomic.Bool             // since the last look

	//nolint:containedctx // the life of the link, which no single call owns
	ctx   context.Context
	stop  context.CancelFunc
	poke  chan struct{} // an attempt is wanted now
	drops chan error    // complaints about the present connection
	wg    sync.WaitGroup

	mu       sync.Mutex
	running  bool // the supervisor
	closed   bool
	wanted   int // holders and waiters
	epoch    uint64
	failures uint64
	err      *message.Error // why the last attempt failed, or the connection was lost
	state    endpoints.State
	since    time.Time
	changed  chan struct{} // closed, and replaced, when any of these changes
}

// errClosed is what users of a closed link get.
var errClosed = errors.New("the endpoint was ended")

// New makes a link. There is no network traffic before somebody wants the connection.
func New[C any](opt Options[C]) *Link[C] {
	if opt.Logger == nil {
		opt.Logger = zap.NewNop()
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Link[C]{
		opt: opt, ctx: ctx, stop: cancel,
		poke: make(chan struct{}, 1), drops: make(chan error, 1), changed: make(chan struct{}),
		state: endpoints.Idle, since: time.Now(),
	}
}

// Address is where the broker is.
func (l *Link[C]) Address() string { return strings.Join(l.opt.Addresses, ",") }

// Get returns the connection. While there is none it has an attempt made at once, and
// returns a message.Unavailable error when that fails or ctx ends.
func (l *Link[C]) Get(ctx context.Context) (Conn[C], error) { return l.get(ctx, true) }

// Await returns the connection as soon as there is one, however many attempts fail
// meanwhile, until ctx ends.
func (l *Link[C]) Await(ctx context.Context) (Conn[C], error) { return l.get(ctx, false) }

// Up returns the connection if there is one now.
func (l *Link[C]) Up() (Conn[C], bool) {
	if c := l.cur.Load(); c != nil {
		return *c, true
	}
	return Conn[C]{}, false
}

func (l *Link[C]) get(ctx context.Context, impatient bool) (Conn[C], error) {
	if !l.used.Load() {
		l.used.Store(true)
	}
	if c := l.cur.Load(); c != nil {
		return *c, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wanted++
	defer func() { l.wanted-- }()
	failures := l.failures
	if impatient && l.cur.Load() == nil { // it may have come since
		l.nudge()
	}
	for {
		l.run()
		switch c := l.cur.Load(); {
		case c != nil:
			return *c, nil
		case l.closed:
			return Conn[C]{}, l.unavailable(errClosed)
		case impatient && l.failures != failures:
			return Conn[C]{}, l.err
		}
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
			l.mu.Lock()
		case <-ctx.Done():
			l.mu.Lock()
			return Conn[C]{}, l.late(ctx)
		}
	}
}

// late says what is known when a caller's time is over.
func (l *Link[C]) late(ctx context.Context) error {
	if l.err != nil {
		return l.err
	}
	return l.unavailable(context.Cause(ctx))
}

func (l *Link[C]) nudge() {
	select {
	case l.poke <- struct{}{}:
	default:
	}
}

// Hold keeps the link connected, and has it re-made whenever it is lost, until release is
// called.
func (l *Link[C]) Hold() (release func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wanted++
	l.run()
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.wanted--
		l.used.Store(true) // idleness begins now
	})
}

// Drop has the connection of that epoch closed and re-made, because a user found that it
// is of no use.
func (l *Link[C]) Drop(epoch uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.cur.Load(); c == nil || c.Epoch != epoch {
		return // it is gone, and must not stand in the way of a complaint about the next
	}
	select {
	case l.drops <- err:
	default: // somebody has complained already
	}
}

// Status tells how the connection is.
func (l *Link[C]) Status() endpoints.Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	status := endpoints.Status{State: l.state, Address: l.Address(), Since: l.since}
	if l.err != nil && l.state != endpoints.Up {
		status.Error = l.err.Error()
	}
	return status
}

// Close ends the connection and all waiting, and returns when it is done.
func (l *Link[C]) Close() {
	l.mu.Lock()
	l.closed = true
	l.stop()
	l.tell()
	l.mu.Unlock()
	l.wg.Wait()
}

// enter notes what is known now, and wakes who waits for news. l.mu is held.
func (l *Link[C]) enter(state endpoints.State, err *message.Error) {
	if l.state != state {
		l.state, l.since = state, time.Now()
	}
	if err != nil || state != endpoints.Connecting {
		l.err = err
	}
	l.tell()
}

func (l *Link[C]) tell() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *Link[C]) unavailable(err error) *message.Error {
	if known, ok := errors.AsType[*message.Error](err); ok {
		return known
	}
	e := message.Errorf(message.Unavailable, "%s at %s can't be reached: %w", l.opt.Name, l.Address(), err)
	e.RetryAfter = retryAfter
	return e
}
