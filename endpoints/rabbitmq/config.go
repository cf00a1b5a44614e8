package rabbitmq

import (
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/caddy-message-api/caddy-message-api/endpoints/options"
)

// Exchange is where messages are published to, or come from.
type Exchange struct {
	// Name of the exchange. A producer's may be empty: that is the broker's default
	// exchange, which puts a message into the queue that the routing key names. It may
	// hold placeholders of the request.
	Name string `json:"name,omitempty"`
	// Type is direct, fanout, topic, headers, or one that a plugin of the broker adds.
	// With a type the exchange is declared, which makes it if it does not exist. Without
	// one it must exist.
	Type string `json:"type,omitempty"`
	// Durable: the declared exchange outlives a restart of the broker. Default: on.
	Durable *bool `json:"durable,omitempty"`
	// AutoDelete: the declared exchange goes when nothing is bound to it any more.
	// Default: off.
	AutoDelete bool `json:"auto_delete,omitempty"`
	// Declare off expects the exchange to exist, though a type is given. Default: on with
	// a type, off without one.
	Declare *bool `json:"declare,omitempty"`
	// Argument holds further arguments of the declaration, such as alternate-exchange.
	Argument map[string]any `json:"argument,omitempty"`
}

// Queue is an existing queue that is read, or one that is declared to be read.
type Queue struct {
	// Name of the queue. It may hold placeholders of the request.
	Name string `json:"name,omitempty"`
	// Type is classic, quorum or stream. With a type the queue is declared, which makes
	// it if it does not exist. Without one it must exist, and is no stream.
	Type string `json:"type,omitempty"`
	// Durable: the declared queue outlives a restart of the broker. Quorum queues and
	// streams always do. Default: on.
	Durable *bool `json:"durable,omitempty"`
	// AutoDelete: the declared queue goes, with its messages, when its last consumer
	// goes. Only for classic queues. Default: off.
	AutoDelete bool `json:"auto_delete,omitempty"`
	// Declare off expects the queue to exist, though a type is given. Default: on with a
	// type, off without one.
	Declare *bool `json:"declare,omitempty"`
	// Argument holds further arguments of the declaration, such as x-max-length.
	Argument map[string]any `json:"argument,omitempty"`
}

// Producer is what is published to. It shares nothing with the consumer.
type Producer struct {
	// Exchange to publish to. Default: the broker's default exchange.
	Exchange *Exchange `json:"exchange,omitempty"`
	// RoutingKey of all messages. It may hold placeholders of the request. With the
	// default exchange it is the name of a queue, and required.
	RoutingKey string `json:"routing_key,omitempty"`
	// Persistent messages are written to the broker's disk. Default: on.
	Persistent *bool `json:"persistent,omitempty"`
	// Mandatory: a message that no queue takes is an error, and not dropped in silence.
	// Default: on.
	Mandatory *bool `json:"mandatory,omitempty"`
}

// Consumer is what is read: an exchange, of which every identity has a queue of its own,
// or one queue.
type Consumer struct {
	// Exchange to read from. Together with a queue, that queue is bound to it.
	Exchange *Exchange `json:"exchange,omitempty"`
	// RoutingKey, one or more, by which queues are bound to the exchange. They may hold
	// placeholders of the request; * and # of topic exchanges are for the configuration
	// alone. Default: the empty key.
	RoutingKey []string `json:"routing_key,omitempty"`
	// Queue to read. Instead of an exchange, unless it is to be bound to one.
	Queue *Queue `json:"queue,omitempty"`
	// Shared says that all clients compete for the messages of the queue, so that each
	// goes to one of them. It must be on for queues that are no streams, because nobody
	// expects it. Default: off.
	Shared bool `json:"shared,omitempty"`
	// Prefetch is how many unsettled messages a client may have where the gateway does
	// not say it. Default: 500. At most 65535.
	Prefetch int `json:"prefetch,omitempty"`
	// QueueType of the queues that are made for identities: quorum or classic. Default:
	// quorum.
	QueueType string `json:"queue_type,omitempty"`
	// Expires is how long the queue of an identity lives on unused, with its messages.
	// Default: 24h.
	Expires caddy.Duration `json:"expires,omitempty"`
	// DeadLetterExchange takes what clients reject. For queues that are not declared here,
	// it only says that they have one. Default: none; what is rejected is dropped.
	DeadLetterExchange string `json:"dead_letter_exchange,omitempty"`
	// DeliveryLimit is how often a message of a quorum queue comes again before it is
	// dropped, or dead-lettered. Default: the broker's.
	DeliveryLimit int `json:"delivery_limit,omitempty"`
	// Argument holds further arguments for the queues of identities.
	Argument map[string]any `json:"argument,omitempty"`
}

