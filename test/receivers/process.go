package receivers

import (
	"bufio"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// foreign is a receiver in another language.
type foreign struct {
	name string // what it is called, also by scripts/receivers.sh
	// without is the variable that is 1 where tests do without it.
	without string
	// programs are names of its interpreter.
	programs []string
	// library is the file, below its folder in the cache, by which an installed one is known.
	library string
	// modules is the variable that names its folder.
	modules string
	file    string
	script  []byte
}

// The versions are those of python/requirements.txt and node/package.json. The folders are
// named after them, so that another version is installed beside this one.
var (
	//go:embed python/receiver.py
	pythonScript []byte
	//go:embed node/receiver.mjs
	nodeScript []byte

	python = foreign{
		name: "python", without: "MESSAGE_API_NO_PYTHON", programs: []string{"python3"},
		library: "python-1.1.0/standardwebhooks/webhooks.py", modules: "PYTHONPATH",
		file: "receiver.py", script: pythonScript,
	}
	node = foreign{
		name: "node", without: "MESSAGE_API_NO_NODE", programs: []string{"node", "nodejs"},
		library: "node-1.1.1/node_modules/standardwebhooks/package.json", modules: "RECEIVER_MODULES",
		file: "receiver.mjs", script: nodeScript,
	}
)

// StartPython starts a receiver as a process of its own, with the official library for
// Python. It ends with the test. secret has the form whsec_<base64>.
func StartPython(t testing.TB, secret string) *Receiver {
	t.Helper()
	return python.start(t, secret)
}

// StartNode does the same with the official library for JavaScript.
func StartNode(t testing.TB, secret string) *Receiver {
	t.Helper()
	return node.start(t, secret)
}

// find returns interpreter and folder, or says what is missing.
func (f *foreign) find() (program, folder string, err error) {
	root := os.Getenv("MESSAGE_API_RECEIVERS")
	if root == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", "", err
		}
		root = filepath.Join(cache, "caddy-message-api", "receivers")
	}
	library := filepath.Join(root, filepath.FromSlash(f.library))
	if _, err := os.Stat(library); err != nil {
		return "", "", fmt.Errorf("the official library for %s is not installed (%s)", f.name, library)
	}
	for _, name := range f.programs {
		if program, err = exec.LookPath(name); err == nil {
			first, _, _ := strings.Cut(f.library, "/")
			return program, filepath.Join(root, first), nil
		}
	}
	return "", "", fmt.Errorf("%s is not installed: %w", f.name, err)
}

func (f *foreign) start(t testing.TB, secret string) *Receiver {
	t.Helper()
	if os.Getenv(f.without) == "1" {
		t.Skipf("NOT RUN with a receiver in %s: %s=1", f.name, f.without)
	}
	program, folder, err := f.find()
	if err != nil {
		t.Fatalf("%v: run `scripts/receivers.sh %s` once, with a network, or set %s=1 to do without it", err, f.name, f.without)
	}
	script := filepath.Join(t.TempDir(), f.file)
	if err := os.WriteFile(script, f.script, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, script)
	cmd.Env = append(os.Environ(), "RECEIVER_SECRET="+secret, f.modules+"="+folder, "PYTHONDONTWRITEBYTECODE=1")
	cmd.Stderr = os.Stderr
	return run(t, cmd)
}

// line is what a process tells: its URL first, then its requests.
type line struct {
	URL      string      `json:"url"`
	ID       string      `json:"id"`
	Verified bool        `json:"verified"`
	Error    string      `json:"error"`
	Helped   bool        `json:"helped"`
	Body     []byte      `json:"body"`
	Headers  [][2]string `json:"headers"`
}

// run starts the process and reads what it tells, until the end of the test ends its stdin.
func run(t testing.TB, cmd *exec.Cmd) *Receiver {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	r := &Receiver{received: make(chan Received, kept), ended: make(chan struct{})}
	t.Cleanup(func() {
		close(over)
		_ = stdin.Close() // on which it ends
		<-r.ended
		if err := cmd.Wait(); err != nil {
			t.Errorf("the receiver ended badly: %v", err)
		}
	})
	lines := json.NewDecoder(bufio.NewReaderSize(stdout, 1<<20))
	var first line
	if err := lines.Decode(&first); err != nil {
		close(r.ended)
		t.Fatalf("the receiver did not start: %v", err)
	}
	r.URL = first.URL
	go r.read(lines, over)
	return r
}

// read passes on what the process tells. Once the test is over it is read to its end, so that
// the process never waits for a reader.
func (r *Receiver) read(lines *json.Decoder, over <-chan struct{}) {
	defer close(r.ended)
	for {
		var l line
		if err := lines.Decode(&l); err != nil {
			r.err = fmt.Errorf("the receiver has ended: %w", err)
			return
		}
		got := Received{ID: l.ID, Verified: l.Verified, Error: l.Error, Helped: l.Helped, Body: l.Body, Headers: make(http.Header)}
		for _, h := range l.Headers {
			got.Headers.Add(h[0], h[1])
		}
		select {
		case r.received <- got:
		case <-over:
		}
	}
}
