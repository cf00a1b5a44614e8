package rabbitmq

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
)

// line is what lies between an endpoint and its broker, and breaks on demand.
type line struct {
	// swallow: the answer to the next publish is lost, and the connection with it.
	swallow atomic.Bool

	mu    sync.Mutex
	down  bool
	conns map[*lineConn]bool
}

type lineConn struct {
	net.Conn
	l *line
	// answering: a publish was written whose answer shall be lost.
	answering atomic.Bool
}

var errCut = errors.New("the line is cut")

func (l *line) dial(ctx context.Context, network, address string) (net.Conn, error) {
	l.mu.Lock()
	down := l.down
	l.mu.Unlock()
	if down {
		return nil, &net.OpError{Op: "dial", Net: network, Err: errCut}
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &lineConn{Conn: conn, l: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		l.conns = make(map[*lineConn]bool)
	}
	l.conns[c] = true
	return c, nil
}

// cut breaks all connections and lets none through.
func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
	l.breakAll()
}

// hiccup breaks all connections, and lets new ones through.
func (l *line) hiccup() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.breakAll()
}

func (l *line) breakAll() {
	for c := range l.conns {
		_ = c.Conn.Close()
		delete(l.conns, c)
	}
}

func (l *line) restore() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = false
}

// basicPublish is how the method stands in a frame.
var basicPublish = []byte{0, 60, 0, 40}

func (c *lineConn) Write(p []byte) (int, error) {
	if bytes.Contains(p, basicPublish) && c.l.swallow.CompareAndSwap(true, false) {
		c.answering.Store(true)
	}
	return c.Conn.Write(p)
}

func (c *lineConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == nil && c.answering.Load() {
		_ = c.Conn.Close()
		return 0, errCut
	}
	return n, err
}
