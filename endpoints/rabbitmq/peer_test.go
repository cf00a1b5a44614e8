package rabbitmq

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// peer speaks as much AMQP 0-9-1 as a publisher needs, and fails as it is told to.
type peer struct {
	t    testing.TB
	addr string
	wg   sync.WaitGroup

	mu    sync.Mutex
	conns []*peerConn
	// publish is told of each message; nil confirms it.
	publish func(c *peerConn, channel uint16, n uint64)
	// refuse answers a method by closing channel or connection.
	refuse map[method]closing
	// stuck are queues about which nothing is answered.
	stuck map[string]bool
	// deaf: nothing is read any more after the handshake.
	deaf bool
}

type method struct{ class, id uint16 }

// closing is why the peer closes a channel, or the connection.
type closing struct {
	code uint16
	text string
	hard bool
}

// peerConn is one connection to the peer.
type peerConn struct {
	net.Conn
	p     *peer
	write sync.Mutex
	// What follows is of the connection's goroutine.
	count  map[uint16]uint64 // messages by channel
	closed map[uint16]bool   // channels that we closed, of which nothing is heeded until that is answered
}

func startPeer(t testing.TB) *peer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, addr: listener.Addr().String(), refuse: make(map[method]closing)}
	p.wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			c := &peerConn{Conn: conn, p: p, count: make(map[uint16]uint64), closed: make(map[uint16]bool)}
			p.mu.Lock()
			p.conns = append(p.conns, c)
			p.mu.Unlock()
			p.wg.Go(c.serve)
		}
	})
	t.Cleanup(func() {
		listener.Close()
		p.cut()
		p.wg.Wait()
	})
	return p
}

// cut breaks all connections.
func (p *peer) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

func (p *peer) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

// each does something with every connection there is.
func (p *peer) each(do func(c *peerConn)) {
	p.mu.Lock()
	conns := p.conns
	p.mu.Unlock()
	for _, c := range conns {
		do(c)
	}
}

// answers to what needs no more than a yes.
var answers = map[method][]byte{
	{20, 10}: long(""), {85, 10}: nil, {60, 10}: nil, {40, 10}: nil, {50, 20}: nil, {20, 40}: nil, {10, 50}: nil,
}

func (c *peerConn) serve() {
	defer c.Close()
	r := bufio.NewReader(c)
	if _, err := io.ReadFull(r, make([]byte, 8)); err != nil {
		return
	}
	c.send(0, method{10, 10}, []byte{0, 9}, long(""), long("PLAIN EXTERNAL"), long("en_US"))
	for {
		kind, channel, payload, err := readFrame(r)
		if err != nil {
			return
		}
		if kind != 1 || len(payload) < 4 {
			continue // properties, content, heartbeats
		}
		m := method{binary.BigEndian.Uint16(payload), binary.BigEndian.Uint16(payload[2:])}
		if !c.handle(channel, m, payload[4:]) {
			return
		}
		if c.p.isDeaf() && m == (method{85, 10}) {
			<-c.p.t.Context().Done()
			return
		}
	}
}

func (p *peer) isDeaf() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.deaf
}

// handle answers a method. It is false when the connection is over.
func (c *peerConn) handle(channel uint16, m method, arguments []byte) bool {
	c.p.mu.Lock()
	stuck := c.p.stuck
	why, refused := c.p.refuse[m]
	publish := c.p.publish
	c.p.mu.Unlock()
	switch {
	case m == method{20, 41}:
		delete(c.closed, channel)
		delete(c.count, channel)
		return true
	case c.closed[channel]:
		return true
	case refused && why.hard:
		c.send(0, method{10, 50}, short16(why.code), short(why.text), []byte{0, 0, 0, 0})
		return true
	case refused:
		c.closeChannel(channel, why.code, why.text)
		return true
	}
	switch m {
	case method{10, 11}:
		c.send(0, method{10, 30}, short16(2047), []byte{0, 2, 0, 0}, short16(60))
	case method{10, 40}:
		c.send(0, method{10, 41}, short(""))
	case method{60, 40}:
		c.count[channel]++
		if n := c.count[channel]; publish == nil {
			c.confirm(channel, n, true)
		} else {
			publish(c, channel, n)
		}
	case method{50, 10}:
		queue, _ := readShort(arguments[2:])
		c.send(channel, method{50, 11}, short(queue), make([]byte, 8))
	case method{60, 20}:
		queue, rest := readShort(arguments[2:])
		if tag, _ := readShort(rest); !stuck[queue] {
			c.send(channel, method{60, 21}, short(tag))
		}
	default:
		if body, ok := answers[m]; ok {
			c.send(channel, method{m.class, m.id + 1}, body)
		}
	}
	return true
}

// confirm acknowledges a message, or says that it was not taken.
func (c *peerConn) confirm(channel uint16, n uint64, taken bool) {
	id := uint16(80)
	if !taken {
		id = 120
	}
	c.send(channel, method{60, id}, binary.BigEndian.AppendUint64(nil, n), []byte{0})
}

// closeChannel closes a channel as the broker does when it minds something.
func (c *peerConn) closeChannel(channel, code uint16, text string) {
	c.closed[channel] = true
	c.send(channel, method{20, 40}, short16(code), short(text), []byte{0, 60, 0, 40})
}

// block tells the client that no messages are taken, or are again.
func (c *peerConn) block(why string) {
	if why == "" {
		c.send(0, method{10, 61})
	} else {
		c.send(0, method{10, 60}, short(why))
	}
}

func (c *peerConn) send(channel uint16, m method, parts ...[]byte) {
	payload := append(short16(m.class), short16(m.id)...)
	for _, part := range parts {
		payload = append(payload, part...)
	}
	frame := append([]byte{1}, short16(channel)...)
	frame = binary.BigEndian.AppendUint32(frame, uint32(len(payload)))
	frame = append(append(frame, payload...), 0xCE)
	c.write.Lock()
	defer c.write.Unlock()
	_, _ = c.Write(frame) // the client may have gone
}

func readFrame(r io.Reader) (kind byte, channel uint16, payload []byte, err error) {
	var head [7]byte
	if _, err = io.ReadFull(r, head[:]); err != nil {
		return
	}
	payload = make([]byte, binary.BigEndian.Uint32(head[3:])+1)
	if _, err = io.ReadFull(r, payload); err != nil {
		return
	}
	return head[0], binary.BigEndian.Uint16(head[1:]), payload[:len(payload)-1], nil
}

func short16(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }
func short(s string) []byte   { return append([]byte{byte(len(s))}, s...) }
func long(s string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(s))), s...)
}

func readShort(b []byte) (string, []byte) { return string(b[1 : 1+b[0]]), b[1+b[0]:] }

// eventually polls until f is true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in time", what)
		}
	}
}
