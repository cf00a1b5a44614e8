//go:build linux

package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/caddy-message-api/caddy-message-api/bench/child"
)

// sample is what one side did in one round. The server's costs are per message (or per
// delivery, or per call: per unit of Rate). What does not apply is 0.
type sample struct {
	Rate       float64 `json:"per_second,omitempty"`
	CPU        float64 `json:"cpu_us,omitempty"`
	Allocs     float64 `json:"allocs,omitempty"`
	AllocBytes float64 `json:"alloc_bytes,omitempty"`
	// Wire is how many bytes the load received.
	Wire float64 `json:"wire_bytes,omitempty"`
	// P50 and P99 are latencies in microseconds.
	P50 float64 `json:"p50_us,omitempty"`
	P99 float64 `json:"p99_us,omitempty"`
	// Resident is the server's memory per connection in kilobytes, Grown the same before
	// garbage was collected and given back.
	Resident float64 `json:"resident_kb,omitempty"`
	Grown    float64 `json:"grown_kb,omitempty"`
}

// took fills in the latencies.
func (s *sample) took(all []time.Duration) {
	if len(all) == 0 {
		return
	}
	slices.Sort(all)
	us := func(q float64) float64 { return float64(all[int(q*float64(len(all)-1))]) / 1e3 }
	s.P50, s.P99 = us(0.5), us(0.99)
}

// meter measures one run of one side.
type meter struct {
	server *server
	before child.Usage
	start  time.Time
}

func (s *server) meter() (*meter, error) {
	before, err := s.Usage()
	return &meter{server: s, before: before, start: time.Now()}, err
}

// end makes a sample of what was done since the meter was started.
func (m *meter) end(units, wire int64) (sample, error) {
	return m.endAfter(time.Since(m.start), units, wire)
}

// endAfter is end for what took only a part of the time.
func (m *meter) endAfter(took time.Duration, units, wire int64) (sample, error) {
	after, err := m.server.Usage()
	if err != nil {
		return sample{}, err
	}
	if units == 0 {
		return sample{}, errors.New("nothing was done in this round")
	}
	used, n := after.Since(m.before), float64(units)
	return sample{
		Rate: n / took.Seconds(), CPU: used.CPU.Seconds() * 1e6 / n,
		Allocs: float64(used.Allocs) / n, AllocBytes: float64(used.AllocBytes) / n, Wire: float64(wire) / n,
	}, nil
}

// profiled records profiles of the server while f runs, if that is asked for and it
// is the last round.
func (r *round) profiled(s *server, side string, f func() error) error {
	if r.opt.profile == "" || r.number != r.opt.rounds-1 {
		return f()
	}
	name := strings.NewReplacer("/", "-", " ", "-").Replace(r.bench.name + "-" + side)
	file, err := filepath.Abs(filepath.Join(r.opt.profile, name))
	if err != nil {
		return fmt.Errorf("-profile: %w", err)
	}
	if err := s.Call("profile", file, nil); err != nil {
		return err
	}
	return errors.Join(f(), s.Call("profile_end", nil, nil))
}
