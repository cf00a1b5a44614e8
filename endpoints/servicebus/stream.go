package servicebus

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/caddy-message-api/caddy-message-api/endpoints/link"
	"github.com/caddy-message-api/caddy-message-api/message"
)

const (
	// batchBytes is how much one Receive returns at most, unless a single message is larger.
	// The gateway keeps batches whole, so they should be neither tiny nor huge.
	batchBytes = 64 << 10
	// firstSize is how large messages are taken to be before any has come.
	firstSize = 2 << 10
	// sessionAhead is how many messages of one session are read ahead.
	sessionAhead = 16
)

var (
	errClosed  = errors.New("the stream is closed")
	errStopped = errors.New("the stream takes no more messages")
)

// stream reads a queue or subscription, from one receiver, or from one for each session.
type stream struct {
	c        *consumer
	at       *spec
	window   message.Window
	deleting bool // the service deletes what it sends
	link     *link.Link[*connection]
	unhold   func()

	//nolint:containedctx // the life of the stream, which outlives the call that made it
	ctx    context.Context
	cancel context.CancelFunc
	// reading ends earlier than ctx when the stream is stopped.
	reading     context.Context //nolint:containedctx // likewise
	stopReading context.CancelFunc
	wg          sync.WaitGroup // all goroutines
	readers     sync.WaitGroup // those that receive
	wake        chan struct{}  // something is ready, or the end has come
	due         chan struct{}  // a lock has to be renewed earlier than was known
	once        sync.Once

	mu      sync.Mutex
	sources []*source
	ready   []*lent
	// held is everything that is locked for us: ready or out, by the time it came.
	first, last *lent
	out         int // handed out and not settled
	outBytes    int
	readyBytes  int
	size        int  // about how large messages are
	hungry      bool // a Receive waits
	revoked     []string
	epoch       uint64
	err         error
	stopped     bool
}

// source is what messages come from: a receiver, or one of a session.
type source struct {
	receiver
	conn    link.Conn[*connection]
	session *azservicebus.SessionReceiver // nil without sessions
	plain   *azservicebus.Receiver        // nil with sessions
	lane    string
	epoch   uint64
	ctx     context.Context //nolint:containedctx // ends when the source can't be used any more
	cancel  context.CancelFunc
	room    chan struct{} // there may be room for more
	// What the service may still send, and when it was asked for. The reader's own.
	asked  int
	issued time.Time

	// What follows is guarded by the stream.
	over    bool
	ready   int
	out     int
	until   time.Time // the session's lock
	renewAt time.Time
}

// receiver is what receivers with and without sessions have in common.
type receiver interface {
	ReceiveMessages(context.Context, int, *azservicebus.ReceiveMessagesOptions) ([]*azservicebus.ReceivedMessage, error)
	CompleteMessage(context.Context, *azservicebus.ReceivedMessage, *azservicebus.CompleteMessageOptions) error
	AbandonMessage(context.Context, *azservicebus.ReceivedMessage, *azservicebus.AbandonMessageOptions) error
	DeadLetterMessage(context.Context, *azservicebus.ReceivedMessage, *azservicebus.DeadLetterOptions) error
	Close(context.Context) error
}

// lent is a message together with what is needed to settle it.
type lent struct {
	message.Message
	src        *source
	raw        *azservicebus.ReceivedMessage
	size       int
	state      state
	until      time.Time // the lock
	renewAt    time.Time
	giveBack   time.Time // max_hold is over
	prev, next *lent
}

type state uint8

const (
	isReady    state = iota // not received yet
	isOut                   // received and not settled
	isSettling              // somebody settles it
	isOver                  // settled, lost, or given back
)

// Receive implements message.Stream.
func (s *stream) Receive(ctx context.Context) (message.Batch, error) {
	for {
		b, err := s.take()
		if err != nil || len(b.Deliveries) > 0 || len(b.Revoked) > 0 {
			return b, err
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			s.mu.Lock()
			s.hungry = false
			s.mu.Unlock()
			return b, ctx.Err()
		}
	}
}

// take returns what is ready, as far as the window allows.
func (s *stream) take() (b message.Batch, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.ended(); err != nil {
		signal(s.wake) // whoever asks next shall know it too
		return b, err
	}
	b.Revoked, s.revoked = s.revoked, nil
	n, bytes := 0, 0
	for ; n < len(s.ready) && s.out < s.window.Messages; n++ {
		l := s.ready[n]
		s.open(l)
		bytes += l.size
		if n > 0 && bytes > batchBytes || s.out > 0 && s.outBytes+l.size > s.window.Bytes {
			break
		}
		s.hand(&b, l)
	}
	clear(s.ready[:n])
	if s.ready = s.ready[n:]; len(s.ready) == 0 {
		s.ready = nil
	}
	s.hungry = n == 0
	if n > 0 || s.deleting {
		s.nudge()
	}
	return b, nil
}

// open decodes a message, once. s.mu is held.
func (s *stream) open(l *lent) {
	if l.Metadata != nil {
		return
	}
	decode(l.raw, s.at, &l.Message)
	s.readyBytes -= l.size
	l.size = l.Size()
	s.readyBytes += l.size
	s.size = max(s.size+(l.size-s.size)/8, 1)
}

// hand adds a delivery to a batch, and to the account. s.mu is held.
func (s *stream) hand(b *message.Batch, l *lent) {
	s.readyBytes -= l.size
	s.outBytes += l.size
	s.out++
	l.src.ready--
	l.src.out++
	l.state = isOut
	lane := l.src.lane
	if l.src.session == nil && l.raw.SequenceNumber != nil {
		// The service promises no order without sessions, so each message is a lane.
		lane = strconv.FormatInt(*l.raw.SequenceNumber, 10)
	}
	b.Deliveries = append(b.Deliveries, message.Delivery{
		Message: &l.Message, Lane: lane, Attempt: attempt(l.raw), Epoch: l.src.epoch, Handle: l,
	})
}

// ended is why the stream has ended, if it has. s.mu is held.
func (s *stream) ended() error {
	if s.err == nil && s.stopped {
		return errStopped
	}
	return s.err
}

// add takes what a source has received.
func (s *stream) add(src *source, messages []*azservicebus.ReceivedMessage) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if src.over {
		return // it comes again
	}
	for _, raw := range messages {
		const overhead = 400
		l := &lent{src: src, raw: raw, size: overhead + len(raw.Body), giveBack: now.Add(s.c.maxHold)}
		s.hold(l, now)
		s.enqueue(l)
	}
	signal(s.wake)
}

// nudge tells the readers that there may be room. s.mu is held.
func (s *stream) nudge() {
	for _, src := range s.sources {
		signal(src.room)
	}
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

// failUnlessStopped is fail, unless it was the stream that did not want to go on.
func (s *stream) failUnlessStopped(err error) {
	if s.reading.Err() == nil {
		s.fail(err)
	}
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

var (
	_ message.Stream  = (*stream)(nil)
	_ message.Stopper = (*stream)(nil)
)
