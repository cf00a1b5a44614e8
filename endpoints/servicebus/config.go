package servicebus

import (
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/endpoints/options"
)

// The transports.
const (
	overAMQP      = "amqp"
	overWebSocket = "websocket"
)

// The defaults.
const (
	defaultIdle        = 5 * time.Minute
	defaultPrefetch    = 100
	defaultBytes       = 8 << 20
	defaultMaxHold     = 10 * time.Minute
	defaultSessions    = 8
	defaultSessionIdle = 10 * time.Second
)

// What the service allows.
const (
	// maxPrefetch is what the client library can ask for.
	maxPrefetch = 5000
	// maxID bounds session ids, partition keys and message ids, in characters.
	maxID = 128
	// maxEntity bounds the path of a queue or topic, in characters.
	maxEntity = 260
	// maxSessions bounds the sessions of one client.
	maxSessions = 256
	// leastHold would be over before a client could answer.
	leastHold = 100 * time.Millisecond
)

// Producer is what is published to. It shares nothing with the consumer.
type Producer struct {
	// Queue to publish to. Either this or topic. It may hold placeholders of the request.
	Queue string `json:"queue,omitempty"`
	// Topic to publish to. Either this or queue. It may hold placeholders of the request.
	Topic string `json:"topic,omitempty"`
	// Subject (label) of all messages, by which subscriptions can filter. It may hold
	// placeholders of the request. Default: none.
	Subject string `json:"subject,omitempty"`
	// SessionID of all messages, up to 128 characters. Queues and subscriptions that require
	// sessions take no message without one. It may hold placeholders of the request.
	// Default: none.
	SessionID string `json:"session_id,omitempty"`
	// PartitionKey of all messages, up to 128 characters, for partitioned queues and topics.
	// It may hold placeholders of the request. With a session id it must be the same.
	// Default: the key of a message, where the entrypoint knows keys.
	PartitionKey string `json:"partition_key,omitempty"`
	// TimeToLive is how long a message is kept before it expires. Default: that of the queue
	// or topic.
	TimeToLive caddy.Duration `json:"time_to_live,omitempty"`
	// ScheduledDelay is how much later messages are enqueued: until then no consumer sees
	// them. Default: at once.
	ScheduledDelay caddy.Duration `json:"scheduled_delay,omitempty"`
	// MessageID of all messages, up to 128 characters, by which the service detects
	// duplicates. It may hold placeholders of the request; one request should then publish
	// one message. Default: the message's own id, or a random UUID.
	MessageID string `json:"message_id,omitempty"`
}

// Consumer is what is read. All clients compete for it.
type Consumer struct {
	// Queue to read. Either this, or topic and subscription. It may hold placeholders of the
	// request.
	Queue string `json:"queue,omitempty"`
	// Topic whose subscription is read. It may hold placeholders of the request.
	Topic string `json:"topic,omitempty"`
	// Subscription to read. It must exist. It may hold placeholders of the request.
	Subscription string `json:"subscription,omitempty"`
	// Shared says that all clients compete for the messages, so that each goes to one of
	// them. It must be on, because nobody expects it.
	Shared bool `json:"shared,omitempty"`
	// Sessions must be on for queues and subscriptions that require sessions, and off for
	// others. Default: off.
	Sessions bool `json:"sessions,omitempty"`
	// ConcurrentSessions is how many sessions one client has at a time, 1 to 256.
	// Default: 8.
	ConcurrentSessions int `json:"concurrent_sessions,omitempty"`
	// SessionIdle is after how long a session without messages is given up for another.
	// Default: 10s.
	SessionIdle caddy.Duration `json:"session_idle,omitempty"`
	// Prefetch is how many unsettled messages a client may have where the gateway does not
	// say it, 1 to 5000. Default: 100.
	Prefetch int `json:"prefetch,omitempty"`
	// MaxHold is how long a client may hold a message: until then its lock is renewed, and
	// then it is given back. At least 100ms. Default: 10m.
	MaxHold caddy.Duration `json:"max_hold,omitempty"`
}

func timeOf(d caddy.Duration) time.Duration { return time.Duration(d) }

func (c *Consumer) maxHold() time.Duration {
	if c.MaxHold > 0 {
		return timeOf(c.MaxHold)
	}
	return defaultMaxHold
}

func (c *Consumer) prefetch() int {
	if c.Prefetch > 0 {
		return c.Prefetch
	}
	return defaultPrefetch
}

func (c *Consumer) spec() *spec {
	return &spec{queue: c.Queue, topic: c.Topic, subscription: c.Subscription}
}

// properties are what the configuration says of messages.
func (p *Producer) properties() properties {
	return properties{
		queue: p.Queue, topic: p.Topic, subject: p.Subject, sessionID: p.SessionID, partitionKey: p.PartitionKey,
		messageID: p.MessageID, ttl: timeOf(p.TimeToLive), delay: timeOf(p.ScheduledDelay),
	}
}

// texts are the options that may hold placeholders.
func (p *Producer) texts() []string {
	return []string{p.Queue, p.Topic, p.Subject, p.SessionID, p.PartitionKey, p.MessageID}
}

