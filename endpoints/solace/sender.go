//go:build cgo && (linux || darwin)

package solace

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"
	api "solace.dev/go/messaging/pkg/solace"
	apimessage "solace.dev/go/messaging/pkg/solace/message"
	"solace.dev/go/messaging/pkg/solace/resource"
	"solace.dev/go/messaging/pkg/solace/subcode"

	"github.com/caddy-message-api/caddy-message-api/endpoints/link"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// producer publishes to any topic, over one connection.
type producer struct {
	link   *link.Link[*sender]
	direct bool
	draft  draft
	losses *link.Losses

	ids string
	seq atomic.Uint64
}

func newProducer(cfg *connConfig, p *Producer) *producer {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	out := &producer{
		direct: !p.confirms(), draft: p.draft(), ids: hex.EncodeToString(random[:]) + "-",
		losses: link.NewLosses(cfg.logger, "messages that nobody waited for are not known to be stored"),
	}
	out.link = link.New(link.Options[*sender]{
		Name: "Solace", Addresses: cfg.addresses, Idle: cfg.idle, Logger: cfg.logger,
		Dial: func(ctx context.Context, address string) (*sender, <-chan error, error) {
			return out.dial(ctx, cfg, address)
		},
		Close: (*sender).end,
	})
	return out
}

// connection returns one that is not known to be broken: a link learns of that a moment
// after the library.
func (p *producer) connection(ctx context.Context) (link.Conn[*sender], error) {
	for {
		conn, err := p.link.Get(ctx)
		if err != nil || conn.C.IsConnected() && !conn.C.given.Load() {
			return conn, err
		}
		p.drop(conn, errBroken)
		select {
		case <-conn.Gone:
		case <-ctx.Done():
			return conn, fault("connecting", ctx.Err())
		}
	}
}

// drop gives a connection up.
func (p *producer) drop(conn link.Conn[*sender], err error) {
	conn.C.given.Store(true)
	p.link.Drop(conn.Epoch, err)
}

var errBroken = errors.New("the connection broke")

// idOf is a message's own id, or one that is made.
func (p *producer) idOf(m *message.Message) string {
	if m.ID != "" {
		return m.ID
	}
	return p.ids + strconv.FormatUint(p.seq.Add(1), 36)
}

// sender is a connection that publishes.
type sender struct {
	*service
	p         *producer
	terminate func()
	submit    func(m apimessage.OutboundMessage, topic *resource.Topic, u *publication) error
	// turn is taken by who hands a message to the library: it keeps the order of a request,
	// and lets those who wait for room wait in a queue.
	turn chan struct{}
	// room is told of when the library takes messages again.
	room     chan struct{}
	receipts atomic.Uint64
	given    atomic.Bool // up
}

// dial connects and makes a publisher. The library's own buffer in front of its window is
// not used: what it refuses has certainly not left, and what it takes is in the window.
func (p *producer) dial(ctx context.Context, cfg *connConfig, address string) (*sender, <-chan error, error) {
	svc, lost, err := cfg.connect(ctx, address, "publish")
	if err != nil {
		return nil, nil, err
	}
	s := &sender{service: svc, p: p, turn: make(chan struct{}, 1), room: make(chan struct{}, 1)}
	if err := s.start(); err != nil {
		svc.end()
		return nil, nil, cfg.explain(address, err)
	}
	return s, lost, nil
}

func (s *sender) start() error {
	if s.p.direct {
		pub, err := s.CreateDirectMessagePublisherBuilder().OnBackPressureReject(0).Build()
		if err != nil {
			return err
		}
		pub.SetPublisherReadinessListener(s.roomy)
		s.submit = func(m apimessage.OutboundMessage, topic *resource.Topic, _ *publication) error {
			return pub.Publish(m, topic)
		}
		s.terminate = func() { _ = pub.Terminate(0) } // it may have ended with the connection
		return pub.Start()
	}
	pub, err := s.CreatePersistentMessagePublisherBuilder().OnBackPressureReject(0).Build()
	if err != nil {
		return err
	}
	pub.SetPublisherReadinessListener(s.roomy)
	pub.SetMessagePublishReceiptListener(s.receipt)
	s.submit = func(m apimessage.OutboundMessage, topic *resource.Topic, u *publication) error {
		return pub.Publish(m, topic, nil, u)
	}
	s.terminate = func() { _ = pub.Terminate(0) }
	return pub.Start()
}

