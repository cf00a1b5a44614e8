package rabbitmq

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/caddy-message-api/caddy-message-api/endpoints/link"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// channelsPerLink is how many streams share a connection: brokers allow about 2,000
// channels on each.
const channelsPerLink = 1000

// consumer reads from the broker, over as many connections as its streams need.
type consumer struct {
	cfg      *connConfig
	exchange exchangeSpec
	named    queueSpec // the configured queue
	isStream bool
	own      queueSpec // the queues of identities
	print    string    // of what own is made with
	// vets are for what is declared for one process alone, and for the rest.
	vetOwn, vetRest vetting
	epochs          atomic.Uint64
	// endurance is how long a stream that lost its channel tries what the broker refuses,
	// before it ends: a broker that has just started does not know all its queues yet.
	endurance time.Duration

	mu    sync.Mutex
	links []*shareLink
	// doubtful is for queues about which the broker did not answer. When it gives up on
	// them, after a minute, it closes the connection on which it was asked.
	doubtful *shareLink
	doubts   map[string]bool // by the streams' names for what they read
	ended    bool
}

// shareLink is a connection and how many streams use it.
type shareLink struct {
	*link.Link[*connection]
	streams int
}

func newConsumer(cfg *connConfig, c *Consumer) *consumer {
	out := &consumer{cfg: cfg, exchange: c.Exchange.spec(), vetOwn: vetting{cfg: cfg}, vetRest: vetting{cfg: cfg}, endurance: endurance}
	out.links = []*shareLink{{Link: cfg.link("consume")}}
	if q := c.Queue; q != nil {
		arguments, _ := table(q.Argument) // it was checked
		out.isStream = q.Type == stream
		out.named = queueSpec{declare: q.declares(), durable: on(q.Durable), autoDelete: q.AutoDelete, arguments: arguments}
		if q.Type != "" {
			arguments["x-queue-type"] = q.Type
		}
		c.limits(arguments)
		return out
	}
	arguments, _ := table(c.Argument) // it was checked
	arguments["x-queue-type"] = c.ownType()
	expires := time.Duration(c.Expires)
	if expires == 0 {
		expires = defaultExpires
	}
	arguments["x-expires"] = max(expires.Milliseconds(), 1)
	c.limits(arguments)
	out.own = queueSpec{declare: true, durable: true, arguments: arguments}
	out.print = fmt.Sprint(arguments) // sorted by name
	return out
}

func (c *Consumer) ownType() string {
	if c.QueueType == "" {
		return quorum
	}
	return c.QueueType
}

func (c *Consumer) limits(arguments amqp.Table) {
	if c.DeadLetterExchange != "" {
		arguments["x-dead-letter-exchange"] = c.DeadLetterExchange
	}
	if c.DeliveryLimit > 0 {
		arguments["x-delivery-limit"] = int64(c.DeliveryLimit)
	}
}

// spec is what one channel of the gateway reads: the names, with all placeholders
// replaced.
type spec struct {
	exchange string
	keys     []string
	queue    string // the configured one
}

// key tells channels apart.
func (s *spec) key() string {
	key := fmt.Sprintf("%d:%s,%d:%s", len(s.queue), s.queue, len(s.exchange), s.exchange)
	for _, k := range s.keys {
		key += fmt.Sprintf(",%d:%s", len(k), k)
	}
	return key
}

// identityQueue is the name of an identity's queue. It ends in a hash of what the queue is
// bound to and made with: what belongs together of that changes together, and an identity
// that reads with two routing keys has two queues.
func (c *consumer) identityQueue(name string, s *spec) string {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %s", s.key(), c.print)
	suffix := fmt.Sprintf(".%08x", uint32(h.Sum64()^h.Sum64()>>32))
	if len(name)+len(suffix) > maxShort {
		h.Write([]byte(name))
		name = name[:maxShort-len(suffix)-17] + fmt.Sprintf("-%016x", h.Sum64())
	}
	return name + suffix
}

