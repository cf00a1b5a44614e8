package gateway

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Tags are the build tags of the command that Run starts, to be set before any test runs:
// "solace" brings that endpoint.
var Tags string

// Command is the package of the command that Run starts, to be set before any test runs: one
// with more modules.
var Command = "github.com/caddy-message-api/caddy-message-api/cmd/caddy"

// binary is the caddy command, built once per test process.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "caddy-binary")
	if err != nil {
		return "", err
	}
	binaryDir = dir
	path := filepath.Join(dir, "caddy")
	cmd := exec.Command("go", "build", "-tags", Tags, "-o", path, Command)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building caddy: %w\n%s", err, out)
	}
	return path, nil
})

// Binary is the caddy command that Run starts.
func Binary(t testing.TB) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// binaryDir is where it was built, for Main to remove.
var binaryDir string

// Process is the caddy command, running.
type Process struct {
	// AdminPort is where Caddy's admin endpoint is, if there is to be one.
	Port, TLSPort, AdminPort int

	t      testing.TB
	setup  Setup
	cmd    *exec.Cmd
	dir    string
	output *lockedBuffer
	exited chan error
	ended  bool
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Setup is what a process has that not all have.
type Setup struct {
	// Storage is what stands after `storage` in the Caddyfile. Default: files of its own.
	Storage string
	// Admin gives it an admin endpoint on AdminPort.
	Admin bool
	// Plain leaves out TLS. Otherwise Caddy's certificate authority has to be found in the
	// storage before anything starts.
	Plain bool
}

// Run starts `caddy run` on a Caddyfile, in which PORT and TLSPORT are replaced, and waits
// until it serves.
func Run(t testing.TB, globals, sites string) *Process {
	t.Helper()
	return RunWith(t, Setup{}, globals, sites)
}

// RunWith is Run with more.
func RunWith(t testing.TB, setup Setup, globals, sites string) *Process {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	p := &Process{Port: FreePort(t), TLSPort: FreePort(t), t: t, dir: tempDir(t), output: new(lockedBuffer)}
	if setup.Admin {
		p.AdminPort = FreePort(t)
	}
	if setup.Storage == "" {
		setup.Storage = "file_system " + p.dir + "/storage"
	}
	p.setup = setup
	file, _ := p.write(globals, sites)
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			out := p.output.String()
			t.Logf("the gateway's output:\n%s", out[max(0, len(out)-4<<10):])
		}
	})
	p.start(path, file)
	return p
}

// write writes the Caddyfile.
func (p *Process) write(globals, sites string) (file, text string) {
	p.t.Helper()
	admin := "off"
	if p.setup.Admin {
		admin = fmt.Sprintf("127.0.0.1:%d", p.AdminPort)
	}
	certificates := "skip_install_trust\n\tlocal_certs"
	if p.setup.Plain {
		certificates = "auto_https off"
	}
	text = strings.NewReplacer("TLSPORT", fmt.Sprint(p.TLSPort), "PORT", fmt.Sprint(p.Port)).Replace(`{
	admin ` + admin + `
	http_port PORT
	https_port TLSPORT
	` + certificates + `
	persist_config off
	storage ` + p.setup.Storage + `
` + globals + "\n}\n" + sites)
	file = filepath.Join(p.dir, "Caddyfile")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return file, text
}

// Reload has the process take another configuration by its admin endpoint, as `caddy reload`
// does. A Restart begins with it, too.
func (p *Process) Reload(globals, sites string) {
	p.t.Helper()
	_, text := p.write(globals, sites)
	answer := Do(p.t, oneShot, http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d/load", p.AdminPort), text,
		"Content-Type", "text/caddyfile")
	if answer.Status != http.StatusOK {
		p.t.Fatalf("reloading: %d %s", answer.Status, answer.Body)
	}
}

func (p *Process) start(path, file string) {
	p.cmd = exec.Command(path, "run", "--config", file, "--adapter", "caddyfile")
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	p.cmd.Env = append(os.Environ(), "HOME="+p.dir)
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.exited, p.ended = make(chan error, 1), false
	go func() { p.exited <- p.cmd.Wait() }()
	Eventually(p.t, 20*time.Second, "the gateway to serve", func() bool {
		if len(p.exited) > 0 {
			p.t.Fatal("the gateway ended instead of serving")
		}
		resp, err := oneShot.Get(p.URL("/"))
		if err == nil {
			_ = resp.Body.Close()
		}
		return err == nil
	})
}

var oneShot = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// URL is the plain address of a path.
func (p *Process) URL(path string) string { return fmt.Sprintf("http://localhost:%d%s", p.Port, path) }

// Restart starts the process again, after Kill or Terminate.
func (p *Process) Restart() { p.start(p.cmd.Path, p.cmd.Args[3]) }

// Kill ends the process at once, as a crash does.
func (p *Process) Kill() {
	if p.ended || p.exited == nil { // or it has never been started
		return
	}
	_ = p.cmd.Process.Kill()
	<-p.exited
	p.ended = true
}

// Terminate sends SIGTERM and returns how long the process took to end by itself.
func (p *Process) Terminate(limit time.Duration) time.Duration {
	p.t.Helper()
	began := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	select {
	case err := <-p.exited:
		p.ended = true
		if err != nil {
			p.t.Errorf("the gateway ended with %v", err)
		}
	case <-time.After(limit):
		p.t.Errorf("the gateway still runs %s after SIGTERM", limit)
	}
	return time.Since(began)
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Output is what the process has printed.
func (p *Process) Output() string { return p.output.String() }
