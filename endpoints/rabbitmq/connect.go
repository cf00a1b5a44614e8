package rabbitmq

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/endpoints/link"
	"github.com/caddy-message-api/caddy-message-api/message"
)

const (
	// patience is how long anything may take that somebody waits for.
	patience = 4500 * time.Millisecond
	// retryAfter is what clients are told when the broker is down or refuses to work.
	retryAfter = 5 * time.Second
	// frameSize is the largest frame that we offer; brokers usually offer the same.
	frameSize = 128 << 10
)

// connConfig is what connections are made with, everything resolved.
type connConfig struct {
	addresses []string
	vhost     string
	tls       *tls.Config
	user      string
	password  string
	external  bool
	heartbeat time.Duration
	idle      time.Duration
	logger    *zap.Logger
	// name is what the broker calls our connections.
	name func(use string) string
	net  dialFunc
}

// dialFunc is net.Dialer's DialContext.
type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// connection is one connection to the broker, of which either side is watched.
type connection struct {
	*amqp.Connection
	wire    *wire
	address string
	// blocked says why the broker takes no messages, while it does not.
	blocked atomic.Pointer[string]

	// exchanges are those that this connection knows to be there.
	exchanges exchanges
	outlets   [outletCount]outlet
	watchers  sync.WaitGroup
}

// link makes a link for one use of the broker: what publishes and what consumes never
// share a connection, because a broker that is short of memory stops reading from those
// that publish.
func (c *connConfig) link(use string) *link.Link[*connection] {
	return link.New(link.Options[*connection]{
		Name: "RabbitMQ", Addresses: c.addresses, Idle: c.idle, Logger: c.logger,
		Dial: func(ctx context.Context, address string) (*connection, <-chan error, error) {
			return c.dial(ctx, address, use)
		},
		Close: (*connection).end,
	})
}

func (c *connConfig) dial(ctx context.Context, address, use string) (*connection, <-chan error, error) {
	raw, err := c.net(ctx, "tcp", address)
	if err != nil {
		return nil, nil, err
	}
	// The handshake of the library knows no context.
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	conn, err := c.open(ctx, raw, address, use)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if conn != nil {
			conn.end()
		}
		_ = raw.Close()
		return nil, nil, c.explain(address, err)
	}
	lost := make(chan error, 1)
	closes := conn.NotifyClose(make(chan *amqp.Error, 1))
	blocks := conn.NotifyBlocked(make(chan amqp.Blocking, 1))
	conn.watchers.Go(func() { conn.watch(closes, blocks, lost) })
	return conn, lost, nil
}

// open shakes hands, encrypted or not.
func (c *connConfig) open(ctx context.Context, raw net.Conn, address, use string) (*connection, error) {
	conn := raw
	if c.tls != nil {
		cfg := c.tls.Clone()
		if cfg.ServerName == "" {
			cfg.ServerName, _, _ = net.SplitHostPort(address) // it was checked
		}
		client := tls.Client(raw, cfg)
		if err := client.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		conn = client
	}
	w := newWire(conn, raw)
	if deadline, ok := ctx.Deadline(); ok {
		_ = w.SetDeadline(deadline) // else the context closes the connection
	}
	sasl := amqp.Authentication(&amqp.PlainAuth{Username: c.user, Password: c.password})
	if c.external {
		sasl = new(amqp.ExternalAuth)
	}
	ac, err := amqp.Open(w, amqp.Config{
		SASL: []amqp.Authentication{sasl}, Vhost: c.vhost, Heartbeat: c.heartbeat,
		FrameSize: frameSize, Locale: "en_US",
		Properties: amqp.Table{"product": "caddy-message-api", "connection_name": c.name(use)},
	})
	if err != nil {
		_ = w.Close()
		return nil, err
	}
	made := &connection{Connection: ac, wire: w, address: address}
	for i := range made.outlets {
		made.outlets[i].opening = make(chan struct{}, 1)
	}
	return made, nil
}

// living returns a connection that is not known to be broken: a link learns of that a
// moment after the library.
func living(ctx context.Context, l *link.Link[*connection]) (*connection, error) {
	for {
		conn, err := l.Get(ctx)
		if err != nil {
			return nil, err
		}
		if !conn.C.IsClosed() {
			return conn.C, nil
		}
		select {
		case <-conn.Gone:
		case <-ctx.Done():
			return nil, fault("connecting", ctx.Err())
		}
	}
}

// explain turns what went wrong while connecting into something that tells what to do.
func (c *connConfig) explain(address string, err error) error {
	known := func(format string, args ...any) error {
		e := message.Errorf(message.Unavailable, format, args...)
		e.RetryAfter = retryAfter
		return e
	}
	e, ok := errors.AsType[*amqp.Error](err)
	switch {
	case !ok:
		return err
	case e.Code == amqp.AccessRefused && c.external:
		return known("RabbitMQ at %s refused the gateway's certificate (EXTERNAL): "+
			"its plugin rabbitmq_auth_mechanism_ssl must be on, and the certificate's name be a user: %w", address, reason(err))
	case e.Code == amqp.AccessRefused:
		return known("RabbitMQ at %s refused the login of user %q; look at auth in the endpoint's configuration: %w", address, c.user, reason(err))
	case e.Code == amqp.NotAllowed || e.Code == amqp.InvalidPath:
		return known("RabbitMQ at %s does not let user %q into virtual host %q: %w", address, c.user, c.vhost, reason(err))
	case (e.Code == amqp.FrameError || e == amqp.ErrClosed) && c.tls == nil: // which of them is a race in the library
		return known("RabbitMQ at %s can't be reached: it closed the connection; does it expect TLS here? (%w)", address, reason(err))
	}
	return known("RabbitMQ at %s can't be reached: %w", address, reason(err))
}

// watch lives as long as the connection.
func (c *connection) watch(closes <-chan *amqp.Error, blocks <-chan amqp.Blocking, lost chan<- error) {
	defer close(lost)
	for {
		select {
		case b, ok := <-blocks:
			switch {
			case !ok:
				blocks = nil // closes says why
			case b.Active:
				c.blocked.Store(&b.Reason)
			default:
				c.blocked.Store(nil)
			}
		case e, ok := <-closes:
			if ok {
				lost <- c.cause(e)
			}
			return
		}
	}
}

// cause prefers what the wire knows to what the library makes of it.
func (c *connection) cause(e *amqp.Error) error {
	if err := c.wire.failure(); err != nil {
		return err
	}
	return reason(e)
}

// end closes the connection, with a word to the broker if that takes no time. A broker that
// does not answer about a queue does not answer about its connection either, and the
// library's own deadline is put off by every heartbeat.
func (c *connection) end() {
	cut := time.AfterFunc(farewell, func() { _ = c.wire.raw.Close() })
	_ = c.Connection.Close() // it may be closed already
	cut.Stop()
	_ = c.wire.Close()
	c.watchers.Wait()
}

// within waits for a call as long as ctx allows. The library's calls know no context, so a
// broker that does not answer costs a goroutine until it does or the connection ends. What
// comes later is handed to late.
func within[T any](ctx context.Context, call func() (T, error), late func(T)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1)
	go func() {
		value, err := call()
		done <- outcome{value, err}
	}()
	select {
	case o := <-done:
		return o.value, o.err
	case <-ctx.Done():
		go func() {
			if o := <-done; o.err == nil && late != nil {
				late(o.value)
			}
		}()
		var none T
		return none, ctx.Err()
	}
}
