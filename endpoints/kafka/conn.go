package kafka

import (
	"context"
	"errors"
	"net"
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

// checked wraps a dialer so that its connections notice before a request is written that
// the broker has closed them meanwhile. Without that, the first request after a broker's
// restart would be written into the void, and nobody could say whether it was stored.
func checked(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		sc, ok := c.(syscall.Conn)
		if !ok {
			return c, nil
		}
		raw, err := sc.SyscallConn()
		if err != nil {
			return c, nil //nolint:nilerr // a connection without a descriptor is still a connection
		}
		return &checkedConn{Conn: c, raw: raw}, nil
	}
}

type checkedConn struct {
	net.Conn
	raw syscall.RawConn
	// turn is set by a read: the next write begins a new request.
	turn atomic.Bool
}

func (c *checkedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.turn.Store(true)
	return n, err
}

func (c *checkedConn) Write(b []byte) (int, error) {
	if c.turn.Swap(false) && peerClosed(c.raw) {
		return 0, errStale
	}
	return c.Conn.Write(b)
}
