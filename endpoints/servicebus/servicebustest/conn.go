package servicebustest

import (
	"bufio"
	"errors"
	"net"
	"runtime"
	"sync"
	"time"
)

const (
	// congestion is how many bytes may wait for the writer before links get no more deliveries.
	congestion   = 1 << 20
	writeTimeout = 10 * time.Second
	// channelMax is what the service announces: 5,000 sessions on a connection.
	channelMax = 4999
)

// errClosed ends a connection that was closed in good order.
var errClosed = errors.New("closed")

// conn is one AMQP connection. The server's mutex guards it, but for what the writer shares.
type conn struct {
	s        *Server
	raw      *wire
	rw       net.Conn // above TLS and WebSocket
	reader   *bufio.Reader
	opened   bool
	dead     bool // nothing more goes in or out
	lane     lane
	sessions map[uint16]*session
	peerMax  int // the largest frame that the peer takes
	granted  []string

	outMu     sync.Mutex
	out       []byte
	ending    bool // the writer closes the connection when everything is written
	congested bool // somebody waits for the writer
	wakeUp    chan struct{}
	done      chan struct{} // closed with the connection
	written   chan struct{} // closed when the writer ends
	idle      chan time.Duration
}

func newConn(s *Server, raw *wire) *conn {
	return &conn{s: s, raw: raw, sessions: map[uint16]*session{}, peerMax: minMaxFrame, wakeUp: make(chan struct{}, 1),
		done: make(chan struct{}), written: make(chan struct{}), idle: make(chan time.Duration, 1)}
}

// run serves the connection to its end.
func (c *conn) run() {
	defer c.giveUp()
	rw, err := c.s.transport(c.raw)
	if err != nil {
		return
	}
	c.rw, c.reader = rw, bufio.NewReaderSize(rw, maxFrame)
	if err := c.login(); err != nil {
		return
	}
	go c.write()
	err = c.readFrames()
	var wrong *wireError
	if errors.As(err, &wrong) {
		c.sendClose(wrong)
	}
	if wrong != nil || errors.Is(err, errClosed) {
		c.end() // the writer closes it
	} else {
		c.giveUp()
	}
	<-c.written
}

// giveUp cuts the connection, if nobody has done so.
func (c *conn) giveUp() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.cut()
}

// readFrames handles frames until the connection ends.
func (c *conn) readFrames() error {
	fr := frameReader{r: c.reader}
	for {
		if limit := c.s.options.IdleTimeout; limit > 0 {
			_ = c.rw.SetReadDeadline(time.Now().Add(limit))
		}
		f, err := fr.next()
		if err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				return protocolError("amqp:connection:forced", "The connection was inactive for more than the allowed %s.", c.s.options.IdleTimeout)
			}
			return err
		}
		if f.body == nil {
			continue
		}
		c.s.mu.Lock()
		err = errClosed
		if !c.dead {
			err = c.handle(f)
		}
		c.s.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// handle does what one frame says.
func (c *conn) handle(f frame) error {
	d := decoder{buf: f.body}
	code, body := d.composite()
	if d.err != nil {
		return asWireError(d.err)
	}
	if f.kind != frameAMQP || !c.opened && code != codeOpen {
		return protocolError("amqp:connection:framing-error", "unexpected frame %#02x", code)
	}
	switch code {
	case codeOpen:
		return c.open(&body)
	case codeClose:
		c.sendClose(nil)
		return errClosed
	case codeBegin:
		return c.begin(f.channel, &body)
	}
	se := c.sessions[f.channel]
	if se == nil {
		return protocolError("amqp:connection:framing-error", "channel %d has no session", f.channel)
	}
	if err := se.handle(code, &body, d.buf); err != nil {
		return asWireError(err)
	}
	if body.err != nil {
		return asWireError(body.err)
	}
	return nil
}

