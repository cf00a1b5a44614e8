package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var all = []string{"kafka", "rabbitmq", "mosquitto"}

func runIn(t *testing.T, dir, broker, command string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(dir, broker, command, &out)
	return out.String(), err
}

// pidFile writes the file that holds the broker's process ids.
func pidFile(t *testing.T, dir, broker string, content []byte) string {
	t.Helper()
	name := filepath.Join(dir, broker, "pid")
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// The number in a pid file may belong to somebody else by now: here to this test.
func TestDownLeavesStrangersAlone(t *testing.T) {
	for _, broker := range all {
		dir := t.TempDir()
		pids := pidFile(t, dir, broker, fmt.Appendf(nil, "%d\n%[1]d\n", os.Getpid()))
		out, err := runIn(t, dir, broker, "down")
		if err != nil || !strings.Contains(out, "does not run") {
			t.Errorf("down said %q and %v", out, err)
		}
		if _, err := os.Stat(pids); !os.IsNotExist(err) {
			t.Errorf("the stale pid file stays: %v", err)
		}
	}
}

func TestWithoutBroker(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // nothing is installed
	dir := t.TempDir()
	for _, broker := range all {
		if out, err := runIn(t, dir, broker, "down"); err != nil {
			t.Errorf("down said %q and %v", out, err)
		}
		for command, want := range map[string]string{"status": "does not run", "": "not a command", "restart": "not a command"} {
			if out, err := runIn(t, dir, broker, command); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s %q said %q and %v, want an error about %q", broker, command, out, err, want)
			}
		}
		pidFile(t, dir, broker, []byte("soon\n"))
		if _, err := runIn(t, dir, broker, "down"); err == nil || !strings.Contains(err.Error(), "no process id") {
			t.Errorf("down with a garbled pid file: %v", err)
		}
	}
	if _, err := runIn(t, t.TempDir(), "kafka", "up"); err == nil || !strings.Contains(err.Error(), "scripts/kafka.sh up") {
		t.Errorf("up without jars: %v", err)
	}
	if _, err := runIn(t, dir, "rabbit", "up"); err == nil || !strings.Contains(err.Error(), "not a broker") {
		t.Errorf("up of an unknown broker: %v", err)
	}
}

func TestEnv(t *testing.T) {
	dir := t.TempDir()
	for broker, wants := range map[string][]string{
		"kafka": {
			`export KAFKA_ADDR="127.0.0.1:19092"`, `export KAFKA_LIBS="` + filepath.Join(dir, "kafka", "libs") + `"`,
		},
		"rabbitmq": {
			`export RABBITMQ_ADDR="127.0.0.1:19672"`, `export RABBITMQ_API="http://127.0.0.1:19674"`,
			`export RABBITMQ_CERTS="` + filepath.Join(dir, "rabbitmq", "node", "certs") + `"`,
		},
		"mosquitto": {
			`export MQTT_ADDR="127.0.0.1:19883"`, `export MQTT_AUTH_ADDR="127.0.0.1:19888"`,
			`export MQTT_CERTS="` + filepath.Join(dir, "mosquitto", "node", "certs") + `"`,
		},
	} {
		out, err := runIn(t, dir, broker, "env")
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range wants {
			if !strings.Contains(out, want+"\n") {
				t.Errorf("env lacks %s:\n%s", want, out)
			}
		}
	}
}
