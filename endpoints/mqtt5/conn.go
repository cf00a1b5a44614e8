package mqtt5

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/packets"
)

const (
	readBuffer = 16 << 10
	// writeChunk is what must get out within writeTimeout. Whatever takes longer is no
	// connection.
	writeChunk   = 64 << 10
	writeTimeout = 5 * time.Second
	// maxUnwritten is how much may wait for the network before callers wait too.
	maxUnwritten = 1 << 20
	// farewell is how long a server may take to close the connection after DISCONNECT.
	farewell = 4 * time.Second
)

var (
	errLeft  = errors.New("the connection was ended")
	errQuiet = errors.New("the server no longer answers")
	// errUnanswered is when a CONNECT was sent, and given up before the server said anything.
	errUnanswered = errors.New("it does not answer")
)

// handler is who a connection works for. Its methods are called from the connection's
// reader, but for gone, which is called once, from anywhere.
type handler interface {
	// room returns when one more PUBLISH may be read from the network, or c is over.
	room(c *conn)
	// received is given a PUBLISH, which is reused afterwards.
	received(c *conn, p *publish)
	// answered is given a PUBACK, PUBREC, PUBREL or PUBCOMP.
	answered(c *conn, kind byte, id uint16, reason byte, text string)
	// gone is told why the connection is over.
	gone(c *conn, err error)
}

// limits are what the server told in its CONNACK.
type limits struct {
	receiveMaximum int
	maxPacket      int
	maxQoS         byte
	retain         bool
	shared         bool
	wildcards      bool
	keepAlive      time.Duration
}

// conn is one MQTT connection. A reader and a writer run for it. Nobody else touches the
// network, so that no caller can get stuck in it.
type conn struct {
	net     net.Conn
	r       *bufio.Reader
	h       handler
	limits  limits
	present bool   // the server had our session
	server  string // where it leads to

	// lost yields why the connection died, if nobody ended it.
	lost chan error
	// done is closed when nothing can be sent any more, over when the reader has ended.
	done, over chan struct{}
	reads      atomic.Uint64
	paused     atomic.Bool // the reader waits for room, so silence means nothing
	full       chan struct{}
	fullOnce   sync.Once
	wake       chan struct{}

	mu       sync.Mutex
	err      error
	leaving  bool
	out      []byte
	spare    []byte
	batch    uint64        // counts what was handed to the network
	flushing bool          // the network has not taken all of the newest batch
	drained  chan struct{} // closed when out was, if somebody waits
	waiting  map[uint16]chan []byte
	nextID   uint16
	pings    uint64
	pongs    uint64
	ponged   chan struct{} // closed at the next PINGRESP, if somebody waits
}

// handshake sends CONNECT and reads CONNACK. It keeps the transport only when it succeeds.
func handshake(ctx context.Context, transport net.Conn, connect *packets.Connect) (*conn, error) {
	c := &conn{
		net: transport, r: bufio.NewReaderSize(transport, readBuffer),
		lost: make(chan error, 1), done: make(chan struct{}), over: make(chan struct{}),
		full: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	answered := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.Canceled) {
			// Nobody wants the connection any more. Still, the server gets the time to come to
			// the CONNECT: else it might do so after the next one, and end that one's connection.
			timer := time.NewTimer(parting)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-answered:
			}
		}
		_ = transport.Close()
	})
	err := c.ask(connect)
	asked := err == nil
	if asked {
		err = c.greet(connect)
	}
	close(answered)
	if !stop() {
		if asked && err != nil {
			err = fmt.Errorf("%w: %w", errUnanswered, context.Cause(ctx))
		} else {
			err = fmt.Errorf("it does not answer in time: %w", context.Cause(ctx))
		}
	}
	if err != nil {
		_ = transport.Close()
		return nil, err
	}
	return c, nil
}

// ask sends CONNECT.
func (c *conn) ask(connect *packets.Connect) error {
	var first bytes.Buffer
	if _, err := connect.WriteTo(&first); err != nil {
		return err
	}
	_, err := c.net.Write(first.Bytes())
	return err
}

