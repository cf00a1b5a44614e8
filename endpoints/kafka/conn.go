package kafka

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// dialTimeout bounds one attempt at one address, so that a black hole among the
// bootstrap addresses leaves time for the next.
const dialTimeout = 2 * time.Second

// errStale means that a pooled connection turned out to be closed by its broker before
// anything was written to it.
var errStale = errors.New("the broker had closed the connection")

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// connections opens connections that notice, before a request is written, that the
// broker has closed them meanwhile. Without that, the first request after a broker's
// restart would be written into the void, and nobody could say whether it was stored.
//
// It also knows which ones are open: kafka-go's pool closes only those that are idle, and
// a fetch that waits at the broker is not.
type connections struct {
	open dialFunc

	mu     sync.Mutex
	all    map[*conn]struct{}
	closed bool
}

func (cs *connections) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	nc, err := cs.open(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: nc, set: cs}
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			c.raw = raw
		}
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.closed {
		_ = nc.Close() // it was never used
		return nil, net.ErrClosed
	}
	if cs.all == nil {
		cs.all = make(map[*conn]struct{})
	}
	cs.all[c] = struct{}{}
	return c, nil
}

// close closes all connections, also those that wait for an answer.
func (cs *connections) close() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.closed = true
	for c := range cs.all {
		_ = c.Conn.Close() // whoever uses it gets the error
	}
	cs.all = nil
}

type conn struct {
	net.Conn
	set *connections
	raw syscall.RawConn // nil where there is no such thing
	// turn is set by a read: the next write begins a new request.
	turn atomic.Bool
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.turn.Store(true)
	return n, err
}

func (c *conn) Write(b []byte) (int, error) {
	if c.turn.Swap(false) && c.raw != nil && peerClosed(c.raw) {
		return 0, errStale
	}
	return c.Conn.Write(b)
}

func (c *conn) Close() error {
	c.set.mu.Lock()
	delete(c.set.all, c)
	c.set.mu.Unlock()
	return c.Conn.Close()
}
