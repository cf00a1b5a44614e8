package rabbitmq

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
	"strings"

	"github.com/caddy-message-api/caddy-message-api/test/brokers/server"
)

const nodeName = "test@localhost"

// Node is one RabbitMQ on disk, running or not. It has an Erlang port mapper of its own.
type Node struct {
	// Dir holds data, configuration, certificates and log of this node alone. Absolute.
	Dir string
	// FirstPort is the first of Ports consecutive ports.
	FirstPort int
}

// Name is what it is.
func (Node) Name() string { return "RabbitMQ" }

// Addr is where clients find it.
func (n Node) Addr() string { return n.Listeners().Plain }

// Log is the file that the broker's output is appended to, over all its starts.
func (n Node) Log() string { return n.file("rabbitmq.log") }

// Management is the node's management API, as Admin.
func (n Node) Management() Management {
	return Management{URL: n.Listeners().API, User: Admin, Password: AdminPassword}
}

// Prepare writes the configuration and, the first time, certificates.
func (n Node) Prepare(context.Context) error {
	if err := os.MkdirAll(n.file("home"), 0o700); err != nil {
		return err
	}
	if err := server.MakeCertificates(n.Listeners().Certificates.Dir); err != nil {
		return fmt.Errorf("making certificates: %w", err)
	}
	if err := n.writeConfiguration(); err != nil {
		return fmt.Errorf("writing RabbitMQ's configuration: %w", err)
	}
	return nil
}

// Commands are the port mapper and the broker, both in the foreground.
func (n Node) Commands() ([]*exec.Cmd, error) {
	mapper, err := exec.LookPath("epmd")
	if err != nil {
		return nil, fmt.Errorf("no epmd of Erlang is installed (apt-get install rabbitmq-server): %w", err)
	}
	program, err := FindProgram()
	if err != nil {
		return nil, err
	}
	epmd := exec.Command(mapper, "-address", "127.0.0.1", "-port", strconv.Itoa(n.FirstPort+epmdPort))
	epmd.Args[0] = "epmd " + n.Dir // so that its command line tells whose it is
	broker := exec.Command(program)
	broker.Env = n.environment()
	epmd.Dir, broker.Dir = n.Dir, n.Dir
	return []*exec.Cmd{epmd, broker}, nil
}

// environment is what makes rabbitmq-server start this node and touch nothing outside of
// its directory: not the configuration, data and port mapper of a RabbitMQ that the system
// runs.
func (n Node) environment() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "RABBITMQ_") && !strings.HasPrefix(v, "ERL_") {
			env = append(env, v)
		}
	}
	return append(env,
		"HOME="+n.file("home"), // the cookie
		"RABBITMQ_NODENAME="+nodeName,
		"RABBITMQ_CONF_ENV_FILE=/dev/null",
		"RABBITMQ_CONFIG_FILE="+n.file("rabbitmq.conf"),
		"RABBITMQ_ADVANCED_CONFIG_FILE="+n.file("advanced.config"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+n.file("enabled_plugins"),
		"RABBITMQ_MNESIA_BASE="+n.file("mnesia"),
		"RABBITMQ_LOG_BASE="+n.file("log"),
		"RABBITMQ_PID_FILE="+n.file("pid"),
		fmt.Sprintf("RABBITMQ_DIST_PORT=%d", n.FirstPort+distributionPort),
		fmt.Sprintf("ERL_EPMD_PORT=%d", n.FirstPort+epmdPort),
		"ERL_EPMD_ADDRESS=127.0.0.1",
		// No Erlang that is started from here leaves a port mapper behind.
		"ERL_ZFLAGS=-start_epmd false",
		// The script becomes the broker, instead of starting it as a child.
		"RUNNING_UNDER_SYSTEMD=true",
		// Idle schedulers sleep, and -node_dir, which nobody reads, marks the command line.
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+sbwt none +sbwtdcpu none +sbwtdio none"+
			" -kernel inet_dist_use_interface {127,0,0,1} -node_dir "+n.Dir,
	)
}

// Registered is the file in which the node's quorum queues are registered, as far as it is
// written.
func (n Node) Registered() ([]byte, error) {
	return os.ReadFile(n.file(filepath.Join("mnesia", nodeName, "quorum", nodeName, "names.dets")))
}

// debian is where Debian keeps the script itself. That on the PATH insists on being root
// and becomes another user.
const debian = "/usr/lib/rabbitmq/bin/rabbitmq-server"

// FindProgram finds the script rabbitmq-server.
func FindProgram() (string, error) {
	if _, err := os.Stat(debian); err == nil {
		return debian, nil
	}
	program, err := server.FindProgram("rabbitmq-server")
	if err != nil {
		return "", fmt.Errorf("no RabbitMQ is installed (apt-get install rabbitmq-server): %w", err)
	}
	return program, nil
}

// Ready says whether the broker takes connections, its virtual hosts are up, and its
// management API answers.
func (n Node) Ready(ctx context.Context) error {
	if err := n.greet(ctx); err != nil {
		return err
	}
	return n.Management().VirtualHostsUp(ctx)
}

// greet opens AMQP 0-9-1 and wants to hear connection.start.
func (n Node) greet(ctx context.Context) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", n.Addr())
	if err != nil {
		return err
	}
	deadline, _ := ctx.Deadline()
	err = errors.Join(conn.SetDeadline(deadline), handshake(conn))
	return errors.Join(err, conn.Close())
}

func handshake(conn io.ReadWriter) error {
	if _, err := conn.Write([]byte("AMQP\x00\x00\x09\x01")); err != nil {
		return err
	}
	head := make([]byte, 11) // type, channel, length, class, method
	if _, err := io.ReadFull(conn, head); err != nil {
		return err
	}
	if head[0] != 1 || string(head[7:]) != "\x00\x0a\x00\x0a" {
		return fmt.Errorf("it answers %x and not with connection.start", head)
	}
	return nil
}

var _ server.Node = Node{}
