package mqtt5

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
)

// peer is an MQTT 5 server in this process that is strict where Mosquitto is not: it keeps
// to Receive Maximum in both directions, wants acknowledgements in order, and complains of
// clients that break the protocol. It fails when it is told to.
type peer struct {
	t        testing.TB
	listener net.Listener
	wg       sync.WaitGroup

	mu       sync.Mutex
	conns    map[*peerConn]struct{}
	sessions map[string]*peerSession
	retained map[string]*packets.Publish
	turns    map[string]int // of the shared subscriptions
	wrongs   []string       // what clients did that they must not do

	// connack is what CONNACK says, beside the session.
	connack packets.Properties
	// refuse lets nobody in, for that reason.
	refuse byte
	// offline has shared subscriptions give messages to sessions that are not connected,
	// as Mosquitto does; else these get them only when nobody is connected.
	offline bool
	// puback decides about each message that is published: its reason code, and whether
	// the answer is sent.
	puback func(p *packets.Publish) (reason byte, answer bool)
	// suback decides about each filter.
	suback func(filter string) byte
	// lie says in CONNACK that there is a session, though it is new.
	lie bool
	// silentTakeOver leaves out the DISCONNECT of a session that is taken over.
	silentTakeOver bool
	// mute reads nothing and says nothing.
	mute bool
	// hold has the next CONNECT of a client wait until it is closed, whatever becomes of the
	// connection: as a server does that is busy with others, or has to ask who may come in.
	hold map[string]chan struct{}
	// held are the clients whose CONNECT waits, and takeOvers counts how often one took a
	// session that was connected.
	held      map[string]bool
	takeOvers map[string]int
}

// peerSession is what the server keeps under a client identifier.
type peerSession struct {
	id       string
	conn     *peerConn
	filters  map[string]packets.SubOptions
	queue    []*packets.Publish
	inflight []*packets.Publish // in the order in which they were sent
	released map[uint16]bool    // QoS 2, server to client
	receives map[uint16]bool    // QoS 2, client to server
	lastID   uint16
	expiry   uint32
}

type peerConn struct {
	net.Conn
	peer    *peer
	session *peerSession
	window  int // the client's Receive Maximum
	dead    bool
	unread  int // messages of QoS 1 and 2 that were not answered yet
}

func newPeer(t testing.TB) *peer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{
		t: t, listener: listener, conns: make(map[*peerConn]struct{}), sessions: make(map[string]*peerSession),
		retained: make(map[string]*packets.Publish), turns: make(map[string]int),
		hold: make(map[string]chan struct{}), held: make(map[string]bool), takeOvers: make(map[string]int),
	}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		p.cut()
		p.wg.Wait()
		for _, w := range p.wrongs {
			t.Errorf("the client broke the protocol: %s", w)
		}
	})
	return p
}

func (p *peer) addr() string { return p.listener.Addr().String() }

// with changes what the peer does.
func (p *peer) with(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

// cut breaks all connections.
func (p *peer) cut() {
	p.with(func() {
		for c := range p.conns {
			_ = c.Close()
		}
	})
}

// kick ends a client's connection with a reason.
func (p *peer) kick(id string, reason byte) {
	p.with(func() {
		if s := p.sessions[id]; s != nil && s.conn != nil {
			s.conn.disconnect(reason)
		}
	})
}

// forget loses all sessions, and the connections with them.
func (p *peer) forget() {
	p.with(func() {
		for c := range p.conns {
			_ = c.Close()
			c.session, c.dead = nil, true
		}
		clear(p.sessions)
	})
}

func (p *peer) wrong(what string) { p.wrongs = append(p.wrongs, what) }

func (p *peer) accept() {
	for {
		tcp, err := p.listener.Accept()
		if err != nil {
			return
		}
		c := &peerConn{Conn: tcp, peer: p}
		p.with(func() { p.conns[c] = struct{}{} })
		p.wg.Go(func() {
			c.serve()
			p.with(func() { c.closed() })
			_ = tcp.Close()
		})
	}
}

func (c *peerConn) serve() {
	for {
		packet, err := packets.ReadPacket(c)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "reset") {
				c.peer.with(func() { c.peer.wrong(err.Error()) })
			}
			return
		}
		for muted := true; muted; {
			c.peer.with(func() { muted = c.peer.mute })
			if muted {
				time.Sleep(time.Millisecond)
			}
		}
		if connect, ok := packet.Content.(*packets.Connect); ok {
			c.wait(connect.ClientID)
		}
		stop := false
		c.peer.with(func() { stop = c.take(packet.Content) })
		if stop {
			return
		}
	}
}

