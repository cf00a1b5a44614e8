package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	// DefaultBase is where Caddy's admin endpoint is unless it is configured.
	DefaultBase = "http://localhost:2019"
	// maxAnswer bounds what the client keeps of an answer, but for an export.
	maxAnswer = 64 << 20
)

// Client speaks the admin API. Errors that the server answers with are *ProblemDetails.
// It may be used by several goroutines; its fields must not change any more then.
type Client struct {
	// Base is the admin endpoint, as a URL or as Caddy writes an address:
	// http://localhost:2019, localhost:2019, unix//run/caddy/admin.sock,
	// https://admin.example.com:2021. Default: DefaultBase.
	Base string
	// HTTP sends the requests, e.g. with a client certificate for Caddy's remote admin
	// endpoint. With a unix socket it must dial that by itself. Default: a client that
	// does, follows no redirects, and waits for as long as the context allows.
	HTTP *http.Client
	// Origin is the Origin header, which Caddy compares with its list of origins.
	// Default: that of Base, and none over a unix socket.
	Origin string

	once sync.Once
	http *http.Client
	base string
	// origin is Origin with its default.
	origin string
	err    error
}

// init finds out once what Base means.
func (c *Client) init() error {
	c.once.Do(func() {
		address := c.Base
		if address == "" {
			address = DefaultBase
		}
		var socket string
		c.base, socket, c.err = resolveBase(address)
		if c.err != nil {
			return
		}
		if c.origin = c.Origin; c.origin == "" && socket == "" {
			c.origin = c.base
		}
		if c.http = c.HTTP; c.http == nil {
			c.http = newHTTP(socket)
		}
	})
	return c.err
}

// resolveBase returns the URL that requests begin with, and the unix socket if it is one.
func resolveBase(address string) (base, socket string, err error) {
	if path, ok := strings.CutPrefix(address, "unix/"); ok {
		path, _, _ = strings.Cut(path, "|") // the permissions that Caddy gives it
		if path == "" {
			return "", "", fmt.Errorf("admin address %q has no path: write it like unix//run/caddy/admin.sock", address)
		}
		return "http://127.0.0.1", path, nil // the host that Caddy takes over unix sockets
	}
	rest, isTCP := strings.CutPrefix(address, "tcp/")
	if isTCP || !strings.Contains(rest, "://") {
		rest = "http://" + rest
	}
	u, err := url.Parse(rest)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || strings.Trim(u.Path, "/") != "" {
		return "", "", fmt.Errorf("admin address %q is none: write it like localhost:2019, https://host:2021 or unix//run/caddy/admin.sock", address)
	}
	if host, port, err := net.SplitHostPort(u.Host); err == nil && host == "" {
		u.Host = net.JoinHostPort("localhost", port)
	}
	return u.Scheme + "://" + u.Host, "", nil
}

func newHTTP(socket string) *http.Client {
	transport := &http.Transport{
		Proxy:               nil, // the admin endpoint is never behind a web proxy
		MaxIdleConns:        4,
		IdleConnTimeout:     30 * time.Second,
		TLSHandshakeTimeout: 10 * time.Second,
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	transport.DialContext = dialer.DialContext
	if socket != "" {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		}
	}
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Close lets go of idle connections. The client can still be used.
func (c *Client) Close() {
	if c.init() == nil && c.HTTP == nil {
		c.http.CloseIdleConnections()
	}
}

// Write are the options that every write has.
type Write struct {
	// IfMatch is the ETag that the resource must still have; "" is any, "*" that it is
	// there at all. Otherwise nothing changes, and the error is a 412.
	IfMatch string
	// Reason is kept with what changes, where it has a place for one, and in the audit
	// log.
	Reason string
}

// call is one request.
type call struct {
	method      string
	path        []string // segments below Prefix
	query       url.Values
	body        any // nil: none
	ifMatch     string
	ifNoneMatch string
}

// do sends a call and decodes the answer into out, unless that is nil.
func (c *Client) do(ctx context.Context, call call, out any) error {
	var body io.Reader
	if call.body != nil {
		text, err := json.Marshal(call.body)
		if err != nil {
			return fmt.Errorf("encoding the request: %w", err)
		}
		body = bytes.NewReader(text)
	}
	response, err := c.send(ctx, call, body)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if out == nil {
		return nil
	}
	text, err := readAnswer(response.Body)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("the admin endpoint at %s answered %s with something else than expected: %w", c.base, response.Status, err)
	}
	return nil
}

func readAnswer(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	if len(text) > maxAnswer {
		return nil, fmt.Errorf("the answer is longer than %d MiB", maxAnswer>>20)
	}
	return text, nil
}

// send returns answers of 2xx alone. The caller closes the body.
func (c *Client) send(ctx context.Context, call call, body io.Reader) (*http.Response, error) {
	if err := c.init(); err != nil {
		return nil, err
	}
	for _, segment := range call.path {
		if segment == "" || segment == "." || segment == ".." {
			return nil, fmt.Errorf("%q is no id", segment)
		}
	}
	request, err := http.NewRequestWithContext(ctx, call.method, c.base+call.uri(), body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	set := func(name, value string) {
		if value != "" {
			request.Header.Set(name, value)
		}
	}
	set("Origin", c.origin)
	set("If-Match", call.ifMatch)
	set("If-None-Match", call.ifNoneMatch)
	response, err := c.http.Do(request)
	if err != nil {
		if cause := (*url.Error)(nil); errors.As(err, &cause) {
			err = cause.Err // it would only say the method and the URL before
		}
		return nil, fmt.Errorf("the admin endpoint at %s: %w", c.address(), err)
	}
	if response.StatusCode/100 == 2 {
		return response, nil
	}
	defer response.Body.Close()
	return nil, c.problem(response)
}

func (c *Client) address() string {
	if strings.HasPrefix(c.Base, "unix/") {
		return c.Base
	}
	return c.base
}

// uri is path and query. An id goes through as it is, whatever stands in it.
func (c call) uri() string {
	escaped := make([]string, len(c.path))
	for i, segment := range c.path {
		escaped[i] = url.PathEscape(segment)
	}
	uri := Prefix + strings.Join(escaped, "/")
	if len(c.query) > 0 {
		uri += "?" + c.query.Encode()
	}
	return uri
}

// problem makes an error of an answer that is none of ours too: Caddy refuses foreign hosts
// and origins by itself.
func (c *Client) problem(response *http.Response) error {
	problem := &ProblemDetails{Title: http.StatusText(response.StatusCode), Status: response.StatusCode}
	text, err := readAnswer(io.LimitReader(response.Body, 4<<20))
	if err != nil {
		problem.Detail = err.Error()
		return problem
	}
	if strings.HasPrefix(response.Header.Get("Content-Type"), "application/problem+json") && json.Unmarshal(text, problem) == nil {
		return problem
	}
	var caddy struct {
		Error string `json:"error"`
	}
	switch {
	case json.Unmarshal(text, &caddy) == nil && caddy.Error != "":
		problem.Detail = caddy.Error
	case response.StatusCode == http.StatusNotFound:
		problem.Detail = "what answers at " + c.address() + " has no admin API for message APIs: is it a Caddy with this module, and does the address belong to its admin endpoint?"
	default:
		problem.Detail = "the admin endpoint at " + c.address() + " answered " + response.Status
	}
	return problem
}
