package servicebus

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/endpoints/link"
)

const (
	// How long to wait for the rest of what was asked for, once the first has come: what
	// waits for us comes at once, as fast as the line allows.
	leastGathering, gatheringEach, mostGathering = 5 * time.Millisecond, 500 * time.Microsecond, 100 * time.Millisecond
	// defaultOnItsWay is how long what was asked for may be on its way to us.
	defaultOnItsWay = 250 * time.Millisecond
	// backlog is how quickly messages have come that had waited for us.
	backlog = 250 * time.Millisecond
)

// errRecycle replaces a receiver that has received nothing for a long time.
var errRecycle = errors.New("nothing came for a long time")

// startPlain makes the first receiver, and begins to read.
func (s *stream) startPlain(ctx context.Context) error {
	for {
		conn, err := living(ctx, s.link)
		if err != nil {
			return err
		}
		src, err := s.attach(ctx, conn)
		if err == nil {
			s.readers.Add(1)
			s.wg.Go(func() {
				defer s.readers.Done()
				s.runPlain(src)
			})
			return nil
		}
		if ctx.Err() != nil || conn.C.wire.failure() == nil {
			return err
		}
	}
}

// attach makes a receiver, and waits until its link stands.
func (s *stream) attach(ctx context.Context, conn link.Conn[*connection]) (src *source, err error) {
	begun := time.Now()
	r, err := s.receiver(conn.C)
	if err != nil {
		return nil, fault(s.what(), err)
	}
	// The library makes links when they are first needed. Looking at a message needs one, and
	// takes none away. It may be one that the library can't read.
	defer func() {
		if p := recover(); p != nil {
			src, err = s.use(conn, r, nil), nil
		}
	}()
	if _, err := r.PeekMessages(ctx, 1, nil); err != nil {
		s.complain(ctx, conn, begun)
		s.closeSoon(&source{receiver: r, conn: conn})
		return nil, fault(s.what(), err)
	}
	return s.use(conn, r, nil), nil
}

// complain has the connection made anew if the service says nothing at all any more.
func (s *stream) complain(ctx context.Context, conn link.Conn[*connection], begun time.Time) {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) && conn.C.wire.silentSince(begun) {
		s.link.Drop(conn.Epoch, errMute)
	}
}

// runPlain reads until the stream ends.
func (s *stream) runPlain(src *source) {
	for try := 0; src != nil; {
		begun := time.Now()
		err := s.read(src)
		if s.reading.Err() != nil {
			return // its messages can still be settled
		}
		s.lose(src)
		if try++; time.Since(begun) > longestPause {
			try = 0 // what holds for a moment only is no better than a failure
		}
		src = s.again(err, try)
	}
}

// again makes another receiver, and tries until it has one or there is no hope.
func (s *stream) again(err error, try int) *source {
	var h hopeless
	for ; ; try++ {
		if err != nil && h.says(fault(s.what(), err), s.c.endurance) {
			s.fail(fault(s.what(), err))
			return nil
		}
		if try > 0 && !pause(s.reading, try) {
			return nil
		}
		conn, lost := s.link.Await(s.reading)
		if lost != nil {
			s.failUnlessStopped(lost)
			return nil
		}
		begun := time.Now()
		ctx, cancel := context.WithTimeout(s.ctx, patience)
		stop := context.AfterFunc(s.reading, func() { time.AfterFunc(time.Until(begun.Add(s.c.setup)), cancel) })
		var src *source
		src, err = s.attach(ctx, conn)
		stop()
		cancel()
		if err == nil {
			return src
		}
		if s.reading.Err() != nil {
			return nil
		}
	}
}

// read receives until the receiver is of no use any more, and says why.
//
// The library gives back what comes while it is not asked, and asks for more than has come
// remain with the service. So we begin with one, ask for more and more as long as all of it
// comes at once, and hardly ever have asked for what does not come.
func (s *stream) read(src *source) error {
	ask := 1
	for {
		n, err := s.want(src, ask)
		if err != nil {
			return err
		}
		begun := time.Now()
		if n > src.asked {
			src.issued = begun
		}
		ctx, cancel := context.WithTimeout(src.ctx, s.c.recycle)
		stop := context.AfterFunc(s.reading, func() { time.AfterFunc(time.Until(src.issued.Add(s.c.onItsWay)), cancel) })
		messages, err := receive(ctx, src, n)
		stop()
		cancel()
		got := len(messages)
		src.asked = max(n-got, 0)
		switch {
		case got > 0:
			s.add(src, messages)
			ask = next(ask, n, got, time.Since(begun))
		case src.ctx.Err() != nil || s.reading.Err() != nil:
			return nil
		case err == nil: // the link was lost
			return nil
		case errors.Is(err, context.DeadlineExceeded):
			if s.isIdle() {
				return errRecycle
			}
		default:
			if !s.unreadable(src, err) {
				return err
			}
			ask = 1
		}
	}
}

// next is how many to ask for after got of n have come.
func next(ask, n, got int, took time.Duration) int {
	switch {
	case got < n:
		return max(got, 1)
	case n >= ask && took < backlog:
		return min(2*ask, maxPrefetch)
	}
	return ask
}

// want waits until there is room, and says how many messages to wait for. When the stream
// is stopped, that is what the service has been asked for just now: it stays locked if
// nobody takes it.
func (s *stream) want(src *source, ask int) (int, error) {
	for {
		if n := s.quota(src, ask); n > 0 && s.reading.Err() == nil {
			return n, nil
		}
		select {
		case <-src.room:
		case <-s.reading.Done():
			if src.asked > 0 && time.Since(src.issued) < s.c.onItsWay {
				return src.asked, nil
			}
			return 0, s.reading.Err()
		case <-src.ctx.Done():
			return 0, src.ctx.Err()
		}
	}
}

// quota is how many messages may come now. One batch is read ahead and no more: what a
// client leaves behind counts as delivered once.
func (s *stream) quota(src *source, ask int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.deleting && !s.hungry:
		return 0
	case len(s.ready) > 0:
		return src.asked
	}
	most := s.window.Messages - s.out
	bySize := (s.window.Bytes - s.outBytes) / s.size
	if s.out == 0 {
		bySize = max(bySize, 1)
	}
	return max(src.asked, min(ask, most, bySize, maxPrefetch))
}

// isIdle reports whether nothing is held.
func (s *stream) isIdle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first == nil
}

// unreadable recognises a message that the library can't read.
func (s *stream) unreadable(src *source, err error) bool {
	if _, ok := errors.AsType[*panicError](err); !ok {
		return false
	}
	s.c.logger.Error("a message can't be read; it comes again until the service puts it aside",
		zap.String("from", s.at.String()), zap.Error(err))
	src.asked = 0
	return pause(src.ctx, 6)
}
