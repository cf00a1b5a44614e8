package egress

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"
)

// Defaults and bounds of a transport.
const (
	DefaultConnectTimeout = 3 * time.Second
	DefaultIdleTimeout    = time.Minute
	DefaultConnections    = 64

	maxResponseHeader = 64 << 10
	// pingAfter is how long an HTTP/2 connection may be silent before it is asked whether
	// it is still there. Without, one that is dead would take every request with it.
	pingAfter = 15 * time.Second
)

// Options are those of a transport.
type Options struct {
	Policy Policy
	// ConnectTimeout bounds name resolution and connect together, and then TLS by itself.
	// Default: 3s.
	ConnectTimeout time.Duration
	// IdleTimeout is how long a connection is kept that nobody uses. Default: 1m.
	IdleTimeout time.Duration
	// Proxy, as ParseProxy returns it, makes all connections, and resolves the names.
	// Default: none. Variables of the environment are not looked at.
	Proxy *url.URL
	// ProxyTLS is for proxies that are reached by https. Default: the system's authorities.
	ProxyTLS *tls.Config
	// TLS is for what is called, as NewTLS makes it. Default: the system's authorities.
	TLS *tls.Config
	// Connections is how many there may be to one host and port; further calls wait. It is
	// exact for HTTP/1.1. With HTTP/2 one carries as many calls as the host takes; where these
	// are fewer than there are in flight, more connections are made. Default: 64.
	Connections int
	// Resolver looks up names. Default: the system's.
	Resolver *net.Resolver
}

// NewTransport makes a transport that keeps to a policy. It is for HTTP/1.1 and, where TLS
// has agreed on it, HTTP/2.
func NewTransport(opt Options) *http.Transport {
	if opt.ConnectTimeout <= 0 {
		opt.ConnectTimeout = DefaultConnectTimeout
	}
	if opt.IdleTimeout <= 0 {
		opt.IdleTimeout = DefaultIdleTimeout
	}
	if opt.Connections <= 0 {
		opt.Connections = DefaultConnections
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if opt.TLS != nil {
		config = opt.TLS.Clone() // the transport adds to it
	}
	policy := opt.Policy
	return &http.Transport{
		// Not for a proxy: this is what is asked for every request.
		Proxy: func(r *http.Request) (*url.URL, error) {
			if r.URL.Scheme != "https" && !policy.AllowHTTP {
				return nil, &BlockedError{Host: r.URL.Hostname(), Why: errHTTP.Error()}
			}
			return nil, nil
		},
		DialContext:            newDial(opt),
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    opt.ConnectTimeout,
		ForceAttemptHTTP2:      true,
		MaxConnsPerHost:        opt.Connections,
		MaxIdleConnsPerHost:    opt.Connections,
		IdleConnTimeout:        opt.IdleTimeout,
		MaxResponseHeaderBytes: maxResponseHeader,
		DisableCompression:     true, // bodies are read to be thrown away
		// Not StrictMaxConcurrentRequests: calls that wait count as running there, and once
		// as many wait as may run, none runs any more (Go 1.26).
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: pingAfter,
			PingTimeout:     opt.ConnectTimeout,
		},
	}
}

type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// newDial makes connections to hosts, each after the policy was asked.
func newDial(opt Options) dialFunc {
	policy := opt.Policy
	dialer := &net.Dialer{Timeout: opt.ConnectTimeout, Resolver: opt.Resolver}
	var dial dialFunc
	if opt.Proxy != nil {
		dial = newProxy(opt, dialer).dial
	} else {
		dialer.ControlContext = policy.control
		dial = dialer.DialContext
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		if _, err := policy.checkHost(host, false); err != nil {
			return nil, err
		}
		if err := mayDial(ctx); err != nil {
			return nil, err
		}
		conn, err := dial(ctx, network, addr)
		if blocked, ok := asBlocked(err); ok {
			return nil, &BlockedError{Host: host, Addr: blocked.Addr, Why: blocked.Why}
		}
		return conn, err
	}
}

// control is asked with the address of every connection, right before it is made: of each
// that a name has, if there are several.
func (p *Policy) control(_ context.Context, network, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil || network != "tcp" && network != "tcp4" && network != "tcp6" {
		return &BlockedError{Host: address, Why: "only TCP connections to addresses are made"}
	}
	if why := p.refuses(to.Addr()); why != "" {
		return &BlockedError{Addr: to.Addr().Unmap(), Why: why}
	}
	return nil
}
