package brokers

import (
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/test/brokers/mosquitto"
	"github.com/caddy-message-api/caddy-message-api/test/brokers/server"
)

// MosquittoServer is a Mosquitto of one test's own.
type MosquittoServer struct {
	*Server
	node mosquitto.Node
}

// Mosquitto starts a private Mosquitto, and stops it when the test ends. Sessions with what
// is queued in them, and retained messages, outlive Kill, but for what was acknowledged in the
// moment before: see Save. It writes all its data whenever a message is kept or gone, so that
// thousands of waiting messages make it slow.
func Mosquitto(t testing.TB) *MosquittoServer {
	t.Helper()
	return startMosquitto(t, mosquitto.Node{})
}

// VolatileMosquitto starts one that writes nothing, and forgets everything at Kill and
// Restart.
func VolatileMosquitto(t testing.TB) *MosquittoServer {
	t.Helper()
	return startMosquitto(t, mosquitto.Node{Volatile: true})
}

func startMosquitto(t testing.TB, node mosquitto.Node) *MosquittoServer {
	t.Helper()
	skipWithout(t, mosquittoBroker)
	if _, err := mosquitto.FindProgram(); err != nil {
		missing(t, mosquittoBroker, err.Error())
	}
	m := &MosquittoServer{node: node}
	m.Server = startServer(t, mosquitto.Ports, func(dir string, firstPort int) server.Node {
		m.node.Dir, m.node.FirstPort = dir, firstPort
		return m.node
	})
	return m
}

// Listeners are all its addresses.
func (m *MosquittoServer) Listeners() mosquitto.Listeners { return m.node.Listeners() }

// WSAddr takes WebSockets, as host:port. The path does not matter.
func (m *MosquittoServer) WSAddr() string { return m.Listeners().WS }

// TLSAddr takes TLS without a client certificate; Certificates belong to it.
func (m *MosquittoServer) TLSAddr() string { return m.Listeners().TLS }

// AuthAddr wants server.User and server.Password.
func (m *MosquittoServer) AuthAddr() string { return m.Listeners().Auth }

// Certificates are what clients of its TLS listeners need.
func (m *MosquittoServer) Certificates() server.Certificates { return m.Listeners().Certificates }

// Save returns when all that Mosquitto has acknowledged is on disk. It acknowledges a moment
// before it writes, so that Kill alone loses what was acknowledged last: in one of our runs 8
// of 684 messages in ten kills, with one publisher that waits for each acknowledgement.
func (m *MosquittoServer) Save() {
	m.t.Helper()
	if m.running == nil || m.node.Volatile {
		m.t.Fatal("this Mosquitto does not run, or saves nothing")
	}
	before := m.saved()
	for deadline := time.Now().Add(startTimeout); ; time.Sleep(10 * time.Millisecond) {
		// Again and again, because a name that has gone to another file twice within a
		// moment may look as if nothing had happened.
		if err := m.running.Signal(syscall.SIGUSR1); err != nil {
			m.t.Fatal(err)
		}
		// The new file is written beside the old one and renamed.
		if now := m.saved(); now != nil && (before == nil || !os.SameFile(before, now) || now.ModTime() != before.ModTime()) {
			return
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("Mosquitto has not saved its data within %v", startTimeout)
		}
	}
}

// saved is the file with the data, or nil when there is none yet.
func (m *MosquittoServer) saved() os.FileInfo {
	m.t.Helper()
	info, err := os.Stat(m.node.Data())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		m.t.Fatal(err)
	}
	return info
}
