package mosquitto

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/caddy-message-api/caddy-message-api/test/brokers/server"
)

// Node is one Mosquitto on disk, running or not.
type Node struct {
	// Dir holds data, configuration, certificates and log of this node alone. Absolute.
	Dir string
	// FirstPort is the first of Ports consecutive ports.
	FirstPort int
	// Volatile nodes save nothing, which makes them faster: the others write all their data
	// whenever a message is stored.
	Volatile bool
}

// Name is what it is.
func (Node) Name() string { return "Mosquitto" }

// Addr is where clients without login find it.
func (n Node) Addr() string { return n.Listeners().Plain }

// Log is the file that the broker's output is appended to, over all its starts.
func (n Node) Log() string { return filepath.Join(n.Dir, "mosquitto.log") }

// Data is the file with all that outlives the broker.
func (n Node) Data() string { return filepath.Join(n.Dir, "data", "mosquitto.db") }

// Prepare writes the configuration and, the first time, certificates.
func (n Node) Prepare(context.Context) error {
	if err := os.MkdirAll(filepath.Join(n.Dir, "data"), 0o700); err != nil {
		return err
	}
	if err := server.MakeCertificates(n.Listeners().Certificates.Dir); err != nil {
		return fmt.Errorf("making certificates: %w", err)
	}
	if err := n.writeConfiguration(); err != nil {
		return fmt.Errorf("writing Mosquitto's configuration: %w", err)
	}
	return nil
}

// Commands is the broker in the foreground.
func (n Node) Commands() ([]*exec.Cmd, error) {
	program, err := FindProgram()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "-c", n.configuration())
	cmd.Dir = n.Dir
	return []*exec.Cmd{cmd}, nil
}

// FindProgram finds the program mosquitto.
func FindProgram() (string, error) {
	program, err := server.FindProgram("mosquitto")
	if err != nil {
		return "", fmt.Errorf("no Mosquitto is installed (apt-get install mosquitto): %w", err)
	}
	return program, nil
}

// Ready says whether the broker lets a client in.
func (n Node) Ready(ctx context.Context) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", n.Addr())
	if err != nil {
		return err
	}
	deadline, _ := ctx.Deadline()
	err = errors.Join(conn.SetDeadline(deadline), connect(conn))
	return errors.Join(err, conn.Close())
}

// connect says CONNECT (MQTT 5, clean start, no keep-alive, a client id of the server's
// choice) and wants the CONNACK to accept it.
func connect(conn io.ReadWriter) error {
	if _, err := conn.Write([]byte{0x10, 13, 0, 4, 'M', 'Q', 'T', 'T', 5, 2, 0, 0, 0, 0, 0}); err != nil {
		return err
	}
	var head [4]byte // type, length, flags, reason
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return err
	}
	if head[0] != 0x20 || head[3] != 0 {
		return fmt.Errorf("it answers %x and not with a CONNACK that lets the client in", head)
	}
	_, err := conn.Write([]byte{0xe0, 0}) // DISCONNECT
	return err
}

var _ server.Node = Node{}
