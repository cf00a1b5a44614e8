package rabbitmq

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/caddy-message-api/caddy-message-api/endpoints/link"
	"github.com/caddy-message-api/caddy-message-api/message"
)

const (
	// endurance: see consumer.
	endurance = 15 * time.Second
	// Between tries to read again.
	firstPause, longestPause = 20 * time.Millisecond, 2 * time.Second
)

var (
	errClosed  = errors.New("the stream is closed")
	errStopped = errors.New("the stream takes no more messages")
)

// arrival is a delivery that was not received yet.
type arrival struct {
	amqp.Delivery
	by *session
}

// reader keeps a channel open for a stream, and collects what comes by it until it is
// received. The broker sends no more than the prefetch, which is the window.
type reader struct {
	c       *consumer
	what    string // names what is read
	link    *link.Link[*connection]
	release func()
	window  message.Window
	// begin makes a session. again says that the stream lost one before, and the gap is
	// what was lost with it.
	begin func(ctx context.Context, conn *connection, again bool) (*session, *message.Gap, error)
	// adopt, if there is one, is told of a session before it is used. It holds r.mu.
	adopt func(s *session)
	// counted, if there is one, is told of each delivery that is added. It holds r.mu.
	counted func(s *session, d *amqp.Delivery)
	// inspect, if there is one, looks at each delivery before it is added, and may say that
	// something is missing before it.
	inspect func(s *session, d *amqp.Delivery) *message.Gap
	// keep says that what was not received when a session is lost is still good.
	keep bool

	//nolint:containedctx // the life of the stream, which outlives the call that made it
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{} // the reader's goroutine has ended
	wake   chan struct{} // something is ready, or the end has come
	once   sync.Once

	mu      sync.Mutex
	cur     *session // nil while there is none
	ready   []arrival
	gap     *message.Gap
	gapAt   int // how much of ready comes before the gap
	err     error
	stopped bool
}

// start makes the first session.
func (r *reader) start(ctx context.Context) error {
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.done, r.wake = make(chan struct{}), make(chan struct{}, 1)
	r.link, r.release = r.c.lease(r.what)
	s, gap, err := r.first(ctx)
	if err != nil {
		r.cancel()
		r.release()
		return err
	}
	r.resume(s, gap)
	go r.run(s)
	return nil
}

// first makes the first session. The connection that is known may have broken without
// anybody having noticed yet.
func (r *reader) first(ctx context.Context) (*session, *message.Gap, error) {
	for {
		conn, err := living(ctx, r.link)
		if err != nil {
			return nil, nil, err
		}
		s, gap, err := r.session(ctx, conn, false)
		if err == nil || ctx.Err() != nil || !conn.IsClosed() {
			return s, gap, explain(err)
		}
	}
}

// session makes a session, and gives up with ctx.
func (r *reader) session(ctx context.Context, conn *connection, again bool) (*session, *message.Gap, error) {
	var gap *message.Gap
	s, err := within(ctx, func() (s *session, err error) {
		s, gap, err = r.begin(ctx, conn, again)
		return s, err
	}, func(s *session) { _ = s.ch.Close() })
	switch {
	case err == nil:
		r.c.trust(r.what)
		return s, gap, nil
	case errors.Is(err, context.DeadlineExceeded) && r.ctx.Err() == nil:
		r.c.doubt(r.what)
	}
	return nil, nil, err
}

// move changes to the connection that is for what the broker does not answer about.
func (r *reader) move() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return // and it was released
	}
	r.release()
	r.link, r.release = r.c.lease(r.what)
}

// run reads until the stream ends.
func (r *reader) run(s *session) {
	defer close(r.done)
	for s != nil {
		for i := range s.peeked {
			r.add(s, &s.peeked[i])
		}
		s.peeked = nil
		for more := s.deliveries; more != nil; more = r.following(s) {
			for d := range more {
				r.add(s, &d)
			}
		}
		if !r.lost(s) {
			return
		}
		s = r.again()
	}
}

// following is where deliveries come from after a consumer was replaced by another.
func (r *reader) following(s *session) <-chan amqp.Delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := s.flow.following
	s.flow.following = nil
	return next
}

