package websocket

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
	"unicode/utf8"

	ws "github.com/gorilla/websocket"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// What may be under way before the reader stops reading, so that the client's own
// connection holds it back.
const (
	maxFrames     = 64 << 10 // bytes of answers that are not written yet
	maxIdleFrames = 1 << 10  // a buffer larger than this is given up after use
	maxSettling   = 4096     // numbers that are not settled yet
)

// errSilent is in the log when a client was given up.
var errSilent = errors.New("no sign of life")

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// putBuffer keeps a buffer for the next message, unless it grew beyond what is usual.
func putBuffer(b *bytes.Buffer) {
	if b.Cap() <= chunkSize {
		buffers.Put(b)
	}
}

// read is the reader's loop. What breaks our rules and not those of RFC 6455 leaves the
// connection readable, and the client's close frame is still to come.
func (s *session) read() {
	defer close(s.readDone)
	for {
		opcode, r, err := s.conn.NextReader()
		if err != nil {
			s.readErr = err
			s.end(s.readEnd(err))
			return
		}
		if end, ok := errors.AsType[*ending](s.readMessage(opcode, r)); ok {
			s.end(end) // any other error is kept by gorilla, and comes again
		}
	}
}

func (s *session) readMessage(opcode int, r io.Reader) error {
	if s.ended() { // what comes after the end has begun is dropped, in search of a close frame
		_, err := io.Copy(io.Discard, r)
		return err
	}
	b := buffers.Get().(*bytes.Buffer)
	defer putBuffer(b)
	b.Reset()
	if _, err := b.ReadFrom(r); err != nil {
		return err
	}
	data := b.Bytes()
	switch {
	case opcode == ws.TextMessage && !utf8.Valid(data):
		return breach(ws.CloseInvalidFramePayloadData, "a text frame is not UTF-8")
	case !s.envelope:
		return s.rawMessage(data)
	case opcode != ws.TextMessage:
		return breach(ws.CloseUnsupportedData, "%s has text frames only", Protocol)
	default:
		return s.commandFrame(data)
	}
}

func (s *session) ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ending != nil
}

func (s *session) rawMessage(data []byte) error {
	if !s.e.publisher {
		return breach(ws.ClosePolicyViolation, "this WebSocket takes no messages")
	}
	s.gw.Received(1, len(data))
	s.enqueue(&message.Message{Payload: append(make([]byte, 0, len(data)), data...)}, "")
	return nil
}

func (s *session) commandFrame(data []byte) error {
	c, err := parseCommand(data)
	switch {
	case err != nil:
		return breach(ws.CloseInvalidFramePayloadData, "%v", err)
	case c.kind != publishKind:
		s.gw.Received(0, len(data))
		s.settleCommand(&c)
		return nil
	}
	s.gw.Received(1, len(data))
	switch {
	case c.fault != "":
		s.refuse(c.ref, message.BadInput.String(), http.StatusBadRequest, c.fault)
	case !s.e.publisher:
		s.refuse(c.ref, "publisher-off", http.StatusForbidden, "this WebSocket takes no messages")
	default:
		m := c.message // of its own, so that it does not keep the whole command
		s.enqueue(&m, c.ref)
	}
	return nil
}

// settleCommand passes a settlement on, and everything that is none to the error frame.
func (s *session) settleCommand(c *command) {
	fault := c.fault
	switch {
	case fault != "":
	case !s.e.subscriber:
		fault = "there is nothing to settle: this WebSocket only publishes"
	case !s.acks:
		fault = "there is nothing to settle: at qos " + s.e.QoS.String() + " the gateway does it"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.awaitRoom() {
		return
	}
	if fault != "" {
		s.frames = appendError(s.frames, c.ref, fault)
	} else {
		s.settlements = append(s.settlements, settlement{how: c.kind.settlement(), ref: c.ref, seqs: c.seqs, upTo: c.upTo})
		s.settling += max(1, len(c.seqs))
	}
	s.rouse()
}

func (s *session) refuse(ref, slug string, status int, detail string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.awaitRoom() {
		s.frames = appendFailure(s.frames, "refused", ref,
			&entrypoints.Problem{Status: status, Slug: slug, Detail: detail})
		s.rouse()
	}
}

// awaitRoom holds the reader while too much is under way, and with it the client. It
// returns false when the session ends. The caller holds mu.
func (s *session) awaitRoom() bool {
	for s.ending == nil && (len(s.frames) >= maxFrames || s.settling >= maxSettling || s.publishing.full()) {
		s.held = true
		s.room.Wait()
	}
	s.held = false
	return s.ending == nil
}

// pinged has the writer answer a ping. Of several the last is answered, which RFC 6455
// §5.5.3 allows, so that a client can't pile them up.
func (s *session) pinged(data string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pong = &data
	s.rouse()
	return nil
}

// sweep looks for a sign of life: after one interval without any the client is asked for
// one, and after another it is given up. One that we do not read, because it sent more
// than we can pass on, can't give any.
func (s *session) sweep(time.Time) {
	heard := s.wire.heard.Swap(false)
	s.mu.Lock()
	defer s.mu.Unlock()
	if heard || s.held {
		s.silent = 0
		return
	}
	s.silent++
	if s.silent == 1 {
		s.ping = true
		s.rouse()
		return
	}
	s.endLocked(&ending{
		End:  entrypoints.End{Reason: entrypoints.EndClient, Detail: "the client did not answer a ping"},
		lost: true, err: errSilent,
	})
}
