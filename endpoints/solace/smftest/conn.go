package smftest

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// conn is one client's connection. Its reader carries out what the client asks for, one
// thing after the other; its writer sends what everybody has for it.
type conn struct {
	once
	s    *Server
	net  net.Conn
	raw  net.Conn      // the same without TLS, which may take its time to close
	dead chan struct{} // closed when the connection is given up

	// The reader changes these under the server's lock, so that it may read them without.
	name    string // of the client; "" before login
	topics  map[string]target
	senders map[uint32]*sender
	nextID  uint32

	flows map[uint32]*flow // under the server's lock

	mu        sync.Mutex // the innermost lock
	out       []byte
	last      bool // close when out is written
	discarded bool // direct messages were thrown away since the last one
	closed    bool
	wake      chan struct{} // holds one
}

// maxBacklog is how many bytes may wait for a client that does not read. Direct messages
// beyond that are thrown away, as a broker does; what is owed is bounded by its credit.
const maxBacklog = 32 << 20

func newConn(s *Server, n net.Conn) *conn {
	c := &conn{
		s: s, net: n, raw: n, dead: make(chan struct{}), wake: make(chan struct{}, 1),
		topics: make(map[string]target), senders: make(map[uint32]*sender), flows: make(map[uint32]*flow),
	}
	if s.options.TLS != nil {
		c.net = tls.Server(n, s.options.TLS)
	}
	return c
}

// cut gives the connection up. What it leaves is cleaned up by the reader.
func (c *conn) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		close(c.dead)
		c.raw.Close()
	}
}

// cutAfterWriting gives the connection up once all that waits is written.
func (c *conn) cutAfterWriting() {
	c.mu.Lock()
	c.last = true
	c.mu.Unlock()
	c.rouse()
}

func (c *conn) rouse() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// write has a frame appended to what is sent next.
func (c *conn) write(frame func(b []byte) []byte) {
	c.mu.Lock()
	if !c.closed && !c.last {
		c.out = frame(c.out)
	}
	c.mu.Unlock()
	c.rouse()
}

// direct sends a direct message, or throws it away if the client is too slow.
func (c *conn) direct(p *packet, fault Fault) {
	c.mu.Lock()
	switch {
	case c.closed || c.last:
	case fault.Silent || len(c.out) > maxBacklog:
		c.discarded = true
	default:
		c.out = p.appendDirect(c.out, c.discarded)
		c.discarded = false
	}
	c.last = c.last || fault.Drop
	c.mu.Unlock()
	c.rouse()
}

// writing sends whatever has come together since it wrote last, in one piece.
func (c *conn) writing() {
	var spare []byte
	for {
		select {
		case <-c.wake:
		case <-c.dead:
			return
		}
		if !c.s.mute.pass(c.dead) {
			return
		}
		c.mu.Lock()
		b, last := c.out, c.last
		c.out = spare[:0]
		c.mu.Unlock()
		if len(b) > 0 {
			if _, err := c.net.Write(b); err != nil {
				c.cut()
				return
			}
		}
		if last {
			c.cut()
			return
		}
		if spare = b; cap(spare) > maxSpare {
			spare = nil
		}
	}
}

// maxSpare is the largest buffer that an idle connection keeps.
const maxSpare = 1 << 20

// serve reads until the connection ends.
func (c *conn) serve() {
	defer c.s.forget(c)
	defer c.cut()
	r := bufio.NewReaderSize(c.net, 64<<10)
	for {
		f, err := readFrame(r)
		if err != nil {
			return
		}
		if !c.s.mute.pass(c.dead) {
			return
		}
		if err := c.handle(f); err != nil {
			c.s.blame(c, err)
			return
		}
	}
}

// errCut ends a connection without being anybody's mistake.
var errCut = errors.New("connection cut")

func (c *conn) handle(f frame) error {
	if c.name == "" && f.proto != protoClient {
		return fmt.Errorf("%w: protocol %02x before login", errMalformed, f.proto)
	}
	switch f.proto {
	case protoMessage:
		return c.publish(f)
	case protoAssured:
		return c.assured(f)
	case protoSubscribe:
		return c.subscribe(f)
	case protoKeepAlive:
		c.write(func(b []byte) []byte {
			start := len(b)
			b = beginFrame(b, 0, protoKeepAlive, 0, 1)
			endHeader(b, start)
			endFrame(b, start)
			return b
		})
		return nil
	case protoClient:
		return c.login(f)
	default:
		return fmt.Errorf("%w: protocol %02x", errMalformed, f.proto)
	}
}

// fault asks what goes wrong with an operation, and waits if it is to take long. A
// connection that is to be cut at once is an error.
func (c *conn) fault(op Op, name string) (Fault, error) {
	f := c.s.fault(op, name)
	if f.Delay > 0 {
		timer := time.NewTimer(f.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-c.dead:
			return f, errCut
		}
	}
	if f.Silent && f.Drop {
		return f, errCut
	}
	return f, nil
}

// answer sends a control frame, unless the fault has the connection cut instead.
func (c *conn) answer(f Fault, frame func(b []byte) []byte) error {
	if f.Drop {
		return errCut
	}
	c.write(frame)
	return nil
}

// status is the refusal that the fault asks for.
func (f Fault) status() status {
	if f.Code == 0 {
		return statusOK
	}
	return status{f.Code, f.Text}
}

// gate holds up whoever passes while it is shut.
type gate struct {
	mu   sync.Mutex
	shut chan struct{} // nil: open
}

func (g *gate) set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case shut && g.shut == nil:
		g.shut = make(chan struct{})
	case !shut && g.shut != nil:
		close(g.shut)
		g.shut = nil
	}
}

// pass waits until the gate is open; false means that this came to an end before.
func (g *gate) pass(dead <-chan struct{}) bool {
	for {
		g.mu.Lock()
		shut := g.shut
		g.mu.Unlock()
		if shut == nil {
			return true
		}
		select {
		case <-shut:
		case <-dead:
			return false
		}
	}
}
