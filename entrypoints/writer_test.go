package entrypoints_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// counting counts what reaches the ResponseWriter below a Writer.
type counting struct {
	http.ResponseWriter
	writes, flushes, armed, cleared int
}

func (c *counting) Write(p []byte) (int, error) {
	c.writes++
	return c.ResponseWriter.Write(p)
}

func (c *counting) FlushError() error {
	c.flushes++
	return nil
}

func (c *counting) SetWriteDeadline(t time.Time) error {
	if t.IsZero() {
		c.cleared++
	} else {
		c.armed++
	}
	return nil
}

func TestWriterJoinsSmallPiecesAndFlushesOnce(t *testing.T) {
	for _, c := range []struct {
		name                            string
		proto                           int
		sizes                           []int
		writes, armed, cleared, clearIn int
	}{
		{name: "one small piece", proto: 1, sizes: []int{10}, writes: 1, armed: 1, cleared: 1},
		{name: "many small pieces", proto: 1, sizes: []int{10, 20, 30, 4000, 1000}, writes: 1, armed: 1, cleared: 1},
		{name: "more than the buffer", proto: 1, sizes: []int{4000, 4000, 4000, 4000, 4000}, writes: 2, armed: 1, cleared: 1},
		{name: "a large one between", proto: 1, sizes: []int{10, 5000, 10}, writes: 3, armed: 1, cleared: 1},
		{name: "a huge one", proto: 1, sizes: []int{200 << 10}, writes: 4, armed: 1, cleared: 1},
		{name: "HTTP/2", proto: 2, sizes: []int{10, 10}, writes: 1, armed: 1, cleared: 1, clearIn: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			recorder := httptest.NewRecorder()
			w := &counting{ResponseWriter: recorder}
			out := entrypoints.NewWriter(w, &http.Request{ProtoMajor: c.proto}, time.Minute)
			var pieces [][]byte
			for i, size := range c.sizes {
				pieces = append(pieces, bytes.Repeat([]byte{byte('a' + i)}, size))
			}
			if err := errors.Join(out.PutAll(pieces), out.Flush()); err != nil {
				t.Fatal(err)
			}
			if w.cleared != c.clearIn {
				t.Errorf("cleared %d times before the end, want %d", w.cleared, c.clearIn)
			}
			out.Finish()
			if w.writes != c.writes || w.flushes != 1 || w.armed != c.armed || w.cleared != c.cleared {
				t.Errorf("%d writes, %d flushes, armed %d, cleared %d; want %d, 1, %d, %d",
					w.writes, w.flushes, w.armed, w.cleared, c.writes, c.armed, c.cleared)
			}
			if want := bytes.Join(pieces, nil); !bytes.Equal(recorder.Body.Bytes(), want) {
				t.Errorf("%d bytes arrived damaged, of %d", recorder.Body.Len(), len(want))
			}
		})
	}
}

// slow takes its time for each write.
type slow struct {
	counting
	each time.Duration
}

func (s *slow) Write(p []byte) (int, error) {
	time.Sleep(s.each)
	return s.counting.Write(p)
}

func TestWriterGivesEachChunkItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &slow{counting{ResponseWriter: httptest.NewRecorder()}, 4 * time.Second}
		out := entrypoints.NewWriter(w, &http.Request{ProtoMajor: 1}, 10*time.Second)
		defer out.Finish()
		start := time.Now()
		if err := errors.Join(out.Put(make([]byte, 512<<10)), out.Flush()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 32*time.Second || w.armed != 9 {
			t.Errorf("took %s, armed %d times: the deadline must move with the progress", took, w.armed)
		}
	})
}

func TestWriterNeedsNoDeadlines(t *testing.T) {
	recorder := httptest.NewRecorder() // which knows Flush but no deadlines
	out := entrypoints.NewWriter(recorder, &http.Request{ProtoMajor: 1}, 0)
	if err := errors.Join(out.Put([]byte("hello")), out.Flush()); err != nil {
		t.Error(err)
	}
	out.Finish()
	if recorder.Body.String() != "hello" || !recorder.Flushed {
		t.Errorf("%q, flushed %t", recorder.Body, recorder.Flushed)
	}
}

