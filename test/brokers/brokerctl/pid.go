package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// processes are the shared broker's; what has ended is nil. The broker is the last.
type processes []*os.Process

func (p processes) broker() *os.Process {
	if len(p) == 0 {
		return nil
	}
	return p[len(p)-1]
}

func (p processes) helpers() []*os.Process {
	var running []*os.Process
	for _, process := range p[:max(0, len(p)-1)] {
		if process != nil {
			running = append(running, process)
		}
	}
	return running
}

// running finds the shared broker's processes. A number in the file alone is no proof: it
// may belong to somebody else by now, who must not be ended.
func (s shared) running() (processes, error) {
	text, err := os.ReadFile(s.pids)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var found processes
	for _, line := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(line)
		if err != nil {
			return nil, fmt.Errorf("%s holds no process id: %w", s.pids, err)
		}
		if !alive(pid) || !strings.Contains(commandLine(pid), s.dir) {
			found = append(found, nil)
			continue
		}
		process, err := os.FindProcess(pid)
		if err != nil {
			return nil, err
		}
		found = append(found, process)
	}
	return found, nil
}

// end ends a process that need not be our child.
func end(process *os.Process, how func(*os.Process, <-chan struct{}) error) error {
	ended, stop := make(chan struct{}), make(chan struct{})
	defer close(stop)
	go func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for alive(process.Pid) {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
		close(ended)
	}()
	return how(process, ended)
}

func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	// A child whose parent has not asked after it is dead all the same.
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || !strings.Contains(string(stat), ") Z ")
}

// commandLine is how the process was started; empty when that can't be told.
func commandLine(pid int) string {
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil {
		return string(text)
	}
	text, err := exec.Command("ps", "-ww", "-o", "args=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return ""
	}
	return string(text)
}
