package websocket

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	ws "github.com/gorilla/websocket"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// noCloseCode stands for a close frame without a code (RFC 6455 §7.4.1).
const noCloseCode = ws.CloseNoStatusReceived

// ending is why and how a session ends.
type ending struct {
	entrypoints.End
	code int
	// text is what the close frame says.
	text string
	// goaway: the sub-protocol tells more, in a frame before the close frame.
	goaway bool
	// answer: the client closes, and the close frame is the answer.
	answer bool
	// lost: there is no connection over which to say goodbye.
	lost bool
	// err is what goes to the log; nil when all went as it should.
	err error
}

func (e *ending) Error() string { return string(e.Reason) + ": " + e.Detail }

// end asks for the session to be ended; the first who asks decides how. A write that
// stands still must not hold up the goodbye, so its time is cut short.
func (s *session) end(e *ending) *ending {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.endLocked(e)
}

func (s *session) endLocked(e *ending) *ending {
	if s.ending == nil {
		s.ending = e
		s.setWriteDeadline(s.e.limits.closing)
		s.room.Broadcast()
		s.rouse()
	}
	return s.ending
}

func (s *session) setWriteDeadline(d time.Duration) {
	_ = s.wire.Conn.SetWriteDeadline(time.Now().Add(d)) // fails on a closed connection only, as the write will
}

// endedByGateway is called when the gateway ends the session.
func (s *session) endedByGateway(end entrypoints.End) {
	text := string(end.Reason)
	if end.Detail != "" {
		text += ": " + end.Detail
	}
	s.end(&ending{End: end, code: end.Reason.CloseCode(), text: text, goaway: true})
}

// brokerEnd is how a session ends whose subscription did.
func brokerEnd(err error) *ending {
	end := entrypoints.End{Reason: entrypoints.EndBroker, Detail: clientDetail(err)}
	return &ending{End: end, code: end.Reason.CloseCode(), text: end.Detail, goaway: true, err: err}
}

// lostCount is how a session ends whose numbers would mean other messages than the client
// has.
func lostCount() *ending {
	err := errors.New("the gateway lost count of the messages")
	end := entrypoints.End{Reason: entrypoints.EndBroker, Detail: err.Error()}
	return &ending{End: end, code: end.Reason.CloseCode(), text: end.Detail, goaway: true, err: err}
}

// gapEnd is how a raw session ends that would have to be told of a gap.
func gapEnd(gap *message.Gap) *ending {
	text := "gap: " + string(gap.Reason)
	if gap.Detail != "" {
		text += ": " + gap.Detail
	}
	end := entrypoints.End{Reason: entrypoints.EndSlow, Detail: text}
	if gap.Reason != message.GapSlow {
		end.Reason = entrypoints.EndBroker
	}
	return &ending{End: end, code: ws.CloseTryAgainLater, text: text}
}

// publishEnd is how a raw session ends in which message number n could not be published.
func publishEnd(n uint64, r *message.Result) *ending {
	problem := problemOf(r)
	end := entrypoints.End{
		Reason: entrypoints.EndBroker,
		Detail: fmt.Sprintf("publish %s: message %d: %s", r.Status, n, problem.Detail),
	}
	code := ws.CloseInternalServerErr
	switch problem.Status {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		code = ws.CloseTryAgainLater
	case http.StatusRequestEntityTooLarge:
		end.Reason, code = entrypoints.EndTooLarge, ws.CloseMessageTooBig
	}
	return &ending{End: end, code: code, text: end.Detail, err: r.Err}
}

// breach is how a session ends whose client did what the protocol does not allow.
func breach(code int, format string, args ...any) *ending {
	end := entrypoints.End{Reason: entrypoints.EndProtocol, Detail: fmt.Sprintf(format, args...)}
	e := &ending{End: end, code: code, text: end.Detail}
	e.err = errors.New("client broke the protocol: " + end.Detail)
	return e
}

// readEnd is how a session ends that can't be read any more.
func (s *session) readEnd(err error) *ending {
	closed, ok := errors.AsType[*ws.CloseError](err)
	switch {
	case ok && closed.Code != ws.CloseAbnormalClosure: // 1006 is how gorilla says EOF
		end := entrypoints.End{Reason: entrypoints.EndClient, Detail: cut(closed.Text, maxControl)}
		return &ending{End: end, code: closed.Code, answer: true}
	case errors.Is(err, ws.ErrReadLimit):
		end := entrypoints.End{
			Reason: entrypoints.EndTooLarge,
			Detail: fmt.Sprintf("a message is larger than %d bytes", s.e.MaxMessage),
		}
		return &ending{End: end, code: end.Reason.CloseCode(), text: end.Detail, err: err}
	case !ok && strings.HasPrefix(err.Error(), "websocket: "): // gorilla has no type for these
		return breach(ws.CloseProtocolError, "%s", strings.TrimPrefix(err.Error(), "websocket: "))
	}
	end := entrypoints.End{Reason: entrypoints.EndClient, Detail: "the client went away without a close frame"}
	return &ending{End: end, lost: true, err: err}
}

// sayGoodbye answers what is still under way, and closes as RFC 6455 §7 has it.
func (s *session) sayGoodbye(end *ending) {
	s.drain()
	if s.broken || end.lost {
		return
	}
	if s.envelope && end.goaway {
		s.own = appendGoaway(s.own, &end.End)
	}
	s.own = appendClose(s.own, end.code, end.text)
	s.setWriteDeadline(s.e.limits.closing)
	if s.flush(nil) == nil && !end.answer {
		s.awaitPeer()
	}
}

// drain gives publishes that were taken a moment to be confirmed: a client that sends a
// message and closes may count on it. Acknowledgements that came before the end count.
func (s *session) drain() {
	patience := time.NewTimer(s.e.limits.closing)
	defer patience.Stop()
	for {
		idle := s.publishIdle() // before take, which then sees all answers
		list, _ := s.take()
		s.settle(list)
		s.setWriteDeadline(s.e.limits.closing)
		if !s.broken {
			_ = s.flush(nil) // sets broken
		}
		if idle {
			return
		}
		select {
		case <-s.wake:
		case <-patience.C:
			return
		}
	}
}

// awaitPeer waits for the client's close frame. When the frames can't be read any more,
// it drops what comes until the client ends the connection: closing with unread bytes
// resets it, and the reset can overtake our close frame.
func (s *session) awaitPeer() {
	_ = s.wire.Conn.SetReadDeadline(time.Now().Add(s.e.limits.closing)) // a closed connection needs none
	<-s.readDone
	if closed, ok := errors.AsType[*ws.CloseError](s.readErr); ok && closed.Code != ws.CloseAbnormalClosure {
		return
	}
	_, _ = io.Copy(io.Discard, s.wire.Conn) // ends at the deadline at the latest
}