// wait is how a CONNECT is held.
func (c *peerConn) wait(id string) {
	var until chan struct{}
	c.peer.with(func() {
		if until = c.peer.hold[id]; until != nil {
			c.peer.held[id] = true
			delete(c.peer.hold, id)
		}
	})
	if until != nil {
		<-until
		c.peer.with(func() { delete(c.peer.held, id) })
	}
}

// take works on one packet, with the peer's lock held. It is true when the connection is to
// end.
func (c *peerConn) take(packet packets.Packet) (stop bool) {
	p := c.peer
	if c.dead {
		return true
	}
	if connect, first := packet.(*packets.Connect); c.session == nil != first {
		p.wrong("CONNECT is not the first packet, or not the only one")
		return true
	} else if first {
		return c.connect(connect)
	}
	switch v := packet.(type) {
	case *packets.Publish:
		return c.published(v)
	case *packets.Puback:
		c.acknowledged(v.PacketID, 1)
	case *packets.Pubrec:
		c.acknowledged(v.PacketID, 2)
		if v.ReasonCode < 0x80 {
			c.session.released[v.PacketID] = true
			c.write(&packets.Pubrel{PacketID: v.PacketID, Properties: &packets.Properties{}})
		}
	case *packets.Pubcomp:
		if !c.session.released[v.PacketID] {
			p.wrong("a PUBCOMP for nothing")
		}
		delete(c.session.released, v.PacketID)
		c.deliver()
	case *packets.Pubrel:
		delete(c.session.receives, v.PacketID)
		c.unread--
		c.write(&packets.Pubcomp{PacketID: v.PacketID, Properties: &packets.Properties{}})
	case *packets.Subscribe:
		c.subscribed(v)
	case *packets.Unsubscribe:
		for _, f := range v.Topics {
			delete(c.session.filters, f)
		}
		c.write(&packets.Unsuback{PacketID: v.PacketID, Reasons: make([]byte, len(v.Topics)), Properties: &packets.Properties{}})
	case *packets.Pingreq:
		_, _ = c.Write([]byte{packets.PINGRESP << 4, 0})
	case *packets.Disconnect:
		if e := v.Properties.SessionExpiryInterval; e != nil {
			c.session.expiry = *e
		}
		return true
	default:
		p.wrong("a packet that a client does not send")
	}
	return false
}

func (c *peerConn) connect(v *packets.Connect) (stop bool) {
	p := c.peer
	ack := &packets.Connack{ReasonCode: p.refuse, Properties: &packets.Properties{}}
	*ack.Properties = p.connack
	if p.refuse != 0 {
		c.write(ack)
		return true
	}
	s := p.sessions[v.ClientID]
	if s != nil && s.conn != nil {
		old := s.conn
		p.takeOvers[v.ClientID]++
		if p.silentTakeOver {
			_ = old.Close()
		} else {
			old.disconnect(packets.DisconnectSessionTakenOver)
		}
		old.session, old.dead = nil, true
		s.conn = nil
	}
	if s == nil || v.CleanStart {
		s = &peerSession{
			id: v.ClientID, filters: make(map[string]packets.SubOptions), released: make(map[uint16]bool), receives: make(map[uint16]bool),
		}
		p.sessions[v.ClientID] = s
		ack.SessionPresent = p.lie && !v.CleanStart
	} else {
		ack.SessionPresent = true
	}
	s.conn, c.session, c.window, s.expiry = c, s, 0xffff, 0
	if e := v.Properties.SessionExpiryInterval; e != nil {
		s.expiry = *e
	}
	if w := v.Properties.ReceiveMaximum; w != nil {
		c.window = int(*w)
	}
	c.write(ack)
	for id := range s.released {
		c.write(&packets.Pubrel{PacketID: id, Properties: &packets.Properties{}})
	}
	// What was under way comes again, with the same identifiers, within the new window.
	again := s.inflight
	s.inflight = nil
	for _, m := range again {
		m.Duplicate = true
	}
	s.queue = append(again, s.queue...)
	c.deliver()
	return false
}

// closed is called when the connection has ended.
func (c *peerConn) closed() {
	delete(c.peer.conns, c)
	s := c.session
	if s == nil || s.conn != c {
		return
	}
	s.conn = nil
	if s.expiry == 0 {
		delete(c.peer.sessions, s.id)
	}
}

func (c *peerConn) write(packet packets.Packet) {
	_ = c.SetWriteDeadline(time.Now().Add(5 * time.Second))
	_, _ = packet.WriteTo(c) // a client that is gone is no news
}

func (c *peerConn) disconnect(reason byte) {
	c.write(&packets.Disconnect{ReasonCode: reason, Properties: &packets.Properties{ReasonString: "as the test wants it"}})
	_ = c.Close()
}