// add keeps a delivery until it is received. Deliveries of two consumers of one channel
// may overtake each other on their way through the library.
func (r *reader) add(s *session, d *amqp.Delivery) {
	var gap *message.Gap
	if r.inspect != nil {
		gap = r.inspect(s, d)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil || s != r.cur {
		return
	}
	if gap != nil && r.gap == nil {
		r.gap, r.gapAt = gap, len(r.ready)
	}
	n := len(r.ready)
	r.ready = append(r.ready, arrival{*d, s})
	for ; n > 0 && r.ready[n-1].by == s && r.ready[n-1].DeliveryTag > d.DeliveryTag; n-- {
		r.ready[n-1], r.ready[n] = r.ready[n], r.ready[n-1]
	}
	if r.counted != nil {
		r.counted(s, d)
	}
	signal(r.wake)
}

// lost notes that a session is over. It is false when there shall be no other.
func (r *reader) lost(s *session) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil || r.stopped {
		return false
	}
	r.cur = nil
	if !r.keep {
		r.ready, r.gapAt = nil, 0
	}
	if !s.ch.IsClosed() { // only the consumer was cancelled: the queue is gone
		go s.close(r.ctx)
	}
	return true
}

// again makes another session, and tries until it has one or there is no hope.
func (r *reader) again() *session {
	var refused time.Time
	for try := 0; ; try++ {
		conn, err := r.link.Await(r.ctx)
		if err != nil {
			r.fail(err)
			return nil
		}
		// A broker that has just started forgets to answer about queues that are not ready
		// yet, so the first tries are short.
		ctx, cancel := context.WithTimeout(r.ctx, min(time.Second<<min(try, 4), patience))
		s, gap, err := r.session(ctx, conn.C, true)
		cancel()
		if err == nil {
			if r.resume(s, gap) {
				return s
			}
			s.close(r.ctx)
			return nil
		}
		if errors.Is(err, context.DeadlineExceeded) {
			r.move()
		}
		err = explain(err)
		switch message.KindOf(err) {
		case message.NotFound, message.Denied, message.Mismatch:
			if refused.IsZero() {
				refused = time.Now()
			}
			if time.Since(refused) > r.c.endurance {
				r.fail(err)
				return nil
			}
		default:
			refused = time.Time{}
		}
		if !pause(r.ctx, try) {
			return nil
		}
	}
}

// resume takes a new session into use. It is false when the stream has ended meanwhile.
func (r *reader) resume(s *session, gap *message.Gap) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil || r.stopped {
		return false
	}
	r.cur = s
	if r.adopt != nil {
		r.adopt(s)
	}
	if gap != nil && r.gap == nil {
		r.gap, r.gapAt = gap, len(r.ready)
		signal(r.wake)
	}
	return true
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

// fail ends the stream for good.
func (r *reader) fail(err error) {
	r.mu.Lock()
	if r.err == nil {
		r.err = err
	}
	r.mu.Unlock()
	signal(r.wake)
}

// wait waits until something may be ready.
func (r *reader) wait(ctx context.Context) error {
	select {
	case <-r.wake:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ended is why the stream has ended, if it has. r.mu is held.
func (r *reader) ended() error {
	if r.err == nil && r.stopped {
		return errStopped
	}
	return r.err
}

// takeGap moves the gap into a batch, when its time has come. r.mu is held.
func (r *reader) takeGap(b *message.Batch) {
	if r.gap != nil && r.gapAt == 0 {
		b.Gap, r.gap = r.gap, nil
	}
}

// due is how many of the ready deliveries come before the next gap. r.mu is held.
func (r *reader) due() int {
	if r.gap != nil {
		return r.gapAt
	}
	return len(r.ready)
}

// taken removes the first n of what is ready. r.mu is held.
func (r *reader) taken(n int) {
	clear(r.ready[:n])
	if r.ready = r.ready[n:]; len(r.ready) == 0 {
		r.ready = nil
	}
	if r.gap != nil {
		r.gapAt -= n
	}
}
