package mqtt5

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

var errClosed = errors.New("the stream is closed")

// stream is one subscription: what came in and was not received or settled yet, within the
// window, by one session at the server, and for a while by those that it inherits.
type stream struct {
	client  *client
	spec    *spec
	sub     message.Subscription
	group   *group    // of a durable stream
	kept    *retained // of a broadcast
	closed  chan struct{}
	wake    chan struct{} // something may be ready
	closing sync.Once
	work    sync.WaitGroup

	mu    sync.Mutex
	roomy sync.Cond
	over  bool
	queue queue
	// held is what takes part in the window: waiting, or lent. lent is what was received
	// and not settled.
	held, lent load
	epoch      uint64
	home       *session
	sessions   map[*session]struct{}
	patience   time.Duration // before a lost session is tried again
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
	conn    *conn
	epoch   uint64
	size    int
	attempt int
	id      uint16
	qos     byte
	reason  byte // of the acknowledgement
	state   state
}

type state uint8

const (
	waiting state = iota
	lent
	done  // settled
	stale // it comes again by another connection
)

func newStream(c *client, s *spec, sub message.Subscription) *stream {
	st := &stream{
		client: c, spec: s, sub: sub,
		closed: make(chan struct{}), wake: make(chan struct{}, 1), sessions: make(map[*session]struct{}),
	}
	st.roomy.L = &st.mu
	if sub.Mode == message.Broadcast {
		st.kept = newRetained()
	}
	return st
}

// lends reports whether deliveries owe a settlement.
func (s *stream) lends() bool { return s.sub.Mode == message.Member }

// Receive implements message.Stream.
func (s *stream) Receive(ctx context.Context) (message.Batch, error) {
	for {
		batch, ok, err := s.ready()
		if ok || err != nil {
			return batch, err
		}
		select {
		case <-s.wake:
		case <-s.closed:
			return message.Batch{}, errClosed
		case <-ctx.Done():
			return message.Batch{}, ctx.Err()
		}
	}
}

// ready takes all that is waiting, within the window.
func (s *stream) ready() (batch message.Batch, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return batch, false, errClosed
	}
	full := s.full()
	var taken load
	if s.lends() {
		taken = s.lent
	}
	for {
		in, gap := s.queue.peek()
		if gap != nil {
			if len(batch.Deliveries) > 0 {
				s.signal()
				break
			}
			batch.Gap = gap
			s.queue.pop()
			if s.kept != nil {
				s.kept.forget()
			}
			continue
		}
		if in == nil || !s.fits(taken, in) {
			break
		}
		s.queue.pop()
		taken.add(in)
		if batch.Deliveries == nil {
			batch.Deliveries = make([]message.Delivery, 0, min(s.queue.len()+1, s.sub.Window.Messages))
		}
		batch.Deliveries = append(batch.Deliveries, s.hand(in))
	}
	if !s.lends() && len(batch.Deliveries) > 0 {
		s.acknowledge()
	}
	if full && !s.full() {
		s.roomy.Broadcast()
	}
	return batch, batch.Gap != nil || len(batch.Deliveries) > 0, nil
}

// fits reports whether in may be handed out beside what is out. One message may always.
func (s *stream) fits(out load, in *incoming) bool {
	return out.messages == 0 ||
		out.messages < s.sub.Window.Messages && out.bytes+in.size <= s.sub.Window.Bytes
}

// hand makes a delivery of in. In a broadcast it is settled by that.
func (s *stream) hand(in *incoming) message.Delivery {
	if s.lends() {
		in.state = lent
		s.lent.add(in)
	} else {
		in.state = done
		s.held.sub(in)
		s.kept.note(in)
	}
	topic, _ := in.Metadata[0].Value().(string)
	return message.Delivery{Message: &in.Message, Lane: topic, Attempt: in.attempt, Epoch: in.epoch, Handle: in}
}

// full reports whether nothing more may be read from the network. s.mu is held.
func (s *stream) full() bool {
	return s.held.messages >= s.sub.Window.Messages || s.held.bytes >= s.sub.Window.Bytes
}

func (s *stream) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Settle implements message.Stream. The server is told in the order in which it sent the
// messages, as MQTT demands: a settlement is held back until all before it are there.
func (s *stream) Settle(_ context.Context, how message.Settlement, deliveries ...message.Delivery) error {
	if !s.lends() {
		return nil // nothing is owed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	full, missed := s.full(), false
	for i := range deliveries {
		in, ok := deliveries[i].Handle.(*incoming)
		if !ok || in.session.stream != s {
			return message.Errorf(message.Internal, "the delivery is not one of this stream")
		}
		switch {
		case in.state == lent && in.attempt == deliveries[i].Attempt && (!s.over || in.qos == 0):
			s.settle(in, how)
		case in.qos > 0:
			missed = true
		}
	}
	if !s.over {
		s.acknowledge()
	}
	if full && !s.full() {
		s.roomy.Broadcast()
	}
	if missed {
		return message.ErrStale
	}
	return nil
}

// settle notes what became of a message. s.mu is held.
func (s *stream) settle(in *incoming, how message.Settlement) {
	s.lent.sub(in)
	if how == message.Release {
		in.state = waiting
		in.attempt++
		s.queue.unshift(in)
		s.signal()
		return
	}
	if how == message.Reject {
		in.reason = reasonImplementation
	}
	in.state = done
	s.held.sub(in)
	if in, _ := s.queue.peek(); in != nil {
		s.signal() // there may be room for it now
	}
}

// acknowledge tells the server what can be told. s.mu is held.
func (s *stream) acknowledge() {
	for ss := range s.sessions {
		ss.acknowledge()
	}
}

// arrive takes in a message. s.mu is held.
func (s *stream) arrive(in *incoming) {
	s.held.add(in)
	s.queue.push(in)
	s.signal()
}

// gapped tells the client of a gap, before whatever comes from now on. s.mu is held.
func (s *stream) gapped(detail string) {
	s.queue.mark(&message.Gap{Reason: message.GapConnection, Detail: detail})
	s.signal()
}

// Snapshot is what a client that joins a running broadcast should get first: the newest
// retained message of each topic.
func (s *stream) Snapshot() []message.Delivery {
	if s.kept == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept.deliveries()
}

// Close implements message.Stream.
func (s *stream) Close(context.Context) error {
	s.closing.Do(func() {
		s.mu.Lock()
		s.over = true
		close(s.closed)
		s.roomy.Broadcast()
		s.mu.Unlock()
		s.client.forget(s)
		s.depart()
		s.work.Wait()
	})
	return nil
}

var _ message.Stream = (*stream)(nil)
