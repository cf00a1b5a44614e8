//go:build linux

package child

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Pin puts this process on one CPU, or does nothing when cpu is negative. It executes the
// program again, because threads that the runtime has already made would keep their CPUs;
// it returns only when the process is pinned, or can't be.
func Pin(cpu int) error {
	if cpu < 0 {
		return nil
	}
	var now, want unix.CPUSet
	if err := unix.SchedGetaffinity(0, &now); err != nil {
		return fmt.Errorf("asking for the CPUs of this process: %w", err)
	}
	want.Set(cpu)
	if now == want {
		return nil
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.SchedSetaffinity(0, &want); err != nil {
		return fmt.Errorf("going to CPU %d: %w", cpu, err)
	}
	if err := syscall.Exec("/proc/self/exe", os.Args, os.Environ()); err != nil {
		return fmt.Errorf("starting again on CPU %d: %w", cpu, err)
	}
	return nil
}

// RaiseFiles lets this process have as many open files as the system allows it, and
// returns how many that is.
func RaiseFiles() (uint64, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("asking for the limit of open files: %w", err)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("raising the limit of open files to %d: %w", limit.Max, err)
	}
	return limit.Max, nil
}
