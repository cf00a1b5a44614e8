//go:build linux

package child

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const testRole = "test-role"

// TestMain lets this binary be its own child.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 || os.Args[1] != testRole {
		os.Exit(m.Run())
	}
	ops := CommonOps()
	ops["double"] = Typed(func(n int) (int, error) { return 2 * n, nil })
	ops["fail"] = Typed(func(why string) (int, error) { return 0, errors.New(why) })
	ops["die"] = Typed(func(struct{}) (int, error) {
		os.Exit(3)
		return 0, nil
	})
	if err := Serve(os.Stdin, os.Stdout, ops); err != nil {
		panic(err)
	}
}

func startChild(t *testing.T) *Process {
	t.Helper()
	p, err := Start(testRole, -1)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestCalls(t *testing.T) {
	p := startChild(t)
	var n int
	if err := p.Call("double", 21, &n); err != nil || n != 42 {
		t.Errorf("double: %d, %v", n, err)
	}
	for _, test := range []struct {
		op, want string
		args     any
	}{
		{"fail", "out of luck", "out of luck"},
		{"double", "cannot unmarshal", "two"},
		{"nothing", "unknown operation nothing", nil},
	} {
		if err := p.Call(test.op, test.args, nil); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %s", test.op, err, test.want)
		}
	}
	if err := p.Call("double", 1, &n); err != nil || n != 2 {
		t.Errorf("after the errors: %d, %v", n, err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func TestUsage(t *testing.T) {
	p := startChild(t)
	before, err := p.Usage()
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if err := p.Call("double", 1, nil); err != nil {
			t.Fatal(err)
		}
	}
	after, err := p.Usage()
	if err != nil {
		t.Fatal(err)
	}
	used := after.Since(before)
	if used.CPU <= 0 || used.Allocs < 100 || used.AllocBytes < 100 || used.Resident < 1<<20 || used.Goroutines < 1 {
		t.Errorf("the child says it used %+v", used)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func TestProfiles(t *testing.T) {
	p := startChild(t)
	name := filepath.Join(t.TempDir(), "run")
	if err := p.Call("profile_end", nil, nil); err == nil {
		t.Error("a profile ends that was not begun")
	}
	if err := p.Call("profile", name, nil); err != nil {
		t.Fatal(err)
	}
	if err := p.Call("profile_end", nil, nil); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{cpuSuffix, allocsSuffix} {
		if info, err := os.Stat(name + suffix); err != nil || info.Size() == 0 {
			t.Errorf("the profile %s: %v", suffix, err)
		}
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func TestChildThatDies(t *testing.T) {
	p := startChild(t)
	if err := p.Call("die", nil, nil); err == nil || !strings.Contains(err.Error(), "the process is gone") {
		t.Errorf("the error is %v", err)
	}
	if err := p.Close(); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("the error is %v", err)
	}
}
