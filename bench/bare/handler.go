package bare

import (
	"bufio"
	"encoding/binary"
	"net"
	"net/http"
	"path"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/gorilla/websocket"
)

func init() {
	caddy.RegisterModule(new(Handler))
	httpcaddyfile.RegisterHandlerDirective("bench_bare", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		return new(Handler), nil
	})
	httpcaddyfile.RegisterDirectiveOrder("bench_bare", httpcaddyfile.Before, "reverse_proxy")
}

// Handler fans out what comes over a WebSocket whose path ends in /pub to event streams
// (/sse) and WebSockets (/ws).
type Handler struct {
	sse, ws  *hub
	upgrader websocket.Upgrader
}

// CaddyModule tells Caddy who we are.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.bench_bare", New: func() caddy.Module { return new(Handler) }}
}

// Provision makes the hubs.
func (h *Handler) Provision(caddy.Context) error {
	h.sse, h.ws = newHub(), newHub()
	h.upgrader.CheckOrigin = func(*http.Request) bool { return true }
	h.upgrader.WriteBufferPool = new(sync.Pool) // or gorilla would share the buffer that we write through
	newest.Store(h)
	return nil
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	switch path.Base(r.URL.Path) {
	case "sse":
		return h.serveSSE(w, r)
	case "ws":
		return h.serveWS(w, r)
	case "pub":
		return h.servePublisher(w, r)
	}
	return next.ServeHTTP(w, r)
}

func (h *Handler) serveSSE(w http.ResponseWriter, r *http.Request) error {
	s := h.sse.join()
	defer h.sse.leave(s)
	w.Header().Set("Content-Type", "text/event-stream")
	rc := http.NewResponseController(w)
	if err := rc.Flush(); err != nil {
		return err
	}
	var spare [][]byte
	for {
		select {
		case <-r.Context().Done():
			return nil
		case <-s.wake:
		}
		backlog := s.take(spare)
		for _, event := range backlog {
			if _, err := w.Write(event); err != nil {
				return nil // the client is gone
			}
		}
		if err := rc.Flush(); err != nil {
			return nil // the client is gone
		}
		clear(backlog)
		spare = backlog[:0]
	}
}

func (h *Handler) serveWS(w http.ResponseWriter, r *http.Request) error {
	s := h.ws.join()
	defer h.ws.leave(s)
	t := &taker{ResponseWriter: w}
	conn, err := h.upgrader.Upgrade(t, r, nil)
	if err != nil {
		return nil // gorilla has answered
	}
	defer func() { _ = conn.Close() }()
	gone := make(chan struct{})
	go func() { // clients send nothing but their farewell
		defer close(gone)
		_, _, _ = conn.ReadMessage()
	}()
	var spare [][]byte
	for {
		select {
		case <-gone:
			return nil
		case <-s.wake:
		}
		backlog := s.take(spare)
		for _, frame := range backlog {
			if _, err := t.buffer.Write(frame); err != nil {
				return nil // the client is gone
			}
		}
		if err := t.buffer.Flush(); err != nil {
			return nil // the client is gone
		}
		clear(backlog)
		spare = backlog[:0]
	}
}

func (h *Handler) servePublisher(w http.ResponseWriter, r *http.Request) error {
	conn, err := h.upgrader.Upgrade(&taker{ResponseWriter: w}, r, nil)
	if err != nil {
		return nil // gorilla has answered
	}
	defer func() { _ = conn.Close() }()
	for {
		_, content, err := conn.ReadMessage()
		if err != nil {
			return nil // the client is gone
		}
		h.publish(content)
	}
}

// Publish hands a message, which must be one line, to the subscribers of the handler that
// was made last. It is for messages that come from a broker.
func Publish(content []byte) {
	if h := newest.Load(); h != nil {
		h.publish(content)
	}
}

var newest atomic.Pointer[Handler]

// publish encodes a message, which must be one line, once for each format.
func (h *Handler) publish(content []byte) {
	if !h.sse.empty() {
		event := append([]byte("event: message\ndata: "), content...)
		h.sse.send(append(event, "\n\n"...))
	}
	if !h.ws.empty() {
		h.ws.send(append(frameHeader(len(content)), content...))
	}
}

// frameHeader is that of an unmasked text frame.
func frameHeader(n int) []byte {
	switch {
	case n <= 125:
		return []byte{0x81, byte(n)}
	case n <= 0xFFFF:
		return binary.BigEndian.AppendUint16([]byte{0x81, 126}, uint16(n))
	default:
		return binary.BigEndian.AppendUint64([]byte{0x81, 127}, uint64(n))
	}
}

// taker is the http.Hijacker that gorilla asks for, and keeps the connection's buffered
// writer: under Caddy only the ResponseController finds the one below.
type taker struct {
	http.ResponseWriter
	buffer *bufio.Writer
}

// Hijack implements http.Hijacker.
func (t *taker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, brw, err := http.NewResponseController(t.ResponseWriter).Hijack()
	if err == nil {
		t.buffer = brw.Writer
	}
	return conn, brw, err
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ http.Hijacker               = (*taker)(nil)
)
