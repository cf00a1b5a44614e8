//go:build linux

package child

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"runtime/pprof"
)

// CommonOps are what every child can do: tell its usage, give memory back to the system,
// and record profiles.
func CommonOps() map[string]Op {
	p := new(profiler)
	return map[string]Op{
		"usage": Typed(func(struct{}) (Usage, error) { return ReadUsage() }),
		"release": Typed(func(struct{}) (Usage, error) {
			debug.FreeOSMemory()
			return ReadUsage()
		}),
		"profile":     Typed(p.start),
		"profile_end": Typed(p.stop),
	}
}

// profiler records one CPU profile at a time, and writes what was allocated beside it.
type profiler struct {
	file *os.File
	name string
}

const (
	cpuSuffix    = ".cpu.pprof"
	allocsSuffix = ".allocs.pprof"
)

func (p *profiler) start(name string) (struct{}, error) {
	file, err := os.Create(name + cpuSuffix)
	if err != nil {
		return struct{}{}, fmt.Errorf("profile: %w", err)
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return struct{}{}, errors.Join(err, file.Close())
	}
	p.file, p.name = file, name
	return struct{}{}, nil
}

func (p *profiler) stop(struct{}) (struct{}, error) {
	if p.file == nil {
		return struct{}{}, errors.New("profile: none is being recorded")
	}
	pprof.StopCPUProfile()
	err := p.file.Close()
	p.file = nil
	return struct{}{}, errors.Join(err, p.allocs())
}

// allocs writes what the process has allocated since it started.
func (p *profiler) allocs() error {
	file, err := os.Create(p.name + allocsSuffix)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	return errors.Join(pprof.Lookup("allocs").WriteTo(file, 0), file.Close())
}
