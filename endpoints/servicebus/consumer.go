package servicebus

import (
	"context"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/link"
	"github.com/caddy-message-api/caddy-message-api/message"
)

const (
	// streamsPerConnection bounds what one connection carries: the library logs in for each
	// link, one after the other.
	streamsPerConnection = 100
	// defaultEndurance is how long a running stream tries to read a queue that is not there
	// any more, or not for us.
	defaultEndurance = 15 * time.Second
	// defaultRecycle is after how long without a message a receiver is replaced by another:
	// receivers have been seen to be forgotten by the service.
	defaultRecycle = 5 * time.Minute
	// acceptWait is how long the service may look for a session at a time.
	acceptWait = 30 * time.Second
	// defaultSetup is how long it takes to begin to look. The library, interrupted meanwhile,
	// loses the whole connection, and with it what others hold.
	defaultSetup = time.Second
	// firstAcceptWait is the same while somebody waits to be subscribed.
	firstAcceptWait = 250 * time.Millisecond
)

// consumer reads queues and subscriptions of a namespace. Streams share connections.
type consumer struct {
	cfg         *connConfig
	sessions    int // at a time for each client; 0 is without sessions
	sessionIdle time.Duration
	maxHold     time.Duration
	logger      *zap.Logger
	// lost counts messages that the service deleted and no client got.
	lost *link.Losses
	// Tests are less patient.
	endurance, recycle, onItsWay, firstWait, setup time.Duration

	mu    sync.Mutex
	slots []*slot
}

// slot is a connection, and how many streams use it.
type slot struct {
	link    *link.Link[*connection]
	streams int
}

func newConsumer(cfg *connConfig, c *Consumer) *consumer {
	made := &consumer{
		cfg: cfg, maxHold: c.maxHold(), sessionIdle: defaultSessionIdle, logger: cfg.logger,
		lost:      link.NewLosses(cfg.logger, "messages that the service deleted were not handed to a client (at_most_once)"),
		endurance: defaultEndurance, recycle: defaultRecycle, onItsWay: defaultOnItsWay, firstWait: firstAcceptWait, setup: defaultSetup,
		slots: []*slot{{link: cfg.link()}},
	}
	if c.Sessions {
		made.sessions = defaultSessions
		if c.ConcurrentSessions > 0 {
			made.sessions = c.ConcurrentSessions
		}
	}
	if c.SessionIdle > 0 {
		made.sessionIdle = timeOf(c.SessionIdle)
	}
	return made
}

// lease finds a connection with room for another stream.
func (c *consumer) lease() (l *link.Link[*connection], release func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var free *slot
	for _, s := range c.slots {
		if s.streams < streamsPerConnection {
			free = s
			break
		}
	}
	if free == nil {
		free = &slot{link: c.cfg.link()}
		c.slots = append(c.slots, free)
	}
	free.streams++
	unhold := free.link.Hold()
	return free.link, sync.OnceFunc(func() {
		unhold()
		c.mu.Lock()
		defer c.mu.Unlock()
		free.streams--
	})
}

// first is the connection that is looked at when somebody asks how it is.
func (c *consumer) first() *link.Link[*connection] {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.slots[0].link
}

func (c *consumer) status() []endpoints.Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]endpoints.Status, len(c.slots))
	for i, s := range c.slots {
		all[i] = s.link.Status()
	}
	return all
}

func (c *consumer) close() {
	c.mu.Lock()
	slots := c.slots
	c.mu.Unlock()
	for _, s := range slots {
		s.link.Close()
	}
}

// subscribe begins to read, and returns when that is known to work.
func (c *consumer) subscribe(ctx context.Context, at *spec, sub message.Subscription) (message.Stream, error) {
	s := &stream{
		c: c, at: at, window: sub.Window, deleting: sub.QoS == message.AtMostOnce,
		wake: make(chan struct{}, 1), due: make(chan struct{}, 1), size: firstSize,
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.reading, s.stopReading = context.WithCancel(s.ctx)
	s.link, s.unhold = c.lease()
	var err error
	if c.sessions > 0 {
		err = s.startSessions(ctx)
	} else {
		err = s.startPlain(ctx)
	}
	if err != nil {
		s.cancel()
		s.wg.Wait()
		s.unhold()
		return nil, err
	}
	if !s.deleting {
		s.wg.Go(s.renew)
	}
	return s, nil
}

// what names what is read, and where it is, for people.
func (s *stream) what() string { return s.at.String() + " at " + s.link.Address() }

// mode is how the service lends.
func (s *stream) mode() azservicebus.ReceiveMode {
	if s.deleting {
		return azservicebus.ReceiveModeReceiveAndDelete
	}
	return azservicebus.ReceiveModePeekLock
}

// receiver makes the library's receiver, which does nothing yet.
func (s *stream) receiver(c *connection) (*azservicebus.Receiver, error) {
	o := &azservicebus.ReceiverOptions{ReceiveMode: s.mode()}
	if s.at.queue != "" {
		return c.NewReceiverForQueue(s.at.queue, o)
	}
	return c.NewReceiverForSubscription(s.at.topic, s.at.subscription, o)
}

// session waits for a session that has messages and that nobody else has.
func (s *stream) session(ctx context.Context, c *connection) (*azservicebus.SessionReceiver, error) {
	o := &azservicebus.SessionReceiverOptions{ReceiveMode: s.mode()}
	if s.at.queue != "" {
		return c.AcceptNextSessionForQueue(ctx, s.at.queue, o)
	}
	return c.AcceptNextSessionForSubscription(ctx, s.at.topic, s.at.subscription, o)
}
