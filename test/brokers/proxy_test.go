package brokers

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shout answers every line with itself and an exclamation mark.
func shout(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				lines := bufio.NewScanner(conn)
				for lines.Scan() {
					if _, err := io.WriteString(conn, lines.Text()+"!\n"); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

type caller struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func call(t *testing.T, addr string) *caller {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &caller{t, conn, bufio.NewReader(conn)}
}

func (c *caller) say(line string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, line+"\n"); err != nil {
		c.t.Fatal(err)
	}
}

func (c *caller) hear(within time.Duration) (string, error) {
	c.t.Helper()
	if err := c.conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		c.t.Fatal(err)
	}
	return c.r.ReadString('\n')
}

func (c *caller) expect(want string) {
	c.t.Helper()
	if got, err := c.hear(5 * time.Second); err != nil || got != want+"\n" {
		c.t.Fatalf("heard %q and %v, want %q", got, err, want)
	}
}

func TestProxyPassesAndCuts(t *testing.T) {
	proxy := NewProxy(t, shout(t))
	first := call(t, proxy.Addr())
	first.say("a")
	first.expect("a!")
	proxy.Cut()
	if _, err := first.hear(5 * time.Second); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a cut connection still stands: %v", err)
	}
	second := call(t, proxy.Addr())
	second.say("b")
	second.expect("b!")
	// The proxy's own goroutines may take a moment to see that the first is gone.
	for deadline := time.Now().Add(5 * time.Second); proxy.Connections() != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections, want 1", proxy.Connections())
		}
	}
}

func TestProxyMutesAndDeliversLater(t *testing.T) {
	proxy := NewProxy(t, shout(t))
	c := call(t, proxy.Addr())
	c.say("a")
	c.expect("a!")
	proxy.Mute()
	c.say("b")
	late := call(t, proxy.Addr()) // connections are still made
	late.say("c")
	for _, c := range []*caller{c, late} {
		if got, err := c.hear(100 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("heard %q and %v through a mute proxy", got, err)
		}
	}
	proxy.Restore()
	c.expect("b!")
	late.expect("c!")
}

func TestProxyRefuses(t *testing.T) {
	proxy := NewProxy(t, shout(t))
	c := call(t, proxy.Addr())
	c.say("a")
	c.expect("a!")
	proxy.Mute()
	proxy.Refuse()
	if _, err := c.hear(5 * time.Second); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a refused connection still stands: %v", err)
	}
	if conn, err := net.Dial("tcp", proxy.Addr()); err == nil {
		_ = conn.Close()
		t.Fatal("a refusing proxy let a connection in")
	}
	proxy.Restore()
	again := call(t, proxy.Addr())
	again.say("b")
	again.expect("b!")
}

func TestProxyKeepsHalfClose(t *testing.T) {
	proxy := NewProxy(t, shout(t))
	c := call(t, proxy.Addr())
	c.say("last words")
	if err := c.conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	c.expect("last words!")
	if _, err := c.hear(5 * time.Second); !errors.Is(err, io.EOF) {
		t.Fatalf("after the last words: %v, want the end", err)
	}
}

func TestProxyWithoutServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", NewProxy(t, addr).Addr())
	if err != nil {
		return // reset before the dial was over
	}
	c := &caller{t, conn, bufio.NewReader(conn)}
	defer conn.Close()
	if _, err := c.hear(5 * time.Second); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a connection to nowhere stands: %v", err)
	}
}
