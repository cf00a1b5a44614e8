package websocket

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	ws "github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/entrypoints/entrypointtest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// provisioned makes an entrypoint as Caddy would.
func provisioned(tb testing.TB, change func(*Entrypoint)) *Entrypoint {
	tb.Helper()
	e := new(Entrypoint)
	if change != nil {
		change(e)
	}
	if err := e.Provision(caddy.Context{}); err != nil {
		tb.Fatal(err)
	}
	if err := e.Validate(); err != nil {
		tb.Fatal(err)
	}
	return e
}

func qos(level message.QoS) func(*Entrypoint) { return func(e *Entrypoint) { e.QoS = level } }

// server serves one session over and over; over receives the result of each Serve.
type server struct {
	*httptest.Server
	s     *entrypointtest.Session
	over  chan error
	ended atomic.Pointer[entrypoints.End] // why the last session ended that had begun
}

func serve(t *testing.T, e *Entrypoint) *server {
	t.Helper()
	return serveWith(t, e, func(h http.Handler) http.Handler { return h })
}

func serveWith(t *testing.T, e *Entrypoint, wrap func(http.Handler) http.Handler) *server {
	t.Helper()
	srv := &server{s: entrypointtest.NewSession(t), over: make(chan error, 1000)}
	srv.Server = httptest.NewServer(wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Gravitee-Request-Id", srv.s.ID.RequestID)
		err := e.Serve(w, r, srv.s)
		if end, begun := entrypoints.EndOf(err); begun {
			srv.ended.Store(&end)
			err = nil
		}
		if err != nil {
			entrypoints.AsProblem(err).Write(w, srv.s.ID.RequestID)
		}
		srv.over <- err
	})))
	t.Cleanup(srv.Close)
	return srv
}

// waitOver waits until Serve has returned.
func (srv *server) waitOver(t *testing.T) {
	t.Helper()
	select {
	case err := <-srv.over:
		if err != nil {
			t.Errorf("Serve: %v", err)
		}
	case <-time.After(entrypointtest.Patience):
		t.Fatal("Serve did not return")
	}
}

func (srv *server) address() string { return strings.TrimPrefix(srv.URL, "http://") }

// dial connects with gorilla's client.
func (srv *server) dial(t *testing.T, query string, protocols ...string) *ws.Conn {
	t.Helper()
	d := ws.Dialer{Subprotocols: protocols, HandshakeTimeout: entrypointtest.Patience}
	conn, resp, err := d.DialContext(t.Context(), "ws://"+srv.address()+"/"+query, nil)
	if err != nil {
		t.Fatalf("dial: %v (%v)", err, resp)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetReadDeadline(time.Now().Add(entrypointtest.Patience))
	return conn
}

// next reads one frame as text.
func next(t *testing.T, conn *ws.Conn) string {
	t.Helper()
	_, data, err := conn.ReadMessage()
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	return string(data)
}

// object reads one frame as a JSON object.
func object(t *testing.T, conn *ws.Conn) map[string]any {
	t.Helper()
	var o map[string]any
	text := next(t, conn)
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return o
}

// wantObject reads one frame and compares it with a JSON text.
func wantObject(t *testing.T, conn *ws.Conn, want string) {
	t.Helper()
	got, err := json.Marshal(object(t, conn))
	if err != nil {
		t.Fatal(err)
	}
	var o map[string]any
	if err := json.Unmarshal([]byte(want), &o); err != nil {
		t.Fatal(err)
	}
	same, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(same) {
		t.Errorf("got  %s\nwant %s", got, same)
	}
}

// wantClose reads until the close frame.
func wantClose(t *testing.T, conn *ws.Conn, code int, text string) {
	t.Helper()
	for {
		_, data, err := conn.ReadMessage()
		if err == nil {
			t.Logf("before the close frame: %q", data)
			continue
		}
		closed, ok := errors.AsType[*ws.CloseError](err)
		if !ok || closed.Code != code || !strings.Contains(closed.Text, text) {
			t.Errorf("closed by %v, want %d with %q", err, code, text)
		}
		return
	}
}

func say(t *testing.T, conn *ws.Conn, format string, args ...any) {
	t.Helper()
	if err := conn.WriteMessage(ws.TextMessage, fmt.Appendf(nil, format, args...)); err != nil {
		t.Fatalf("write: %v", err)
	}
}

// bye closes as a client does, and waits for the answer.
func bye(t *testing.T, conn *ws.Conn) {
	t.Helper()
	if err := conn.WriteControl(ws.CloseMessage, ws.FormatCloseMessage(1000, ""), time.Now().Add(time.Second)); err != nil {
		t.Fatalf("close: %v", err)
	}
	wantClose(t, conn, 1000, "")
	_ = conn.Close()
}

// rawConn speaks frame by frame, to break the rules.
type rawConn struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

const testKey = "dGhlIHNhbXBsZSBub25jZQ==" // RFC 6455 §1.3

func (srv *server) raw(t *testing.T, protocols string) *rawConn {
	t.Helper()
	return srv.rawWith(t, protocols, nil)
}

// rawWith sends frames right behind the handshake.
func (srv *server) rawWith(t *testing.T, protocols string, early []byte) *rawConn {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", srv.address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(entrypointtest.Patience))
	head := "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: " + testKey + "\r\n"
	if protocols != "" {
		head += "Sec-WebSocket-Protocol: " + protocols + "\r\n"
	}
	if _, err := conn.Write(append([]byte(head+"\r\n"), early...)); err != nil {
		t.Fatal(err)
	}
	c := &rawConn{Conn: conn, t: t, r: bufio.NewReader(conn)}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake: %v %v", resp, err)
	}
	if got := resp.Header.Get("Sec-Websocket-Accept"); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Errorf("Sec-WebSocket-Accept: %q", got)
	}
	return c
}