// fingerprint tells positions in one stream from all others.
func (c *consumer) fingerprint(s *spec) uint64 {
	h := fnv.New64a()
	for _, part := range append([]string{"rabbitmq", c.cfg.vhost}, s.queue) {
		fmt.Fprintf(h, "%d:%s,", len(part), part)
	}
	return h.Sum64()
}

// lease takes a place on one of the connections, for a stream that reads what.
func (c *consumer) lease(what string) (_ *link.Link[*connection], release func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.place(what)
	l.streams++
	let := l.Hold()
	return l.Link, sync.OnceFunc(func() {
		let()
		c.mu.Lock()
		defer c.mu.Unlock()
		l.streams--
	})
}

// place finds a connection with room. c.mu is held.
func (c *consumer) place(what string) *shareLink {
	if c.doubts[what] && (c.doubtful == nil || c.doubtful.streams < channelsPerLink) {
		if c.doubtful == nil {
			c.doubtful = c.connect()
		}
		return c.doubtful
	}
	for _, l := range c.links {
		if l.streams < channelsPerLink {
			return l
		}
	}
	l := c.connect()
	c.links = append(c.links, l)
	return l
}

func (c *consumer) connect() *shareLink {
	l := &shareLink{Link: c.cfg.link("consume")}
	if c.ended {
		l.Close() // and nobody will get anything from it
	}
	return l
}

// doubt notes that the broker did not answer about a queue; trust, that it did.
func (c *consumer) doubt(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.doubts == nil || len(c.doubts) >= maxKnown {
		c.doubts = make(map[string]bool)
	}
	c.doubts[what] = true
}

func (c *consumer) trust(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.doubts, what)
}

// first is the connection that is used first, and whose state is told.
func (c *consumer) first() *link.Link[*connection] {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.links[0].Link
}

func (c *consumer) close() {
	c.mu.Lock()
	c.ended = true
	links := slices.Clone(c.links)
	if c.doubtful != nil {
		links = append(links, c.doubtful)
	}
	c.mu.Unlock()
	for _, l := range links {
		l.Close()
	}
}

// prepare declares and binds what is read, and returns the name of the queue.
func (c *consumer) prepare(ch *amqp.Channel, s *spec, name string, q *queueSpec) (string, error) {
	if s.exchange != "" && c.exchange.declare {
		if err := c.exchange.ensure(ch, s.exchange); err != nil {
			return "", at("exchange "+s.exchange, err)
		}
	}
	if q.declare {
		made, err := ch.QueueDeclare(name, q.durable, q.autoDelete, q.exclusive, false, q.arguments)
		if err != nil {
			return "", at("queue "+name, err)
		}
		name = made.Name
	}
	if s.exchange == "" {
		return name, nil
	}
	keys := s.keys
	if len(keys) == 0 {
		keys = []string{""}
	}
	for _, key := range keys {
		if err := ch.QueueBind(name, key, s.exchange, false, nil); err != nil {
			return "", at(fmt.Sprintf("binding queue %s to exchange %s with routing key %q", name, s.exchange, key), err)
		}
	}
	return name, nil
}

// vetted has the declarations tried where they harm nobody.
func (c *consumer) vetted(ctx context.Context, address string, s *spec, name string, q *queueSpec) error {
	vet := &c.vetRest
	if q.exclusive {
		vet = &c.vetOwn
	}
	return vet.try(ctx, address, func(ch *amqp.Channel) error {
		_, err := c.prepare(ch, s, name, q)
		return err
	})
}

// exists asks whether a queue is there.
func exists(ctx context.Context, conn *connection, queue string) (bool, error) {
	err := onChannel(ctx, conn, func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil) // only the name counts
		return err
	})
	if codeOf(err) == amqp.NotFound {
		return false, nil
	}
	return err == nil, err
}

// recreated is what is told when a queue went with its messages.
func recreated(queue string) *message.Gap {
	return &message.Gap{Reason: message.GapRecreated, Detail: "queue " + queue + " was gone, with its messages, and was made anew"}
}