// end ends publisher and connection, in that order. Both may be broken already.
func (s *sender) end() {
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	_, _ = within(ctx, func() (struct{}, error) {
		s.terminate()
		return struct{}{}, nil
	}, nil)
	s.service.end()
}

// roomy must not wait: the library calls it.
func (s *sender) roomy() {
	select {
	case s.room <- struct{}{}:
	default:
	}
}

// hand gives a message to the library. While its window is full, it waits. An error comes
// with what is known of the message.
func (s *sender) hand(ctx context.Context, d *draft, m *message.Message, u *publication) (message.Status, error) {
	out, err := d.build(s.MessageBuilder(), m)
	if err != nil {
		return message.Refused, err
	}
	defer out.Dispose() // the library has its own
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return message.Refused, errFull
	}
	topic := resource.TopicOf(u.topic)
	for {
		select {
		case <-s.room: // of an earlier one
		default:
		}
		if !s.enter() {
			return message.Refused, errBroken
		}
		err := s.submit(out, topic, u)
		s.leave()
		var full *api.PublisherOverflowError
		if err == nil {
			u.release()
		}
		if !errors.As(err, &full) {
			return statusOf(err), err
		}
		select {
		case <-s.room:
		case <-ctx.Done():
			return message.Refused, errFull
		}
	}
}

var errFull = errors.New("the library's window is full of messages that the broker has not acknowledged")

// statusOf is what is known of a message that the library did not take. What it says of a
// connection may be said in the midst of sending.
func statusOf(err error) message.Status {
	var native *api.NativeError
	if !errors.As(err, &native) {
		return message.Refused
	}
	if _, known := refusals[native.SubCode()]; known {
		return message.Refused
	}
	switch native.SubCode() {
	case subcode.SessionNotEstablished, subcode.InvalidSessionOperation, subcode.ParamOutOfRange, subcode.ParamConflict,
		subcode.ParamNullPtr, subcode.InsufficientSpace, subcode.OutOfMemory, subcode.TopicMissing:
		return message.Refused
	}
	return message.Unknown
}

// receipt is told what became of a message. It must not wait: the library calls it.
func (s *sender) receipt(r api.PublishReceipt) {
	u, _ := r.GetUserContext().(*publication)
	if u == nil {
		return
	}
	u.sent = r.GetMessage()
	u.release()
	s.receipts.Add(1)
	err := r.GetError()
	status := message.Unknown
	if _, refused := refusals[codeOf(err)]; r.IsPersisted() {
		status, err = message.Stored, nil
	} else if refused {
		status = message.Refused
	}
	if u.call == nil {
		if status != message.Stored {
			s.p.losses.Note(1, err, zap.String("topic", u.topic))
		}
		return
	}
	u.resolve(status, err)
}

// publication is one message on its way to one topic.
type publication struct {
	call      *call // nil: nobody waits
	id, topic string

	settled bool
	status  message.Status
	err     error

	// sent is the library's copy of the message, in native memory.
	sent  apimessage.OutboundMessage
	users atomic.Int32
}

// release frees the library's copy when its receipt has come and the call that sent it has
// returned. The receipt can be first, while the native part still uses the copy.
func (u *publication) release() {
	if u.users.Add(1) == 2 {
		u.sent.Dispose()
	}
}

// call is what one Publish waits for.
type call struct {
	mu   sync.Mutex
	left int
	done chan struct{}
}

func newCall(n int) *call { return &call{left: n, done: make(chan struct{})} }

// resolve notes what became of a message. What comes first counts.
func (u *publication) resolve(status message.Status, err error) {
	c := u.call
	if c == nil {
		u.settled, u.status, u.err = true, status, err
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if u.settled {
		return
	}
	u.settled, u.status, u.err = true, status, err
	if c.left--; c.left == 0 {
		close(c.done)
	}
}

// outcome is what is known of a message now.
func (u *publication) outcome() (message.Status, error) {
	if u.call != nil {
		u.call.mu.Lock()
		defer u.call.mu.Unlock()
	}
	switch {
	case u.settled:
		return u.status, u.err
	case u.call == nil:
		return message.Handed, nil
	}
	// Later answers are of no interest any more.
	u.settled = true
	return message.Unknown, nil
}

// wait waits until all messages have their outcome, which is true, or for ctx.
func (c *call) wait(ctx context.Context) bool {
	select {
	case <-c.done:
		return true
	case <-ctx.Done():
		return false
	}
}
