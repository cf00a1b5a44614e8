package websocket

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	ws "github.com/gorilla/websocket"
)

// upgrader makes gorilla's connections, of which we use the reading half.
//
// CheckOrigin says yes because the gateway has compared the Origin with the API's
// `origins` before Serve was called. ReadBufferSize 0 takes over the buffer that net/http
// holds for the connection anyway. The pool keeps gorilla from allocating a buffer for
// writing that would never be used.
var upgrader = ws.Upgrader{
	CheckOrigin:     func(*http.Request) bool { return true },
	WriteBufferPool: new(sync.Pool),
	Error:           func(http.ResponseWriter, *http.Request, int, error) {}, // Upgrade returns it too
}

// handshake is what the upgrader gets to see: the client's was checked by accept, so that
// every fault of it could be answered by a status and a reason.
var handshake = &http.Request{Method: http.MethodGet, Header: http.Header{
	"Connection":            {"Upgrade"},
	"Upgrade":               {"websocket"},
	"Sec-Websocket-Version": {"13"},
	"Sec-Websocket-Key":     {"AAAAAAAAAAAAAAAAAAAAAA=="},
}}

// upgrade answers the handshake and takes the connection over.
//
// The 101 goes through the ResponseWriter, and not over the connection as gorilla would
// write it, so that the access log and the metrics know of it and all headers that were
// set on the way are in it.
func upgrade(w http.ResponseWriter, o offer) (*ws.Conn, *wire, error) {
	h := w.Header()
	h.Set("Upgrade", "websocket")
	h.Set("Connection", "Upgrade")
	h.Set("Sec-Websocket-Accept", acceptKey(o.key))
	if o.protocol {
		h.Set("Sec-Websocket-Protocol", Protocol)
	}
	w.WriteHeader(http.StatusSwitchingProtocols)
	t := taker{ResponseWriter: w}
	conn, err := upgrader.Upgrade(&t, handshake, nil)
	if err != nil {
		if t.wire != nil {
			_ = t.wire.Close() // it failed already; there is nothing to add
		}
		return nil, nil, fmt.Errorf("taking the connection over from the HTTP server: %w", err)
	}
	return conn, t.wire, nil
}

// taker is the http.Hijacker that gorilla v1.5.3 asks for. Under Caddy the ResponseWriter
// is none itself, and the ResponseController finds the one below.
type taker struct {
	http.ResponseWriter
	wire *wire
}

// Hijack implements http.Hijacker. A client may send its first frame as soon as it has
// the 101, which is before we get here: those bytes are kept for the first Read, because
// gorilla takes them for a breach of the handshake when it finds them in the buffer.
func (t *taker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, brw, err := http.NewResponseController(t.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	early, err := brw.Reader.Peek(brw.Reader.Buffered())
	if err != nil {
		_ = conn.Close() // the error of Peek says more
		return nil, nil, err
	}
	t.wire = &wire{Conn: conn, early: bytes.Clone(early)}
	brw.Reader.Reset(t.wire)
	return t.wire, brw, nil
}

// wire is the connection as gorilla sees it. It can be read, and notes that the client
// was heard. What gorilla writes of its own accord is dropped: the handshake was answered
// by upgrade, and pongs and close frames are sent by the session's writer, which is then
// the only one to write, so that nothing needs a lock, no deadline is moved by others and
// no frame follows a close frame.
type wire struct {
	net.Conn
	early []byte
	heard atomic.Bool
}

// Read implements net.Conn.
func (w *wire) Read(p []byte) (n int, err error) {
	if len(w.early) > 0 {
		n = copy(p, w.early)
		w.early = w.early[n:]
	} else {
		n, err = w.Conn.Read(p)
	}
	if n > 0 && !w.heard.Load() {
		w.heard.Store(true)
	}
	return n, err
}

// Write drops p; see above.
func (*wire) Write(p []byte) (int, error) { return len(p), nil }

// SetWriteDeadline leaves the deadline to the session's writer.
func (*wire) SetWriteDeadline(time.Time) error { return nil }

// Interface guards
var (
	_ http.Hijacker = (*taker)(nil)
	_ net.Conn      = (*wire)(nil)
)
