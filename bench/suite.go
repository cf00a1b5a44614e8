//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/caddy-message-api/caddy-message-api/bench/kafka"
	"github.com/caddy-message-api/caddy-message-api/bench/plain"
)

// benchmark is one comparison.
type benchmark struct {
	name  string
	what  string // for people
	unit  string // of the rates
	goals []goal
	start func(*env) (*setup, error)
}

// setup is a benchmark that can be measured. sides[0] is the gateway's.
type setup struct {
	sides []side
	close func() error
}

// side is one of the things that are compared.
type side struct {
	name string
	run  func(*round) (sample, error)
}

// round is one turn of one side.
type round struct {
	*env
	bench  *benchmark
	number int
}

// env is what all benchmarks of a run share. Each broker is opened by the first that asks.
type env struct {
	opt    *options
	ctx    context.Context
	files  uint64
	opened []opened
}

// opened is a broker that is in use.
type opened struct {
	name   string
	what   string // for people
	broker io.Closer
}

// broker returns the broker of that name, which open opens if nobody has asked before. It
// tells what it is, too.
func broker[B io.Closer](e *env, name string, open func() (b B, what string, err error)) (B, error) {
	for _, o := range e.opened {
		if o.name == name {
			return o.broker.(B), nil
		}
	}
	b, what, err := open()
	if err == nil {
		e.opened = append(e.opened, opened{name, what, b})
	}
	return b, err
}

// kafka returns the broker, which is opened by the first that asks.
func (e *env) kafka() (*kafka.Broker, error) {
	return broker(e, "kafka", func() (*kafka.Broker, string, error) {
		port, err := freePort()
		if err != nil {
			return nil, "", err
		}
		b, err := kafka.Open(e.opt.loadCPU, port)
		if err != nil {
			return nil, "", err
		}
		return b, b.What, nil
	})
}

func (e *env) close() error {
	var errs []error
	for _, o := range e.opened {
		errs = append(errs, o.broker.Close())
	}
	return errors.Join(errs...)
}

// brokers say what the brokers are that were used.
func (e *env) brokers() []string {
	var what []string
	for _, o := range e.opened {
		what = append(what, o.what)
	}
	return what
}

// length is how long one side is measured in one round.
func (e *env) length(full time.Duration) time.Duration {
	return time.Duration(float64(full) * e.opt.scale)
}

// benchmarks are all that there are.
func benchmarks(opt *options) []*benchmark {
	var list []*benchmark
	list = append(list, requestBenchmarks()...)
	list = append(list, planBenchmarks()...)
	list = append(list, kafkaBenchmarks()...)
	list = append(list, rabbitMQBenchmarks()...)
	list = append(list, mqttBenchmarks()...)
	list = append(list, serviceBusBenchmarks()...)
	list = append(list, solaceBenchmarks()...)
	list = append(list, webhookBenchmarks(opt)...)
	list = append(list, fanOutBenchmarks(opt)...)
	list = append(list, idleBenchmarks()...)
	return list
}

// measureAll measures what was asked for, one after the other. One that fails does not
// keep the others from being measured.
func (e *env) measureAll(list []*benchmark) error {
	rep, err := newReport(e)
	if err != nil {
		return err
	}
	began, count := time.Now(), 0
	var errs []error
	for _, b := range list {
		if !e.opt.run.MatchString(b.name) {
			continue
		}
		count++
		if e.ctx.Err() != nil {
			errs = append(errs, fmt.Errorf("%s was not measured: %w", b.name, context.Cause(e.ctx)))
			continue
		}
		result, err := e.measure(b)
		if missing := (plain.ErrMissing{}); errors.As(err, &missing) {
			rep.skip(b.name, missing)
			continue
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", b.name, err)
			fmt.Fprintf(os.Stdout, "%s: FAILED: %v\n\n", b.name, err)
			errs = append(errs, err)
			continue
		}
		rep.add(result)
	}
	if count == 0 {
		return fmt.Errorf("-run %q matches nothing: -list tells the names", e.opt.run)
	}
	rep.finish(time.Since(began))
	return errors.Join(append(errs, rep.write())...)
}

// measure runs the rounds: every side once, again and again, so that what else happens on
// the machine happens to all of them.
func (e *env) measure(b *benchmark) (*result, error) {
	s, err := b.start(e)
	if err != nil {
		return nil, err
	}
	res := &result{bench: b, samples: make([][]sample, len(s.sides))}
	for _, side := range s.sides {
		res.sides = append(res.sides, side.name)
	}
	for n := 0; n < e.opt.rounds && err == nil; n++ {
		for i := range s.sides {
			if err = e.ctx.Err(); err != nil {
				break
			}
			var one sample
			if one, err = s.sides[i].run(&round{env: e, bench: b, number: n}); err != nil {
				err = fmt.Errorf("%s, round %d: %w", s.sides[i].name, n+1, err)
				break
			}
			res.samples[i] = append(res.samples[i], one)
		}
	}
	return res, errors.Join(err, s.close())
}
