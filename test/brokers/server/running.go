package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
)

// Running is a node that was started by this process and does not outlive it.
type Running struct {
	node Node
	mu   sync.Mutex
	// processes are in the order of their start, the broker is the last.
	processes []*Process
}

// Start prepares a node, starts it, and returns when it can be used.
func Start(ctx context.Context, node Node) (*Running, error) {
	if err := node.Prepare(ctx); err != nil {
		return nil, err
	}
	r := &Running{node: node}
	ended := make(chan struct{})
	err := r.start(sync.OnceFunc(func() { close(ended) }))
	if err == nil {
		err = Await(ctx, node, ended)
	}
	if err != nil {
		return nil, errors.Join(err, r.Kill())
	}
	return r, nil
}

// start starts all processes. ended is called whenever one of them ends.
func (r *Running) start(ended func()) error {
	commands, err := r.node.Commands()
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, cmd := range commands {
		log, err := OpenLog(r.node, cmd)
		if err != nil {
			return err
		}
		p, err := StartProcess(cmd, ended)
		if err = errors.Join(err, log.Close()); err != nil {
			return err
		}
		r.processes = append(r.processes, p)
	}
	return nil
}

// Kill ends all processes at once, the broker first. That they have ended is no error.
func (r *Running) Kill() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.kill()
}

func (r *Running) kill() error {
	var errs []error
	for n := len(r.processes) - 1; n >= 0; n-- {
		errs = append(errs, r.processes[n].Kill())
	}
	r.processes = nil
	return errors.Join(errs...)
}

// Stop ends the broker in order, and then what has only served it.
func (r *Running) Stop() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.processes)
	if n == 0 {
		return nil
	}
	broker := r.processes[n-1]
	err := End(broker.Process, broker.Ended)
	return errors.Join(err, r.kill())
}

// Signal sends a signal to the broker.
func (r *Running) Signal(sig os.Signal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.processes)
	if n == 0 {
		return fmt.Errorf("%s does not run", r.node.Name())
	}
	return r.processes[n-1].Signal(sig)
}