// greet reads CONNACK.
func (c *conn) greet(connect *packets.Connect) error {
	head, body, err := c.packet()
	if err != nil {
		return fmt.Errorf("no CONNACK came: %w", err)
	}
	if head.kind != packets.CONNACK {
		return fmt.Errorf("%w: packet type %d instead of CONNACK", errMalformed, head.kind)
	}
	if len(body) == 2 && body[1] != 0 { // as MQTT 3 says no
		return refusedConnection(body[1], nil)
	}
	ack := &packets.Connack{Properties: &packets.Properties{}}
	if err := ack.Unpack(bytes.NewBuffer(body)); err != nil {
		return fmt.Errorf("%w: CONNACK: %w", errMalformed, err)
	}
	if ack.ReasonCode != 0 {
		return refusedConnection(ack.ReasonCode, ack.Properties)
	}
	c.present = ack.SessionPresent
	c.limits = limitsOf(ack.Properties, time.Duration(connect.KeepAlive)*time.Second)
	return nil
}

func limitsOf(p *packets.Properties, keepAlive time.Duration) limits {
	l := limits{receiveMaximum: 0xffff, maxQoS: 2, retain: true, shared: true, wildcards: true, keepAlive: keepAlive}
	l.maxPacket = maxRemaining + 5
	if p.ReceiveMaximum != nil && *p.ReceiveMaximum > 0 {
		l.receiveMaximum = int(*p.ReceiveMaximum)
	}
	if p.MaximumPacketSize != nil && *p.MaximumPacketSize > 0 {
		l.maxPacket = min(l.maxPacket, int(*p.MaximumPacketSize))
	}
	if p.MaximumQOS != nil {
		l.maxQoS = *p.MaximumQOS
	}
	if p.ServerKeepAlive != nil {
		l.keepAlive = time.Duration(*p.ServerKeepAlive) * time.Second
	}
	no := func(b *byte) bool { return b != nil && *b == 0 }
	l.retain = !no(p.RetainAvailable)
	l.shared = !no(p.SharedSubAvailable)
	l.wildcards = !no(p.WildcardSubAvailable)
	return l
}

// start lets packets flow.
func (c *conn) start(h handler) {
	c.h = h
	go c.read()
	go c.write()
}

// packet reads one packet whole.
func (c *conn) packet() (header, []byte, error) {
	head, err := readHeader(c.r)
	if err != nil {
		return head, nil, err
	}
	body := make([]byte, head.length)
	if _, err := io.ReadFull(c.r, body); err != nil {
		return head, nil, unexpected(err)
	}
	return head, body, nil
}

func (c *conn) read() {
	defer close(c.over)
	var p publish
	for {
		next, err := c.r.Peek(1)
		if err == nil && next[0]>>4 == packets.PUBLISH {
			c.h.room(c) // before it takes memory
		}
		var head header
		var body []byte
		if err == nil {
			head, body, err = c.packet()
		}
		if err == nil {
			c.reads.Add(1)
			err = c.take(head, body, &p)
		}
		if err != nil {
			c.fail(err)
			return
		}
	}
}

// take gives a packet to whom it is for.
func (c *conn) take(head header, body []byte, p *publish) error {
	switch head.kind {
	case packets.PUBLISH:
		if err := readPublish(head.flags, body, p); err != nil {
			return err
		}
		c.h.received(c, p)
	case packets.PUBACK, packets.PUBREC, packets.PUBREL, packets.PUBCOMP:
		id, reason, text, err := readAck(head.kind, body)
		if err != nil {
			return err
		}
		c.h.answered(c, head.kind, id, reason, text)
	case packets.SUBACK, packets.UNSUBACK:
		if len(body) < 3 {
			return fmt.Errorf("%w: an answer to a subscription that ends too early", errMalformed)
		}
		c.confirm(body)
	case packets.PINGRESP:
		c.pong()
	case packets.DISCONNECT:
		return c.dismissed(body)
	default:
		return fmt.Errorf("%w: packet type %d does not belong there", errMalformed, head.kind)
	}
	return nil
}

