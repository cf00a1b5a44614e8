package brokers

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/test/brokers/server"
)

// startTimeout bounds how long a start may take. Alone Mosquitto needs milliseconds, Kafka
// two to four seconds and RabbitMQ four to six.
const startTimeout = 90 * time.Second

// Server is a broker of one test's own, which the test may kill and restart. Its methods
// end the test when they can't do what they are asked for, and must be called from the
// test's goroutine.
type Server struct {
	t       testing.TB
	node    server.Node
	running *server.Running // nil while it does not run
}

// startServer starts a private broker with data in a directory of the test's and so many
// ports of its own, and stops it when the test ends.
func startServer(t testing.TB, ports int, node func(dir string, firstPort int) server.Node) *Server {
	t.Helper()
	s := &Server{t: t}
	dir := t.TempDir()
	t.Cleanup(s.cleanup) // after TempDir's in the code, and so before it at the end
	for try := range 3 {
		port, err := server.FreePorts(ports)
		if err != nil {
			t.Fatal(err)
		}
		s.node = node(filepath.Join(dir, strconv.Itoa(try)), port)
		err = s.start()
		if err == nil {
			return s
		}
		if !errors.Is(err, server.ErrPortTaken) {
			t.Fatal(err)
		}
	}
	t.Fatal(server.ErrPortTaken)
	return nil
}

// Addr is where the broker takes plain connections, as host:port.
func (s *Server) Addr() string { return s.node.Addr() }

// Kill ends the broker as a power cut would: SIGKILL, and nothing is written any more.
func (s *Server) Kill() {
	s.t.Helper()
	s.end((*server.Running).Kill)
}

// Stop ends the broker in order.
func (s *Server) Stop() {
	s.t.Helper()
	s.end((*server.Running).Stop)
}

func (s *Server) end(how func(*server.Running) error) {
	s.t.Helper()
	if s.running == nil {
		return
	}
	if err := how(s.running); err != nil {
		s.t.Fatal(err)
	}
	s.running = nil
}

// Restart starts the broker again on the same data and ports, stopping it first if it
// runs. It returns when the broker can be used.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	if err := s.start(); err != nil {
		s.t.Fatal(err)
	}
}

// Log is what the broker has logged so far, over all its starts.
func (s *Server) Log() string {
	s.t.Helper()
	log, err := os.ReadFile(s.node.Log())
	if err != nil {
		s.t.Fatal(err)
	}
	return string(log)
}

func (s *Server) start() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	var err error
	s.running, err = server.Start(ctx, s.node)
	return err
}

func (s *Server) cleanup() {
	if s.running == nil {
		return
	}
	if s.t.Failed() {
		s.t.Logf("the end of the log of %s:\n%s", s.node.Name(), server.LogTail(s.node))
	}
	// Nobody reads its data again, so there is nothing to be had from an orderly end.
	if err := s.running.Kill(); err != nil {
		s.t.Error(err)
	}
}
