package egress

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"unicode"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
)

// maxText bounds what is said of an error, in bytes.
const maxText = 512

// Classify says what an error of a client, or of Auth, means for an attempt. The text may be shown to the
// subscriber: it has no secret, no query of a URL, nothing of the network behind the gateway,
// and at most 512 bytes.
func Classify(err error) (entrypoints.Outcome, string) {
	if err == nil {
		return "", ""
	}
	outcome, text := classify(err)
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
	return outcome, clip(text, maxText-len("…"))
}

func classify(err error) (entrypoints.Outcome, string) {
	if blocked, ok := asBlocked(err); ok {
		return entrypoints.Blocked, blocked.shown()
	}
	var auth *AuthError
	switch {
	case errors.As(err, &auth):
		return entrypoints.AuthFailed, auth.Error()
	case timedOut(err):
		return entrypoints.TimedOut, explainTimeout(err)
	}
	return entrypoints.Unreachable, explain(err)
}

func asBlocked(err error) (*BlockedError, bool) { return errors.AsType[*BlockedError](err) }

func timedOut(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

func explainTimeout(err error) string {
	var proxy *ProxyError
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.As(err, &proxy):
		return "the proxy made no connection in time"
	case errors.As(err, &dns):
		return "the name of the host was not resolved in time"
	case errors.As(err, &op) && op.Op == "dial":
		return "there was no connection in time"
	case strings.HasSuffix(err.Error(), "TLS handshake timeout"):
		return "there was no TLS connection in time"
	}
	return "there was no answer in time"
}

// explain is the error without the URL, the gateway's own addresses, and those of its name servers.
func explain(err error) string {
	var proxy *ProxyError
	if errors.As(err, &proxy) {
		if proxy.Status != "" || proxy.Err == nil {
			return proxy.Error()
		}
		return "the proxy made no connection: " + explain(proxy.Err)
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		if dns.IsNotFound {
			return "the name " + clip(dns.Name, 128) + " does not resolve: no such host"
		}
		return "the name " + clip(dns.Name, 128) + " does not resolve: name resolution failed"
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return "the connection failed: " + cause(op)
	}
	var of *url.Error
	if errors.As(err, &of) {
		err = of.Err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "the connection was closed before there was an answer"
	}
	return err.Error()
}

// cause is what an operation failed of, without the addresses.
func cause(op *net.OpError) string {
	for {
		inner, ok := errors.AsType[*net.OpError](op.Err)
		switch {
		case ok:
			op = inner
		case op.Err == nil:
			return op.Op
		case op.Op == "remote error": // an alert of TLS
			return "remote error: " + op.Err.Error()
		default:
			return op.Err.Error()
		}
	}
}
