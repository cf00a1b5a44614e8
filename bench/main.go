//go:build linux

// Command bench measures the gateway beside something that does the same job without it,
// and prints the ratios. bench/README.md tells what, how, and how to read it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"

	"github.com/caddy-message-api/caddy-message-api/bench/child"
	"github.com/caddy-message-api/caddy-message-api/bench/kafka"
	"github.com/caddy-message-api/caddy-message-api/bench/webhook"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case serverRole:
			return runChild(args[1:], serverOps())
		case kafka.Role:
			return runChild(args[1:], kafka.Ops())
		case webhook.Role:
			return runChild(args[1:], webhook.Ops())
		}
	}
	opt, err := parse(args)
	if err != nil {
		return err
	}
	return measure(opt)
}

// runChild serves a parent until it closes our input.
func runChild(args []string, ops map[string]child.Op) error {
	flags := flag.NewFlagSet("child", flag.ContinueOnError)
	cpu := flags.Int("cpu", -1, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := child.Pin(*cpu); err != nil {
		return err
	}
	if _, err := child.RaiseFiles(); err != nil {
		return err
	}
	return child.Serve(os.Stdin, os.Stdout, ops)
}

// options are what the command line says.
type options struct {
	quick     bool
	run       *regexp.Regexp
	json      string
	profile   string
	rounds    int
	scale     float64
	serverCPU int
	loadCPU   int
	limit     time.Duration
	list      bool
}

func parse(args []string) (*options, error) {
	opt := new(options)
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	flags.BoolVar(&opt.quick, "quick", false, "short runs of three rounds, and fewer sizes: for a look, not for a verdict")
	pattern := flags.String("run", "", "measure only what matches this `regexp`; -list tells the names")
	flags.StringVar(&opt.json, "json", "", "write all figures of all rounds to this `file`")
	flags.StringVar(&opt.profile, "profile", "", "record CPU profiles of the server process into this `folder`")
	flags.IntVar(&opt.rounds, "rounds", 0, "how many rounds (5, with -quick 3)")
	flags.Float64Var(&opt.scale, "scale", 0, "multiply the length of every run (1, with -quick 0.25): longer ones make better profiles")
	flags.IntVar(&opt.serverCPU, "server-cpu", 0, "CPU of the server process; -1 is any")
	flags.IntVar(&opt.loadCPU, "load-cpu", 1, "CPU of the load, and of kfake; -1 is any")
	flags.BoolVar(&opt.list, "list", false, "list the measurements and end")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("%q is one too many: see -help", flags.Arg(0))
	}
	var err error
	if opt.run, err = regexp.Compile(*pattern); err != nil {
		return nil, fmt.Errorf("-run: %w", err)
	}
	opt.limit = 15 * time.Minute
	if opt.quick {
		opt.limit = 2 * time.Minute
	}
	switch {
	case opt.scale < 0:
		return nil, errors.New("-scale: use more than 0")
	case opt.scale == 0 && opt.quick:
		opt.scale = 0.25
	case opt.scale == 0:
		opt.scale = 1
	}
	switch {
	case opt.rounds < 0:
		return nil, errors.New("-rounds: use at least 1")
	case opt.rounds == 0 && opt.quick:
		opt.rounds = 3
	case opt.rounds == 0:
		opt.rounds = 5
	}
	return opt, nil
}

func measure(opt *options) error {
	list := benchmarks(opt)
	if opt.list {
		for _, b := range list {
			fmt.Println(b.name)
		}
		return nil
	}
	if err := child.Pin(opt.loadCPU); err != nil {
		fmt.Fprintf(os.Stderr, "bench: not pinned to CPUs, so server and load disturb each other: %v\n", err)
		opt.serverCPU, opt.loadCPU = -1, -1
	}
	files, err := child.RaiseFiles()
	if err != nil {
		return err
	}
	if opt.profile != "" {
		if err := os.MkdirAll(opt.profile, 0o755); err != nil { //nolint:gosec // profiles are no secret
			return fmt.Errorf("-profile: %w", err)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, opt.limit)
	defer cancel()
	e := &env{opt: opt, ctx: ctx, files: files}
	return errors.Join(e.measureAll(list), e.close())
}