func (c *conn) open(f *fields) error {
	f.skip(2)
	c.peerMax = int(min(f.u32(maxFrame), maxFrame))
	f.skip(1)
	idle := time.Duration(f.u32(0)) * time.Millisecond
	if f.err != nil || c.opened || c.peerMax < minMaxFrame {
		return protocolError("amqp:connection:framing-error", "bad open")
	}
	c.opened = true
	if idle > 0 {
		c.idle <- idle / 2
	}
	c.s.perform(&c.lane, OpOpen, "", func(fault *Fault) {
		if fault.silent() || fault.drops(c) {
			return
		}
		c.sendOpen()
		if fault != nil && fault.Condition != "" {
			c.sendClose(fault.asError())
			c.end()
		}
	})
	return nil
}

func (c *conn) sendOpen() {
	c.send(func(b []byte) []byte {
		b, start, mark := openFrame(b, frameAMQP, 0, codeOpen)
		b = appendNull(appendString(b, "servicebustest"))
		b = appendUshort(appendUint(b, maxFrame), channelMax)
		b = appendUint(b, uint32(c.s.options.IdleTimeout/time.Millisecond))
		return closeFrame(b, start, mark, 5, nil)
	})
}

func (c *conn) sendClose(e *wireError) {
	c.send(func(b []byte) []byte {
		b, start, mark := openFrame(b, frameAMQP, 0, codeClose)
		return closeFrame(appendError(b, e), start, mark, 1, nil)
	})
}

// takes tells whether the connection can take more deliveries; if not, its links are resumed when it can.
func (c *conn) takes() bool {
	if c.dead {
		return false
	}
	c.outMu.Lock()
	defer c.outMu.Unlock()
	if len(c.out) < congestion {
		return true
	}
	c.congested = true
	return false
}

// send adds frames to what the writer has to write.
func (c *conn) send(encode func(b []byte) []byte) {
	c.outMu.Lock()
	if !c.ending {
		c.out = encode(c.out)
	}
	c.outMu.Unlock()
	c.wake()
}

func (c *conn) wake() {
	select {
	case c.wakeUp <- struct{}{}:
	default:
	}
}

// end lets the writer close the connection when everything is written.
func (c *conn) end() {
	c.outMu.Lock()
	c.ending = true
	c.outMu.Unlock()
	c.wake()
}

// sever closes the connection without a word; its reader then cleans up.
func (c *conn) sever() {
	c.dead = true
	_ = c.raw.Close() // nobody is left to be told
}

// cut severs the connection and gives back what it held.
func (c *conn) cut() {
	if _, known := c.s.conns[c]; !known {
		return
	}
	delete(c.s.conns, c)
	c.sever()
	for _, se := range c.sessions {
		se.drop()
	}
	close(c.done)
}

// write writes what has gathered, in one piece, whenever there is something.
func (c *conn) write() {
	defer close(c.written)
	var beat <-chan time.Time
	var spare []byte
	for {
		select {
		case <-c.done:
			return
		case every := <-c.idle:
			ticker := time.NewTicker(max(every, time.Millisecond))
			defer ticker.Stop()
			beat = ticker.C
			continue
		case <-beat:
			c.send(func(b []byte) []byte {
				if len(b) == 0 {
					b = append(b, heartbeat...)
				}
				return b
			})
			continue
		case <-c.wakeUp:
			runtime.Gosched() // those who are about to add something do so first
		}
		c.outMu.Lock()
		out, ending, congested := c.out, c.ending, c.congested
		c.out, c.congested = spare[:0], false
		c.outMu.Unlock()
		if len(out) > 0 {
			_ = c.rw.SetWriteDeadline(time.Now().Add(writeTimeout))
			if _, err := c.rw.Write(out); err != nil {
				_ = c.raw.Close() // the reader notices
				return
			}
		}
		if ending {
			_ = c.raw.Close()
			return
		}
		if spare = out; cap(spare) > 4*congestion {
			spare = nil
		}
		if congested {
			c.s.locked(c.resume)
		}
	}
}

// resume goes on with all that waited for the writer.
func (c *conn) resume() {
	for _, se := range c.sessions {
		se.resume()
	}
}
