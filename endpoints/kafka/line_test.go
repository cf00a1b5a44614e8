package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
)

// line is the network between an endpoint and its broker. It can be cut, and it can lose
// answers.
type line struct {
	// swallow makes the next produce request reach the broker, and its answer be lost
	// together with the connection.
	swallow atomic.Bool
	// refuse makes the next produce request fail while it is written.
	refuse atomic.Bool
	dials  atomic.Int64

	mu    sync.Mutex
	down  bool
	conns map[*lineConn]struct{}
}

var errCut = errors.New("the line is cut")

func (l *line) dial(ctx context.Context, network, address string) (net.Conn, error) {
	l.dials.Add(1)
	l.mu.Lock()
	down := l.down
	l.mu.Unlock()
	if down {
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	lc := &lineConn{Conn: c, line: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		_ = c.Close()
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	}
	if l.conns == nil {
		l.conns = make(map[*lineConn]struct{})
	}
	l.conns[lc] = struct{}{}
	return lc, nil
}

func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
	for c := range l.conns {
		_ = c.Conn.Close()
	}
}

func (l *line) restore() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = false
}

// held are the connections that are open now, as far as we know.
func (l *line) held() []*lineConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Keys(l.conns))
}

// dead reports whether the broker has closed all of some connections.
func dead(conns []*lineConn) bool {
	return !slices.ContainsFunc(conns, func(c *lineConn) bool {
		raw, err := c.SyscallConn()
		return err == nil && !peerClosed(raw)
	})
}

func (l *line) open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

type lineConn struct {
	net.Conn
	line *line
	lost atomic.Bool
}

func (c *lineConn) Write(b []byte) (int, error) {
	const produce = 0
	if len(b) > 8 && binary.BigEndian.Uint16(b[4:]) == produce {
		if c.line.swallow.CompareAndSwap(true, false) {
			c.lost.Store(true)
		}
		if c.line.refuse.CompareAndSwap(true, false) {
			_ = c.Conn.Close()
			return 0, errCut
		}
	}
	return c.Conn.Write(b)
}

func (c *lineConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.lost.Load() && n > 0 { // the broker has done it
		_ = c.Conn.Close()
		return 0, errCut
	}
	return n, err
}

func (c *lineConn) Close() error {
	c.line.mu.Lock()
	delete(c.line.conns, c)
	c.line.mu.Unlock()
	return c.Conn.Close()
}

// SyscallConn lets the endpoint ask the kernel about the connection, as without the line.
func (c *lineConn) SyscallConn() (syscall.RawConn, error) {
	return c.Conn.(syscall.Conn).SyscallConn()
}
