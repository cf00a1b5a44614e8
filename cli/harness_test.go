package cli_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/cli"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

func TestMain(m *testing.M) {
	// What is parallel here waits for its time, and not for a processor.
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	gateway.Main(m)
}

// today is the clock of the commands.
var today = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// call is one call of the command.
type call struct {
	args     []string
	stdin    string
	in       io.Reader // in the place of stdin
	env      map[string]string
	terminal bool
	clock    func() time.Time // nil: today
}

// result is what came of it.
type result struct {
	out, err string
	failed   error
}

func (c call) run(t testing.TB) result {
	t.Helper()
	p := c.start(t)
	return p.wait(t)
}

// process is a call that runs.
type process struct {
	out, err *buffer
	cancel   context.CancelFunc
	done     chan error
}

// start runs the call beside the test.
func (c call) start(t testing.TB) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{out: new(buffer), err: new(buffer), cancel: cancel, done: make(chan error, 1)}
	if c.clock == nil {
		c.clock = func() time.Time { return today }
	}
	cmd := cli.NewCommand(c.clock, c.env, c.terminal)
	cmd.SetArgs(append([]string{"message-api"}, c.args...))
	cmd.SetOut(p.out)
	cmd.SetErr(p.err)
	cmd.SetIn(strings.NewReader(c.stdin))
	if c.in != nil {
		cmd.SetIn(c.in)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.done <- cmd.ExecuteContext(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return p
}

func (p *process) wait(t testing.TB) result {
	t.Helper()
	select {
	case err := <-p.done:
		return result{p.out.String(), p.err.String(), err}
	case <-time.After(30 * time.Second):
		t.Fatalf("the command did not end\nstdout: %s\nstderr: %s", p.out, p.err)
		return result{}
	}
}

// interrupt is what SIGINT does: the context of the command ends.
func (p *process) interrupt(t testing.TB) result {
	t.Helper()
	p.cancel()
	return p.wait(t)
}

// sees waits until a text has been printed.
func (p *process) sees(t testing.TB, b *buffer, text string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !strings.Contains(b.String(), text) {
		select {
		case err := <-p.done:
			p.done <- err
			if strings.Contains(b.String(), text) {
				return
			}
			t.Fatalf("ended with %v before it printed %q\nstdout: %s\nstderr: %s", err, text, p.out, p.err)
		case <-time.After(2 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("did not print %q\nstdout: %s\nstderr: %s", text, p.out, p.err)
		}
	}
}

// ok runs a call that must succeed without a word on stderr, and returns what it printed.
func ok(t testing.TB, args ...string) string {
	t.Helper()
	r := call{args: args}.run(t)
	if r.failed != nil || r.err != "" {
		t.Fatalf("%q: %v\nstdout: %s\nstderr: %s", args, r.failed, r.out, r.err)
	}
	return r.out
}

// refused runs a call that must fail, and returns what it said.
func refused(t testing.TB, args ...string) string {
	t.Helper()
	r := call{args: args}.run(t)
	if r.failed == nil {
		t.Fatalf("%q succeeded\nstdout: %s\nstderr: %s", args, r.out, r.err)
	}
	return r.err
}

// buffer is a bytes.Buffer for two goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// brokenPipe is a standard output that nobody reads.
type brokenPipe struct{}

var errBroken = errors.New("broken pipe")

func (brokenPipe) Write([]byte) (int, error) { return 0, errBroken }
