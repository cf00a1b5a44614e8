package servicebus

import (
	"context"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
)

// Stop takes no more messages from the service, and gives back what was not received. What
// was received can still be settled.
func (s *stream) Stop(ctx context.Context) error {
	s.mu.Lock()
	already := s.stopped || s.err != nil
	s.stopped = true
	s.mu.Unlock()
	signal(s.wake)
	if already {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s.stopReading()
	err := s.await(ctx)
	s.mu.Lock()
	back := s.takeBack(func(l *lent) bool { return l.state == isReady })
	s.mu.Unlock()
	s.giveBack(ctx, back)
	s.freeSessions()
	return err
}

// freeSessions gives up the sessions of which nothing is lent any more, when the stream is
// stopped.
func (s *stream) freeSessions() {
	s.mu.Lock()
	var free []*source
	for _, src := range s.sources {
		if s.stopped && s.err == nil && src.session != nil && src.ready+src.out == 0 {
			free = append(free, src)
		}
	}
	s.mu.Unlock()
	for _, src := range free {
		s.lose(src)
	}
}

// takeBack drops what is chosen. s.mu is held.
func (s *stream) takeBack(chosen func(*lent) bool) (back []*lent) {
	for l := s.first; l != nil; {
		following := l.next
		if chosen(l) {
			s.drop(l)
			back = append(back, l)
		}
		l = following
	}
	s.prune()
	return back
}

// await waits for those that receive. A connection on which that takes too long is of no
// use.
func (s *stream) await(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		s.readers.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	if conn, ok := s.link.Up(); ok {
		s.link.Drop(conn.Epoch, errMute)
	}
	return fault("stopping to read "+s.what(), ctx.Err())
}

// Close implements message.Stream.
func (s *stream) Close(ctx context.Context) error {
	s.once.Do(func() { s.close(ctx) })
	return nil
}

func (s *stream) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s.mu.Lock()
	if s.err == nil {
		s.err = errClosed
	}
	s.mu.Unlock()
	signal(s.wake)
	s.stopReading()
	waited := s.await(ctx) // the connection is dropped if it must be
	s.mu.Lock()
	back := s.takeBack(func(l *lent) bool { return l.state == isReady || l.state == isOut && !s.deleting })
	sources := s.sources
	s.sources = nil
	s.mu.Unlock()
	if waited == nil {
		s.detach(ctx, sources, back)
	} else {
		for _, src := range sources {
			s.closeSoon(src)
		}
	}
	s.cancel()
	done := make(chan struct{})
	go func() {
		s.wg.Wait()
		s.unhold()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done(): // the rest ends with the connection
	}
}

// detach gives everything back and closes the receivers.
//
// A receiver that may still be sent something would be sent again what it abandons, and
// what is on its way to a receiver that is closed stays locked until the lock is over. So
// that one is closed first, and what it has lent is abandoned by another, which only needs
// the lock's token. Sessions are given back with all that is in them.
func (s *stream) detach(ctx context.Context, sources []*source, back []*lent) {
	defer func() {
		for _, src := range sources {
			s.closeSoon(src)
		}
	}()
	if s.deleting || len(back) == 0 || len(sources) != 1 || sources[0].session != nil || sources[0].asked == 0 {
		s.giveBack(ctx, back)
		return
	}
	src := sources[0]
	s.closeSource(src)
	r, err := s.receiver(src.conn.C)
	if err != nil {
		return // the connection is gone, and with it the receiver
	}
	other := &source{receiver: r, plain: r, conn: src.conn, ctx: src.ctx}
	sources = []*source{other}
	for i, l := range back { // somebody may be renewing a lock yet
		back[i] = &lent{src: other, raw: &azservicebus.ReceivedMessage{LockToken: l.raw.LockToken}}
	}
	// The library makes the link when it is first needed, once for each who needs it then.
	s.giveBack(ctx, back[:1])
	s.giveBack(ctx, back[1:])
}