// resolve replaces what the environment and files say; what requests say is replaced for
// each of them.
func (s *ServiceBus) resolve() {
	options.Global(&s.Namespace, &s.CustomEndpoint)
	if p := s.Producer; p != nil {
		options.Global(&p.Queue, &p.Topic, &p.Subject, &p.SessionID, &p.PartitionKey, &p.MessageID)
	}
	if c := s.Consumer; c != nil {
		options.Global(&c.Queue, &c.Topic, &c.Subscription)
	}
}

// check finds what can't work.
func (s *ServiceBus) check() error {
	switch {
	case s.ConnectionString == "" && s.Namespace == "":
		return errors.New("write connection_string, or namespace for a login by Azure's default credential chain")
	case s.ConnectionString != "" && s.Namespace != "":
		return errors.New("connection_string names the namespace itself: leave out one of connection_string and namespace")
	case s.Transport != "" && s.Transport != overAMQP && s.Transport != overWebSocket:
		return fmt.Errorf("transport %q: use amqp, websocket", s.Transport)
	case s.Idle < 0:
		return errors.New("idle must not be negative")
	case s.Producer == nil && s.Consumer == nil:
		return errors.New("there is neither producer nor consumer: the endpoint could do nothing")
	}
	if err := s.Producer.check(); err != nil {
		return fmt.Errorf("producer: %w", err)
	}
	if err := s.Consumer.check(); err != nil {
		return fmt.Errorf("consumer: %w", err)
	}
	return nil
}

func (p *Producer) check() error {
	switch {
	case p == nil:
		return nil
	case (p.Queue == "") == (p.Topic == ""):
		return errors.New("name a queue or a topic, one of them")
	case p.TimeToLive < 0 || p.ScheduledDelay < 0:
		return errors.New("time_to_live and scheduled_delay must not be negative")
	case options.Dynamic(p.texts()...):
		return nil // checked when it is known
	}
	props := p.properties()
	return props.check()
}

func (c *Consumer) check() error {
	switch {
	case c == nil:
		return nil
	case c.Queue == "" && (c.Topic == "" || c.Subscription == ""):
		return errors.New("name a queue, or a topic and its subscription")
	case c.Queue != "" && (c.Topic != "" || c.Subscription != ""):
		return errors.New("name either a queue, or a topic and its subscription, not both")
	case !c.Shared:
		return fmt.Errorf("clients compete for the messages of %s, each message goes to one of them: say so with shared", c.spec())
	case !c.Sessions && (c.ConcurrentSessions != 0 || c.SessionIdle != 0):
		return errors.New("concurrent_sessions and session_idle need sessions on")
	case c.ConcurrentSessions < 0 || c.ConcurrentSessions > maxSessions:
		return fmt.Errorf("concurrent_sessions: at most %d", maxSessions)
	case c.SessionIdle < 0:
		return errors.New("session_idle must not be negative")
	case c.Prefetch < 0 || c.Prefetch > maxPrefetch:
		return fmt.Errorf("prefetch: at most %d", maxPrefetch)
	case c.MaxHold != 0 && timeOf(c.MaxHold) < leastHold:
		return fmt.Errorf("max_hold: at least %v", leastHold)
	case options.Dynamic(c.Queue, c.Topic, c.Subscription):
		return nil // checked when it is known
	}
	return c.spec().check()
}

// spec is what is read.
type spec struct{ queue, topic, subscription string }

// path is how the service names it.
func (s *spec) path() string {
	if s.queue != "" {
		return s.queue
	}
	return s.topic + "/Subscriptions/" + s.subscription
}

func (s *spec) String() string {
	if s.queue != "" {
		return "queue " + s.queue
	}
	return "subscription " + s.subscription + " of topic " + s.topic
}

func (s *spec) check() error {
	if s.queue != "" {
		return checkLength("queue", s.queue, maxEntity)
	}
	return errors.Join(checkLength("topic", s.topic, maxEntity), checkLength("subscription", s.subscription, maxEntity))
}

// properties are what messages of one request have in common.
type properties struct {
	queue, topic string
	subject      string
	sessionID    string
	partitionKey string
	messageID    string
	ttl, delay   time.Duration
}

// entity is where the messages go.
func (p *properties) entity() string { return p.queue + p.topic }

// what names it for people.
func (p *properties) what() string {
	if p.queue != "" {
		return "queue " + p.queue
	}
	return "topic " + p.topic
}

func (p *properties) check() error {
	if p.sessionID != "" && p.partitionKey != "" && p.sessionID != p.partitionKey {
		return fmt.Errorf("session_id %q and partition_key %q must be the same: leave out partition_key", p.sessionID, p.partitionKey)
	}
	return errors.Join(
		checkLength("queue or topic", p.entity(), maxEntity), checkLength("session_id", p.sessionID, maxID),
		checkLength("partition_key", p.partitionKey, maxID), checkLength("message_id", p.messageID, maxID),
		checkLength("subject", p.subject, maxSubject),
	)
}

// maxSubject is far more than anybody needs; a message's properties have to fit into 64 KB.
const maxSubject = 4096

// checkLength checks a text that the service bounds.
func checkLength(what, text string, most int) error {
	if n := utf8.RuneCountInString(text); n > most {
		return fmt.Errorf("%s %.40s… has %d characters: Azure Service Bus takes up to %d", what, text, n, most)
	}
	if !utf8.ValidString(text) {
		return fmt.Errorf("%s %.40q is not UTF-8", what, text)
	}
	return nil
}
