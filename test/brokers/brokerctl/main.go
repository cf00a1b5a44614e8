// Command brokerctl starts and stops the Apache Kafka that all tests share. Its jars must
// be there: scripts/kafka.sh fetches them and then calls this.
//
//	brokerctl -dir .brokers/kafka up|down|status|env
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/caddy-message-api/caddy-message-api/test/brokers/kafka"
)

// firstPort is outside the kernel's ephemeral range, so that nobody gets it by chance.
const firstPort = 19092

const startTimeout = 2 * time.Minute

func main() {
	dir := flag.String("dir", filepath.Join(".brokers", "kafka"), "where jars, data and log are")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: brokerctl [-dir DIR] up|down|status|env")
		flag.PrintDefaults()
	}
	flag.Parse()
	if err := run(*dir, flag.Arg(0), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "brokerctl:", err)
		os.Exit(1)
	}
}

func run(dir, command string, out io.Writer) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	s := shared{
		node: kafka.Node{Dir: filepath.Join(dir, "node"), Libs: filepath.Join(dir, "libs"), FirstPort: firstPort},
		pid:  filepath.Join(dir, "pid"),
	}
	switch command {
	case "up":
		return s.up(out)
	case "down":
		return s.down(out)
	case "status":
		return s.status(out)
	case "env":
		return s.env(out)
	default:
		return fmt.Errorf("%q is not a command: use up, down, status or env", command)
	}
}

type shared struct {
	node kafka.Node
	pid  string
}

func (s shared) up(out io.Writer) error {
	if process, err := s.running(); err != nil || process != nil {
		if process != nil {
			fmt.Fprintf(out, "Apache Kafka runs already (pid %d) at %s\n", process.Pid, s.node.Listeners().Plain)
		}
		return err
	}
	if !kafka.HasJars(s.node.Libs) {
		return fmt.Errorf("no jars in %s: start it with scripts/kafka.sh up", s.node.Libs)
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := s.node.Prepare(ctx); err != nil {
		return err
	}
	ended, err := s.start()
	if err != nil {
		return err
	}
	if err := s.node.Await(ctx, ended); err != nil {
		if errors.Is(err, kafka.ErrPortTaken) {
			err = fmt.Errorf("%w: free the ports %d to %d", err, firstPort, firstPort+kafka.Ports-1)
		}
		return errors.Join(err, s.down(io.Discard))
	}
	fmt.Fprintf(out, "Apache Kafka is up at %s after %v\n",
		s.node.Listeners().Plain, time.Since(began).Round(100*time.Millisecond))
	return nil
}

// start starts the broker in a session of its own, so that it outlives this command and
// the terminal.
func (s shared) start() (<-chan struct{}, error) {
	cmd, err := s.node.Command()
	if err != nil {
		return nil, err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	if log, ok := cmd.Stdout.(*os.File); ok {
		err = errors.Join(err, log.Close())
	}
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(s.pid, fmt.Appendln(nil, cmd.Process.Pid), 0o600); err != nil {
		return nil, errors.Join(err, cmd.Process.Kill())
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // why it ended stands in its log
		close(ended)
	}()
	return ended, nil
}

func (s shared) down(out io.Writer) error {
	process, err := s.running()
	if err != nil {
		return err
	}
	if process == nil {
		fmt.Fprintln(out, "Apache Kafka does not run")
		return nil
	}
	ended := make(chan struct{})
	stop := make(chan struct{})
	defer close(stop)
	go s.watch(process, ended, stop)
	if err := kafka.End(process, ended); err != nil {
		return err
	}
	fmt.Fprintf(out, "Apache Kafka (pid %d) is down\n", process.Pid)
	return os.Remove(s.pid)
}

// watch closes ended when a process that is not our child has gone.
func (s shared) watch(process *os.Process, ended, stop chan struct{}) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for alive(process.Pid) {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
	}
	close(ended)
}

func (s shared) status(out io.Writer) error {
	process, err := s.running()
	if err != nil {
		return err
	}
	if process == nil {
		return errors.New("the shared Apache Kafka does not run: start it with `make brokers-up`")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := s.node.Await(ctx, nil); err != nil {
		return fmt.Errorf("the Apache Kafka with pid %d runs and does not answer: %w", process.Pid, err)
	}
	fmt.Fprintf(out, "Apache Kafka runs (pid %d) and answers at %s; its log is %s\n",
		process.Pid, s.node.Listeners().Plain, s.node.Log())
	return nil
}

// env prints what the tests want to have in their environment, for a shell's eval.
func (s shared) env(out io.Writer) error {
	l := s.node.Listeners()
	for _, v := range [][2]string{
		{"KAFKA_ADDR", l.Plain}, {"KAFKA_SASL_ADDR", l.SASL}, {"KAFKA_TLS_ADDR", l.TLS},
		{"KAFKA_SASL_TLS_ADDR", l.SASLTLS}, {"KAFKA_CERTS", filepath.Dir(l.Certificates.CA)},
		{"KAFKA_LIBS", s.node.Libs},
	} {
		if _, err := fmt.Fprintf(out, "export %s=%q\n", v[0], v[1]); err != nil {
			return err
		}
	}
	return nil
}
