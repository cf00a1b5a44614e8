package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
)

func TestClassify(t *testing.T) {
	local := &net.TCPAddr{IP: net.IPv4(10, 1, 2, 3), Port: 4444}
	remote := &net.TCPAddr{IP: net.IPv4(10, 9, 8, 7), Port: 443}
	of := func(err error) error {
		return &url.Error{Op: "Post", URL: "https://hooks.example.com/?token=secret", Err: err}
	}
	blocked := &BlockedError{Host: "hooks.example.com", Addr: netip.MustParseAddr("10.9.8.7"), Why: whyPrivate}
	for _, c := range []struct {
		err     error
		outcome entrypoints.Outcome
		text    string
	}{
		{nil, "", ""},
		{of(blocked), entrypoints.Blocked, `the gateway does not call "hooks.example.com": ` + whyPrivate},
		{&AuthError{Detail: "down", Err: of(blocked)}, entrypoints.Blocked, `the gateway does not call "hooks.example.com": ` + whyPrivate},
		{of(context.DeadlineExceeded), entrypoints.TimedOut, "there was no answer in time"},
		{of(os.ErrDeadlineExceeded), entrypoints.TimedOut, "there was no answer in time"},
		{of(&net.OpError{Op: "dial", Net: "tcp", Addr: remote, Err: os.ErrDeadlineExceeded}), entrypoints.TimedOut, "there was no connection in time"},
		{of(&net.OpError{Op: "dial", Net: "tcp", Addr: remote, Err: &os.SyscallError{Syscall: "connect", Err: syscall.ETIMEDOUT}}), entrypoints.TimedOut, "there was no connection in time"},
		{of(&net.OpError{Op: "dial", Err: &net.DNSError{Name: "a", Server: "10.0.0.2:53", IsTimeout: true}}), entrypoints.TimedOut, "the name of the host was not resolved in time"},
		{of(&ProxyError{Err: context.DeadlineExceeded}), entrypoints.TimedOut, "the proxy made no connection in time"},
		{of(&AuthError{Detail: "down", Err: context.DeadlineExceeded}), entrypoints.AuthFailed, "no token was to be had: down"},
		{of(&net.OpError{Op: "dial", Err: &net.DNSError{Name: "a.example.com", Server: "10.0.0.2:53", Err: "no such host", IsNotFound: true}}), entrypoints.Unreachable, "the name a.example.com does not resolve: no such host"},
		{of(&net.DNSError{Name: "a.example.com", Server: "10.0.0.2:53", Err: "server misbehaving"}), entrypoints.Unreachable, "the name a.example.com does not resolve: name resolution failed"},
		{of(&net.OpError{Op: "dial", Net: "tcp", Addr: remote, Err: &os.SyscallError{Syscall: "connect", Err: syscall.ECONNREFUSED}}), entrypoints.Unreachable, "the connection failed: connect: connection refused"},
		{of(&net.OpError{Op: "read", Net: "tcp", Source: local, Addr: remote, Err: &os.SyscallError{Syscall: "read", Err: syscall.ECONNRESET}}), entrypoints.Unreachable, "the connection failed: read: connection reset by peer"},
		{of(&net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}), entrypoints.Unreachable, "the connection failed: remote error: tls: bad certificate"},
		{of(io.EOF), entrypoints.Unreachable, "the connection was closed before there was an answer"},
		{fmt.Errorf("read: %w", io.ErrUnexpectedEOF), entrypoints.Unreachable, "the connection was closed before there was an answer"},
		{of(&ProxyError{Status: "407 Proxy Authentication Required"}), entrypoints.Unreachable, "the proxy refused the connection: 407 Proxy Authentication Required"},
		{of(context.Canceled), entrypoints.Unreachable, "context canceled"},
		{of(errors.New("a\r\nb\x00\u2028")), entrypoints.Unreachable, "a  b  "},
	} {
		outcome, text := Classify(c.err)
		if outcome != c.outcome || text != c.text {
			t.Errorf("%v: %s %q, want %s %q", c.err, outcome, text, c.outcome, c.text)
		}
		if strings.Contains(text, "secret") || strings.Contains(text, "10.") {
			t.Errorf("%q tells too much", text)
		}
	}
	for i := range 8 { // wherever it is cut
		_, text := Classify(errors.New(strings.Repeat("a", i) + strings.Repeat("ü€𝟏", 1000)))
		if len(text) > maxText || !utf8.ValidString(text) || !strings.HasSuffix(text, "…") {
			t.Errorf("%d bytes: %q", len(text), text)
		}
	}
}

// What servers do that is none of HTTP.
func TestClassifyServers(t *testing.T) {
	for name, answer := range map[string]string{
		"nothing": "", "noise": "\x00\x01\x02 not HTTP\r\n\r\n", "half": "HTTP/1.1 200 OK\r\nContent-Le", "status": "HTTP/1.1 99999 OK\r\n\r\n",
		"bad length": "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "short body": "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "bad chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_, _ = io.WriteString(conn, answer)
				_ = conn.Close()
			}
		}))
		client := newClient(t, Options{Policy: Policy{AllowHTTP: true, Networks: networks("loopback")}})
		status, err := post(client, server.URL+"/?token=secret")
		outcome, text := Classify(err)
		if outcome != entrypoints.Unreachable || strings.Contains(text, "secret") || strings.Contains(text, "127.0.0.1") || text == "" {
			t.Errorf("%s: %d, %s %q", name, status, outcome, text)
		}
		server.Close()
	}
}
