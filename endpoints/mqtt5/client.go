package mqtt5

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/link"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// client is the gateway in front of one broker: how to connect, and who is connected.
type client struct {
	servers        []server
	tls            *tls.Config
	dial           dialFunc
	user, password string
	prefix         string // of client identifiers
	keepAlive      uint16 // seconds
	expiry         uint32 // seconds
	logger         *zap.Logger
	identities     *registry
	alwaysShare    bool
	publishing     *link.Link[*sender] // nil without a producer

	mu      sync.Mutex
	streams map[*stream]struct{}
	failure endpoints.Status // of the last subscription, if it failed
}

func (c *client) addresses() []string {
	names := make([]string, len(c.servers))
	for i := range c.servers {
		names[i] = c.servers[i].name
	}
	return names
}

// connect is a CONNECT without anything that not all connections have.
func (c *client) connect(id string) *packets.Connect {
	one, largest := byte(1), uint32(maxPacket)
	p := &packets.Connect{
		ProtocolName: "MQTT", ProtocolVersion: 5, ClientID: id, KeepAlive: c.keepAlive,
		Properties: &packets.Properties{RequestProblemInfo: &one, MaximumPacketSize: &largest},
	}
	if c.user != "" {
		p.UsernameFlag, p.Username = true, c.user
		p.PasswordFlag, p.Password = true, []byte(c.password)
	}
	return p
}

// open makes a connection, with nobody to work for yet.
func (c *client) open(ctx context.Context, address string, connect *packets.Connect) (*conn, error) {
	for i := range c.servers {
		if c.servers[i].name != address {
			continue
		}
		transport, err := c.servers[i].dial(ctx, c.dial, c.tls)
		if err != nil {
			return nil, err
		}
		conn, err := handshake(ctx, transport, connect)
		if err != nil {
			return nil, err
		}
		conn.server = address
		return conn, nil
	}
	return nil, fmt.Errorf("no such server: %s", address)
}

// randomID is a client identifier that nobody else has.
func (c *client) randomID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // it never fails
	return c.prefix + "-" + hex.EncodeToString(b[:])
}

// identity is the client identifier of an identity's first session on a channel. The
// channel is part of it, because a session keeps its subscriptions for ever.
func (c *client) identity(name string, s *spec) string {
	return c.prefix + "-" + escapeName(name) + "." + s.hash
}

// sessionID is the client identifier of an identity's session number n. key is the
// group's: brokers, and the first identifier.
func (c *client) sessionID(key string, n int) string {
	id := key[strings.LastIndexByte(key, ' ')+1:]
	if n > 0 {
		id += "~" + strconv.Itoa(n)
	}
	return id
}

// maxName is how long a name may be before its end is replaced by a hash.
const maxName = 80

// escapeName writes a name in characters that no broker objects to in a client identifier
// or in the name of a share, each name in its own way.
func escapeName(name string) string {
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "=%02X", c)
		}
	}
	if b.Len() <= maxName {
		return b.String()
	}
	sum := sha256.Sum256([]byte(name))
	return b.String()[:maxName-34] + "=-" + hex.EncodeToString(sum[:16])
}

// spec is a channel: filters that are read together.
type spec struct {
	filters []string
	qos     byte
	hash    string
}

func newSpec(filters []string, qos byte) *spec {
	sum := sha256.Sum256([]byte(strings.Join(filters, "\n")))
	return &spec{filters: filters, qos: qos, hash: hex.EncodeToString(sum[:4])}
}

func (s *spec) key() string { return strings.Join(s.filters, "\n") }

// passes reports whether the sessions of a subscription end with their connection.
func (s *spec) passes(sub message.Subscription) bool {
	return sub.Mode == message.Broadcast || sub.QoS == message.AtMostOnce
}

// shareName is what the sessions of an identity share under.
func (s *spec) shareName(sub message.Subscription) string {
	share := escapeName(sub.Name)
	if len(s.filters) > 1 { // or a channel with another selection would take its share
		share += "." + s.hash
	}
	if s.passes(sub) { // or a durable session that waits for its client would take its share
		share += "~0"
	}
	return share
}

// names are the filters as they are subscribed, plainly or shared.
func (s *spec) names(sub message.Subscription, shared bool) []string {
	if !shared {
		return s.filters
	}
	prefix := "$share/" + s.shareName(sub) + "/"
	all := make([]string, len(s.filters))
	for i, f := range s.filters {
		all[i] = prefix + f
	}
	return all
}

func (s *spec) subscriptions(sub message.Subscription, shared bool) []packets.SubOptions {
	names := s.names(sub, shared)
	options := make([]packets.SubOptions, len(names))
	for i, name := range names {
		options[i] = packets.SubOptions{Topic: name, QoS: s.qos}
		switch {
		case sub.Mode == message.Broadcast:
			options[i].RetainAsPublished = true
		case sub.QoS == message.AtMostOnce:
			options[i].QoS = 0
		case !shared: // as if it were shared
			options[i].RetainHandling = packets.RetainDoNotSend
		}
	}
	return options
}

