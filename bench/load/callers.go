//go:build linux

package load

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Callers are clients that send the same HTTP/1.1 request again and again, each as soon as
// it has the answer to the last one.
type Callers struct {
	poller  *poller
	callers []caller
	request []byte
	status  string
	buf     []byte
	bytes   int64
}

type caller struct {
	fd   int
	in   response
	sent time.Time
}

// Request makes the bytes of a request with an optional body.
func Request(method, addr, path, accept string, body []byte, headers ...string) []byte {
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nAccept: %s\r\n", method, path, addr, accept)
	if body != nil {
		head += fmt.Sprintf("Content-Type: text/plain\r\nContent-Length: %d\r\n", len(body))
	}
	for i := 0; i < len(headers); i += 2 {
		head += headers[i] + ": " + headers[i+1] + "\r\n"
	}
	return append([]byte(head+"\r\n"), body...)
}

// NewCallers connects n callers. Every answer must begin with status, e.g. "HTTP/1.1 202 ".
func NewCallers(addr string, n int, request []byte, status string) (*Callers, error) {
	p, err := newPoller()
	if err != nil {
		return nil, err
	}
	c := &Callers{poller: p, request: request, status: status, buf: make([]byte, readSize)}
	for i := range n {
		fd, err := dial(addr)
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		c.callers = append(c.callers, caller{fd: fd})
		if err := errors.Join(unblock(fd), p.add(fd, i)); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

// Run calls for a while, and returns how long each call took. No call is under way then.
func (c *Callers) Run(d, patience time.Duration) ([]time.Duration, error) {
	var took []time.Duration
	for i := range c.callers {
		if err := c.call(&c.callers[i]); err != nil {
			return nil, err
		}
	}
	start, open := time.Now(), len(c.callers)
	for open > 0 {
		now := time.Now()
		if now.Sub(start) > d+patience {
			return took, fmt.Errorf("%d calls have no answer after %s", open, patience)
		}
		events, err := c.poller.wait(10 * time.Millisecond)
		if err != nil {
			return took, err
		}
		now = time.Now()
		for i := range events {
			a := &c.callers[events[i].Fd]
			done, err := c.read(a)
			if err != nil {
				return took, err
			}
			if !done {
				continue
			}
			took = append(took, now.Sub(a.sent))
			if now.Sub(start) >= d {
				open--
				continue
			}
			if err := c.call(a); err != nil {
				return took, err
			}
		}
	}
	return took, nil
}

func (c *Callers) call(a *caller) error {
	a.sent = time.Now()
	return writeAll(a.fd, c.request)
}

func (c *Callers) read(a *caller) (done bool, err error) {
	n, err := read(a.fd, c.buf)
	if n == 0 || err != nil {
		return false, err
	}
	c.bytes += int64(n)
	done, err = a.in.read(c.buf[:n], c.status)
	if done {
		a.in.reset()
	}
	return done, err
}

// Bytes is how many bytes all callers have received.
func (c *Callers) Bytes() int64 { return c.bytes }

// Close cuts the connections.
func (c *Callers) Close() error {
	var errs []error
	for i := range c.callers {
		errs = append(errs, unix.Close(c.callers[i].fd))
	}
	return errors.Join(append(errs, c.poller.close())...)
}

// Fetch sends one request on a connection of its own and returns the answer's body.
func Fetch(addr string, request []byte, status string, patience time.Duration) ([]byte, error) {
	c, err := NewConn(addr, patience)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }() // the answer is all that counts
	body, err := c.Do(request, status)
	return bytes.Clone(body), err
}

// Conn is one connection for one request after the other.
type Conn struct {
	fd  int
	in  response
	buf []byte
}

// NewConn connects. An answer that takes longer than patience to move on is an error.
func NewConn(addr string, patience time.Duration) (*Conn, error) {
	fd, err := dial(addr)
	if err != nil {
		return nil, err
	}
	wait := unix.NsecToTimeval(patience.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return nil, errors.Join(fmt.Errorf("socket: %w", err), unix.Close(fd))
	}
	return &Conn{fd: fd, buf: make([]byte, readSize)}, nil
}

// Do sends a request and returns the answer's body, which is valid until the next call.
func (c *Conn) Do(request []byte, status string) ([]byte, error) {
	c.in.reset()
	if err := writeAll(c.fd, request); err != nil {
		return nil, err
	}
	for {
		n, err := unix.Read(c.fd, c.buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, fmt.Errorf("reading the answer: %w", err)
		case n == 0:
			return nil, errClosed
		}
		if done, err := c.in.read(c.buf[:n], status); done || err != nil {
			return c.in.body(), err
		}
	}
}

// Close cuts the connection.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// response collects one HTTP/1.1 response that has a Content-Length.
type response struct {
	raw  []byte
	head int // its length, 0 while it is not complete
	size int // with the body
}

func (r *response) reset() { r.raw, r.head, r.size = r.raw[:0], 0, 0 }

func (r *response) body() []byte { return r.raw[r.head:] }

func (r *response) read(p []byte, status string) (done bool, err error) {
	r.raw = append(r.raw, p...)
	if r.head == 0 {
		end := bytes.Index(r.raw, []byte("\r\n\r\n"))
		if end < 0 {
			if len(r.raw) > maxHead {
				return false, fmt.Errorf("the response's header has no end: %.200q", r.raw)
			}
			return false, nil
		}
		if !bytes.HasPrefix(r.raw, []byte(status)) {
			return false, fmt.Errorf("the answer does not begin with %q: %.2000s", status, r.raw)
		}
		r.head = end + 4
		length, err := contentLength(r.raw[:r.head])
		if err != nil {
			return false, err
		}
		r.size = r.head + length
	}
	if len(r.raw) > r.size {
		return false, fmt.Errorf("more came than the answer's %d bytes", r.size)
	}
	return len(r.raw) == r.size, nil
}

func contentLength(head []byte) (int, error) {
	_, rest, found := bytes.Cut(head, []byte("\r\nContent-Length: "))
	value, _, ended := bytes.Cut(rest, []byte("\r\n"))
	if !found || !ended {
		return 0, fmt.Errorf("the answer has no Content-Length: %.2000s", head)
	}
	n, err := strconv.Atoi(string(value))
	if err != nil {
		return 0, fmt.Errorf("the answer's Content-Length: %w", err)
	}
	return n, nil
}
