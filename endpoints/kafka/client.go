package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/sasl"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

const (
	clientID = "message-api"
	// connectTimeout bounds everything that a request waits for a connection.
	connectTimeout = 4 * time.Second
	// patience is how long Subscribe and Publish look for a broker that serves them: the
	// promise to clients is five seconds.
	patience = 4500 * time.Millisecond
	// clusterTTL is how often, at most, kafka-go looks which brokers there are.
	clusterTTL = 2 * time.Second
)

// clientConfig is what the client side needs to know.
type clientConfig struct {
	Brokers []string
	TLS     *tls.Config
	SASL    sasl.Mechanism
	// Idle is how long connections stay open that nothing uses.
	Idle time.Duration
	// Dial opens network connections; nil is the net package's way.
	Dial dialFunc
}

// client is one endpoint's way to its cluster: a pool of connections that everything
// shares, and what is known about how they fare.
type client struct {
	cfg       clientConfig
	addr      net.Addr
	conns     connections
	transport *kafkago.Transport
	dialer    *kafkago.Dialer
	//nolint:containedctx // the life of the endpoint, which no single call owns
	ctx    context.Context
	cancel context.CancelFunc
	ids    atomic.Int32
	health health
	idle   idleCloser
	watch  watcher

	coordinators sync.Map       // group name → broker id
	bookmarks    [32]sync.Mutex // by hash of the name: they serialise the commits of a bookmark
}

func newClient(cfg clientConfig) *client {
	dial := cfg.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext
	}
	c := &client{cfg: cfg, addr: kafkago.TCP(cfg.Brokers...), conns: connections{open: dial}}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.transport = &kafkago.Transport{
		Dial:        c.conns.dial,
		DialTimeout: connectTimeout,
		IdleTimeout: 30 * time.Second,
		MetadataTTL: clusterTTL,
		// No topics: kafka-go only has to know the brokers, and asking for all topics of
		// a large cluster every second would cost more than everything else.
		MetadataTopics: []string{},
		ClientID:       clientID,
		TLS:            cfg.TLS,
		SASL:           cfg.SASL,
		Context:        c.ctx,
	}
	c.dialer = &kafkago.Dialer{
		ClientID:      clientID,
		Timeout:       connectTimeout,
		DialFunc:      c.conns.dial,
		TLS:           cfg.TLS,
		SASLMechanism: cfg.SASL,
	}
	c.health.enter(endpoints.Idle, nil)
	c.idle.after, c.idle.close = cfg.Idle, c.closeIdle
	c.watch.init(c)
	return c
}

// close ends all connections. Streams that still run end with it.
func (c *client) close() {
	c.cancel()
	c.idle.stop()
	c.transport.CloseIdleConnections()
	c.conns.close()
}

func (c *client) closeIdle() {
	c.transport.CloseIdleConnections()
	c.health.enter(endpoints.Idle, nil)
}

func (c *client) address() string { return strings.Join(c.cfg.Brokers, ",") }

// call sends a request to a broker and returns the answer. Every error is a *callError.
func (c *client) call(ctx context.Context, broker int32, req protocol.Message) (protocol.Message, error) {
	return c.exchange(ctx, &exchange{
		broker: broker,
		key:    req.ApiKey(),
		build:  func(int16) (protocol.Message, error) { return req, nil },
	})
}

// exchange performs x. ctx must have a deadline: it is the only bound on a broker that
// accepts and then says nothing.
func (c *client) exchange(ctx context.Context, x *exchange) (protocol.Message, error) {
	c.idle.touch()
	c.health.connecting()
	x.id, x.client = c.ids.Add(1), clientID
	for {
		res, err := c.transport.RoundTrip(ctx, c.addr, x)
		if err == nil {
			c.health.up()
			return res.(*answer).Message, nil
		}
		sent := x.abandon()
		if !sent && errors.Is(err, errStale) && ctx.Err() == nil {
			// The pool handed out a connection that had died. It is gone now, and nothing
			// was written: the next one may be alive.
			x.phase.Store(waiting)
			continue
		}
		if !sent {
			err = c.diagnose(ctx, err)
		}
		if x.broker == anyBroker && !errors.Is(err, context.Canceled) {
			c.health.enter(endpoints.Down, c.unavailable(err))
		}
		return nil, &callError{sent: sent, err: err}
	}
}

// diagnose finds out what is behind a connection that closes during the handshake: with
// a wrong password, kafka-go's Transport says "unexpected EOF", and its Dialer the cause.
func (c *client) diagnose(ctx context.Context, err error) error {
	if c.cfg.SASL == nil {
		return err
	}
	if errors.Is(err, kafkago.SASLAuthenticationFailed) || errors.Is(err, kafkago.UnsupportedSASLMechanism) {
		return c.refusedLogin(err)
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, cause := c.dialer.DialContext(ctx, "tcp", c.cfg.Brokers[0])
	if cause == nil {
		_ = conn.Close() // it was only a question
		return err
	}
	if _, ok := errors.AsType[*net.OpError](cause); ok {
		return err
	}
	return c.refusedLogin(cause)
}

func (c *client) refusedLogin(err error) error {
	e := message.Errorf(message.Unavailable,
		"Kafka at %s refused the gateway's %s login; look at sasl in the endpoint's configuration: %w",
		c.address(), c.cfg.SASL.Name(), err)
	e.RetryAfter = retryAfter
	return e
}
