package websocket

import (
	"context"
	"errors"
	"net/http"
	"os"
	"sync"
	"time"

	ws "github.com/gorilla/websocket"
	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// session is one connection. Two goroutines serve it: the handler's writes, and is the
// only one to write; the other reads. A third runs while something is being published.
type session struct {
	e        *Entrypoint
	gw       entrypoints.Session
	envelope bool
	acks     bool // the client acknowledges by number
	numbered bool // messages carry a number
	ctx      context.Context

	// The writer's own.
	feed     entrypoints.Feed // nil when subscriber is off
	conn     *ws.Conn
	wire     *wire
	deadline time.Time
	broken   bool   // a write failed, maybe in the middle of a frame: nothing may follow
	own      []byte // frames of ours that are written next
	open     outstanding

	wake     chan struct{} // one slot: there may be something to do
	readDone chan struct{}
	readErr  error // why the reader ended; read it after readDone

	mu          sync.Mutex
	room        sync.Cond // the reader waits for less to be under way
	frames      []byte    // frames of ours, from reader and publisher
	settlements []settlement
	settling    int // numbers in settlements
	pong        *string
	ping        bool
	held        bool // the reader waits
	silent      int  // sweeps without a sign of life
	ending      *ending
	publishing  publishing
}

// Serve runs one WebSocket to its end.
func (e *Entrypoint) Serve(w http.ResponseWriter, r *http.Request, gw entrypoints.Session) error {
	o, err := e.accept(w, r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	s := &session{
		e: e, gw: gw, ctx: ctx,
		envelope: o.protocol,
		numbered: o.protocol && e.needsProtocol(),
		acks:     o.protocol && e.QoS == message.AtLeastOnce,
		wake:     make(chan struct{}, 1),
		readDone: make(chan struct{}),
	}
	s.room.L = &s.mu
	if err := s.subscribe(o); err != nil {
		return err
	}
	defer s.closeFeed()
	if s.conn, s.wire, err = upgrade(w, o); err != nil {
		gw.Logger().Warn("upgrade failed", zap.Error(err))
		return nil // the status was sent
	}
	end := s.run(cancel)
	return &entrypoints.Ended{End: end.End, Err: end.err}
}

// subscribe comes before the upgrade, so that a broker that is down or a bad cursor can
// be answered by a status.
func (s *session) subscribe(o offer) (err error) {
	if !s.e.subscriber {
		return nil
	}
	s.feed, err = s.gw.Subscribe(s.ctx, entrypoints.Want{
		Cursor: o.cursor, Resuming: o.cursor != "", From: o.from,
		Encoder: s.encoder(),
		Wake:    s.rouse,
	})
	return err
}

func (s *session) encoder() entrypoints.Encoder {
	if s.envelope {
		return envelopeEncoder{}
	}
	return rawEncoder(s.e.Frames)
}

// closeFeed gives back what the client has not settled. It has a moment of its own,
// because the request's may be over.
func (s *session) closeFeed() {
	if s.feed == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), s.e.limits.finish)
	defer cancel()
	if err := s.feed.Close(ctx); err != nil {
		s.gw.Logger().Warn("closing the subscription failed", zap.Error(err))
	}
}

// run serves the connection until it is closed.
func (s *session) run(cancel context.CancelFunc) *ending {
	defer func() { _ = s.wire.Close() }() // a panic would otherwise leave connection and reader behind
	s.conn.SetReadLimit(s.e.MaxMessage)
	s.conn.SetPingHandler(s.pinged)
	s.conn.SetCloseHandler(func(int, string) error { return nil }) // the writer answers, when it is its turn
	go s.read()
	forget := s.gw.OnEnd(s.endedByGateway)
	defer forget()
	if s.e.ping > 0 {
		stop := s.gw.Every(s.e.ping, s.sweep)
		defer stop()
	}
	end := s.write()
	s.sayGoodbye(end)
	_ = s.wire.Close() // the end is decided; a failing close changes nothing about it
	<-s.readDone
	s.finishPublishing(cancel)
	return end
}