// masked is a client's frame.
func masked(first byte, payload string) []byte {
	key := [4]byte{1, 2, 3, 4}
	b := appendHeader(nil, first, len(payload))
	b[1] |= 0x80
	b = append(b, key[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^key[i%4])
	}
	return b
}

func (c *rawConn) write(frames ...[]byte) {
	c.t.Helper()
	for _, f := range frames {
		if _, err := c.Write(f); err != nil {
			c.t.Fatalf("write: %v", err)
		}
	}
}

// frame reads one frame.
func (c *rawConn) frame() (first byte, payload string, err error) {
	var head [2]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return 0, "", err
	}
	n := uint64(head[1])
	if head[1]&0x80 != 0 {
		c.t.Error("a server's frame is masked")
	}
	var long [8]byte
	switch n {
	case 126:
		_, err = io.ReadFull(c.r, long[6:])
		n = binary.BigEndian.Uint64(long[:])
	case 127:
		_, err = io.ReadFull(c.r, long[:])
		n = binary.BigEndian.Uint64(long[:])
	}
	if err != nil {
		return 0, "", err
	}
	body := make([]byte, n)
	_, err = io.ReadFull(c.r, body)
	return head[0], string(body), err
}

// wantFrame reads one frame and compares it.
func (c *rawConn) wantFrame(first byte, payload string) {
	c.t.Helper()
	f, p, err := c.frame()
	if err != nil || f != first || p != payload {
		c.t.Errorf("frame %#x %q %v, want %#x %q", f, p, err, first, payload)
	}
}

// wantCloseFrame reads until the close frame, and then until the connection is closed.
func (c *rawConn) wantCloseFrame(code int, text string) {
	c.t.Helper()
	for {
		first, payload, err := c.frame()
		if err != nil {
			c.t.Errorf("no close frame: %v", err)
			return
		}
		if first != closeFrame {
			continue
		}
		if len(payload) < 2 || int(binary.BigEndian.Uint16([]byte(payload))) != code || !strings.Contains(payload, text) {
			c.t.Errorf("close frame %q, want %d with %q", payload, code, text)
		}
		return
	}
}

func (c *rawConn) wantEOF() {
	c.t.Helper()
	if _, err := c.r.ReadByte(); err == nil || errors.Is(err, context.DeadlineExceeded) {
		c.t.Errorf("the connection is not closed: %v", err)
	}
}
