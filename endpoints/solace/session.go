//go:build cgo && (linux || darwin)

package solace

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	api "solace.dev/go/messaging/pkg/solace"
	apimessage "solace.dev/go/messaging/pkg/solace/message"

	"github.com/caddy-message-api/caddy-message-api/endpoints/link"
	"github.com/caddy-message-api/caddy-message-api/message"
)

const (
	// endurance: see consumer.
	endurance = 15 * time.Second
	// Between tries to read again.
	firstPause, longestPause = 20 * time.Millisecond, 2 * time.Second
)

var errClosed = errors.New("the stream is closed")

// source is what a session receives from: a flow of a queue, or a direct subscription.
type source interface {
	ReceiveMessage(timeout time.Duration) (apimessage.InboundMessage, error)
	Terminate(grace time.Duration) error
}

// session is one receiver of the library. A stream that loses it goes on with another;
// what came by the old one can't be settled any more.
type session struct {
	from  source
	flow  api.PersistentMessageReceiver // nil for a direct subscription
	svc   *service
	epoch uint64
	lane  string
	gone  chan struct{} // the library has ended the receiver
	// lost is closed when the connection is given up, of which the library tells only when
	// it comes to the end of disconnecting.
	lost <-chan struct{}
	why  atomic.Pointer[error]

	discarded uint64 // by the library, so far; the pump's own
	// lent is what was received and not settled. It is guarded by the stream.
	lent []*incoming
}

// terminated is the library's listener, and must not wait.
func (ss *session) terminated(event api.TerminationEvent) {
	if err := event.GetCause(); err != nil {
		ss.why.Store(&err)
	}
	close(ss.gone) // there is one termination in a receiver's life
}

// end ends the receiver, if that takes no time. The broker takes back what is not settled.
func (ss *session) end(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, _ = within(ctx, func() (struct{}, error) { return struct{}{}, ss.from.Terminate(0) }, nil)
	ss.svc.unbound.Store(time.Now().UnixNano())
}

// beginner makes a session. again says that the stream lost one before, and the gap is
// what was lost with it.
type beginner func(conn link.Conn[*service], again bool) (*session, *message.Gap, error)

// start makes the first session.
func (s *stream) start(ctx context.Context) error {
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.done, s.wake, s.room = make(chan struct{}), make(chan struct{}, 1), make(chan struct{}, 1)
	s.link, s.release = s.c.lease(!s.lends())
	ss, gap, err := s.first(ctx)
	if err != nil {
		s.cancel()
		s.release()
		return err
	}
	s.resume(ss, gap)
	go s.run(ss)
	return nil
}

// first makes the first session. The connection that is known may have broken without
// anybody having noticed yet.
func (s *stream) first(ctx context.Context) (*session, *message.Gap, error) {
	for {
		conn, err := s.link.Get(ctx)
		if err != nil {
			return nil, nil, err
		}
		var ss *session
		var gap *message.Gap
		if err = errBroken; conn.C.IsConnected() {
			if ss, gap, err = s.session(ctx, conn, false); err == nil {
				return ss, gap, nil
			}
			if !isBroken(err) {
				return nil, nil, fault("reading "+s.what, err)
			}
		}
		if !s.gone(ctx, conn, err) {
			return nil, nil, fault("reading "+s.what, err)
		}
	}
}

// gone gives a connection up, and waits until the link has noticed.
func (s *stream) gone(ctx context.Context, conn link.Conn[*service], err error) bool {
	s.link.Drop(conn.Epoch, err)
	select {
	case <-conn.Gone:
		return true
	case <-ctx.Done():
		return false
	}
}

// session makes a session, and gives up with ctx.
func (s *stream) session(ctx context.Context, conn link.Conn[*service], again bool) (*session, *message.Gap, error) {
	type made struct {
		*session
		gap *message.Gap
	}
	m, err := within(ctx, func() (made, error) {
		ss, gap, err := s.begin(conn, again)
		return made{ss, gap}, err
	}, func(m made) { m.end(context.Background()) })
	return m.session, m.gap, err
}

// run reads until the stream ends.
func (s *stream) run(ss *session) {
	defer close(s.done)
	for ss != nil {
		s.pump(ss)
		if !s.lost(ss) {
			return
		}
		ss = s.again()
	}
}

