package mqtt5

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"time"

	"github.com/gorilla/websocket"
)

// socket is a connection whose bytes travel in the binary frames of a WebSocket, however
// they are cut there.
type socket struct {
	*websocket.Conn
	frame io.Reader // nil between frames
}

// openSocket shakes hands on a connection that stands, encrypted or not.
func openSocket(ctx context.Context, conn net.Conn, address *url.URL) (net.Conn, error) {
	use := func(context.Context, string, string) (net.Conn, error) { return conn, nil }
	d := websocket.Dialer{NetDialContext: use, NetDialTLSContext: use, Subprotocols: []string{"mqtt"}}
	ws, answer, err := d.DialContext(ctx, address.String(), nil)
	if err != nil {
		if answer != nil {
			return nil, fmt.Errorf("WebSocket at %s: %w (%s)", address.Path, err, answer.Status)
		}
		return nil, fmt.Errorf("WebSocket at %s: %w", address.Path, err)
	}
	if ws.Subprotocol() != "mqtt" {
		return nil, fmt.Errorf("WebSocket at %s: it does not speak MQTT (sub-protocol %q)", address.Path, ws.Subprotocol())
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
				return 0, errors.New("the server sent a WebSocket frame that is not binary")
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
