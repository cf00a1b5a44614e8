package server

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A test process that is killed, or that go test ends for taking too long, must not leave
// its brokers behind.
func TestChildDiesWithItsParent(t *testing.T) {
	if os.Getenv("BROKERS_TEST_PARENT") == "1" {
		p, err := StartProcess(exec.Command("sleep", "600"), func() {})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("child %d\n", p.Pid)
		<-p.Ended
		return
	}
	parent := exec.Command(os.Args[0], "-test.run=^TestChildDiesWithItsParent$")
	parent.Env = append(os.Environ(), "BROKERS_TEST_PARENT=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	child := 0
	for lines := bufio.NewScanner(out); child == 0 && lines.Scan(); {
		if number, ok := strings.CutPrefix(lines.Text(), "child "); ok {
			if child, err = strconv.Atoi(number); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // it was killed
	if child == 0 {
		t.Fatal("the parent told of no child")
	}
	for deadline := time.Now().Add(5 * time.Second); ; {
		if syscall.Kill(child, 0) != nil || isZombie(child) {
			return
		}
		if time.Now().After(deadline) {
			_ = syscall.Kill(child, syscall.SIGKILL)
			t.Fatal("the child lives on without its parent")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// isZombie tells a dead process that nobody has asked after.
func isZombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat), ") Z ")
}
