package servicebus

import (
	"context"
	"errors"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/caddy-message-api/caddy-message-api/endpoints/link"
)

// accepting is the context of a search for a session. The library tells the service to look
// until the context's deadline: we rather have its answer than a deadline.
type accepting struct {
	context.Context //nolint:containedctx // it is one
	wait            time.Duration
}

// Deadline implements context.Context.
func (a *accepting) Deadline() (time.Time, bool) { return time.Now().Add(a.wait), true }

// startSessions looks for the first session, and begins to read.
func (s *stream) startSessions(ctx context.Context) error {
	slots := make(chan struct{}, s.c.sessions)
	slots <- struct{}{}
	var src *source
	for {
		conn, err := living(ctx, s.link)
		if err != nil {
			return err
		}
		src, err = s.accept(ctx, conn, s.c.firstWait)
		if err == nil {
			break
		}
		if ctx.Err() != nil || conn.C.wire.failure() == nil {
			return err
		}
	}
	s.readers.Add(1)
	s.wg.Go(func() {
		defer s.readers.Done()
		s.acceptAll(src, slots)
	})
	return nil
}

// accept looks for a session. It returns nil if there is none now.
func (s *stream) accept(ctx context.Context, conn link.Conn[*connection], wait time.Duration) (*source, error) {
	begun := time.Now()
	r, err := s.session(&accepting{ctx, wait}, conn.C)
	switch {
	case err == nil:
		return s.use(conn, nil, r), nil
	case ctx.Err() != nil:
		s.complain(ctx, conn, begun)
	case reason(err).condition == condTimeout:
		return nil, nil //nolint:nilnil // there is none, which is no error
	}
	return nil, fault(s.what(), err)
}

// acceptAll looks for sessions as long as there are free slots, one of which is taken
// already.
func (s *stream) acceptAll(src *source, slots chan struct{}) {
	var h hopeless
	for try := 0; ; {
		if src != nil {
			s.serve(src, slots)
			try = 0
			select {
			case slots <- struct{}{}:
			case <-s.reading.Done():
				return
			}
		}
		conn, err := s.link.Await(s.reading)
		if err != nil {
			s.failUnlessStopped(err)
			return
		}
		begun := time.Now()
		ctx, cancel := context.WithTimeout(s.ctx, acceptWait+patience)
		stop := context.AfterFunc(s.reading, func() { time.AfterFunc(time.Until(begun.Add(s.c.setup)), cancel) })
		src, err = s.acceptUntil(ctx, conn)
		stop()
		cancel()
		switch {
		case s.reading.Err() != nil:
			if src != nil {
				s.lose(src)
			}
			return
		case err == nil && (src != nil || time.Since(begun) > time.Second):
			h, try = hopeless{}, 0
			continue
		case err != nil && h.says(err, s.c.endurance):
			s.fail(err)
			return
		}
		try++
		if !pause(s.reading, try) {
			return
		}
	}
}

// acceptUntil is accept, and ends with the connection.
func (s *stream) acceptUntil(ctx context.Context, conn link.Conn[*connection]) (*source, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	s.wg.Go(func() {
		select {
		case <-conn.Gone:
			cancel()
		case <-done:
		}
	})
	defer close(done)
	return s.accept(ctx, conn, acceptWait)
}

// serve reads a session in a goroutine of its own, and then frees its slot.
func (s *stream) serve(src *source, slots <-chan struct{}) {
	s.readers.Add(1)
	s.wg.Go(func() {
		defer s.readers.Done()
		defer func() { <-slots }()
		s.readSession(src)
		if s.reading.Err() == nil {
			s.lose(src)
		}
	})
}

// readSession receives until the session is lost, or has nothing more to give. It asks for
// one message at a time: what the library gives back because it was not asked in time would
// come again behind its successors.
func (s *stream) readSession(src *source) {
	for {
		if err := s.wantOne(src); err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(src.ctx, s.c.sessionIdle)
		stop := context.AfterFunc(s.reading, cancel)
		messages, err := receive(ctx, src, 1)
		stop()
		cancel()
		switch {
		case len(messages) > 0:
			s.add(src, messages)
		case src.ctx.Err() != nil || s.reading.Err() != nil:
			return
		case errors.Is(err, context.DeadlineExceeded):
			if s.isIdleSession(src) {
				return
			}
		case !s.unreadable(src, orLost(err)):
			return
		}
	}
}

// errSessionLost is what the library says with neither messages nor an error.
var errSessionLost = &azservicebus.Error{Code: azservicebus.CodeConnectionLost}

func orLost(err error) error {
	if err == nil {
		return errSessionLost
	}
	return err
}

// wantOne waits until there is room for another message of a session.
func (s *stream) wantOne(src *source) error {
	for {
		s.mu.Lock()
		free := s.out+len(s.ready) < s.window.Messages && src.ready < sessionAhead &&
			(s.outBytes+s.readyBytes < s.window.Bytes || s.out+len(s.ready) == 0) && (!s.deleting || s.hungry)
		s.mu.Unlock()
		if free {
			return nil
		}
		select {
		case <-src.room:
		case <-s.reading.Done():
			return s.reading.Err()
		case <-src.ctx.Done():
			return src.ctx.Err()
		}
	}
}

func (s *stream) isIdleSession(src *source) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return src.ready+src.out == 0
}
