//go:build linux

package webhook

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// begin starts a receiver in this process.
func begin(t *testing.T) (addr string, seen func() Seen) {
	t.Helper()
	ops := Ops()
	got, err := ops["start"](nil)
	if err != nil {
		t.Fatal(err)
	}
	return got.(string), func() Seen {
		s, err := ops["seen"](nil)
		if err != nil {
			t.Fatal(err)
		}
		return s.(Seen)
	}
}

func TestReceiver(t *testing.T) {
	addr, seen := begin(t)
	p := NewPoster(addr)
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() {
			for n := range 50 {
				errs[i] = errors.Join(errs[i], p.Post(t.Context(), fmt.Sprintf("msg_%d_%d", i, n), Content(1000)))
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if s := seen(); s.Requests != 400 || s.Unsigned != 0 || s.Wrong != 0 || s.Connections < 1 || s.Bytes < 400*1000 {
		t.Errorf("it has seen %+v", s)
	}
	resp, err := p.client.Post("http://"+addr, "text/plain", strings.NewReader("x"))
	if err != nil || resp.StatusCode != http.StatusNoContent {
		t.Fatalf("%v, %v", resp, err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	if s := seen(); s.Unsigned != 1 {
		t.Errorf("without signature it has seen %+v", s)
	}
	p.Close()
}

// What is no request that it understands is counted and gets no answer.
func TestWhatIsWrong(t *testing.T) {
	addr, seen := begin(t)
	for i, text := range []string{"GET / HTTP/1.1\r\n\r\n", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n"} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(conn).ReadString('\n'); err == nil {
			t.Errorf("%q is answered with %q", text, line)
		}
		_ = conn.Close()
		if s := seen(); s.Wrong != int64(i+1) || s.Requests != 0 {
			t.Errorf("%q: it has seen %+v", text, s)
		}
	}
}

func TestPosterFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })}
	go func() { _ = server.Serve(l) }()
	p := NewPoster(l.Addr().String())
	if err := p.Post(t.Context(), "msg", []byte("x")); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("a 503 is %v", err)
	}
	p.Close()
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.Post(t.Context(), "msg", []byte("x")); err == nil {
		t.Error("nobody listens, and it is no error")
	}
}

func TestLoop(t *testing.T) {
	var l Loop
	if err := l.Stop(); err == nil {
		t.Error("what does not run is stopped")
	}
	broken := errors.New("broken")
	run := func(ctx context.Context) error {
		<-ctx.Done()
		return broken
	}
	if err := l.Start(run); err != nil {
		t.Fatal(err)
	}
	if err := l.Start(run); err == nil {
		t.Error("two run at once")
	}
	if err := l.Stop(); !errors.Is(err, broken) {
		t.Errorf("it ended with %v", err)
	}
}
