package brokers

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/test/brokers/kafka"
)

// startTimeout bounds how long a start may take. Alone it needs two to four seconds.
const startTimeout = 90 * time.Second

// KafkaServer is an Apache Kafka of one test's own, which the test may kill and restart.
// Its methods end the test when they can't do what they are asked for, and must be called
// from the test's goroutine.
type KafkaServer struct {
	t       testing.TB
	node    kafka.Node
	mu      sync.Mutex
	running *process
}

// Kafka starts a private Apache Kafka, with data in a directory of the test's and ports of
// its own, and stops it when the test ends.
func Kafka(t testing.TB) *KafkaServer {
	t.Helper()
	libs := jars(t)
	s := &KafkaServer{t: t}
	dir := t.TempDir()
	t.Cleanup(s.cleanup) // after TempDir's in the code, and so before it at the end
	for try := range 3 {
		port, err := kafka.FreePorts(kafka.Ports)
		if err != nil {
			t.Fatal(err)
		}
		s.node = kafka.Node{Dir: filepath.Join(dir, strconv.Itoa(try)), Libs: libs, FirstPort: port}
		err = s.start()
		if err == nil {
			return s
		}
		if !errors.Is(err, kafka.ErrPortTaken) {
			t.Fatal(err)
		}
	}
	t.Fatal(kafka.ErrPortTaken)
	return nil
}

// Addr is where the broker takes connections without login, as host:port.
func (s *KafkaServer) Addr() string { return s.node.Listeners().Plain }

// Listeners are all its addresses.
func (s *KafkaServer) Listeners() kafka.Listeners { return s.node.Listeners() }

// Proxied returns a fault proxy in front of the broker. Clients that are given the proxy's
// address are led to it by the broker's metadata too, so that nothing passes it by. A
// server has one.
func (s *KafkaServer) Proxied() *Proxy {
	s.t.Helper()
	listener, addr := s.node.Proxied()
	return NewProxyAt(s.t, addr, listener)
}

// Kill ends the broker as a power cut would: SIGKILL, and nothing is written any more.
func (s *KafkaServer) Kill() {
	s.t.Helper()
	if p := s.take(); p != nil {
		if err := p.kill(); err != nil {
			s.t.Fatal(err)
		}
	}
}

// Stop ends the broker in order.
func (s *KafkaServer) Stop() {
	s.t.Helper()
	if p := s.take(); p != nil {
		if err := kafka.End(p.cmd.Process, p.ended); err != nil {
			s.t.Fatal(err)
		}
	}
}

// Restart starts the broker again on the same data and ports, stopping it first if it
// runs. It returns when the broker answers, which after Kill takes about four seconds:
// its old session must time out.
func (s *KafkaServer) Restart() {
	s.t.Helper()
	s.Stop()
	if err := s.start(); err != nil {
		s.t.Fatal(err)
	}
}

// Log is what the broker has logged so far, over all its starts.
func (s *KafkaServer) Log() string {
	s.t.Helper()
	log, err := os.ReadFile(s.node.Log())
	if err != nil {
		s.t.Fatal(err)
	}
	return string(log)
}

func (s *KafkaServer) start() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := s.node.Prepare(ctx); err != nil {
		return err
	}
	cmd, err := s.node.Command()
	if err != nil {
		return err
	}
	p, err := startProcess(cmd)
	if err != nil {
		return err
	}
	if err := s.node.Await(ctx, p.ended); err != nil {
		return errors.Join(err, p.kill())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = p
	return nil
}

func (s *KafkaServer) take() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.running
	s.running = nil
	return p
}

func (s *KafkaServer) cleanup() {
	p := s.take()
	if p == nil {
		return
	}
	if s.t.Failed() {
		s.t.Logf("the end of Apache Kafka's log:\n%s", s.node.LogTail())
	}
	// Nobody reads its data again, so there is nothing to be had from an orderly end.
	if err := p.kill(); err != nil {
		s.t.Error(err)
	}
}

// process is a running child. ended is closed when it has ended and was waited for.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

// startProcess starts a child that dies with this process, however this one dies. The
// kernel ties it to the thread that made it, so that thread is kept until the child ends.
func startProcess(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, ended: make(chan struct{})}
	started := make(chan error)
	dieWithParent(cmd)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if log, ok := cmd.Stdout.(*os.File); ok {
			err = errors.Join(err, log.Close())
		}
		started <- err
		if cmd.Process != nil {
			_ = cmd.Wait() // it was killed, or its log says why it ended
		}
		close(p.ended)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

func (p *process) kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.ended
	return nil
}
