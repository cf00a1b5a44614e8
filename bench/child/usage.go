//go:build linux

package child

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// Usage is what a process has used since it started, and what it holds now.
type Usage struct {
	// CPU is user and system time, of all threads.
	CPU time.Duration
	// Allocs and AllocBytes count heap allocations.
	Allocs, AllocBytes uint64
	// Resident is the resident set in bytes.
	Resident int64
	// Goroutines is how many there are.
	Goroutines int
}

// Since is what was used between an earlier reading and this one. What is held now stays
// as it is.
func (u Usage) Since(earlier Usage) Usage {
	u.CPU -= earlier.CPU
	u.Allocs -= earlier.Allocs
	u.AllocBytes -= earlier.AllocBytes
	return u
}

// ReadUsage reads the usage of this process. It stops the world for a moment.
func ReadUsage() (Usage, error) {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		return Usage{}, fmt.Errorf("reading the CPU time: %w", err)
	}
	resident, err := readResident()
	if err != nil {
		return Usage{}, err
	}
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	return Usage{
		CPU:    time.Duration(ru.Utime.Nano() + ru.Stime.Nano()),
		Allocs: mem.Mallocs, AllocBytes: mem.TotalAlloc,
		Resident: resident, Goroutines: runtime.NumGoroutine(),
	}, nil
}

func readResident() (int64, error) {
	const file = "/proc/self/statm"
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("reading the memory: %w", err)
	}
	fields := bytes.Fields(raw)
	if len(fields) < 2 {
		return 0, fmt.Errorf("reading the memory: %s says %q", file, raw)
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("reading the memory: %s: %w", file, err)
	}
	return pages * int64(os.Getpagesize()), nil
}
