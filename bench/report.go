//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// metric is one figure of a sample.
type metric struct {
	what string
	of   func(*sample) float64
	more bool // more is better
}

// The metrics that goals are about.
var (
	rate      = metric{"rate", func(s *sample) float64 { return s.Rate }, true}
	cpu       = metric{"CPU per unit", func(s *sample) float64 { return s.CPU }, false}
	latency   = metric{"median milliseconds", func(s *sample) float64 { return s.P50 / 1e3 }, false}
	perClient = metric{"KB per connection", func(s *sample) float64 { return s.Resident }, false}
)

// goal is what we want of the gateway.
type goal struct {
	metric metric
	kind   goalKind
	bound  float64
	// against names the side to compare with; empty is the best one.
	against string
}

// goalKind says what is compared with the bound.
type goalKind int

const (
	ratioForTheRecord goalKind = iota // ours / theirs, without a bound
	ratioAtLeast                      // ours / theirs
	ratioAtMost                       // ours / theirs
	differenceAtMost                  // ours - theirs
	valueAtMost                       // ours alone
)

// forTheRecord compares without wanting anything.
func forTheRecord(m metric) goal { return goal{metric: m} }

// result is a benchmark that was measured.
type result struct {
	bench   *benchmark
	sides   []string
	samples [][]sample // by side and round
}

// verdict is a goal with what became of it.
type verdict struct {
	Goal    string  `json:"goal"`
	Against string  `json:"against,omitempty"`
	Value   float64 `json:"value"`
	Lowest  float64 `json:"lowest"`
	Highest float64 `json:"highest"`
	Bound   string  `json:"bound,omitempty"`
	OK      *bool   `json:"ok,omitempty"`
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	mid := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[mid]
	}
	return (sorted[mid-1] + sorted[mid]) / 2
}

func each(samples []sample, of func(*sample) float64) []float64 {
	values := make([]float64, len(samples))
	for i := range samples {
		values[i] = of(&samples[i])
	}
	return values
}

// reference is the side that a goal is compared with.
func (r *result) reference(g *goal) int {
	if i := slices.Index(r.sides, g.against); i > 0 {
		return i
	}
	best := 1
	for i := 2; i < len(r.samples); i++ {
		now, next := median(each(r.samples[best], g.metric.of)), median(each(r.samples[i], g.metric.of))
		if next != now && (next > now) == g.metric.more {
			best = i
		}
	}
	return best
}

// judge compares the rounds: the two sides of a round ran next to each other, so that what
// disturbs both disappears from their ratio.
func (r *result) judge(g *goal) verdict {
	v := verdict{Goal: g.metric.what}
	values := each(r.samples[0], g.metric.of)
	if g.kind != valueAtMost {
		v.Against = r.sides[r.reference(g)]
		for i, theirs := range each(r.samples[r.reference(g)], g.metric.of) {
			if g.kind == differenceAtMost {
				values[i] -= theirs
			} else {
				values[i] /= theirs
			}
		}
	}
	v.Value, v.Lowest, v.Highest = median(values), slices.Min(values), slices.Max(values)
	switch g.kind {
	case ratioForTheRecord:
		return v
	case ratioAtLeast:
		v.Bound, v.OK = fmt.Sprintf(">= %g", g.bound), new(v.Value >= g.bound)
	default:
		v.Bound, v.OK = fmt.Sprintf("<= %g", g.bound), new(v.Value <= g.bound)
	}
	if g.kind == differenceAtMost {
		v.Goal += " added"
	}
	return v
}

// report prints results as they come, and keeps them for the JSON file.
type report struct {
	env        *env
	Machine    string        `json:"machine"`
	Brokers    []string      `json:"brokers,omitempty"`
	Quick      bool          `json:"quick,omitempty"`
	Rounds     int           `json:"rounds"`
	Date       time.Time     `json:"date"`
	Benchmarks []*jsonResult `json:"benchmarks"`
	// NotMeasured are those whose broker is not installed.
	NotMeasured    []string `json:"not_measured,omitempty"`
	good, bad, all int
}

type jsonResult struct {
	Name     string              `json:"name"`
	What     string              `json:"what"`
	Unit     string              `json:"unit"`
	Verdicts []verdict           `json:"verdicts"`
	Rounds   map[string][]sample `json:"rounds"`
}

