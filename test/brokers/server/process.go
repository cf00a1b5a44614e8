package server

import (
	"os"
	"os/exec"
	"runtime"
)

// Process is a running child.
type Process struct {
	*os.Process
	// Ended is closed when it has ended and was waited for.
	Ended <-chan struct{}
}

// StartProcess starts a child that dies with this process, however this one dies. The
// kernel ties it to the thread that made it, so that thread is kept until the child ends.
// then is called when it has.
func StartProcess(cmd *exec.Cmd, then func()) (*Process, error) {
	ended := make(chan struct{})
	started := make(chan error)
	dieWithParent(cmd)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // it was killed, or its log says why it ended
			close(ended)
			then()
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return &Process{Process: cmd.Process, Ended: ended}, nil
}

// Kill ends it at once.
func (p *Process) Kill() error { return Kill(p.Process, p.Ended) }
