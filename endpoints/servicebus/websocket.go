package servicebus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/gorilla/websocket"
)

// socketPath is where the service speaks AMQP over WebSocket.
const socketPath = "/$servicebus/websocket/"

// socket is a connection whose bytes travel in the binary frames of a WebSocket, however
// they are cut there.
type socket struct {
	*websocket.Conn
	frame io.Reader // nil between frames
}

// openSocket connects, through a proxy if the environment names one, and shakes hands.
func (c *connConfig) openSocket(ctx context.Context, address string) (net.Conn, error) {
	u := &url.URL{Scheme: "wss", Host: address, Path: socketPath}
	if c.plain {
		u.Scheme = "ws"
	}
	d := websocket.Dialer{
		NetDialContext: c.net, TLSClientConfig: c.tls, Proxy: http.ProxyFromEnvironment, Subprotocols: []string{"amqp"},
	}
	ws, answer, err := d.DialContext(ctx, u.String(), nil)
	if err != nil {
		if answer != nil {
			return nil, fmt.Errorf("WebSocket at %s: %w (%s)", socketPath, err, answer.Status)
		}
		return nil, fmt.Errorf("WebSocket at %s: %w", socketPath, err)
	}
	return &socket{Conn: ws}, nil
}

// Read implements net.Conn.
func (s *socket) Read(p []byte) (int, error) {
	for {
		if s.frame == nil {
			kind, frame, err := s.NextReader()
			if _, closed := errors.AsType[*websocket.CloseError](err); closed {
				return 0, io.EOF
			}
			if err != nil {
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, errors.New("the service sent a WebSocket frame that is not binary")
			}
			s.frame = frame
		}
		n, err := s.frame.Read(p)
		if errors.Is(err, io.EOF) {
			s.frame, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// Write implements net.Conn.
func (s *socket) Write(p []byte) (int, error) {
	if err := s.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// SetDeadline implements net.Conn.
func (s *socket) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

var _ net.Conn = (*socket)(nil)