func newReport(e *env) (*report, error) {
	r := &report{env: e, Quick: e.opt.quick, Rounds: e.opt.rounds, Date: time.Now().UTC().Truncate(time.Second)}
	load, err := loadAverage()
	if err != nil {
		return nil, err
	}
	r.Machine = fmt.Sprintf("%s, %s/%s, server on CPU %d, load on CPU %d, load average at the start %.2f", runtime.Version(),
		runtime.GOOS, runtime.GOARCH, e.opt.serverCPU, e.opt.loadCPU, load)
	fmt.Println(r.Machine)
	if load > 1 {
		fmt.Println("something else runs on this machine: trust the CPU figures, and not the rates")
	}
	if e.opt.quick {
		fmt.Println("quick: short runs, to look at and not to judge by")
	}
	fmt.Println()
	return r, nil
}

// loadAverage is how many threads wanted to run in the last minute.
func loadAverage() (float64, error) {
	const file = "/proc/loadavg"
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("reading the machine's load: %w", err)
	}
	first, _, _ := strings.Cut(string(raw), " ")
	load, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 0, fmt.Errorf("reading the machine's load: %s: %w", file, err)
	}
	return load, nil
}

func (r *report) add(res *result) {
	b := res.bench
	out := &jsonResult{Name: b.name, What: b.what, Unit: b.unit, Rounds: make(map[string][]sample)}
	fmt.Printf("%s: %s\n", b.name, b.what)
	for i, side := range res.sides {
		out.Rounds[side] = res.samples[i]
		fmt.Printf("  %-22s %s\n", side, line(b.unit, res.samples[i]))
	}
	for i := range b.goals {
		v := res.judge(&b.goals[i])
		out.Verdicts = append(out.Verdicts, v)
		fmt.Println("  " + r.sentence(&v))
	}
	fmt.Println()
	r.Benchmarks = append(r.Benchmarks, out)
}

// skip tells of a benchmark whose broker is not there.
func (r *report) skip(name string, why error) {
	fmt.Printf("%s: NOT MEASURED: %v\n\n", name, why)
	r.NotMeasured = append(r.NotMeasured, name)
}

// line prints the medians of one side.
func line(unit string, samples []sample) string {
	var parts []string
	add := func(format string, of func(*sample) float64) {
		if v := median(each(samples, of)); v != 0 {
			parts = append(parts, fmt.Sprintf(format, v))
		}
	}
	add("%8.0f "+unit+"/s", rate.of)
	add("%6.2f µs CPU", cpu.of)
	add("%6.2f allocs", func(s *sample) float64 { return s.Allocs })
	add("%6.0f B allocated", func(s *sample) float64 { return s.AllocBytes })
	add("%4.0f B on the wire", func(s *sample) float64 { return s.Wire })
	add("p50 %.3f ms", latency.of)
	add("p99 %.3f ms", func(s *sample) float64 { return s.P99 / 1e3 })
	add("%6.1f KB per connection", perClient.of)
	add("(%.1f KB with garbage)", func(s *sample) float64 { return s.Grown })
	return strings.Join(parts, "  ")
}

func (r *report) sentence(v *verdict) string {
	text := v.Goal
	if v.Against != "" {
		text += " against " + v.Against
	}
	text += fmt.Sprintf(": %.3g (%.3g to %.3g)", v.Value, v.Lowest, v.Highest)
	if v.OK == nil {
		return text
	}
	r.all++
	if *v.OK {
		r.good++
		return text + ", target " + v.Bound + ": ok"
	}
	r.bad++
	return text + ", target " + v.Bound + ": MISSED"
}

func (r *report) finish(took time.Duration) {
	r.Brokers = r.env.brokers()
	for _, what := range r.Brokers {
		fmt.Println("with", what)
	}
	for _, name := range r.NotMeasured {
		fmt.Println("NOT MEASURED:", name)
	}
	fmt.Printf("%d of %d targets met, %d missed, in %s\n", r.good, r.all, r.bad, took.Round(time.Second))
}

// write writes the JSON file, if one is asked for.
func (r *report) write() error {
	if r.env.opt.json == "" {
		return nil
	}
	raw, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return fmt.Errorf("-json: %w", err)
	}
	if err := os.WriteFile(r.env.opt.json, append(raw, '\n'), 0o644); err != nil { //nolint:gosec // figures are no secret
		return fmt.Errorf("-json: %w", err)
	}
	return nil
}
