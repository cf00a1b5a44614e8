package egress

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/proxy"
)

// ProxyError is a connection that the proxy did not make. It is no fault of the subscriber's.
type ProxyError struct {
	// Status is the proxy's answer, or empty.
	Status string
	Err    error
}

func (e *ProxyError) Error() string {
	if e.Status != "" {
		return "the proxy refused the connection: " + e.Status
	}
	return "the proxy made no connection: " + e.Err.Error()
}

// Unwrap returns the cause, if there is one.
func (e *ProxyError) Unwrap() error { return e.Err }

// Timeout is what net.Error and url.Error ask for.
func (e *ProxyError) Timeout() bool { return e.Err != nil && timedOut(e.Err) }

var proxyPorts = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}

// ParseProxy reads the URL of a proxy: http, https, socks5 or socks5h (which are one here: the
// proxy resolves the names), with user and password if it wants them.
func ParseProxy(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("that is no URL of a proxy: write http://<host>:<port>") // err may have a password
	}
	if proxyPorts[u.Scheme] == "" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("that is no URL of a proxy: write http://, https:// or socks5://, then <host>:<port>, and no path")
	}
	if err := checkPort(u.Host, u.Port()); err != nil {
		return nil, err
	}
	if password, _ := u.User.Password(); len(u.User.Username()) > 255 || len(password) > 255 {
		return nil, errors.New("user and password of a proxy may have 255 bytes each")
	}
	return u, nil
}

// proxied makes connections through a proxy, and those to the proxy without asking the policy:
// it is the operator's. Every connection is a tunnel, also for http: this way a host that
// doesn't answer holds up no other, and the proxy's refusals aren't taken for answers.
type proxied struct {
	url     *url.URL
	addr    string
	timeout time.Duration
	dialer  *net.Dialer
	tls     *tls.Config
}

func newProxy(opt Options, dialer *net.Dialer) *proxied {
	port := opt.Proxy.Port()
	if port == "" {
		port = proxyPorts[opt.Proxy.Scheme]
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if opt.ProxyTLS != nil {
		config = opt.ProxyTLS.Clone()
	}
	if config.ServerName == "" {
		config.ServerName = opt.Proxy.Hostname()
	}
	return &proxied{
		url: opt.Proxy, addr: net.JoinHostPort(opt.Proxy.Hostname(), port),
		// One way to the proxy, and one from there.
		timeout: 2 * opt.ConnectTimeout, dialer: dialer, tls: config,
	}
}

func (p *proxied) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	var conn net.Conn
	var err error
	if strings.HasPrefix(p.url.Scheme, "socks") {
		conn, err = p.socks(ctx, network, addr)
	} else {
		conn, err = p.tunnel(ctx, network, addr)
	}
	var known *ProxyError
	if err != nil && !errors.As(err, &known) {
		err = &ProxyError{Err: err}
	}
	return conn, err
}

func (p *proxied) socks(ctx context.Context, network, addr string) (net.Conn, error) {
	var auth *proxy.Auth
	if p.url.User != nil {
		password, _ := p.url.User.Password()
		auth = &proxy.Auth{User: p.url.User.Username(), Password: password}
	}
	dialer, err := proxy.SOCKS5("tcp", p.addr, auth, p.dialer)
	if err != nil {
		return nil, err
	}
	return dialer.(proxy.ContextDialer).DialContext(ctx, network, addr)
}

// tunnel has an HTTP proxy connect.
func (p *proxied) tunnel(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := p.dialer.DialContext(ctx, network, p.addr)
	if err != nil {
		return nil, err
	}
	// Whatever is read or written until there is a tunnel ends with ctx.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	tunnel, err := p.connect(ctx, conn, addr)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	return tunnel, nil
}

func (p *proxied) connect(ctx context.Context, conn net.Conn, addr string) (net.Conn, error) {
	if p.url.Scheme == "https" {
		secure := tls.Client(conn, p.tls)
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		conn = secure
	}
	request := &http.Request{
		Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr,
		Header: http.Header{"User-Agent": {""}},
	}
	if p.url.User != nil {
		password, _ := p.url.User.Password()
		credentials := base64.StdEncoding.EncodeToString([]byte(p.url.User.Username() + ":" + password))
		request.Header.Set("Proxy-Authorization", "Basic "+credentials)
	}
	if err := request.Write(conn); err != nil {
		return nil, err
	}
	reader := bufio.NewReader(io.LimitReader(conn, maxResponseHeader))
	response, err := http.ReadResponse(reader, request)
	if err != nil {
		return nil, fmt.Errorf("its answer to CONNECT is not understood: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, &ProxyError{Status: clip(response.Status, 128)}
	}
	if reader.Buffered() > 0 { // both HTTP and TLS begin with the client
		return nil, errors.New("it sent data before there was a tunnel")
	}
	return conn, nil
}
