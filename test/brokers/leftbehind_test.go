package brokers

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A test process that is killed leaves nothing behind, not even what a broker has started
// by itself: RabbitMQ's Erlang has a port mapper and children.
func TestNothingIsLeftBehind(t *testing.T) {
	for name, start := range map[string]func(testing.TB) *Server{
		"RabbitMQ":  func(t testing.TB) *Server { return RabbitMQ(t).Server },
		"Mosquitto": func(t testing.TB) *Server { return Mosquitto(t).Server },
		"Redis":     func(t testing.TB) *Server { return Redis(t).Server },
	} {
		t.Run(name, func(t *testing.T) {
			if os.Getenv("BROKERS_TEST_PARENT") == "1" {
				fmt.Printf("log %s\n", start(t).node.Log())
				select {} // until it is killed
			}
			switch name { // which are skipped here, and not in the child
			case "RabbitMQ":
				skipWithout(t, rabbitMQ)
			case "Redis":
				skipWithout(t, redisServer)
			default:
				skipWithout(t, mosquittoBroker)
			}
			log := killedParent(t, t.Name())
			if left := processesOf(t, log); len(left) > 0 {
				t.Errorf("these are left: %v", left)
			}
		})
	}
}

// killedParent runs a test in a process of its own, kills it when it has told where its
// broker's log is, and returns that.
func killedParent(t *testing.T, test string) string {
	t.Helper()
	parent := exec.Command(os.Args[0], "-test.run=^"+strings.ReplaceAll(test, "/", "$/^")+"$")
	parent.Env = append(os.Environ(), "BROKERS_TEST_PARENT=1", "TMPDIR="+t.TempDir())
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	log := ""
	var said []string
	for lines := bufio.NewScanner(out); log == "" && lines.Scan(); {
		log, _ = strings.CutPrefix(lines.Text(), "log ")
		if !strings.HasPrefix(lines.Text(), "log ") {
			said, log = append(said, lines.Text()), ""
		}
	}
	running := log != "" && len(find(t, filepath.Dir(log))) > 0
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // it was killed
	if !running {
		t.Fatalf("no broker ran: %s", strings.Join(said, "\n"))
	}
	return log
}

// processesOf waits until no process has to do with the node whose log this is, and
// returns those that do so for long.
func processesOf(t *testing.T, log string) []string {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		left := find(t, filepath.Dir(log))
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// find returns the processes in whose command line or environment the directory occurs.
func find(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Skip("there is no /proc to look into")
	}
	var found []string
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() || isZombie(pid) {
			continue
		}
		// What can't be read has ended, or is not ours.
		command, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		environment, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "environ"))
		if strings.Contains(string(command), dir) || strings.Contains(string(environment), dir) {
			found = append(found, fmt.Sprintf("%d %s", pid, strings.ReplaceAll(string(command), "\x00", " ")))
		}
	}
	return found
}

// isZombie tells a dead process that nobody has asked after.
func isZombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat), ") Z ")
}