// subscribe begins a stream.
func (c *client) subscribe(ctx context.Context, sp *spec, sub message.Subscription) (message.Stream, error) {
	s := newStream(c, sp, sub)
	m, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	first := s.home
	s.mu.Unlock()
	c.mu.Lock()
	c.streams[s] = struct{}{}
	c.mu.Unlock()
	c.identities.changed(s.group)
	_, err = first.link.Get(ctx)
	for displaced(err) && ctx.Err() == nil { // the session moves on to another identifier
		_, err = first.link.Get(ctx)
	}
	c.noteSubscribed(first.link.Status(), err)
	for _, n := range m.inherited {
		if err != nil || !s.take(n, false) {
			s.bequeath(n, false)
		}
	}
	if m.probe && (err != nil || !s.look()) {
		c.identities.endProbe(m.group, true)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	return s, nil
}

func displaced(err error) bool {
	reason, told := errors.AsType[*reasonError](err)
	return told && reason.code == reasonTakenOver
}

// begin finds out under which client identifier to connect, and has the connection made.
func (s *stream) begin(ctx context.Context) (m membership, err error) {
	s.mu.Lock() // as soon as the stream is known to others, they may want it to inherit
	defer s.mu.Unlock()
	c := s.client
	if s.spec.passes(s.sub) {
		s.home = s.newSession(0, c.randomID(), passing)
		return m, nil
	}
	key := strings.Join(c.addresses(), ",") + " " + c.identity(s.sub.Name, s.spec)
	m, err = c.identities.join(ctx, key, s, time.Duration(c.expiry)*time.Second)
	if err != nil {
		return m, message.Errorf(message.Unavailable, "the MQTT server at %s: %w", strings.Join(c.addresses(), ","), err)
	}
	s.group = m.group
	s.home = s.newSession(m.slot, c.sessionID(key, m.slot), home)
	return m, nil
}

// hasSession connects for a moment to find out whether the server has a session.
func (c *client) hasSession(ctx context.Context, address, id string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	connect := c.connect(id)
	connect.Properties.SessionExpiryInterval = &c.expiry
	conn, err := c.open(ctx, address, connect)
	if err != nil {
		return false, err
	}
	conn.start(discard{})
	var expiry *uint32
	if !conn.present {
		expiry = new(uint32) // what was made by asking ends at once
	}
	conn.leave(expiry)
	<-conn.over
	return conn.present, nil
}

// discard takes nothing.
type discard struct{}

func (discard) room(*conn)                                 {}
func (discard) received(*conn, *publish)                   {}
func (discard) answered(*conn, byte, uint16, byte, string) {}
func (discard) gone(*conn, error)                          {}

func (c *client) noteSubscribed(status endpoints.Status, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failure = endpoints.Status{}
	if err != nil {
		c.failure = status
		c.failure.State, c.failure.Error = endpoints.Down, err.Error()
	}
}

func (c *client) forget(s *stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.streams, s)
}

// rank is how much a state is worth telling.
var rank = map[endpoints.State]int{endpoints.Idle: 0, endpoints.Up: 1, endpoints.Connecting: 2, endpoints.Down: 3}

// status is that of the connection that fares worst.
func (c *client) status() endpoints.Status {
	worst := endpoints.Status{State: endpoints.Idle, Address: strings.Join(c.addresses(), ",")}
	consider := func(s endpoints.Status) {
		if rank[s.State] > rank[worst.State] || worst.Since.IsZero() {
			worst = s
		}
	}
	if c.publishing != nil {
		consider(c.publishing.Status())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.streams) == 0 && c.failure.State != "" && worst.State != endpoints.Up {
		consider(c.failure)
	}
	for s := range c.streams {
		consider(s.status())
	}
	return worst
}

// close ends everything.
func (c *client) close() {
	c.mu.Lock()
	streams := make([]*stream, 0, len(c.streams))
	for s := range c.streams {
		streams = append(streams, s)
	}
	c.mu.Unlock()
	var all sync.WaitGroup
	for _, s := range streams {
		all.Go(func() { _ = s.Close(context.Background()) })
	}
	all.Wait()
	if c.publishing != nil {
		c.publishing.Close()
	}
}

// probe finds out whether a broker lets us in: by the connection that is there, or one of
// its own.
func (c *client) probe(ctx context.Context) error {
	if c.publishing != nil {
		_, err := c.publishing.Get(ctx)
		return err
	}
	l := link.New(link.Options[*conn]{
		Name: "the MQTT server", Addresses: c.addresses(), Logger: c.logger, Close: (*conn).close,
		Dial: func(ctx context.Context, address string) (*conn, <-chan error, error) {
			connect := c.connect(c.randomID())
			connect.CleanStart = true
			conn, err := c.open(ctx, address, connect)
			if err != nil {
				return nil, nil, err
			}
			conn.start(discard{})
			return conn, conn.lost, nil
		},
	})
	defer l.Close()
	_, err := l.Get(ctx)
	return err
}
