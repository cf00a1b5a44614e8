package mqtt5

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
)

// server is one address, taken apart.
type server struct {
	// name is how it was written, without a secret.
	name string
	// host is where to connect to, with the port.
	host string
	// secure wraps the connection into TLS.
	secure bool
	// socket is the URL of a WebSocket, or nil.
	socket *url.URL
}

var defaultPorts = map[string]string{"mqtt": "1883", "mqtts": "8883", "ws": "80", "wss": "443"}

// parseServer reads host:port, mqtt://, mqtts://, ws:// or wss://. An address without a
// scheme is secure when tls is configured.
func parseServer(text string, hasTLS bool) (server, error) {
	full := text
	if !strings.Contains(text, "://") {
		full = "mqtt://" + text
		if hasTLS {
			full = "mqtts://" + text
		}
	}
	u, err := url.Parse(full)
	if err != nil || u.Hostname() == "" {
		return server{}, errors.New("it is none: write it as host:port, mqtt://host, mqtts://host, ws://host/path or wss://host/path")
	}
	port, known := defaultPorts[u.Scheme]
	switch {
	case !known:
		return server{}, fmt.Errorf("%q: unknown scheme %q: use mqtt, mqtts, ws or wss", u.Redacted(), u.Scheme)
	case u.User != nil:
		return server{}, fmt.Errorf("%q: user and password do not belong into the address: use `auth <user> <password>`", u.Redacted())
	case u.Scheme[0] == 'm' && strings.Trim(u.Path, "/") != "" || u.Fragment != "":
		return server{}, fmt.Errorf("%q: only WebSockets have a path", text)
	}
	secure := u.Scheme == "mqtts" || u.Scheme == "wss"
	if hasTLS && !secure {
		return server{}, fmt.Errorf("%q is not encrypted, though tls is configured: use mqtts or wss", text)
	}
	if u.Port() != "" {
		port = u.Port()
	}
	s := server{name: text, host: net.JoinHostPort(u.Hostname(), port), secure: secure}
	if u.Scheme[0] == 'w' {
		if u.Path == "" {
			u.Path = "/mqtt" // where nearly all servers have it
		}
		s.socket = u
	}
	return s, nil
}

// dialFunc opens a TCP connection, as net.Dialer does.
type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// dial opens the transport. ctx bounds all of it.
func (s *server) dial(ctx context.Context, open dialFunc, config *tls.Config) (net.Conn, error) {
	transport, err := open(ctx, "tcp", s.host)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = transport.Close() }) // the handshakes know no ctx
	conn, err := s.wrap(ctx, transport, config)
	if !stop() || errors.Is(err, os.ErrDeadlineExceeded) { // whatever else went wrong, it is because of that
		err = fmt.Errorf("it does not answer: %w", context.DeadlineExceeded)
	}
	if err != nil {
		_ = transport.Close()
		return nil, err
	}
	return conn, nil
}

func (s *server) wrap(ctx context.Context, conn net.Conn, config *tls.Config) (net.Conn, error) {
	if s.secure {
		if config == nil {
			config = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		if config.ServerName == "" {
			config = config.Clone()
			config.ServerName, _, _ = net.SplitHostPort(s.host)
		}
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("TLS: %w", err)
		}
		conn = secure
	}
	if s.socket == nil {
		return conn, nil
	}
	return openSocket(ctx, conn, s.socket)
}
