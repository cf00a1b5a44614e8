package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func runIn(t *testing.T, dir, command string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(dir, command, &out)
	return out.String(), err
}

// The number in a pid file may belong to somebody else by now: here to this test.
func TestDownLeavesStrangersAlone(t *testing.T) {
	dir := t.TempDir()
	pid := filepath.Join(dir, "pid")
	if err := os.WriteFile(pid, fmt.Appendln(nil, os.Getpid()), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := runIn(t, dir, "down")
	if err != nil || !strings.Contains(out, "does not run") {
		t.Errorf("down said %q and %v", out, err)
	}
	if _, err := os.Stat(pid); !os.IsNotExist(err) {
		t.Errorf("the stale pid file stays: %v", err)
	}
}

func TestWithoutBroker(t *testing.T) {
	dir := t.TempDir()
	if out, err := runIn(t, dir, "down"); err != nil {
		t.Errorf("down said %q and %v", out, err)
	}
	for command, want := range map[string]string{
		"status": "does not run", "up": "scripts/kafka.sh up", "": "not a command", "restart": "not a command",
	} {
		if out, err := runIn(t, dir, command); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q said %q and %v, want an error about %q", command, out, err, want)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "pid"), []byte("soon\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := runIn(t, dir, "down"); err == nil || !strings.Contains(err.Error(), "no process id") {
		t.Errorf("down with a garbled pid file: %v", err)
	}
}

func TestEnv(t *testing.T) {
	dir := t.TempDir()
	out, err := runIn(t, dir, "env")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`export KAFKA_ADDR="127.0.0.1:19092"`, `export KAFKA_LIBS="` + filepath.Join(dir, "libs") + `"`,
	} {
		if !strings.Contains(out, want+"\n") {
			t.Errorf("env lacks %s:\n%s", want, out)
		}
	}
}
