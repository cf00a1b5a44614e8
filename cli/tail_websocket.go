package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	ws "github.com/gorilla/websocket"
)

// protocol is the sub-protocol in which there is more than contents.
const protocol = "message-api.v1+json"

// readWebSocket reads one WebSocket. After the first one it continues by cursor.
func (tl *tail) readWebSocket(ctx context.Context) error {
	dialer := ws.Dialer{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: tl.tls,
		HandshakeTimeout: tl.timeout, Subprotocols: []string{protocol},
	}
	u := tl.address(tl.cursor)
	u.Scheme = "ws" + strings.TrimPrefix(u.Scheme, "http")
	header := tl.header.Clone()
	for _, name := range []string{"Upgrade", "Connection", "Sec-Websocket-Key", "Sec-Websocket-Version", "Sec-Websocket-Extensions"} {
		header.Del(name) // the dialer's own
	}
	conn, resp, err := dialer.DialContext(ctx, u.String(), header)
	if err != nil {
		if resp != nil && errors.Is(err, ws.ErrBadHandshake) {
			return problemOf(resp)
		}
		return transportError(err)
	}
	s := &socket{tail: tl, conn: conn, enveloped: conn.Subprotocol() == protocol, acks: make(chan uint64, 1)}
	conn.SetReadLimit(maxEvent)
	return s.run(ctx)
}

// socket is one WebSocket.
type socket struct {
	*tail
	conn      *ws.Conn
	enveloped bool
	// acks is a place for the last number that can be acknowledged.
	acks chan uint64
}

// closing is how long a goodbye may take.
const closing = time.Second

// run reads. Writing is for another goroutine, so that a gateway that does not read does not
// stop the reading.
func (s *socket) run(ctx context.Context) error {
	stopped := make(chan struct{})
	writer := make(chan struct{})
	go func() {
		defer close(writer)
		s.write(ctx, stopped)
	}()
	err := s.read()
	close(stopped)
	<-writer
	// Closing with unread frames resets the connection, and the reset can overtake what was
	// acknowledged last. The deadline was set with the goodbye.
	for err == nil {
		if _, _, readErr := s.conn.ReadMessage(); readErr != nil {
			break
		}
	}
	_ = s.conn.Close() // it is over
	return err
}

// write sends acknowledgements and, at the end, a close frame. It closes the connection when
// ctx ends, which ends the reading.
func (s *socket) write(ctx context.Context, stopped <-chan struct{}) {
	goodbye := func() {
		text := ws.FormatCloseMessage(ws.CloseNormalClosure, "")
		_ = s.conn.WriteControl(ws.CloseMessage, text, time.Now().Add(closing)) // it may be closed
		_ = s.conn.SetReadDeadline(time.Now().Add(closing))
	}
	for {
		select {
		case <-ctx.Done():
			goodbye()
			return
		case seq := <-s.acks:
			s.ack(seq)
		case <-stopped:
			select { // what was printed last
			case seq := <-s.acks:
				s.ack(seq)
			default:
			}
			goodbye()
			return
		}
	}
}

// ack acknowledges all messages up to a number. Errors are left to the reading, which fails
// too, and knows more.
func (s *socket) ack(seq uint64) {
	_ = s.conn.SetWriteDeadline(time.Now().Add(maxRetry))
	_ = s.conn.WriteMessage(ws.TextMessage, fmt.Appendf(nil, `{"type":"ack","upto":%d}`, seq))
}

// acknowledge has a message acknowledged, with all before it.
func (s *socket) acknowledge(seq uint64) {
	select {
	case <-s.acks: // a later one takes its place
	default:
	}
	s.acks <- seq
}

func (s *socket) read() error {
	for {
		kind, raw, err := s.conn.ReadMessage()
		if err != nil {
			return s.lost(err)
		}
		enough := false
		if s.enveloped {
			enough, err = s.frame(raw)
		} else {
			enough, err = s.rawMessage(kind, raw)
		}
		if enough || err != nil {
			return err
		}
	}
}

// rawMessage handles a frame that is a message's content.
func (s *socket) rawMessage(kind int, raw []byte) (enough bool, err error) {
	e := &event{Type: typeMessage}
	e.setContent(raw, kind == ws.BinaryMessage)
	if err := s.deliver(e); err != nil {
		return false, err
	}
	return s.enough(), s.flush()
}

// frame handles a frame of the sub-protocol.
func (s *socket) frame(raw []byte) (enough bool, err error) {
	var f struct {
		event
		Seq       uint64
		Reconnect bool
		Retry     int64 `json:"retry_ms"`
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		return false, &ended{reason: "the gateway sent a frame that is no JSON"}
	}
	switch f.Type {
	case typeMessage:
		if err := s.deliver(&f.event); err != nil {
			return false, err
		}
		if err := s.flush(); err != nil {
			return false, err
		}
		if f.Seq > 0 {
			s.tracked = true
			s.acknowledge(f.Seq)
		}
		return s.enough(), nil
	case typeGap:
		if err := s.deliver(&event{Type: typeGap, Reason: f.Reason, Detail: f.Detail}); err != nil {
			return false, err
		}
		return false, s.flush()
	case "goaway":
		return false, goaway(f.Reason, f.Detail, f.Reconnect, time.Duration(f.Retry)*time.Millisecond)
	case "error":
		s.note("the gateway says: %s", f.Detail)
	}
	return false, nil
}

// comeBack are the close codes after which it makes sense (docs/sessions.md).
var comeBack = map[int]bool{
	ws.CloseGoingAway: true, ws.CloseServiceRestart: true, ws.CloseTryAgainLater: true,
	ws.CloseInternalServerErr: true, ws.CloseAbnormalClosure: true,
}

func (s *socket) lost(err error) error {
	if errors.Is(err, ws.ErrReadLimit) {
		return &ended{reason: errTooLong.Error()}
	}
	closed, ok := errors.AsType[*ws.CloseError](err)
	if !ok || closed.Code == ws.CloseAbnormalClosure {
		return &ended{reason: "the connection was lost: " + lostText(err), again: true}
	}
	if closed.Code == ws.CloseTryAgainLater && strings.HasPrefix(closed.Text, "gap") {
		reason, detail, _ := strings.Cut(strings.TrimPrefix(closed.Text, "gap: "), ": ")
		if err := s.deliver(&event{Type: typeGap, Reason: reason, Detail: detail}); err != nil {
			return err
		}
	}
	return &ended{
		reason: strings.TrimSpace(fmt.Sprintf("the gateway closed the WebSocket with %d %s", closed.Code, closed.Text)),
		again:  comeBack[closed.Code],
	}
}