// underCaddy wraps a handler the way Caddy's server does by default.
func underCaddy(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		idle := &caddyhttp.IdleTimeoutWriter{
			ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w},
			Ctrl:                  http.NewResponseController(w),
			Deadline:              caddyhttp.IdleDeadline{Start: time.Now(), Timeout: time.Minute},
			Logger:                zap.NewNop(),
			ClearBetweenWrites:    r.ProtoMajor == 2,
		}
		h(idle, r)
		idle.HandlerDone()
	}
}

// eachServer runs f with a server for HTTP/1.1 and HTTP/2, bare and wrapped as in Caddy.
func eachServer(t *testing.T, h http.HandlerFunc, f func(t *testing.T, srv *httptest.Server)) {
	for _, wrapped := range []bool{false, true} {
		for _, h2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("h2=%t caddy=%t", h2, wrapped), func(t *testing.T) {
				handler := h
				if wrapped {
					handler = underCaddy(h)
				}
				srv := httptest.NewUnstartedServer(handler)
				srv.EnableHTTP2 = h2
				if h2 {
					srv.StartTLS()
				} else {
					srv.Start()
				}
				defer srv.Close()
				f(t, srv)
			})
		}
	}
}

func TestWriterLeavesSilentStreamsAlone(t *testing.T) {
	const timeout = 100 * time.Millisecond
	handler := func(w http.ResponseWriter, r *http.Request) {
		out := entrypoints.NewWriter(w, r, timeout)
		defer out.Finish()
		for i := range 3 {
			if i > 0 {
				time.Sleep(3 * timeout) // the silence that is tested
			}
			if err := errors.Join(out.Put(fmt.Appendf(nil, "part %d\n", i)), out.Flush()); err != nil {
				t.Errorf("part %d: %v", i, err)
			}
		}
		time.Sleep(3 * timeout) // an old deadline must not spoil the end
	}
	eachServer(t, handler, func(t *testing.T, srv *httptest.Server) {
		resp, err := srv.Client().Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || string(body) != "part 0\npart 1\npart 2\n" {
			t.Errorf("%q, %v", body, err)
		}
	})
}

func TestWriterCutsStalledClients(t *testing.T) {
	failed := make(chan error, 1)
	handler := func(w http.ResponseWriter, r *http.Request) {
		out := entrypoints.NewWriter(w, r, 300*time.Millisecond)
		defer out.Finish()
		piece := bytes.Repeat([]byte("x"), 1<<20)
		for {
			if err := errors.Join(out.Put(piece), out.Flush()); err != nil {
				failed <- err
				return
			}
		}
	}
	eachServer(t, handler, func(t *testing.T, srv *httptest.Server) {
		conn := stall(t, srv)
		defer conn.Close()
		select {
		case err := <-failed:
			if !errors.Is(err, entrypoints.ErrSlowClient) {
				t.Errorf("not told as a slow client: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("a stalled client was not cut")
		}
	})
}

func TestWriterTellsWhenTheClientIsGone(t *testing.T) {
	failed := make(chan error, 1)
	handler := func(w http.ResponseWriter, r *http.Request) {
		out := entrypoints.NewWriter(w, r, time.Minute)
		defer out.Finish()
		for {
			if err := errors.Join(out.Put([]byte("x")), out.Flush()); err != nil {
				failed <- err
				return
			}
		}
	}
	eachServer(t, handler, func(t *testing.T, srv *httptest.Server) {
		resp, err := srv.Client().Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		select {
		case err := <-failed:
			if !errors.Is(err, entrypoints.ErrClientGone) {
				t.Errorf("not told as gone: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("writing went on without a client")
		}
	})
}

// stall opens a request whose response is not read. On HTTP/2 the client's flow control
// stops it, as the response is left unread.
func stall(t *testing.T, srv *httptest.Server) io.Closer {
	t.Helper()
	if srv.TLS != nil {
		resp, err := srv.Client().Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		if resp.ProtoMajor != 2 {
			t.Fatalf("%s", resp.Proto)
		}
		return resp.Body
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(srv.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReaderSize(conn, 16).ReadByte(); err != nil {
		t.Fatal(err)
	}
	return conn
}