// A receiver that gets nothing looks around this often: a direct subscription for what the
// library has dropped and nothing came after, and both for a connection that is lost.
const (
	lookAround     = time.Second
	lookAroundIdle = 5 * time.Second
)

// pump takes messages from the library as long as there is room for them.
func (s *stream) pump(ss *session) {
	wait := lookAround
	if s.lends() {
		wait = lookAroundIdle
	}
	for s.hasRoom(ss) {
		in, err := ss.from.ReceiveMessage(wait)
		if err == nil {
			s.add(ss, in)
			continue
		}
		var late *api.TimeoutError
		if !errors.As(err, &late) {
			return
		}
		select {
		case <-ss.lost:
			return
		default:
		}
		if !s.lends() {
			s.lookForDrops(ss)
		}
	}
}

// hasRoom waits until the window has room for one more message. It is false when the
// session is over.
func (s *stream) hasRoom(ss *session) bool {
	for {
		s.mu.Lock()
		over, full := s.cur != ss, s.full()
		s.mu.Unlock()
		if over || !full {
			return !over
		}
		select {
		case <-s.room:
		case <-ss.gone:
			return false
		case <-ss.lost:
			return false
		case <-s.ctx.Done():
			return false
		}
	}
}

// lost notes that a session is over. It is false when there shall be no other.
func (s *stream) lost(ss *session) bool {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return false
	}
	s.cur = nil
	s.forget(ss)
	s.mu.Unlock()
	if why := ss.why.Load(); why != nil && ss.svc.IsConnected() {
		s.c.cfg.logger.Warn("the broker has ended a subscription, which is made again", zap.String("what", s.what), zap.Error(*why))
	}
	ss.end(s.ctx) // it is over already, unless something went wrong with it
	return true
}

// again makes another session, and tries until it has one or there is no hope.
func (s *stream) again() *session {
	var refused time.Time
	// Not at once: a receiver may learn that its connection broke before the connection does,
	// and what is begun on it in that moment, the library never finishes.
	for try := 0; pause(s.ctx, try); try++ {
		conn, err := s.link.Await(s.ctx)
		if err != nil {
			s.fail(err)
			return nil
		}
		if !conn.C.IsConnected() {
			s.gone(s.ctx, conn, errBroken)
			continue
		}
		ctx, cancel := context.WithTimeout(s.ctx, patience)
		ss, gap, err := s.session(ctx, conn, true)
		cancel()
		if err == nil {
			if s.resume(ss, gap) {
				return ss
			}
			ss.end(context.Background())
			return nil
		}
		if isBroken(err) {
			s.link.Drop(conn.Epoch, err)
		}
		switch known := fault("reading "+s.what, err); known.Kind {
		case message.NotFound, message.Denied, message.Mismatch, message.BadInput:
			if refused.IsZero() {
				refused = time.Now()
			}
			if time.Since(refused) > s.c.endurance {
				s.fail(known)
				return nil
			}
		default:
			refused = time.Time{}
		}
	}
	return nil
}

// resume takes a new session into use. It is false when the stream has ended meanwhile.
func (s *stream) resume(ss *session, gap *message.Gap) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return false
	}
	s.cur = ss
	s.missed(gap)
	return true
}

// fail ends the stream for good.
func (s *stream) fail(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	s.mu.Unlock()
	signal(s.wake)
}

// Close implements message.Stream. The broker takes back what is not settled when the flow
// ends; before that, the library tells it what was.
func (s *stream) Close(ctx context.Context) error {
	s.once.Do(func() { s.close(ctx) })
	return nil
}

func (s *stream) close(ctx context.Context) {
	s.mu.Lock()
	if s.err == nil || s.cur != nil {
		s.err = errClosed
	}
	ss := s.cur
	s.cur = nil
	if ss != nil {
		s.forget(ss)
	}
	s.mu.Unlock()
	defer s.release()
	s.cancel()
	signal(s.wake)
	if ss != nil {
		ss.end(ctx)
	}
	select {
	case <-s.done:
	case <-ctx.Done():
	}
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

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
