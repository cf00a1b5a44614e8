package mqtt5

import (
	"context"
	"errors"
	"io"
	"time"
)

// How the sessions of an identity come, go and change hands.
//
// What the server has assigned to a session of a shared subscription is lost with it on
// some brokers. So no session ends before it is empty: what a stream leaves unsettled is
// read to its end by another stream of the identity, now or when the client comes back.

const (
	drainEvery = 100 * time.Millisecond
	// parting is how long a closing stream waits to learn whether its session is empty.
	parting = 500 * time.Millisecond
	// misses is how many missing sessions in a row end the search for more.
	misses  = 3
	maxSlot = 64
	// A session that the server closes maxFlaps times in a row without a word, each time
	// within flapTime, has another owner.
	maxFlaps = 3
	flapTime = 5 * time.Second
	// comeBackFirst and comeBackMost are when it is tried again.
	comeBackFirst = 10 * time.Second
	comeBackMost  = 10 * time.Minute
)

// settled is called when a session is connected and subscribed. If the stream moves to it,
// the move is done: what it had before is emptied.
func (ss *session) settled(c *conn) {
	s := ss.stream
	defer s.adjust() // what is wanted may have changed in the meantime
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.home
	if s.over || ss.role != home || old == ss || ss.conn != c {
		return
	}
	if ss.slot > old.slot { // it has moved further in the meantime
		ss, old = old, ss
	}
	s.home = ss
	old.role = draining
	if old.conn != nil {
		_ = old.unsubscribe() // else it is repeated with the next connection
	}
	s.work.Go(func() { s.drain(old) })
}

// suspect looks at why a connection ended: another process may have taken the session
// over. Servers have to say so, and not all do. Then two processes would take it from each
// other for ever. The stream's lock is held.
func (ss *session) suspect(err error) {
	reason, told := errors.AsType[*reasonError](err)
	switch {
	case ss.stream.over:
	case told && reason.code == reasonTakenOver:
		if !ss.stream.client.identities.wasLate(ss.stream.group.key, ss.slot) {
			ss.displaced()
		}
	case errors.Is(err, io.EOF) && time.Since(ss.up) < flapTime:
		if ss.flaps++; ss.flaps >= maxFlaps && ss.role == home {
			// It may also have been the network: so the session is not left for good.
			ss.flaps = 0
			ss.stream.comeBack(ss.slot)
			ss.displaced()
		}
	default:
		ss.flaps = 0
	}
}

// displaced is called when another process has the session. The stream's lock is held.
func (ss *session) displaced() {
	s := ss.stream
	if ss.role == home && ss == s.home {
		ss.slot = s.client.identities.displace(s.group, s, ss.slot)
		ss.id = s.client.sessionID(s.group.key, ss.slot)
		ss.known = false
		return
	}
	if ss.role == home { // the stream was about to move in
		s.client.identities.stay(s.group, s, ss.slot, s.home.slot)
	} else {
		s.client.identities.abandon(s.group, ss.slot)
	}
	ss.role = taken
	s.work.Go(func() { s.dismiss(ss, false) })
}

// comeBack has the stream move into a slot again after a while, at longer and longer
// intervals. The stream's lock is held.
func (s *stream) comeBack(n int) {
	s.patience = min(max(2*s.patience, comeBackFirst), comeBackMost)
	wait := s.patience
	s.work.Go(func() {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.closed:
			return
		}
		if s.client.identities.moveDown(s.group, s, n) && !s.take(n, true) {
			s.client.identities.abandon(s.group, n)
		}
	})
}

// dismiss ends the work on a session.
func (s *stream) dismiss(ss *session, end bool) {
	ss.leave(end)
	s.mu.Lock()
	delete(s.sessions, ss)
	s.mu.Unlock()
}

// take has the stream look after another session. It is false when the stream is closing.
func (s *stream) take(n int, asHome bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return false
	}
	id := s.client.sessionID(s.group.key, n)
	if asHome {
		s.newSession(n, id, home)
		return true
	}
	ss := s.newSession(n, id, draining)
	s.work.Go(func() { s.drain(ss) })
	return true
}

