package mqtt5

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/eclipse/paho.golang/packets"
)

// line is the network between an endpoint and its broker. It can be cut, and it can lose
// an answer.
type line struct {
	// swallow has the next PUBLISH reach the broker, and its answer be lost with the
	// connection.
	swallow atomic.Bool
	dials   atomic.Int64

	mu    sync.Mutex
	down  bool
	conns map[net.Conn]struct{}
}

func (l *line) dial(ctx context.Context, network, address string) (net.Conn, error) {
	l.dials.Add(1)
	if l.isDown() {
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	}
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		_ = c.Close()
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	}
	if l.conns == nil {
		l.conns = make(map[net.Conn]struct{})
	}
	l.conns[c] = struct{}{}
	return &lineConn{Conn: c, line: l}, nil
}

func (l *line) isDown() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.down
}

func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
	for c := range l.conns {
		_ = c.Close()
	}
	clear(l.conns)
}

func (l *line) restore() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = false
}

type lineConn struct {
	net.Conn
	line *line
	mute atomic.Bool
}

func (c *lineConn) Write(b []byte) (int, error) {
	if len(b) > 0 && b[0]>>4 == packets.PUBLISH && c.line.swallow.CompareAndSwap(true, false) {
		c.mute.Store(true)
	}
	return c.Conn.Write(b)
}

func (c *lineConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.mute.Load() {
		_ = c.Close()
		return 0, syscall.ECONNRESET
	}
	return n, err
}