// rouse tells the writer that there may be something to do.
func (s *session) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// write is the writer's loop. It returns why the session ends.
func (s *session) write() *ending {
	for {
		list, end := s.take()
		if end != nil {
			s.settle(list)
			return end
		}
		s.settle(list)
		busy, err := s.pump()
		if end := s.endOf(err); end != nil {
			return end
		}
		if !busy {
			<-s.wake
		}
	}
}

// take collects what the others left for the writer: frames into own, settlements as the
// result, and the reason to end if there is one.
func (s *session) take() ([]settlement, *ending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takeFrames()
	list := s.settlements
	s.settlements, s.settling = nil, 0
	s.room.Broadcast()
	return list, s.ending
}

// takeFrames moves frames to own, control frames first. The caller holds mu.
func (s *session) takeFrames() {
	if s.pong != nil {
		s.own = append(append(s.own, pongFrame, byte(len(*s.pong))), *s.pong...)
		s.pong = nil
	}
	if s.ping {
		s.own = append(s.own, pingFrame, 0)
		s.ping = false
	}
	if len(s.frames) == 0 {
		return
	}
	if len(s.own) == 0 {
		s.own, s.frames = s.frames, s.own
		return
	}
	s.own = append(s.own, s.frames...)
	s.frames = s.frames[:0]
}

// pump writes our own frames and what the feed has, and says whether there was anything.
func (s *session) pump() (busy bool, err error) {
	var burst entrypoints.Burst
	if s.feed != nil {
		if burst, err = s.feed.Poll(0); err != nil {
			return false, brokerEnd(err)
		}
	}
	if burst.Empty() && len(s.own) == 0 {
		return false, nil
	}
	if burst.Gap != nil {
		if !s.envelope { // a raw client can't be told in any other way
			return false, gapEnd(burst.Gap)
		}
		s.own = appendGap(s.own, burst.Gap)
	}
	if s.numbered && burst.Messages > 0 {
		err = s.flushNumbered(&burst)
	} else {
		err = s.flush(burst.Frames)
	}
	if err != nil {
		return false, err
	}
	if burst.Messages > 0 {
		s.gw.Sent(burst.Messages, burst.Bytes)
		if err := s.feed.Written(s.ctx); err != nil {
			s.gw.Logger().Warn("settling what was written failed", zap.Error(err))
		}
	}
	return true, nil
}

// flushNumbered writes a burst whose messages carry numbers.
func (s *session) flushNumbered(burst *entrypoints.Burst) error {
	chunk := chunks.Get().(*[]byte)
	defer chunks.Put(chunk)
	buf, seq, frames := (*chunk)[:0], burst.First, make([][]byte, 0, 1)
	for _, frame := range burst.Frames {
		var n int
		buf, n = appendNumbered(buf, frame, seq)
		seq += uint64(n)
	}
	if seq != burst.First+uint64(burst.Messages) {
		s.gw.Logger().Error("a burst does not hold as many messages as it says",
			zap.Int("says", burst.Messages), zap.Uint64("holds", seq-burst.First))
		return lostCount()
	}
	if s.acks {
		s.open.add(burst.First, burst.Messages)
	}
	return s.flush(append(frames, buf))
}

// endOf makes an ending of what pump returned. An end that somebody else has called for
// comes first: it is why the feed or the connection failed.
func (s *session) endOf(err error) *ending {
	if err == nil {
		return nil
	}
	end, ok := errors.AsType[*ending](err)
	switch {
	case ok:
	case errors.Is(err, errInterrupted):
		end = &ending{}
	case errors.Is(err, os.ErrDeadlineExceeded):
		end = &ending{End: entrypoints.End{Reason: entrypoints.EndSlow, Detail: "the client did not read"}, lost: true, err: err}
	default:
		end = &ending{End: entrypoints.End{Reason: entrypoints.EndClient, Detail: "the connection broke"}, lost: true, err: err}
	}
	return s.end(end)
}