// The types of queues.
const (
	classic = "classic"
	quorum  = "quorum"
	stream  = "stream"
)

const (
	defaultHeartbeat = 10 * time.Second
	defaultIdle      = 5 * time.Minute
	defaultExpires   = 24 * time.Hour
	defaultMessages  = 500
	defaultBytes     = 1 << 20
	// maxShort is the longest name that the protocol can hold, in bytes.
	maxShort = 255
	// maxPrefetch is the largest prefetch that the protocol can hold.
	maxPrefetch = math.MaxUint16
)

func on(flag *bool) bool { return flag == nil || *flag }

func (x *Exchange) declares() bool {
	if x.Declare != nil {
		return *x.Declare
	}
	return x.Type != ""
}

func (q *Queue) declares() bool {
	if q.Declare != nil {
		return *q.Declare
	}
	return q.Type != ""
}

// check finds what is wrong with the configuration as it is written.
func (r *RabbitMQ) check() error {
	switch {
	case len(r.Server) == 0:
		return errors.New("rabbitmq: server is missing: name one or more as host:port")
	case r.Producer == nil && r.Consumer == nil:
		return errors.New("rabbitmq: neither producer nor consumer is configured: add at least one of them")
	case r.Heartbeat < 0 || r.Heartbeat > 0 && time.Duration(r.Heartbeat) < time.Second:
		return errors.New("rabbitmq: heartbeat must be at least 1s")
	case len(r.VirtualHost) > maxShort:
		return errors.New("rabbitmq: virtual_host has more than 255 bytes")
	}
	if err := r.Producer.check(); err != nil {
		return fmt.Errorf("rabbitmq: producer: %w", err)
	}
	if err := r.Consumer.check(); err != nil {
		return fmt.Errorf("rabbitmq: consumer: %w", err)
	}
	return nil
}

func checkAddress(address string) error {
	if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
		return fmt.Errorf("rabbitmq: server %q: write it as host:port, e.g. rabbit.example.com:5672", address)
	}
	return nil
}

func (p *Producer) check() error {
	if p == nil {
		return nil
	}
	if err := p.Exchange.check(); err != nil {
		return err
	}
	if x := p.Exchange; (x == nil || x.Name == "") && p.RoutingKey == "" {
		return errors.New("the default exchange needs a routing_key, which names the queue; or name an exchange")
	} else if x != nil && x.Name == "" && x.declares() {
		return errors.New("the default exchange can't be declared: leave its type out")
	}
	return checkName("routing_key", p.RoutingKey)
}

func (x *Exchange) check() error {
	if x == nil {
		return nil
	}
	if x.declares() && x.Type == "" {
		return fmt.Errorf("exchange %s can't be declared without a type: direct, fanout, topic, headers", x.Name)
	}
	if _, err := table(x.Argument); err != nil {
		return fmt.Errorf("exchange %s: %w", x.Name, err)
	}
	return checkName("exchange", x.Name)
}

func checkName(what, name string) error {
	if len(name) > maxShort {
		return fmt.Errorf("%s has more than %d bytes", what, maxShort)
	}
	return nil
}

func (c *Consumer) check() error {
	if c == nil {
		return nil
	}
	if c.Exchange == nil && c.Queue == nil {
		return errors.New("name an exchange, of which every client has a queue of its own, or a queue")
	}
	if c.Exchange != nil && c.Exchange.Name == "" {
		return errors.New("the exchange needs a name: nothing can be bound to the default exchange")
	}
	if err := c.Exchange.check(); err != nil {
		return err
	}
	if c.Exchange == nil && len(c.RoutingKey) > 0 {
		return errors.New("routing_key binds a queue to an exchange, and there is no exchange")
	}
	for _, key := range c.RoutingKey {
		if err := checkName("routing_key", key); err != nil {
			return err
		}
	}
	if c.Prefetch < 0 || c.Prefetch > math.MaxUint16 {
		return fmt.Errorf("prefetch must be from 1 to %d", math.MaxUint16)
	}
	if c.Expires < 0 {
		return errors.New("expires must not be negative")
	}
	if c.Queue != nil {
		return c.checkQueue()
	}
	return c.checkOwn()
}

