package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/caddy-message-api/caddy-message-api/test/brokers/server"
)

const startTimeout = 2 * time.Minute

// shared is a broker that outlives this command.
type shared struct {
	node             server.Node
	dir              string // the node's
	firstPort, ports int
	variables        [][2]string
	// installed fails when the broker's programs are not there, and script gets them.
	installed func() error
	script    string
	// pids is the file with its process ids, a line each, the broker's being the last.
	pids string
}

func (s shared) up(out io.Writer) error {
	name := s.node.Name()
	processes, err := s.running()
	if err != nil {
		return err
	}
	if p := processes.broker(); p != nil {
		fmt.Fprintf(out, "%s runs already (pid %d) at %s\n", name, p.Pid, s.node.Addr())
		return nil
	}
	if err := s.installed(); err != nil {
		return fmt.Errorf("%w: start it with %s up", err, s.script)
	}
	if err := s.down(io.Discard); err != nil { // a broker that died may have left its helpers
		return err
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := s.node.Prepare(ctx); err != nil {
		return err
	}
	ended, err := s.start()
	if err == nil {
		err = server.Await(ctx, s.node, ended)
	}
	if err != nil {
		if errors.Is(err, server.ErrPortTaken) {
			err = fmt.Errorf("%w: free the ports %d to %d", err, s.firstPort, s.firstPort+s.ports-1)
		}
		return errors.Join(err, s.down(io.Discard))
	}
	fmt.Fprintf(out, "%s is up at %s after %v\n", name, s.node.Addr(), time.Since(began).Round(100*time.Millisecond))
	return nil
}

// start starts the node's processes in sessions of their own, so that they outlive this
// command and the terminal. The channel is closed when one of them has ended.
func (s shared) start() (<-chan struct{}, error) {
	commands, err := s.node.Commands()
	if err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	end := sync.OnceFunc(func() { close(ended) })
	pids, err := os.OpenFile(s.pids, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	for _, cmd := range commands {
		if err := s.startProcess(cmd, pids); err != nil {
			return nil, errors.Join(err, pids.Close())
		}
		go func() {
			_ = cmd.Wait() // why it ended stands in its log
			end()
		}()
	}
	return ended, pids.Close()
}

func (s shared) startProcess(cmd *exec.Cmd, pids io.Writer) error {
	log, err := server.OpenLog(s.node, cmd)
	if err != nil {
		return err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := errors.Join(cmd.Start(), log.Close()); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(pids, cmd.Process.Pid); err != nil {
		return errors.Join(err, cmd.Process.Kill())
	}
	return nil
}

func (s shared) down(out io.Writer) error {
	processes, err := s.running()
	if err != nil {
		return err
	}
	broker := processes.broker()
	if broker == nil {
		fmt.Fprintln(out, s.node.Name(), "does not run")
	} else {
		if err := end(broker, server.End); err != nil {
			return err
		}
		fmt.Fprintf(out, "%s (pid %d) is down\n", s.node.Name(), broker.Pid)
	}
	for _, helper := range processes.helpers() {
		if err := end(helper, server.Kill); err != nil {
			return err
		}
	}
	if err := os.Remove(s.pids); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (s shared) status(out io.Writer) error {
	processes, err := s.running()
	if err != nil {
		return err
	}
	broker, name := processes.broker(), s.node.Name()
	if broker == nil {
		return fmt.Errorf("the shared %s does not run: start it with `make brokers-up`", name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := server.Await(ctx, s.node, nil); err != nil {
		return fmt.Errorf("the %s with pid %d runs and does not answer: %w", name, broker.Pid, err)
	}
	fmt.Fprintf(out, "%s runs (pid %d) and answers at %s; its log is %s\n", name, broker.Pid, s.node.Addr(), s.node.Log())
	return nil
}

// env prints what the tests want to have in their environment, for a shell's eval.
func (s shared) env(out io.Writer) error {
	for _, v := range s.variables {
		if _, err := fmt.Fprintf(out, "export %s=%q\n", v[0], v[1]); err != nil {
			return err
		}
	}
	return nil
}
