package examples

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// commandTimeout is longer than any command of the documentation takes that ends by itself.
const commandTimeout = 30 * time.Second

// doc is the commands that a page of the documentation says to type, and where they are
// sent instead of localhost:8080 and https://localhost.
type doc struct {
	t        *testing.T
	name     string
	commands []string
	used     map[string]bool
	address  *strings.Replacer
	env      []string
}

var (
	fences   = regexp.MustCompile("(?s)```sh\n(.*?)```")
	comments = regexp.MustCompile(`(?m)(^|\s+)# .*$`)
	pipes    = regexp.MustCompile(`\|\n\s*`)
)

// programs are those whose commands are run.
var programs = regexp.MustCompile(`\b(curl|mosquitto_pub|mosquitto_sub|bin/caddy message-api) `)

// read takes the commands with curl, mosquitto_pub and mosquitto_sub out of a page, or of
// one section of it. Texts in them are replaced as given: old, new, …
func read(t *testing.T, g *gateway.Gateway, page, section string, replacements ...string) *doc {
	t.Helper()
	needCurl(t)
	raw, err := os.ReadFile(filepath.Join("../..", page))
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	if section != "" {
		_, rest, ok := strings.Cut(text, "\n## "+section+"\n")
		if !ok {
			t.Fatalf("%s has no section %q", page, section)
		}
		text, _, _ = strings.Cut(rest, "\n## ")
	}
	d := &doc{t: t, name: page, used: make(map[string]bool), address: strings.NewReplacer(
		append(replacements, "http://localhost:8080", g.URL(""), "https://localhost/", g.TLS("/"))...)}
	for _, fence := range fences.FindAllStringSubmatch(text, -1) {
		code := pipes.ReplaceAllString(comments.ReplaceAllString(fence[1], ""), "| ")
		for line := range strings.Lines(code) {
			if line = strings.TrimSpace(line); programs.MatchString(line) {
				d.commands = append(d.commands, line)
			}
		}
	}
	t.Cleanup(d.finish)
	return d
}

// needCurl fails without curl, but in the short form, which needs nothing but Go.
func needCurl(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("curl"); err == nil {
		return
	}
	if testing.Short() {
		t.Skip("NOT RUN with curl: it is not installed")
	}
	t.Fatal("curl is not installed: apt-get install curl")
}

// finish complains about commands that nobody has tried.
func (d *doc) finish() {
	if d.t.Failed() {
		return
	}
	for _, c := range d.commands {
		if !d.used[c] {
			d.t.Errorf("%s has a command that this test does not know: %s", d.name, c)
		}
	}
}

// has tells whether a command stands in the page.
func (d *doc) has(command string) bool { return slices.Contains(d.commands, command) }

// running is a command that was started.
type running struct {
	t              *testing.T
	command        string
	cmd            *exec.Cmd
	ended          chan error
	stdout, stderr output
}

// output can be read while it is written.
type output struct {
	mu      sync.Mutex
	b       bytes.Buffer
	changed chan struct{}
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.changed <- struct{}{}:
	default:
	}
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// with runs a command of the page in which something is to be filled in: old, new, …
func (d *doc) with(command string, replacements ...string) string {
	d.t.Helper()
	if !d.has(command) {
		d.t.Fatalf("%s does not have the command %s", d.name, command)
	}
	d.used[command] = true
	return start(d.t, d.address.Replace(strings.NewReplacer(replacements...).Replace(command)), d.env...).wait(commandTimeout)
}

// start runs a command of the page in a shell.
func (d *doc) start(command string) *running {
	d.t.Helper()
	if !d.has(command) {
		d.t.Fatalf("%s does not have the command %s\nbut these:\n%s", d.name, command, strings.Join(d.commands, "\n"))
	}
	d.used[command] = true
	return start(d.t, "set -o pipefail; "+d.address.Replace(command), d.env...)
}

// start runs a script in a process group that ends with the test.
func start(t *testing.T, script string, env ...string) *running {
	t.Helper()
	r := &running{t: t, command: script, ended: make(chan error, 1), cmd: exec.Command("bash", "-c", script)}
	r.stdout.changed, r.stderr.changed = make(chan struct{}, 1), make(chan struct{}, 1)
	r.cmd.Stdout, r.cmd.Stderr = &r.stdout, &r.stderr
	r.cmd.Env = append(os.Environ(), env...)
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		r.ended <- r.cmd.Wait()
		close(done)
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL)
		<-done
	})
	return r
}

// wait gives what the command has printed when it ended well.
func (r *running) wait(limit time.Duration) string {
	r.t.Helper()
	select {
	case err := <-r.ended:
		if err != nil {
			r.t.Fatalf("%s: %v\n%s%s", r.command, err, &r.stdout, &r.stderr)
		}
	case <-time.After(limit):
		r.t.Fatalf("%s: not done within %s\n%s%s", r.command, limit, &r.stdout, &r.stderr)
	}
	return r.stdout.String()
}

// expect waits until the command has printed something.
func (r *running) expect(limit time.Duration, want string) {
	r.t.Helper()
	late := time.After(limit)
	for !strings.Contains(r.stdout.String(), want) {
		select {
		case <-r.stdout.changed:
		case err := <-r.ended:
			r.ended <- err
			if !strings.Contains(r.stdout.String(), want) {
				r.t.Fatalf("%s: ended (%v) without %q\n%s%s", r.command, err, want, &r.stdout, &r.stderr)
			}
		case <-late:
			r.t.Fatalf("%s: no %q within %s\n%s%s", r.command, want, limit, &r.stdout, &r.stderr)
		}
	}
}

// run is start and wait.
func (d *doc) run(command string) string {
	d.t.Helper()
	return d.start(command).wait(commandTimeout)
}

// answer is what `curl -i` printed.
func (d *doc) answer(command string) gateway.Answer {
	d.t.Helper()
	head, body, _ := strings.Cut(strings.ReplaceAll(d.run(command), "\r\n", "\n"), "\n\n")
	status := 0
	if words := strings.Fields(head); len(words) > 1 {
		for _, digit := range words[1] {
			status = status*10 + int(digit-'0')
		}
	}
	a := gateway.Answer{Status: status, Header: make(map[string][]string), Body: body}
	for line := range strings.Lines(head) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			a.Header.Add(name, value)
		}
	}
	return a
}
