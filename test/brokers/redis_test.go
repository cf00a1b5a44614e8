package brokers

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"testing"
	"time"
)

// askRedis sends one command and returns the line of the answer that counts.
func askRedis(t *testing.T, addr string, patience time.Duration, command string) (string, error) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "%s\r\n", command); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		if text := lines.Text(); text == "" || text[0] != '$' { // the length of the next line
			return text, nil
		}
	}
	return "", lines.Err()
}

func TestRedisKeepsWhatItAcknowledgedThroughKill(t *testing.T) {
	r := Redis(t)
	for round := range 3 {
		for i := range 100 {
			command := fmt.Sprintf("SET key-%d-%d value-%d", round, i, i)
			if answer, err := askRedis(t, r.Addr(), time.Minute, command); err != nil || answer != "+OK" {
				t.Fatalf("%s: %q, %v", command, answer, err)
			}
		}
		r.Kill()
		r.Restart()
	}
	if answer, err := askRedis(t, r.Addr(), time.Minute, "DBSIZE"); err != nil || answer != ":300" {
		t.Errorf("300 keys were set, and it has %q, %v", answer, err)
	}
	if answer, err := askRedis(t, r.Addr(), time.Minute, "GET key-2-99"); err != nil || answer != "value-99" {
		t.Errorf("the last one is %q, %v", answer, err)
	}
}

func TestPausedRedisAnswersLater(t *testing.T) {
	r := Redis(t)
	r.Pause()
	if answer, err := askRedis(t, r.Addr(), 200*time.Millisecond, "PING"); !os.IsTimeout(err) {
		t.Errorf("while it is paused: %q, %v", answer, err)
	}
	r.Resume()
	if answer, err := askRedis(t, r.Addr(), time.Minute, "PING"); err != nil || answer != "+PONG" {
		t.Errorf("afterwards: %q, %v", answer, err)
	}
}
