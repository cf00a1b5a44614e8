//go:build cgo && (linux || darwin)

package solace

import (
	"context"
	"sync"

	apimessage "solace.dev/go/messaging/pkg/solace/message"

	"github.com/caddy-message-api/caddy-message-api/endpoints/link"
	"github.com/caddy-message-api/caddy-message-api/message"
)

const (
	// batchBytes is how much one Receive returns at most, unless a single message is larger.
	// The gateway keeps batches whole, so they should be neither tiny nor huge.
	batchBytes = 64 << 10
	// A broker sends direct messages whether anybody reads them or not. This is how much of
	// them waits for the reader before the oldest is dropped.
	backlogMessages, backlogBytes = 8192, 8 << 20
)

// stream is one subscription: what came in and was not received or settled yet, within the
// window.
type stream struct {
	c     *consumer
	spec  *spec
	sub   message.Subscription
	queue string // "" for a direct subscription
	what  string // names what is read, for people
	begin beginner

	link    *link.Link[*service]
	release func()
	//nolint:containedctx // the life of the stream, which outlives the call that made it
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{} // the pump has ended
	wake   chan struct{} // something is ready, or the end has come
	room   chan struct{} // there may be room in the window
	once   sync.Once

	mu    sync.Mutex
	cur   *session // nil while there is none
	ready []*incoming
	// held is what takes part in the window: ready, or lent. lent is what was received and
	// not settled.
	held, lent load
	gap        *message.Gap
	gapAt      int // how much of ready comes before the gap
	err        error
}

// load is a number of messages and their size.
type load struct{ messages, bytes int }

func (l *load) add(in *incoming) {
	l.messages++
	l.bytes += in.size
}

func (l *load) sub(in *incoming) {
	l.messages--
	l.bytes -= in.size
}

// incoming is a message that came in. It is the handle of its deliveries.
type incoming struct {
	message.Message
	session *session
	// in is the library's message, by which it is settled; nil when that is over.
	in      apimessage.InboundMessage
	size    int
	attempt int
	at      int // in session.lent, or -1
}

// lends reports whether deliveries owe a settlement.
func (s *stream) lends() bool { return s.sub.Mode != message.Broadcast }

// full reports whether the window has no room. What does not lend never waits: the library
// would drop the newest instead of the oldest. s.mu is held.
func (s *stream) full() bool {
	return s.lends() && (s.held.messages >= s.sub.Window.Messages || s.held.bytes >= s.sub.Window.Bytes)
}

// add keeps a message until it is received.
func (s *stream) add(ss *session, in apimessage.InboundMessage) {
	m := &incoming{session: ss, attempt: 1, at: -1}
	decode(in, s.c.raw, &m.Message)
	m.size = m.Size()
	var gap *message.Gap
	if s.lends() {
		m.in = in
		if in.IsRedelivered() {
			m.attempt = 0 // how often, the broker does not say
		}
	} else {
		gap = s.droppedBefore(ss, in)
		in.Dispose()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cur != ss {
		m.dispose()
		return
	}
	s.missed(gap)
	s.ready = append(s.ready, m)
	s.held.add(m)
	if !s.lends() {
		s.bound()
	}
	signal(s.wake)
}

// bound drops the oldest messages of a direct subscription when too many wait. s.mu is
// held.
func (s *stream) bound() {
	most := load{max(backlogMessages, s.sub.Window.Messages), max(backlogBytes, s.sub.Window.Bytes)}
	for len(s.ready) > 1 && (s.held.messages > most.messages || s.held.bytes > most.bytes) {
		s.held.sub(s.ready[0])
		s.taken(1)
		if s.gap == nil {
			s.gap = slow("the gateway did not read direct messages fast enough, and dropped the oldest")
		}
		s.gapAt = 0
	}
}

func slow(detail string) *message.Gap { return &message.Gap{Reason: message.GapSlow, Detail: detail} }

// missed notes a gap behind what is ready. s.mu is held.
func (s *stream) missed(gap *message.Gap) {
	if gap != nil && s.gap == nil {
		s.gap, s.gapAt = gap, len(s.ready)
		signal(s.wake)
	}
}

// forget drops what came by a session that is over: it comes again. What is not lent but
// given stays. s.mu is held.
func (s *stream) forget(ss *session) {
	for _, m := range ss.lent {
		m.at = -1
		m.dispose()
	}
	ss.lent = nil
	if s.lends() {
		for _, m := range s.ready {
			m.dispose()
		}
		s.ready, s.gapAt = nil, 0
		s.held, s.lent = load{}, load{}
	}
	signal(s.room)
}

// dispose frees what the library holds of a message.
func (m *incoming) dispose() {
	if m.in != nil {
		m.in.Dispose()
		m.in = nil
	}
}

// Receive implements message.Stream.
func (s *stream) Receive(ctx context.Context) (message.Batch, error) {
	for {
		b, err := s.take()
		if err != nil || len(b.Deliveries) > 0 || b.Gap != nil {
			return b, err
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return message.Batch{}, ctx.Err()
		}
	}
}

// take returns what is ready, as far as the window allows.
func (s *stream) take() (b message.Batch, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		signal(s.wake) // whoever asks next shall know it too
		return b, s.err
	}
	if s.gap != nil && s.gapAt == 0 {
		b.Gap, s.gap = s.gap, nil
	}
	n := len(s.ready)
	if s.gap != nil {
		n = s.gapAt
	}
	var out load
	if s.lends() {
		out = s.lent
	}
	most, batch := s.sub.Window, 0
	for _, m := range s.ready[:n] {
		alone := out.messages == 0
		if !alone && (out.messages >= most.Messages || out.bytes+m.size > most.Bytes || batch+m.size > batchBytes && batch > 0) {
			break
		}
		out.add(m)
		batch += m.size
		if b.Deliveries == nil {
			b.Deliveries = make([]message.Delivery, 0, min(n, most.Messages))
		}
		b.Deliveries = append(b.Deliveries, s.hand(m))
	}
	s.taken(len(b.Deliveries))
	if len(s.ready) > 0 {
		signal(s.wake) // as much as there is room for
	}
	return b, nil
}

// hand makes a delivery of a message, and the account of it. s.mu is held.
func (s *stream) hand(m *incoming) message.Delivery {
	if s.lends() {
		s.lent.add(m)
		m.at = len(m.session.lent)
		m.session.lent = append(m.session.lent, m)
	} else {
		s.held.sub(m)
	}
	return message.Delivery{Message: &m.Message, Lane: m.session.lane, Attempt: m.attempt, Epoch: m.session.epoch, Handle: m}
}

// taken removes the first n of what is ready. s.mu is held.
func (s *stream) taken(n int) {
	clear(s.ready[:n])
	if s.ready = s.ready[n:]; len(s.ready) == 0 {
		s.ready = nil
	}
	if s.gap != nil {
		s.gapAt = max(s.gapAt-n, 0)
	}
}

var _ message.Stream = (*stream)(nil)
