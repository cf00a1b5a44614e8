package servicebus

import (
	"context"
	"sync"
	"time"
)

const (
	// renewers is how many locks of a stream are renewed at a time.
	renewers = 16
	// leastRenewal and mostRenewal bound when a lock is renewed, should the clocks of the
	// service and of this machine differ: locks last for five minutes at most.
	leastRenewal, mostRenewal = 100 * time.Millisecond, 150 * time.Second
	// blindRenewal is often enough for the shortest lock there is, 5s.
	blindRenewal = 2 * time.Second
	// tolerance is how much earlier than necessary locks are renewed together with others.
	tolerance = 20
)

// renewal is when to renew a lock: after half of its time.
func renewal(now, until time.Time) time.Time {
	switch {
	case until.IsZero():
		return now.Add(mostRenewal)
	case !until.After(now): // the clocks differ by more than a lock lasts
		return now.Add(blindRenewal)
	}
	return now.Add(min(max(until.Sub(now)/2, leastRenewal), mostRenewal))
}

// renew keeps the locks of what is held, and gives back what was held for too long. It is
// the one goroutine of a stream that does.
func (s *stream) renew() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		wait := s.nextDue()
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-s.due:
			continue
		case <-s.ctx.Done():
			return
		}
		s.renewAll()
	}
}

// nextDue is how long nothing has to be done.
func (s *stream) nextDue() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	at := now.Add(time.Hour)
	for l := s.first; l != nil; l = l.next {
		if l.src.session == nil && l.renewAt.Before(at) {
			at = l.renewAt
		}
		if l.giveBack.Before(at) {
			at = l.giveBack
		}
	}
	for _, src := range s.sources {
		if src.session != nil && src.renewAt.Before(at) {
			at = src.renewAt
		}
	}
	return max(at.Sub(now), 0)
}

// renewAll does what is due.
func (s *stream) renewAll() {
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	locks, sessions, back := s.allDue()
	var wg sync.WaitGroup
	if len(back) > 0 {
		wg.Go(func() { s.giveBack(ctx, back) })
	}
	room := make(chan struct{}, renewers)
	each := func(f func()) {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			f()
		})
	}
	for _, src := range sessions {
		each(func() { s.renewSession(ctx, src) })
	}
	for _, l := range locks {
		each(func() { s.renewLock(ctx, l) })
	}
	wg.Wait()
}

// allDue finds what has to be done now. What was held for too long is dropped.
func (s *stream) allDue() (locks []*lent, sessions []*source, back []*lent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for l := s.first; l != nil; {
		following := l.next // dropping forgets it
		switch {
		case l.state == isSettling:
		case !now.Before(l.giveBack):
			s.drop(l)
			back = append(back, l)
		case l.src.session == nil && !now.Before(l.renewAt.Add(-l.until.Sub(now)/tolerance)):
			locks = append(locks, l)
		}
		l = following
	}
	if len(back) > 0 {
		s.prune()
		s.nudge()
		signal(s.wake)
	}
	for _, src := range s.sources {
		if src.session != nil && !now.Before(src.renewAt) {
			sessions = append(sessions, src)
		}
	}
	return locks, sessions, back
}

// renewLock renews one message's lock.
func (s *stream) renewLock(ctx context.Context, l *lent) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.src.ctx, cancel)()
	begun := time.Now()
	err := guarded(func() error { return l.src.plain.RenewMessageLock(ctx, l.raw, nil) })
	s.mu.Lock()
	now := time.Now()
	switch {
	case l.state == isOver || l.state == isSettling:
	case err == nil:
		l.until = *l.raw.LockedUntil
		l.renewAt = renewal(begun, l.until)
	case reason(err).condition == condLockLost || !l.until.IsZero() && now.After(l.until):
		s.drop(l)
		s.prune()
		s.nudge()
		signal(s.wake)
	default:
		l.renewAt = now.Add(max(l.until.Sub(now)/4, leastRenewal))
	}
	s.mu.Unlock()
	if err != nil {
		s.complain(ctx, l.src.conn, begun)
	}
}

// renewSession renews a session's lock. A session that is lost is somebody else's.
func (s *stream) renewSession(ctx context.Context, src *source) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(src.ctx, cancel)()
	begun := time.Now()
	err := guarded(func() error { return src.session.RenewSessionLock(ctx, nil) })
	s.mu.Lock()
	now := time.Now()
	lost := false
	switch {
	case err == nil:
		src.until = src.session.LockedUntil()
		src.renewAt = renewal(begun, src.until)
	default:
		c := reason(err).condition
		lost = c == condLockLost || c == condSessionLost || now.After(src.until)
		src.renewAt = now.Add(max(src.until.Sub(now)/4, leastRenewal))
	}
	s.mu.Unlock()
	if lost {
		s.lose(src)
	} else if err != nil {
		s.complain(ctx, src.conn, begun)
	}
}

// guarded calls the library, which panics where an answer is not what it expects.
func guarded(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &panicError{p}
		}
	}()
	return f()
}