// checkOwn checks what is said about the queues of identities.
func (c *Consumer) checkOwn() error {
	switch {
	case c.Shared:
		return errors.New("shared is for a queue: of an exchange, every client has a queue of its own; name the queue to compete for")
	case c.QueueType != "" && c.QueueType != classic && c.QueueType != quorum:
		return fmt.Errorf("queue_type %q: use classic, quorum", c.QueueType)
	case c.DeliveryLimit != 0 && c.QueueType == classic:
		return errors.New("delivery_limit needs quorum queues: leave out queue_type classic")
	}
	_, err := table(c.Argument)
	return err
}

func (c *Consumer) checkQueue() error {
	q := c.Queue
	switch {
	case q.Name == "":
		return errors.New("the queue needs a name")
	case q.Type != "" && !slices.Contains([]string{classic, quorum, stream}, q.Type):
		return fmt.Errorf("queue %s: type %q: use classic, quorum, stream", q.Name, q.Type)
	case q.declares() && q.Type == "":
		return fmt.Errorf("queue %s can't be declared without a type: classic, quorum, stream", q.Name)
	case q.Type == stream && c.Shared:
		return fmt.Errorf("queue %s is a stream, which every client reads for itself: leave out shared", q.Name)
	case q.Type != stream && !c.Shared:
		return fmt.Errorf("clients compete for the messages of queue %s, each message goes to one of them: "+
			"say so with shared, or name an exchange, of which every client has a queue of its own, or a queue of type stream", q.Name)
	case q.Type != classic && (q.AutoDelete || !on(q.Durable)):
		return fmt.Errorf("queue %s: only classic queues can be declared with auto_delete or durable off", q.Name)
	case c.QueueType != "" || c.Expires != 0 || len(c.Argument) > 0:
		return fmt.Errorf("queue_type, expires and argument are for the queues that are made for identities; "+
			"write type and argument into the block of queue %s", q.Name)
	case c.DeliveryLimit != 0 && (q.Type != quorum || !q.declares()):
		return fmt.Errorf("delivery_limit needs a queue of type quorum that is declared here, and %s is none", q.Name)
	case c.DeadLetterExchange != "" && q.Type == stream:
		return fmt.Errorf("queue %s is a stream, and streams have no dead letters", q.Name)
	}
	if _, err := table(q.Argument); err != nil {
		return fmt.Errorf("queue %s: %w", q.Name, err)
	}
	return checkName("queue", q.Name)
}

// resolve replaces what the environment and files say; what requests say is replaced for
// each of them.
func (r *RabbitMQ) resolve() {
	if p := r.Producer; p != nil {
		options.Global(&p.RoutingKey)
		if p.Exchange != nil {
			options.Global(&p.Exchange.Name)
		}
	}
	c := r.Consumer
	if c == nil {
		return
	}
	options.Global(&c.DeadLetterExchange)
	if c.Exchange != nil {
		options.Global(&c.Exchange.Name)
	}
	if c.Queue != nil {
		options.Global(&c.Queue.Name)
	}
	for i := range c.RoutingKey {
		options.Global(&c.RoutingKey[i])
	}
}

// table makes the arguments of a declaration. JSON knows one kind of number, and the
// broker insists on integers.
func table(arguments map[string]any) (amqp.Table, error) {
	t := make(amqp.Table, len(arguments)+4)
	for name, value := range arguments {
		switch v := value.(type) {
		case string, bool, int64:
			t[name] = v
		case int:
			t[name] = int64(v)
		case float64:
			if v != math.Trunc(v) || math.Abs(v) > 1<<53 {
				return nil, fmt.Errorf("argument %s: %v is not a whole number", name, v)
			}
			t[name] = int64(v)
		default:
			return nil, fmt.Errorf("argument %s: use a text, a whole number, true or false", name)
		}
		if name == "" || len(name) > maxShort {
			return nil, fmt.Errorf("argument %q: a name has 1 to %d bytes", name, maxShort)
		}
		if strings.EqualFold(name, "x-queue-type") {
			return nil, errors.New("argument x-queue-type: write type (or queue_type) instead")
		}
	}
	return t, nil
}
