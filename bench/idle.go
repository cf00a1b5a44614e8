//go:build linux

package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/caddy-message-api/caddy-message-api/bench/load"
)

const idleSize = 5000

func idleBenchmarks() []*benchmark {
	var list []*benchmark
	for _, kind := range kinds {
		b := &benchmark{
			name: "idle/" + string(kind),
			what: fmt.Sprintf("memory of %d idle %s connections", idleSize, kind),
			unit: "connections",
			start: func(*env) (*setup, error) {
				return &setup{close: func() error { return nil }, sides: []side{
					idleSide("gateway", &gatewayDoors, kind), idleSide("bare handler", &bareDoors, kind),
				}}, nil
			},
		}
		if kind != load.SSE2 {
			b.goals = append(b.goals, goal{metric: perClient, kind: valueAtMost, bound: 45})
		}
		b.goals = append(b.goals, forTheRecord(perClient))
		list = append(list, b)
	}
	return list
}

// idleSide measures in a server of its own, because memory that was once used stays.
func idleSide(name string, d *doors, kind load.Kind) side {
	return side{name, func(r *round) (one sample, err error) {
		if r.files < idleSize+spareFiles {
			return one, fmt.Errorf("%d connections need more open files than the %d that the system allows: raise `ulimit -n`",
				idleSize, r.files)
		}
		s, err := fanOutServer(r.opt)
		if err != nil {
			return one, err
		}
		defer func() { err = errors.Join(err, s.Close()) }()
		if err := touch(s, d, kind); err != nil {
			return one, err
		}
		before, err := s.release()
		if err != nil {
			return one, err
		}
		subs, err := load.Connect(d.target(s.addr, kind), idleSize, 3*patience)
		if err != nil {
			return one, err
		}
		defer func() { err = errors.Join(err, subs.Close()) }()
		if err := subs.Idle(r.length(time.Second)); err != nil {
			return one, err
		}
		grown, err := s.Usage()
		if err != nil {
			return one, err
		}
		after, err := s.release()
		if err != nil {
			return one, err
		}
		perConn := func(now int64) float64 { return float64(now-before) / 1000 / idleSize }
		return sample{Resident: perConn(after), Grown: perConn(grown.Resident)}, nil
	}}
}

// touch connects once, so that what is made for the first client is not counted.
func touch(s *server, d *doors, kind load.Kind) error {
	before, err := s.Usage()
	if err != nil {
		return err
	}
	subs, err := load.Connect(d.target(s.addr, kind), 1, patience)
	if err != nil {
		return err
	}
	return errors.Join(subs.Close(), s.quiet(before, 1))
}

// release collects garbage, gives free memory back to the system, and returns the resident
// set.
func (s *server) release() (int64, error) {
	var u struct{ Resident int64 }
	err := s.Call("release", nil, &u)
	return u.Resident, err
}
