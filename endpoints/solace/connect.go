//go:build cgo && (linux || darwin)

package solace

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"solace.dev/go/messaging"
	api "solace.dev/go/messaging/pkg/solace"
	"solace.dev/go/messaging/pkg/solace/config"
	"solace.dev/go/messaging/pkg/solace/logging"
	"solace.dev/go/messaging/pkg/solace/subcode"

	"github.com/caddy-message-api/caddy-message-api/endpoints/link"
	"github.com/caddy-message-api/caddy-message-api/message"
)

const (
	// patience is how long anything may take that somebody waits for.
	patience = 4500 * time.Millisecond
	// retryAfter is what clients are told when the broker is down or refuses to work.
	retryAfter = 5 * time.Second
	// farewell is how long a connection may take to end before it is left to end alone.
	farewell = 2 * time.Second
	// margin is how much less than its caller a connection attempt waits: it can't be
	// cancelled, and what it began is to be gone when the caller gives it up.
	margin = 200 * time.Millisecond
	// unbinding is how long the broker has for the answer when a flow is ended.
	unbinding = 20 * time.Millisecond
	// maxClientName is the longest name that a client may have, in bytes.
	maxClientName = 160
)

// connConfig is what connections are made with, everything resolved.
type connConfig struct {
	addresses     []string
	vpn           string
	user          string
	password      string
	byCertificate bool
	trust         *trust
	idle          time.Duration
	// keepAlive is how often the library asks whether the broker is there; after three
	// questions without an answer the connection is lost. 0 is its own, 3s.
	keepAlive time.Duration
	logger    *zap.Logger
	// name is what the broker calls our connections.
	name func(use string) string
}

// service is one connection to the broker.
type service struct {
	api.MessagingService
	address string
	unbound atomic.Int64 // when a flow was ended last, in Unix nanoseconds

	// using is held by who is in a call that the library does not protect from the end of
	// the connection, and over is set before that end: see enter.
	using sync.RWMutex
	over  bool
}

// enter begins a call that hands something to the library's native part, and leave ends
// it. The library frees the native session while other threads are in such calls, which
// ends the process; so we let it do that only when nobody is. It is false when the
// connection is over.
func (s *service) enter() bool {
	s.using.RLock()
	if s.over {
		s.using.RUnlock()
		return false
	}
	return true
}

func (s *service) leave() { s.using.RUnlock() }

// disconnect waits until nobody is in a call, and frees the native session.
func (s *service) disconnect() {
	s.using.Lock()
	s.over = true
	s.using.Unlock()
	s.settle()
	_ = s.Disconnect() // it may be broken already
}

// connect makes a connection. One that breaks is lost to us, and another is made. The
// library is told to reconnect nevertheless, because one that does not frees the native
// session by itself, at once; it hardly comes to it before it is disconnected. If it
// does, it sends again what it holds, under the same numbers, which the broker stores once.
func (c *connConfig) connect(ctx context.Context, address, use string) (*service, <-chan error, error) {
	properties, err := c.properties(ctx, address, use)
	if err != nil {
		return nil, nil, err
	}
	built, err := messaging.NewMessagingServiceBuilder().FromConfigurationProvider(properties).Build()
	if err != nil {
		return nil, nil, c.explain(address, err)
	}
	svc := &service{MessagingService: built, address: address}
	lost := make(chan error, 1)
	isLost := func(event api.ServiceEvent) {
		err := event.GetCause()
		if err == nil {
			err = errBroken
		}
		select {
		case lost <- err:
		default: // the link knows
		}
	}
	svc.AddReconnectionAttemptListener(isLost)
	svc.AddServiceInterruptionListener(isLost)
	failed := make(chan error, 1)
	go func() { failed <- svc.Connect() }()
	select {
	case err = <-failed:
	case <-ctx.Done():
		go func() {
			<-failed
			_ = svc.Disconnect() // it was not used by anybody
		}()
		return nil, nil, context.Cause(ctx)
	}
	if err != nil {
		_ = svc.Disconnect() // which frees what the library holds of it
		return nil, nil, c.explain(address, err)
	}
	return svc, lost, nil
}

