package examples

import (
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// The ports of `make run` are fixed: that is what it is for.
const (
	runPort   = "8080"
	adminPort = "2019"
)

// `make run` says before it builds anything that somebody has its port.
func TestRunSaysThatItsPortIsTaken(t *testing.T) {
	if l, err := net.Listen("tcp", "127.0.0.1:"+runPort); err == nil { // else somebody has it
		defer l.Close()
	}
	r := start(t, "exec ../../scripts/run.sh")
	var err error
	select {
	case err = <-r.ended:
	case <-time.After(commandTimeout):
		t.Fatalf("run.sh goes on: %s%s", &r.stdout, &r.stderr)
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !strings.Contains(r.stderr.String(), "somebody listens on port "+runPort+" already") ||
		!strings.Contains(r.stderr.String(), "ss -ltnp") || r.stdout.String() != "" {
		t.Errorf("%v: %s%s", err, &r.stdout, &r.stderr)
	}
}

// `make run` builds, prints what to paste, serves it, and ends in order at Ctrl-C.
func TestRun(t *testing.T) {
	if testing.Short() {
		t.Skip("builds bin/caddy")
	}
	if _, err := os.Stat("../../bin/caddy"); err != nil {
		t.Skip("NOT RUN: `make run`, because without a bin/caddy of before it has minutes to build (`make build` does it)")
	}
	for _, port := range []string{runPort, adminPort} {
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Skipf("NOT RUN: `make run`, because somebody has its port %s", port)
		}
		_ = l.Close()
	}
	r := start(t, "exec ../../scripts/run.sh")
	r.expect(10*time.Minute, "Ctrl-C ends it.")
	printed := r.stdout.String()
	for _, want := range []string{
		"curl -i http://localhost:8080/qs-message-api\n",
		"websocat ws://localhost:8080/qs-message-api\n",
		"curl -N -H 'Accept: text/event-stream' http://localhost:8080/playground\n",
		"curl -i -d 'hello' http://localhost:8080/playground\n",
	} {
		if !strings.Contains(printed, want) {
			t.Errorf("it does not print %q:\n%s", want, printed)
		}
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	gateway.Eventually(t, commandTimeout, "the quick start to be served", func() bool {
		a, err := gateway.TryDo(client, "GET", "http://localhost:8080/healthz", "")
		return err == nil && a.Status == 200
	})
	if a := gateway.Do(t, client, "POST", "http://localhost:8080/playground", "hello"); a.Status != 202 {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	if err := r.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	r.wait(commandTimeout)
}
