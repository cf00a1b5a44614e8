// Package redis runs one Redis, a key-value server, as a process on loopback. It is no
// broker: nodes of a cluster share what they know in it. It knows nothing of tests; see the
// package above for that.
package redis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/caddy-message-api/caddy-message-api/test/brokers/server"
)

// Ports is how many ports a node uses.
const Ports = 1

// Node is one Redis on disk, running or not. What it has acknowledged outlives kill -9 of
// it, but no power cut.
type Node struct {
	// Dir holds data and log of this node alone. Absolute.
	Dir string
	// FirstPort is its only port.
	FirstPort int
}

// Name is what it is.
func (Node) Name() string { return "Redis" }

// Addr is where clients find it. They need no login.
func (n Node) Addr() string { return server.Loopback(n.FirstPort) }

// Log is the file that the server's output is appended to, over all its starts.
func (n Node) Log() string { return filepath.Join(n.Dir, "redis.log") }

// Prepare makes the directory: the configuration is on the command line.
func (n Node) Prepare(context.Context) error { return os.MkdirAll(n.Dir, 0o700) }

// Commands is the server in the foreground. Without fsync it hands every write to the
// kernel before it answers; with it the write may wait for the disk, and the answer not.
func (n Node) Commands() ([]*exec.Cmd, error) {
	program, err := FindProgram()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program,
		"--port", strconv.Itoa(n.FirstPort), "--bind", "127.0.0.1", "--dir", n.Dir, "--daemonize", "no",
		"--appendonly", "yes", "--appendfsync", "no", "--save", "", "--set-proc-title", "no")
	cmd.Dir = n.Dir
	return []*exec.Cmd{cmd}, nil
}

// FindProgram finds the program redis-server.
func FindProgram() (string, error) {
	program, err := server.FindProgram("redis-server")
	if err != nil {
		return "", fmt.Errorf("no Redis is installed (apt-get install redis-server): %w", err)
	}
	return program, nil
}

// Ready says whether the server answers, which it does otherwise while it reads its data.
func (n Node) Ready(ctx context.Context) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", n.Addr())
	if err != nil {
		return err
	}
	deadline, _ := ctx.Deadline()
	err = errors.Join(conn.SetDeadline(deadline), ping(conn))
	return errors.Join(err, conn.Close())
}

func ping(conn io.ReadWriter) error {
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	answer := make([]byte, len("+PONG\r\n"))
	if _, err := io.ReadFull(conn, answer); err != nil {
		return err
	}
	if string(answer) != "+PONG\r\n" {
		return fmt.Errorf("it answers %q to a PING", answer)
	}
	return nil
}

var _ server.Node = Node{}