// drain reads a session that is not subscribed any more to its end, and ends it.
func (s *stream) drain(ss *session) {
	ticker := time.NewTicker(drainEvery)
	defer ticker.Stop()
	seen, quiet := uint64(0), 0
	for {
		select {
		case <-ticker.C:
		case <-s.closed:
			return
		}
		s.mu.Lock()
		c, arrivals, idle, gone := ss.conn, ss.arrivals, ss.idle(), ss.role == taken
		s.mu.Unlock()
		if gone {
			return
		}
		if !idle || arrivals != seen || !s.answers(c) {
			seen, quiet = arrivals, 0
			continue
		}
		// The server answered twice, had nothing to send in between, and is owed nothing.
		if quiet++; quiet < 2 || !s.client.identities.mayEnd(s.group, ss.slot) {
			continue
		}
		s.dismiss(ss, true)
		s.client.identities.abandon(s.group, ss.slot)
		return
	}
}

func (s *stream) answers(c *conn) bool {
	ctx, cancel := context.WithTimeout(context.Background(), parting)
	defer cancel()
	return c.barrier(ctx) == nil
}

// look begins to look for sessions of an earlier process, unless the stream is closing.
func (s *stream) look() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		s.work.Go(s.probe)
	}
	return !s.over
}

// probe looks for sessions that an earlier process has left behind.
func (s *stream) probe() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s.work.Go(func() {
		select {
		case <-s.closed:
			cancel()
		case <-ctx.Done():
		}
	})
	var err error
	for n, missed := 1, 0; missed < misses && n < maxSlot && err == nil; n++ {
		var present bool
		if present, err = s.peek(ctx, n); present {
			missed = 0
		} else {
			missed++
		}
	}
	s.client.identities.endProbe(s.group, err != nil)
}

// peek finds out whether a session exists, and takes it if so.
func (s *stream) peek(ctx context.Context, n int) (present bool, err error) {
	if !s.client.identities.claim(s.group, s, n) {
		return true, nil
	}
	present, err = s.client.hasSession(ctx, s.address(), s.client.sessionID(s.group.key, n))
	switch {
	case !present || err != nil:
		s.client.identities.gaveUp(s.group.key, n, err)
		s.client.identities.abandon(s.group, n)
	case !s.take(n, false):
		s.bequeath(n, false)
	}
	return present, err
}

// depart leaves the server, and what is unsettled to others.
func (s *stream) depart() {
	s.mu.Lock()
	sessions := make([]*session, 0, len(s.sessions))
	for ss := range s.sessions {
		sessions = append(sessions, ss)
	}
	s.mu.Unlock()
	if s.group == nil {
		for _, ss := range sessions {
			ss.leave(false)
		}
		return
	}
	homeSlot, keep := s.client.identities.retire(s.group, s)
	results := make(chan func(), len(sessions))
	for _, ss := range sessions {
		go func() { results <- s.part(ss, homeSlot, keep) }()
	}
	for range sessions {
		(<-results)()
	}
	s.client.identities.changed(s.group)
}

// part leaves one session, and returns what is to be done then.
func (s *stream) part(ss *session, homeSlot int, keepHome bool) (then func()) {
	s.mu.Lock()
	r, n := ss.role, ss.slot
	s.mu.Unlock()
	keep := n == homeSlot && keepHome
	switch {
	case r == taken:
		ss.leave(false)
		return func() {}
	case keep && r == home:
		s.alone(ss)
	case !keep && s.empty(ss) && s.client.identities.mayEnd(s.group, n):
		ss.leave(true)
		return func() { s.client.identities.abandon(s.group, n) }
	}
	ss.leave(false)
	return func() { s.bequeath(n, keep) }
}

// alone makes the subscriptions of a session plain that nobody shares any more.
func (s *stream) alone(ss *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ss.conn != nil && ss.shared && !ss.wantsShared() {
		_, _ = ss.subscribe() // else it is repeated with the next connection
	}
}

// empty unsubscribes, and reports whether the server has nothing more for the session.
func (s *stream) empty(ss *session) bool {
	s.mu.Lock()
	c := ss.conn
	gone := c == nil || ss.unsubscribe() != nil
	s.mu.Unlock()
	if gone || !s.answers(c) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return ss.idle() && ss.dropped == 0
}

// bequeath gives a session to another stream of the identity, if there is one.
func (s *stream) bequeath(n int, home bool) {
	for {
		heir, asHome := s.client.identities.heir(s.group, n, home)
		if heir == nil || heir.take(n, asHome) {
			return
		}
	}
}
