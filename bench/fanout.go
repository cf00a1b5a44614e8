//go:build linux

package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/caddy-message-api/caddy-message-api/bench/load"
)

const (
	inFlight     = 16
	openInterval = 50 * time.Millisecond // 20 messages per second
	openSize     = 1000
	// spareFiles is what a process needs beside its subscribers.
	spareFiles = 200
)

var kinds = []load.Kind{load.SSE, load.WS, load.SSE2}

func fanOutBenchmarks(opt *options) []*benchmark {
	sizes := []int{100, 1000, 5000}
	if opt.quick {
		sizes = sizes[:2]
	}
	var list []*benchmark
	for _, kind := range kinds {
		for _, n := range sizes {
			list = append(list, &benchmark{
				name:  fmt.Sprintf("fanout/%s/%d/closed", kind, n),
				what:  fmt.Sprintf("one publisher to %d %s subscribers through the mock, %d messages in flight", n, kind, inFlight),
				unit:  "deliveries",
				goals: []goal{{metric: rate, kind: ratioAtLeast, bound: 0.5}, forTheRecord(cpu)},
				start: func(e *env) (*setup, error) { return startFanOut(e, kind, n, closedLoop) },
			})
		}
		list = append(list, &benchmark{
			name:  fmt.Sprintf("fanout/%s/%d/open", kind, openSize),
			what:  fmt.Sprintf("20 messages per second to %d %s subscribers through the mock", openSize, kind),
			unit:  "deliveries",
			goals: []goal{{metric: cpu, kind: ratioAtMost, bound: 1.5}},
			start: func(e *env) (*setup, error) { return startFanOut(e, kind, openSize, openLoop) },
		})
	}
	return list
}

// fanOutServer serves both sides. The gateway's channel has a door for the publisher alone,
// so that it is no subscriber.
func fanOutServer(opt *options) (*server, error) {
	return startServer(opt, "\tmessage_api {\n\t\tendpoint mock loop {\n\t\t\tloopback\n\t\t}\n\t}",
		api("/fan", "entrypoint sse", "entrypoint websocket {", "publisher off", "}", "endpoint use loop")+
			api("/pub", "entrypoint websocket {", "subscriber off", "}", "endpoint use loop")+
			"\tbench_bare /bare/*\n")
}

// doors are where subscribers and the publisher of one side connect.
type doors struct{ sse, ws, pub string }

var (
	gatewayDoors = doors{"/fan", "/fan", "/pub"}
	bareDoors    = doors{"/bare/sse", "/bare/ws", "/bare/pub"}
)

func (d *doors) target(addr string, kind load.Kind) load.Target {
	path := d.sse
	if kind == load.WS {
		path = d.ws
	}
	return load.Target{Addr: addr, Path: path, Kind: kind}
}

// loop drives a fan-out that runs, and makes a sample of it.
type loop func(*round, *server, *load.FanOut) (sample, error)

func startFanOut(e *env, kind load.Kind, n int, drive loop) (*setup, error) {
	if e.files < uint64(n+spareFiles) {
		return nil, fmt.Errorf("%d subscribers need more open files than the %d that the system allows: raise `ulimit -n`", n, e.files)
	}
	s, err := fanOutServer(e.opt)
	if err != nil {
		return nil, err
	}
	return &setup{close: s.Close, sides: []side{
		fanOutSide(s, "gateway", &gatewayDoors, kind, n, drive),
		fanOutSide(s, "bare handler", &bareDoors, kind, n, drive),
	}}, nil
}

func fanOutSide(s *server, name string, d *doors, kind load.Kind, n int, drive loop) side {
	return side{name, func(r *round) (one sample, err error) {
		before, err := s.Usage()
		if err != nil {
			return one, err
		}
		f := &load.FanOut{Patience: patience}
		if f.Subs, err = load.Connect(d.target(s.addr, kind), n, 3*patience); err != nil {
			return one, err
		}
		defer func() { err = errors.Join(err, f.Subs.Close(), s.quiet(before, n)) }()
		if f.Pub, err = load.NewPublisher(s.addr, d.pub, patience); err != nil {
			return one, err
		}
		defer func() { err = errors.Join(err, f.Pub.Close()) }()
		if err := f.Closed(warmUp, inFlight); err != nil {
			return one, err
		}
		err = r.profiled(s, name, func() (err error) {
			one, err = drive(r, s, f)
			return err
		})
		return one, err
	}}
}

func closedLoop(r *round, s *server, f *load.FanOut) (sample, error) {
	m, err := s.meter()
	if err != nil {
		return sample{}, err
	}
	messages, bytes := f.Subs.Messages(), f.Subs.Bytes()
	if err := f.Closed(r.length(time.Second), inFlight); err != nil {
		return sample{}, err
	}
	return m.end(f.Subs.Messages()-messages, f.Subs.Bytes()-bytes)
}

func openLoop(r *round, s *server, f *load.FanOut) (sample, error) {
	m, err := s.meter()
	if err != nil {
		return sample{}, err
	}
	messages, bytes := f.Subs.Messages(), f.Subs.Bytes()
	took, err := f.Open(r.length(2500*time.Millisecond), openInterval)
	if err != nil {
		return sample{}, err
	}
	one, err := m.end(f.Subs.Messages()-messages, f.Subs.Bytes()-bytes)
	one.took(slices.Clone(took))
	return one, err
}
