package servicebus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/endpoints/link"
)

const (
	// patience is how long anything may take that somebody waits for.
	patience = 4500 * time.Millisecond
	// loginPatience is how long a token may take, so that there is time to use it.
	loginPatience = 4 * time.Second
	// farewell is how long the end of a connection may take.
	farewell = 500 * time.Millisecond
	// retryAfter is what clients are told when the service can't be reached.
	retryAfter = 5 * time.Second
)

// The ports of the service.
const (
	portTLS       = "5671"
	portPlain     = "5672"
	portWebSocket = "443"
)

// dialFunc is net.Dialer's DialContext.
type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// connConfig is what connections are made with, everything resolved.
type connConfig struct {
	client    clientFunc
	host      string // of the namespace, perhaps with a port
	address   string // host:port of what we connect to
	plain     bool   // the emulator knows no encryption
	websocket bool
	tls       *tls.Config
	idle      time.Duration
	logger    *zap.Logger
	net       dialFunc
}

// route finds where to connect to, and whose certificate to expect there.
func (c *connConfig) route(custom string) error {
	port := portTLS
	switch {
	case c.websocket && !c.plain:
		port = portWebSocket
	case c.plain:
		port = portPlain
	}
	var err error
	if c.address, err = withPort(c.host, port); err != nil {
		return fmt.Errorf("the namespace's host %q: %w", c.host, err)
	}
	name, _, err := net.SplitHostPort(c.address)
	if err != nil {
		return fmt.Errorf("the namespace's host %q: %w", c.host, err)
	}
	if custom != "" {
		if c.address, err = withPort(custom, port); err != nil {
			return fmt.Errorf("custom_endpoint %q: %w", custom, err)
		}
	}
	if c.plain {
		if c.tls != nil {
			return errors.New("tls: the emulator (UseDevelopmentEmulator=true) knows no encryption")
		}
		return nil
	}
	if c.tls == nil {
		c.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if c.tls.ServerName == "" {
		c.tls.ServerName = name // the library would take the port for a part of the name
	}
	return nil
}

func withPort(host, port string) (string, error) {
	if h, p, err := net.SplitHostPort(host); err == nil {
		if h == "" || p == "" {
			return "", errors.New("write host or host:port")
		}
		return host, nil
	}
	bare := strings.Trim(host, "[]")
	if host == "" || strings.ContainsAny(host, "/ ") || strings.Contains(bare, ":") && net.ParseIP(bare) == nil {
		return "", errors.New("write host or host:port")
	}
	return net.JoinHostPort(bare, port), nil
}

// connection is one connection to the namespace, and the library's client that uses it. The
// client never makes another: when it ends, so does the client.
type connection struct {
	*azservicebus.Client
	wire *wire
}

// link makes a link for one use of the namespace. What publishes and what consumes never
// share a connection, so that neither holds up the other's acknowledgements.
func (c *connConfig) link() *link.Link[*connection] {
	return link.New(link.Options[*connection]{
		Name: "Azure Service Bus", Addresses: []string{c.address}, Idle: c.idle, Logger: c.logger,
		Dial: c.dial, Close: (*connection).end,
	})
}

func (c *connConfig) dial(ctx context.Context, address string) (*connection, <-chan error, error) {
	raw, err := c.open(ctx, address)
	if err != nil {
		return nil, nil, err
	}
	w := newWire(raw)
	var taken atomic.Bool
	client, err := c.client(&azservicebus.ClientOptions{
		ApplicationID: "caddy-message-api",
		// What may have been stored must not be sent again, and what failed must be known at
		// once. What is to be tried again, we try again.
		RetryOptions: azservicebus.RetryOptions{MaxRetries: -1},
		// Despite its name this is the way to hand a connection to the library.
		NewWebSocketConn: func(context.Context, azservicebus.NewWebSocketConnArgs) (net.Conn, error) {
			if taken.Swap(true) {
				return nil, &overError{w.failure()}
			}
			return w, nil
		},
	})
	if err != nil {
		_ = raw.Close()
		return nil, nil, err
	}
	return &connection{Client: client, wire: w}, w.lost, nil
}

// open makes a connection on which AMQP can be spoken.
func (c *connConfig) open(ctx context.Context, address string) (net.Conn, error) {
	if c.websocket {
		return c.openSocket(ctx, address)
	}
	raw, err := c.net(ctx, "tcp", address)
	if err != nil || c.plain {
		return raw, err
	}
	client := tls.Client(raw, c.tls)
	if err := client.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return client, nil
}

// end closes the connection, with a word to the service if that takes no time. The library
// waits for up to a minute for answers that will not come, unless the wire is cut.
func (c *connection) end() {
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	if c.wire.failure() != nil {
		cancel()
	}
	cut := time.AfterFunc(farewell, func() { _ = c.wire.Close() })
	_ = c.Client.Close(ctx) // it may be broken already
	cut.Stop()
	_ = c.wire.Close()
}

// overError is what the library gets when it wants another connection.
type overError struct{ cause error }

// NonRetriable is how the library knows that it is in vain.
func (*overError) NonRetriable() {}

func (e *overError) Error() string {
	if e.cause != nil {
		return "the connection was lost: " + e.cause.Error()
	}
	return "the connection was lost"
}

func (e *overError) Unwrap() error { return e.cause }
