package servicebus

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/caddy-message-api/caddy-message-api/endpoints/link"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// Between tries to read again.
const firstPause, longestPause = 20 * time.Millisecond, 2 * time.Second

// use takes a receiver into use.
func (s *stream) use(conn link.Conn[*connection], plain *azservicebus.Receiver, session *azservicebus.SessionReceiver) *source {
	src := &source{conn: conn, plain: plain, session: session, room: make(chan struct{}, 1), receiver: plain}
	if session != nil {
		src.receiver, src.lane = session, session.SessionID()
		src.until = session.LockedUntil()
		src.renewAt = renewal(time.Now(), src.until)
	}
	src.ctx, src.cancel = context.WithCancel(s.ctx)
	s.wg.Go(func() { // a source is of no use without its connection
		select {
		case <-conn.Gone:
			src.cancel()
		case <-src.ctx.Done():
		}
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if session == nil || len(s.sources) == 0 {
		s.epoch++
	}
	src.epoch = s.epoch
	s.sources = append(s.sources, src)
	if session != nil {
		signal(s.due)
	}
	return src
}

// lose ends a source. What it has lent comes again elsewhere.
func (s *stream) lose(src *source) {
	s.mu.Lock()
	if src.over {
		s.mu.Unlock()
		return
	}
	src.over = true
	if !s.deleting { // what the service has deleted is as good as it was
		if src.session != nil && src.out > 0 {
			s.revoked = append(s.revoked, src.lane)
		}
		s.forfeit(src)
	}
	s.sources = slices.DeleteFunc(s.sources, func(o *source) bool { return o == src })
	s.mu.Unlock()
	src.cancel()
	signal(s.wake)
	s.closeSoon(src)
}

// forfeit drops what a source has lent. s.mu is held.
func (s *stream) forfeit(src *source) {
	for l := s.first; l != nil; {
		next := l.next
		if l.src == src {
			s.drop(l)
		}
		l = next
	}
	s.prune()
	s.nudge()
}

// closeSoon closes a receiver without waiting for it.
func (s *stream) closeSoon(src *source) { s.wg.Go(func() { s.closeSource(src) }) }

// closeSource closes a receiver. On a connection that is gone it takes no time, and on one
// that says nothing it ends with it.
func (s *stream) closeSource(src *source) {
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	if src.conn.C.wire.failure() != nil {
		cancel()
	}
	_ = src.Close(ctx)
	s.rescue(src)
}

// rescue takes what the service had deleted and sent before the receiver was closed.
func (s *stream) rescue(src *source) {
	if !s.deleting {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	late, _ := receive(ctx, src, maxPrefetch)
	if len(late) == 0 {
		return
	}
	s.mu.Lock()
	ended := s.ended() != nil
	s.mu.Unlock()
	if ended {
		s.c.lost.Note(len(late), errClosed, zap.String("from", s.at.String()))
		return
	}
	s.add(&source{receiver: src.receiver, epoch: src.epoch, lane: src.lane}, late)
}

// receive asks for up to n messages, and waits for the first of them. The library trusts
// what messages say of themselves more than it should, and panics where that is wrong.
func receive(ctx context.Context, r receiver, n int) (messages []*azservicebus.ReceivedMessage, err error) {
	defer func() {
		if p := recover(); p != nil {
			messages, err = nil, &panicError{p}
		}
	}()
	gathering := min(leastGathering+time.Duration(n)*gatheringEach, mostGathering)
	return r.ReceiveMessages(ctx, n, &azservicebus.ReceiveMessagesOptions{TimeAfterFirstMessage: gathering})
}

// panicError is a message that the library can't read. It comes again, and at last the
// service puts it aside.
type panicError struct{ value any }

func (e *panicError) Error() string {
	return fmt.Sprintf("a message can't be read by the client library: %v", e.value)
}

// pause waits a while that grows with each try, spread so that not all come at once.
func pause(ctx context.Context, try int) bool {
	wait := min(firstPause<<min(try, 10), longestPause)
	timer := time.NewTimer(wait/2 + rand.N(wait))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// hopeless keeps count of how long reading was refused.
type hopeless struct{ since time.Time }

// says reports whether to give up.
func (h *hopeless) says(err error, endurance time.Duration) bool {
	switch message.KindOf(err) {
	case message.NotFound, message.Denied, message.Mismatch:
		if h.since.IsZero() {
			h.since = time.Now()
		}
		return time.Since(h.since) > endurance
	}
	h.since = time.Time{}
	return false
}
