//go:build linux

package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/caddy-message-api/caddy-message-api/bench/load"
)

// channel is a channel of a broker whose messages go to many clients as they come.
type channel struct {
	// endpoint is the gateway's configuration for it.
	endpoint []string
	// feed publishes to the gateway's channel, past the gateway, and feedPlain to another
	// one, because the gateway reads its own a little longer than it has clients.
	feed, feedPlain func() (load.Feeder, error)
	// consume has a plain client in the server's process hand the messages of that one to
	// the bare handler until stop.
	consume func(*server) (stop func() error, err error)
	// readers is how many subscriptions the broker has for the gateway's clients.
	readers func() (int, error)
	// plain is what the plain client is called.
	plain string
}

// liveBenchmarks are what a broker's messages cost on their way to one client and to many.
func liveBenchmarks(name, title string, open func(*env) (*channel, error)) []*benchmark {
	var list []*benchmark
	for _, n := range []int{1, 1000} {
		goals := []goal{forTheRecord(rate), forTheRecord(cpu)}
		deep := 256
		if n > 1 {
			deep = inFlight
			goals[0] = goal{metric: rate, kind: ratioAtLeast, bound: 0.5}
		}
		list = append(list, &benchmark{
			name: fmt.Sprintf("%s/sse/%d", name, n),
			what: fmt.Sprintf("%s to %d SSE clients, %d messages in flight, one subscription at the broker", title, n, deep),
			unit: "deliveries", goals: goals,
			start: func(e *env) (*setup, error) { return startLive(e, open, n, deep) },
		})
	}
	return list
}

func startLive(e *env, open func(*env) (*channel, error), n, deep int) (*setup, error) {
	if e.files < uint64(n+spareFiles) {
		return nil, fmt.Errorf("%d clients need more open files than the %d that the system allows: raise `ulimit -n`", n, e.files)
	}
	c, err := open(e)
	if err != nil {
		return nil, err
	}
	s, err := startServer(e.opt, "", api("/live", append([]string{"entrypoint sse"}, c.endpoint...)...)+"\tbench_bare /bare/*\n")
	if err != nil {
		return nil, err
	}
	target := func(path string) load.Target { return load.Target{Addr: s.addr, Path: path, Kind: load.SSE} }
	return &setup{close: s.Close, sides: []side{
		{"gateway", func(r *round) (sample, error) {
			return live(r, s, "gateway", c.feed, target("/live"), n, deep, func() error {
				readers, err := c.readers()
				if err != nil || readers != 1 {
					return errors.Join(fmt.Errorf("%d clients cost the broker %d subscriptions, and not one", n, readers), err)
				}
				return nil
			})
		}},
		{c.plain, func(r *round) (one sample, err error) {
			stop, err := c.consume(s)
			if err != nil {
				return one, err
			}
			defer func() { err = errors.Join(err, stop()) }()
			return live(r, s, c.plain, c.feedPlain, target("/bare/sse"), n, deep, func() error { return nil })
		}},
	}}, nil
}

// live measures one side in one round. check is asked while all clients are connected.
func live(r *round, s *server, name string, feed func() (load.Feeder, error), target load.Target, n, deep int, check func() error) (one sample, err error) {
	before, err := s.Usage()
	if err != nil {
		return one, err
	}
	f := &load.FanOut{Patience: patience}
	if f.Subs, err = load.Connect(target, n, 3*patience); err != nil {
		return one, err
	}
	defer func() { err = errors.Join(err, f.Subs.Close(), s.quiet(before, n)) }()
	if f.Pub, err = feed(); err != nil {
		return one, err
	}
	defer func() { err = errors.Join(err, f.Pub.Close()) }()
	if err := f.Closed(warmUp, deep); err != nil {
		return one, err
	}
	if err := check(); err != nil {
		return one, err
	}
	err = r.profiled(s, name, func() error {
		m, err := s.meter()
		if err != nil {
			return err
		}
		messages, bytes := f.Subs.Messages(), f.Subs.Bytes()
		if err := f.Closed(r.length(1500*time.Millisecond), deep); err != nil {
			return err
		}
		one, err = m.end(f.Subs.Messages()-messages, f.Subs.Bytes()-bytes)
		return err
	})
	if err != nil {
		return one, err
	}
	return one, alone(f, &one)
}

// alone measures how long one message takes when nothing else is under way.
func alone(f *load.FanOut, one *sample) error {
	took, err := f.Open(500*time.Millisecond, openInterval)
	one.took(slices.Clone(took))
	return err
}
