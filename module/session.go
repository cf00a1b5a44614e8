package module

import (
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/plans"
	"github.com/caddy-message-api/caddy-message-api/plans/limits"
)

// session is one client's exchange. It implements entrypoints.Session.
type session struct {
	id        uint64
	unit      *unit
	way       *way
	app       *App
	principal plans.Principal
	key       principalKey
	// account keeps the session to message rates; nil without any. paced says that it slows
	// down reading.
	account     *limits.Account
	paced       bool
	maxSessions int
	identity    entrypoints.Identity
	request     *http.Request
	log         *zap.Logger
	proto       int
	started     time.Time
	counters    *wayCounters

	sent, sentBytes         atomic.Int64
	received, receivedBytes atomic.Int64

	pub publishing // set by the first Publish

	mu     sync.Mutex
	ended  *entrypoints.End
	onEnd  []*onEnd
	expiry *time.Timer
}

// onEnd is a function that wants to be called at the end.
type onEnd struct{ f func(entrypoints.End) }

// openSession registers a session; close must be called when the exchange is over.
func openSession(u *unit, w *way, app *App, g *grant, r *http.Request) (*session, error) {
	s := newSession(u, w, app, g, r)
	if err := s.open(); err != nil {
		return nil, err
	}
	return s, nil
}

// newSession makes a session that is not registered yet. A worker has no request.
func newSession(u *unit, w *way, app *App, g *grant, r *http.Request) *session {
	s := &session{
		unit: u, way: w, app: app, principal: g.principal, identity: g.identity, request: r,
		key: keyOf(&g.principal, g.inferred), started: time.Now(),
		log: w.log, account: g.account, paced: g.paced, maxSessions: g.maxSessions,
		counters: app.metrics.forWay(u.def.ID, w.needs.Type),
	}
	if r != nil {
		s.proto = r.ProtoMajor
	}
	return s
}

func (s *session) open() error {
	if err := sessions.add(s); err != nil {
		return err
	}
	if !s.principal.Expires.IsZero() {
		s.expiry = time.AfterFunc(time.Until(s.principal.Expires), func() {
			s.finish(entrypoints.End{Reason: entrypoints.EndExpired, Detail: "the credential or subscription has expired"})
		})
	}
	s.account = s.account.Hold()
	s.counters.open.Inc()
	watchExit()
	if s.unit.isRetired() { // between enter and here, so that its farewell missed us
		s.finish(s.unit.farewell())
	}
	return nil
}

// close is the end of the exchange. begun says that err is about an exchange that had
// begun, so that nothing can be answered any more.
func (s *session) close(err error) (begun bool) {
	end, begun := entrypoints.EndOf(err)
	if begun {
		s.finish(end)
	}
	sessions.remove(s)
	s.account.Release()
	if s.expiry != nil {
		s.expiry.Stop()
	}
	s.counters.open.Dec()
	s.logEnd(err)
	return begun
}

// Identity implements entrypoints.Session.
func (s *session) Identity() entrypoints.Identity { return s.identity }

// Withheld implements entrypoints.Session.
func (s *session) Withheld(header string) bool {
	switch header {
	case "Authorization", "Cookie":
		return true
	}
	return s.app.names.is(header) || slices.Contains(s.unit.withheld, header)
}

// Logger implements entrypoints.Session.
func (s *session) Logger() *zap.Logger {
	return s.log.With(zap.Uint64("session", s.id), zap.String("client", s.identity.Client))
}

// OnEnd implements entrypoints.Session.
func (s *session) OnEnd(f func(entrypoints.End)) (forget func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != nil {
		go f(*s.ended)
		return func() {}
	}
	entry := &onEnd{f}
	s.onEnd = append(s.onEnd, entry)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.onEnd = slices.DeleteFunc(s.onEnd, func(e *onEnd) bool { return e == entry })
	}
}

// finish ends the session; the first reason counts.
func (s *session) finish(end entrypoints.End) {
	s.mu.Lock()
	if s.ended != nil {
		s.mu.Unlock()
		return
	}
	s.ended = &end
	calls := s.onEnd
	s.onEnd = nil
	s.mu.Unlock()
	s.app.metrics.ended.WithLabelValues(s.unit.def.ID, s.way.needs.Type, string(end.Reason)).Inc()
	for _, c := range calls {
		c.f(end)
	}
}

func (s *session) endReason() (end entrypoints.End, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended == nil {
		return end, false
	}
	return *s.ended, true
}

// Every implements entrypoints.Session.
func (s *session) Every(d time.Duration, f func(now time.Time)) (stop func()) {
	return wheel.every(d, f)
}

// Sent implements entrypoints.Session.
func (s *session) Sent(messages, bytes int) {
	s.sent.Add(int64(messages))
	s.sentBytes.Add(int64(bytes))
	s.counters.sent.Add(float64(messages))
	s.counters.sentBytes.Add(float64(bytes))
}

// Received implements entrypoints.Session.
func (s *session) Received(messages, bytes int) {
	s.received.Add(int64(messages))
	s.receivedBytes.Add(int64(bytes))
	s.counters.received.Add(float64(messages))
	s.counters.receivedBytes.Add(float64(bytes))
}

// logEnd says what a session came to, once: at info for streams, at debug for the rest.
func (s *session) logEnd(err error) {
	level := zap.DebugLevel
	if s.way.needs.Subscribe {
		level = zap.InfoLevel
	}
	end, ok := s.endReason()
	if !ok {
		end.Reason = entrypoints.EndDone
	}
	if c := s.log.Check(level, "session ended"); c != nil {
		c.Write(
			zap.Uint64("session", s.id), zap.String("plan", s.principal.Plan),
			zap.String("subscription", s.principal.Subscription), zap.String("client", s.identity.Client),
			zap.String("request_id", s.identity.RequestID), zap.String("reason", string(end.Reason)),
			zap.Duration("duration", time.Since(s.started)),
			zap.Int64("sent", s.sent.Load()), zap.Int64("sent_bytes", s.sentBytes.Load()),
			zap.Int64("received", s.received.Load()), zap.Int64("received_bytes", s.receivedBytes.Load()),
			zap.Error(err),
		)
	}
}

// Interface guard.
var _ entrypoints.Session = (*session)(nil)