func (c *connConfig) properties(ctx context.Context, address, use string) (config.ServicePropertyMap, error) {
	timeout := patience
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(time.Until(deadline)-margin, 50*time.Millisecond)
	}
	p := config.ServicePropertyMap{
		config.TransportLayerPropertyHost:                      address,
		config.ServicePropertyVPNName:                          c.vpn,
		config.ClientPropertyName:                              c.uniqueName(use),
		config.ClientPropertyApplicationDescription:            "caddy-message-api",
		config.ServicePropertyGenerateSendTimestamps:           true,
		config.ServicePropertyProvisionTimeoutMs:               patience,
		config.TransportLayerPropertyConnectionAttemptsTimeout: timeout,
		config.TransportLayerPropertyConnectionRetries:         0,
		config.TransportLayerPropertyConnectionRetriesPerHost:  0,
		config.TransportLayerPropertyReconnectionAttempts:      -1,
		config.TransportLayerPropertySocketTCPOptionNoDelay:    true,
	}
	if c.keepAlive > 0 {
		p[config.TransportLayerPropertyKeepAliveInterval] = c.keepAlive
	}
	if c.byCertificate {
		p[config.AuthenticationPropertyScheme] = config.AuthenticationSchemeClientCertificate
	} else {
		p[config.AuthenticationPropertyScheme] = config.AuthenticationSchemeBasic
		p[config.AuthenticationPropertySchemeBasicUserName] = c.user
		p[config.AuthenticationPropertySchemeBasicPassword] = c.password
	}
	if isSecure(address) {
		if err := c.trust.apply(p); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// uniqueName makes a client's name: the broker ends the older of two that share one.
func (c *connConfig) uniqueName(use string) string {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	name := printable(c.name(use))
	return name[:min(len(name), maxClientName-17)] + "/" + hex.EncodeToString(random[:])
}

// end closes the connection. On one where the broker is silent that takes a while, in which
// nobody is kept waiting.
func (s *service) end() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.disconnect()
	}()
	timer := time.NewTimer(farewell)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// settle waits for the answers to what was unbound just now. The library misses them if they
// come in the moment in which it begins to disconnect, and then waits for 20 seconds.
func (s *service) settle() {
	if since := time.Since(time.Unix(0, s.unbound.Load())); since < unbinding {
		time.Sleep(unbinding - since)
	}
}

// link makes a link for what consumes. Publishers have connections of their own.
func (c *connConfig) link(use string) *link.Link[*service] {
	return link.New(link.Options[*service]{
		Name: "Solace", Addresses: c.addresses, Idle: c.idle, Logger: c.logger,
		Dial: func(ctx context.Context, address string) (*service, <-chan error, error) {
			return c.connect(ctx, address, use)
		},
		Close: (*service).end,
	})
}

// explain turns what went wrong while connecting into something that tells what to do.
func (c *connConfig) explain(address string, err error) error {
	known := func(format string, args ...any) error {
		e := message.Errorf(message.Unavailable, format, args...)
		e.RetryAfter = retryAfter
		return e
	}
	var auth *api.AuthenticationError
	switch code := codeOf(err); {
	case errors.As(err, &auth) && c.byCertificate:
		return known("Solace at %s refused the gateway's certificate: %w", address, err)
	case errors.As(err, &auth):
		return known("Solace at %s refused the login of user %q; look at auth in the endpoint's configuration: %w", address, c.user, err)
	case code == subcode.MsgVpnNotAllowed || code == subcode.MsgVpnUnavailable:
		return known("Solace at %s does not let the gateway into message VPN %q: %w", address, c.vpn, err)
	case code == subcode.LibraryNotLoaded:
		return known("Solace at %s can't be reached over TLS: Solace's client library finds no OpenSSL (libssl.so) on this machine: %w", address, err)
	}
	return known("Solace at %s can't be reached: %w", address, err)
}

// within waits for a call as long as ctx allows. The library's calls know no context, so
// one that is not answered costs a goroutine until the library gives it up. What comes
// later is handed to late.
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

// logsToCaddy has the library, which logs for the whole process, write to Caddy's log
// what it calls errors. What is worth knowing below that, callers are told.
var logsToCaddy = sync.OnceFunc(func() {
	logging.SetLogLevel(logging.LogLevelError)
	logging.SetLogOutput(logWriter{})
})

type logWriter struct{}

func (logWriter) Write(line []byte) (int, error) {
	caddy.Log().Named("message_api.endpoints.solace").Info("Solace's client library says",
		zap.ByteString("text", bytes.TrimSpace(line)))
	return len(line), nil
}
