package servicebustest

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

// transport is the stream of AMQP frames on a connection: TLS is taken off, and a WebSocket if the client asks for one.
func (s *Server) transport(raw net.Conn) (net.Conn, error) {
	if s.options.TLS != nil {
		raw = tls.Server(raw, s.options.TLS)
	}
	buffered := bufio.NewReader(raw)
	first, err := buffered.Peek(1)
	if err != nil {
		return nil, err
	}
	if first[0] != 'G' {
		return &bufferedConn{raw, buffered}, nil
	}
	request, err := http.ReadRequest(buffered)
	if err != nil {
		return nil, err
	}
	w := &upgrade{conn: raw, buffered: buffered, header: http.Header{}}
	if path := strings.TrimSuffix(request.URL.Path, "/"); path != "/$servicebus/websocket" {
		http.NotFound(w, request)
		return nil, errors.New("not the path of the WebSocket")
	}
	upgrader := websocket.Upgrader{Subprotocols: []string{"amqp", "AMQPWSB10"}, CheckOrigin: func(*http.Request) bool { return true }}
	ws, err := upgrader.Upgrade(w, request, nil)
	if err != nil {
		return nil, err
	}
	return &webSocketConn{Conn: ws}, nil
}

// bufferedConn reads first what was looked at.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (b *bufferedConn) Read(p []byte) (int, error) { return b.r.Read(p) }

// upgrade answers one HTTP request on a connection, and hands the connection out.
type upgrade struct {
	conn     net.Conn
	buffered *bufio.Reader
	header   http.Header
	began    bool
}

func (u *upgrade) Header() http.Header { return u.header }

func (u *upgrade) WriteHeader(status int) {
	if !u.began {
		u.began = true
		_, _ = io.WriteString(u.conn, "HTTP/1.1 "+http.StatusText(status)+"\r\nConnection: close\r\n\r\n")
	}
}

func (u *upgrade) Write(p []byte) (int, error) {
	u.WriteHeader(http.StatusOK)
	return u.conn.Write(p)
}

func (u *upgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return u.conn, bufio.NewReadWriter(u.buffered, bufio.NewWriter(u.conn)), nil
}

// webSocketConn is a stream made of binary messages.
type webSocketConn struct {
	*websocket.Conn
	rest io.Reader
}

func (w *webSocketConn) Read(p []byte) (int, error) {
	for {
		if w.rest == nil {
			_, r, err := w.NextReader()
			if err != nil {
				return 0, err
			}
			w.rest = r
		}
		n, err := w.rest.Read(p)
		if err == io.EOF {
			w.rest, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (w *webSocketConn) Write(p []byte) (int, error) {
	return len(p), w.WriteMessage(websocket.BinaryMessage, p)
}

func (w *webSocketConn) SetDeadline(t time.Time) error {
	return errors.Join(w.SetReadDeadline(t), w.SetWriteDeadline(t))
}

var (
	_ net.Conn            = (*webSocketConn)(nil)
	_ http.ResponseWriter = (*upgrade)(nil)
	_ http.Hijacker       = (*upgrade)(nil)
)
