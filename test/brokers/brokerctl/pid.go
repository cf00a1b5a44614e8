package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// running is the shared broker's process, or nil. A pid file alone is no proof: the number
// may belong to somebody else by now, who must not be ended.
func (s shared) running() (*os.Process, error) {
	text, err := os.ReadFile(s.pid)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("%s holds no process id: %w", s.pid, err)
	}
	if !alive(pid) || !strings.Contains(commandLine(pid), s.node.Dir) {
		return nil, os.Remove(s.pid)
	}
	return os.FindProcess(pid)
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