// dismissed is the server's reason for ending the connection.
func (c *conn) dismissed(body []byte) error {
	reason := &reasonError{}
	if len(body) > 0 {
		d := &packets.Disconnect{Properties: &packets.Properties{}}
		if err := d.Unpack(bytes.NewBuffer(body)); err != nil {
			return fmt.Errorf("%w: DISCONNECT: %w", errMalformed, err)
		}
		reason.code, reason.text = d.ReasonCode, d.Properties.ReasonString
	}
	return fmt.Errorf("the server ended the connection: %w", reason)
}

// send has bytes written that fill appends to what waits for the network. It returns the
// batch they leave with.
func (c *conn) send(fill func(dst []byte) []byte) (batch uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	return c.sendLocked(fill), nil
}

func (c *conn) sendLocked(fill func(dst []byte) []byte) (batch uint64) {
	if len(c.out) == 0 {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
	c.out = fill(c.out)
	return c.batch + 1
}

// write is the writer: it hands over what has gathered, and keeps the connection alive.
func (c *conn) write() {
	var tick <-chan time.Time
	if c.limits.keepAlive > 0 {
		ticker := time.NewTicker(max(c.limits.keepAlive/2, time.Millisecond))
		defer ticker.Stop()
		tick = ticker.C
	}
	var pulse pulse
	for {
		select {
		case <-c.wake:
			// Whoever is about to send something goes first, and it leaves in one write. When
			// nobody is, this takes no time.
			runtime.Gosched()
			if err := c.flush(); err != nil {
				c.fail(err)
				return
			}
		case <-tick:
			if err := c.beat(&pulse); err != nil {
				c.fail(err)
				return
			}
		case <-c.done:
			return
		}
	}
}

func (c *conn) flush() error {
	c.mu.Lock()
	data := c.out
	c.out = c.spare[:0]
	c.spare = nil
	c.batch++
	c.flushing = true
	if c.drained != nil {
		close(c.drained)
		c.drained = nil
	}
	c.mu.Unlock()
	for rest := data; len(rest) > 0; {
		n := min(len(rest), writeChunk)
		if err := c.net.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			return err
		}
		if _, err := c.net.Write(rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flushing = false
	if cap(data) <= maxUnwritten {
		c.spare = data[:0]
	}
	return nil
}

// pulse is what keep-alive saw last.
type pulse struct {
	reads  uint64
	batch  uint64
	silent int
}

// beat comes twice per keep-alive: it says something if there was silence, and gives the
// connection up when nothing came for three beats. While we do not read, no answer can
// come.
func (c *conn) beat(p *pulse) error {
	reads := c.reads.Load()
	c.mu.Lock()
	batch := c.batch
	c.mu.Unlock()
	switch {
	case reads != p.reads || c.paused.Load():
		p.silent = 0
	default:
		p.silent++
	}
	if p.silent >= 3 {
		return errQuiet
	}
	if p.silent > 0 || batch == p.batch || c.paused.Load() {
		c.mu.Lock()
		c.pingLocked()
		c.mu.Unlock()
		batch++
	}
	p.reads, p.batch = reads, batch
	return nil
}

func (c *conn) pingLocked() {
	c.pings++
	c.sendLocked(func(dst []byte) []byte { return append(dst, packets.PINGREQ<<4, 0) })
}

func (c *conn) pong() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pongs++
	if c.ponged != nil {
		close(c.ponged)
		c.ponged = nil
	}
}

// fail ends the connection. Only the first reason counts.
func (c *conn) fail(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	leaving := c.leaving
	if leaving {
		err = errLeft
	}
	c.err = err
	close(c.done)
	c.mu.Unlock()
	_ = c.net.Close() // there is nothing to be saved
	if c.h != nil {
		c.h.gone(c, err)
	}
	if !leaving {
		c.lost <- err
	}
}
