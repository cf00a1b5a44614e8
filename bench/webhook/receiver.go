//go:build linux

package webhook

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync/atomic"

	"github.com/caddy-message-api/caddy-message-api/bench/child"
)

// Role is the name under which this program runs a receiver in a process of its own.
const Role = "receiver"

// Seen is what a receiver has seen so far.
type Seen struct {
	// Requests were answered with 204, and Bytes is how many had come for them.
	Requests, Bytes int64
	// Unsigned had no signature, and Wrong were no POST with a length.
	Unsigned, Wrong int64
	// Connections is how many there are now.
	Connections int64
}

// receiver reads no more of a request than it must, and answers at once: the less it does, the
// more of what is measured is the sender.
type receiver struct {
	requests, bytes, unsigned, wrong, connections atomic.Int64
}

// Ops are what the receiver's process can be asked.
func Ops() map[string]child.Op {
	r := new(receiver)
	ops := child.CommonOps()
	ops["start"] = child.Typed(func(struct{}) (string, error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", fmt.Errorf("the receiver: %w", err)
		}
		go r.accept(l) // for as long as the process lives
		return l.Addr().String(), nil
	})
	ops["seen"] = child.Typed(func(struct{}) (Seen, error) {
		return Seen{r.requests.Load(), r.bytes.Load(), r.unsigned.Load(), r.wrong.Load(), r.connections.Load()}, nil
	})
	return ops
}

func (r *receiver) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go r.serve(conn)
	}
}

var answer = []byte("HTTP/1.1 204 No Content\r\n\r\n")

// serve answers the requests of one connection.
func (r *receiver) serve(conn net.Conn) {
	defer conn.Close()
	r.connections.Add(1)
	defer r.connections.Add(-1)
	in := bufio.NewReaderSize(conn, 16<<10)
	for {
		n, err := r.one(in)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				r.wrong.Add(1)
			}
			return
		}
		r.bytes.Add(int64(n))
		r.requests.Add(1)
		if _, err = conn.Write(answer); err != nil {
			return
		}
	}
}

var (
	errRequest = errors.New("no POST with a length")
	length     = []byte("content-length:")
	signature  = []byte("webhook-signature:")
)

// one reads a request.
func (r *receiver) one(in *bufio.Reader) (size int, err error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if !bytes.HasPrefix(line, []byte("POST ")) {
		return 0, errRequest
	}
	body, signed := -1, false
	for {
		if line, err = in.ReadSlice('\n'); err != nil {
			break
		}
		size += len(line)
		if len(line) <= 2 {
			break
		}
		switch {
		case len(line) > len(length) && bytes.EqualFold(line[:len(length)], length):
			if body, err = strconv.Atoi(string(bytes.TrimSpace(line[len(length):]))); err != nil {
				body = -1
			}
		case len(line) > len(signature) && bytes.EqualFold(line[:len(signature)], signature):
			signed = true
		}
	}
	if err == nil && body < 0 {
		err = errRequest
	}
	if err == nil {
		_, err = in.Discard(body)
	}
	if err != nil {
		return 0, err
	}
	if !signed {
		r.unsigned.Add(1)
	}
	return size + body, nil
}
