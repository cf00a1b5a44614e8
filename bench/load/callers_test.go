//go:build linux

package load

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const wait = 10 * time.Second

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func TestCallers(t *testing.T) {
	var calls, wrong atomic.Int64
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || Count(body) != 1 || r.Method != http.MethodPost {
			wrong.Add(1)
		}
		calls.Add(1)
		w.WriteHeader(http.StatusAccepted)
	})
	c, err := NewCallers(addr, 4, Request(http.MethodPost, addr, "/", "*/*", Content()), "HTTP/1.1 202 ")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // nothing of the first run may be left for the second
		took, err := c.Run(20*time.Millisecond, wait)
		if err != nil {
			t.Fatal(err)
		}
		if n := calls.Swap(0); n != int64(len(took)) || n < 4 {
			t.Errorf("%d calls came, and %d were answered", n, len(took))
		}
	}
	if n := wrong.Load(); n > 0 {
		t.Errorf("%d requests were wrong", n)
	}
	if c.Bytes() == 0 {
		t.Error("no bytes were counted")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestAnswersThatAreNotWanted(t *testing.T) {
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"another status": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "broken", http.StatusBadGateway) }, "broken"},
		"no length": {func(w http.ResponseWriter, _ *http.Request) {
			_ = http.NewResponseController(w).Flush() // what comes is then cut into chunks
		}, "no Content-Length"},
	} {
		t.Run(name, func(t *testing.T) {
			addr := serve(t, test.answer)
			_, err := Fetch(addr, Request(http.MethodGet, addr, "/", "*/*", nil), "HTTP/1.1 200 ", wait)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("the error is %v, and should tell %q", err, test.want)
			}
		})
	}
}

func TestConnReadsLongAnswers(t *testing.T) {
	long := strings.Repeat(string(Content()), 3000)
	addr := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "768000")
		_, _ = io.WriteString(w, long) // the client tells
	})
	c, err := NewConn(addr, wait)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		body, err := c.Do(Request(http.MethodGet, addr, "/", "*/*", nil), "HTTP/1.1 200 ")
		if err != nil {
			t.Fatal(err)
		}
		if string(body) != long {
			t.Fatalf("%d bytes came, and they are not those that were sent", len(body))
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestNobodyListens(t *testing.T) {
	addr := serve(t, nil)
	addr = addr[:strings.LastIndex(addr, ":")] + ":1"
	if _, err := NewConn(addr, wait); err == nil || !strings.Contains(err.Error(), addr) {
		t.Errorf("the error is %v, and should name %s", err, addr)
	}
}
