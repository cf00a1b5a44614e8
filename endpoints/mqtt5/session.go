package mqtt5

import (
	"context"
	"slices"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/link"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// role is what a session at the server is for.
type role uint8

const (
	// passing sessions end with their connection: broadcasts, and at_most_once.
	passing role = iota
	// home is the durable session that a stream reads from.
	home
	// draining sessions are what another stream left: they are unsubscribed, read to their
	// end, and ended.
	draining
	// taken is a session that another process has.
	taken
)

// session is a session at the server, under one client identifier, and the connection to
// it. Its fields are guarded by the stream's lock.
type session struct {
	stream *stream
	link   *link.Link[*conn]
	slot   int
	id     string
	role   role

	conn     *conn
	up       time.Time
	flaps    int                 // how often in a row the server closed it soon and without a word
	shared   bool                // its subscriptions are
	known    bool                // it was connected before, under this identifier
	unacked  []*incoming         // in the order in which they came
	pubrecs  map[uint16]struct{} // QoS 2: acknowledged and not released
	arrivals uint64
	dropped  int // what came while the stream was closing
	epoch    uint64
	release  func()
	topic    string // of the last message
}

// newSession adds a session and keeps it connected until it is left. The stream's lock is
// held.
func (s *stream) newSession(slot int, id string, r role) *session {
	ss := &session{stream: s, slot: slot, id: id, role: r}
	ss.link = link.New(link.Options[*conn]{
		Name: "the MQTT server", Addresses: s.client.addresses(), Logger: s.client.logger,
		Dial: ss.dial, Close: (*conn).close,
	})
	s.sessions[ss] = struct{}{}
	ss.release = ss.link.Hold()
	return ss
}

// dial connects and subscribes.
func (ss *session) dial(ctx context.Context, address string) (*conn, <-chan error, error) {
	s := ss.stream
	s.mu.Lock()
	id, n, r := ss.id, ss.slot, ss.role
	s.mu.Unlock()
	if r == taken {
		return nil, nil, errClosed // somebody has it by now, here or elsewhere
	}
	connect := s.client.connect(id)
	window := uint16(min(s.sub.Window.Messages, 0xffff)) //nolint:gosec // it is positive
	connect.Properties.ReceiveMaximum = &window
	if r == passing {
		connect.CleanStart = true
	} else {
		connect.Properties.SessionExpiryInterval = &s.client.expiry
	}
	c, err := s.client.open(ctx, address, connect)
	if err != nil {
		if s.group != nil {
			s.client.identities.gaveUp(s.group.key, n, err)
		}
		return nil, nil, err
	}
	granted, err := ss.attach(c)
	if err == nil && granted != nil {
		err = granted(ctx)
	}
	if err != nil {
		c.fail(err)
		<-c.over
		return nil, nil, err
	}
	ss.settled(c)
	return c, c.lost, nil
}

// attach makes c the session's connection and asks for its subscriptions. granted, if there
// are any, waits for the answer.
func (ss *session) attach(c *conn) (granted func(context.Context) error, err error) {
	s := ss.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	c.start(ss)
	if s.over {
		return nil, errClosed
	}
	s.epoch++
	ss.conn, ss.epoch, ss.up = c, s.epoch, time.Now()
	if !c.present {
		ss.pubrecs = nil
		if ss.known && ss.role == home {
			s.gapped("the MQTT server did not keep the session")
		}
	}
	ss.known = true
	if ss.role == draining {
		return nil, ss.unsubscribe()
	}
	return ss.subscribe()
}

// subscribe asks for the subscriptions that are wanted now: plain ones as long as nobody
// shares them, because not all servers keep shared ones when they restart. Only then those
// that are not wanted end, so that there are always some. The stream's lock is held.
func (ss *session) subscribe() (granted func(context.Context) error, err error) {
	s := ss.stream
	least := byte(0)
	if ss.shared = s.sub.Mode != message.Broadcast; s.group != nil {
		ss.shared, least = ss.wantsShared(), 1
	}
	granted, err = ss.conn.subscribe(s.spec.subscriptions(s.sub, ss.shared), least)
	if err == nil && s.group != nil {
		err = ss.conn.unsubscribe(s.spec.names(s.sub, !ss.shared))
	}
	return granted, err
}

// wantsShared reports whether the session's subscriptions are to be shared. The stream's
// lock is held, and it is connected.
func (ss *session) wantsShared() bool {
	c := ss.stream.client
	wanted := c.alwaysShare || c.identities.shares(ss.stream.group, ss.slot)
	return wanted && (ss.conn.limits.shared || ss.slot > 0) // the first goes on alone where there are none
}

// unsubscribe ends the subscriptions of either kind. The stream's lock is held.
func (ss *session) unsubscribe() error {
	s := ss.stream
	return ss.conn.unsubscribe(slices.Concat(s.spec.names(s.sub, true), s.spec.names(s.sub, false)))
}

// adjust subscribes anew if another kind of subscription is wanted than before.
func (s *stream) adjust() {
	s.mu.Lock()
	defer s.mu.Unlock()
	ss := s.home
	if s.group == nil || ss == nil || ss.conn == nil || ss.role != home || ss.shared == ss.wantsShared() {
		return
	}
	c := ss.conn
	granted, err := ss.subscribe()
	if err != nil || s.over {
		return // it is repeated with the next connection
	}
	s.work.Go(func() {
		if err := granted(context.Background()); err != nil {
			c.fail(err)
		}
	})
}

// room implements handler. What has no room stays in the network, and then at the server.
func (ss *session) room(c *conn) {
	s := ss.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.over && ss.conn == c && s.full() {
		c.paused.Store(true)
		c.isFull()
		s.roomy.Wait()
	}
	c.paused.Store(false)
}

// received implements handler.
func (ss *session) received(c *conn, p *publish) {
	s := ss.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || ss.conn != c {
		ss.dropped++
		return // it goes back by not being acknowledged
	}
	ss.arrivals++
	if _, again := ss.pubrecs[p.id]; again && p.qos == 2 && p.dup {
		_, _ = c.send(func(dst []byte) []byte { return appendAck(dst, packets.PUBREC, p.id, 0) })
		return
	}
	if ss.topic != string(p.topic) {
		ss.topic = string(p.topic)
	}
	in := &incoming{session: ss, conn: c, epoch: ss.epoch, id: p.id, qos: p.qos, attempt: 1}
	if p.dup {
		in.attempt = 2
	}
	fill(&in.Message, p, ss.topic)
	in.size = in.Message.Size()
	if p.qos > 0 {
		ss.unacked = append(ss.unacked, in)
	}
	s.arrive(in)
}

// answered implements handler: a PUBREL is the end of a message of QoS 2.
func (ss *session) answered(c *conn, kind byte, id uint16, _ byte, _ string) {
	if kind != packets.PUBREL {
		return
	}
	s := ss.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(ss.pubrecs, id)
	_, _ = c.send(func(dst []byte) []byte { return appendAck(dst, packets.PUBCOMP, id, 0) })
}

// acknowledge sends the acknowledgements of all settled messages before which none is
// unsettled. The stream's lock is held.
func (ss *session) acknowledge() {
	n := 0
	for n < len(ss.unacked) && ss.unacked[n].state == done {
		n++
	}
	if n == 0 || ss.conn == nil {
		return
	}
	_, _ = ss.conn.send(func(dst []byte) []byte { // on a dead connection they are in vain
		for _, in := range ss.unacked[:n] {
			kind := byte(packets.PUBACK)
			if in.qos == 2 {
				kind = packets.PUBREC
			}
			if in.qos == 2 && in.reason == 0 {
				if ss.pubrecs == nil {
					ss.pubrecs = make(map[uint16]struct{})
				}
				ss.pubrecs[in.id] = struct{}{}
			}
			dst = appendAck(dst, kind, in.id, in.reason)
		}
		return dst
	})
	clear(ss.unacked[:n])
	ss.unacked = ss.unacked[n:]
}

// gone implements handler. What a durable session had sent and was not acknowledged comes
// again; what came by a passing one is all that there is.
func (ss *session) gone(c *conn, err error) {
	s := ss.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if ss.conn != c {
		return
	}
	ss.conn = nil
	s.roomy.Broadcast()
	if ss.role == passing {
		ss.unacked = nil
		if !s.over {
			s.gapped("the connection to the MQTT server was lost: " + err.Error())
		}
		return
	}
	ss.giveBack()
	ss.suspect(err)
}

// giveBack makes everything unacknowledged stale. The stream's lock is held.
func (ss *session) giveBack() {
	s := ss.stream
	for _, in := range ss.unacked {
		switch in.state {
		case lent:
			s.lent.sub(in)
			s.held.sub(in)
		case waiting:
			s.held.sub(in)
		}
		in.state = stale
	}
	ss.unacked = nil
	s.queue.drop(func(in *incoming) bool { return in.state == stale })
	s.signal()
}

// idle reports whether nothing is known that the session still has to do. The stream's
// lock is held.
func (ss *session) idle() bool { return ss.conn != nil && len(ss.unacked) == 0 }

// leave ends the connection so that the server has seen all acknowledgements, and the
// session with it if asked to. While the server is away there is nothing to say.
func (ss *session) leave(end bool) {
	ss.stream.mu.Lock()
	c, release := ss.conn, ss.release
	ss.stream.mu.Unlock()
	if c != nil {
		var expiry *uint32
		if end {
			expiry = new(uint32)
		}
		c.leave(expiry)
	}
	release()
	ss.link.Close()
}

// address is the server that the stream is connected to, or one that it may be.
func (s *stream) address() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.home.conn; c != nil {
		return c.server
	}
	return s.client.servers[0].name
}

// status is how the stream's connection is.
func (s *stream) status() endpoints.Status {
	s.mu.Lock()
	l := s.home.link
	s.mu.Unlock()
	return l.Status()
}

var _ handler = (*session)(nil)
