// Package solace is the endpoint for Solace PubSub+ brokers, over SMF.
//
// Solace's client library needs cgo and brings a native library under a licence of its
// own (docs/endpoints/solace.md), so this package is in no build that does not ask for it.
// Where there is no cgo it consists of the configuration, which then fails with a message
// that says how to build.
//
// The client side (everything but solace.go, config.go and caddyfile.go) knows nothing of
// Caddy. Connections, windows, epochs and reconnecting are its own: the library neither
// reconnects nor sends anything again.
package solace

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/options"
)

// Solace is an endpoint that publishes to topics of a Solace PubSub+ broker, and reads
// topics or queues of it, over SMF.
//
// Publishing is persistent unless it is said otherwise: a message counts as stored when the
// broker has acknowledged it. One that may have reached the broker is never sent again:
// what its outcome is, is then reported as unknown.
//
// Reading topics gives each identity a durable queue of its own,
// `<api>.<identifier>.<hash>`, with these topics, and each process one direct subscription
// for all anonymous clients, which lives as long as its connection. Reading a queue that
// clients share must be said. Queues of identities do not expire: Solace knows no such
// thing for queues that clients make.
//
// Headers are user properties: a name that repeats becomes a stream of its values, values
// that are not text become byte arrays, and the header content-type is also the HTTP
// content type. A message's key is the property JMSXGroupID, by which partitioned queues
// keep order. Payloads of other clients that are texts are delivered as their bytes; maps
// and streams as JSON.
//
// Metadata of messages: `destination`, and where they are set `redelivered`, `message_id`,
// `correlation_id`, `type`, `sender_id`, `sequence_number`, `sender_timestamp` and
// `expiration` (Unix milliseconds), `priority`, `content_type`, `content_encoding` and
// `replication_group_message_id`.
type Solace struct {
	// URL is where the broker is: one or more of tcp://host:55555 and tcps://host:55443,
	// tried in turn. The ports default to these. Placeholders like {env.SOLACE} are
	// replaced; a value may hold several addresses, separated by commas.
	URL []string `json:"url,omitempty"`
	// VPN is the message VPN to work in. Default: default.
	VPN string `json:"vpn,omitempty"`
	// TLS is for tcps addresses. With a certificate, the gateway logs in by that, and without
	// auth. Default: what the system trusts in /etc/ssl/certs. Solace's library checks
	// server_name against the common name of the broker's certificate alone.
	TLS *options.TLS `json:"tls,omitempty"`
	// Auth is how the gateway logs in. Default: by the certificate, if there is one, else as
	// user default without a password.
	Auth *options.Auth `json:"auth,omitempty"`
	// Idle is after how long unused connections are closed. Default: 5m.
	Idle caddy.Duration `json:"idle,omitempty"`
	// Producer makes it possible to publish. At least one of producer and consumer must be
	// there.
	Producer *Producer `json:"producer,omitempty"`
	// Consumer makes it possible to subscribe.
	Consumer *Consumer `json:"consumer,omitempty"`

	scope endpoints.Scope
	state // of a build that has the library
}

// Producer is what is published to. Texts may hold placeholders of the request; their
// values may have 1 to 128 characters of A-Z a-z 0-9 . _ ~ - in topics, and hold anything
// elsewhere.
type Producer struct {
	// Topics: each message goes to every one of them, and counts as stored when the broker
	// has all. #P2P/QUE/<queue> reaches a queue. Required.
	Topics []string `json:"topics,omitempty"`
	// Delivery is persistent or direct. Direct messages are handed to the client library,
	// and nobody confirms them: only entrypoints with `qos none` can publish them. Default:
	// persistent.
	Delivery string `json:"delivery,omitempty"`
	// Key is for messages that have none of their own: the property JMSXGroupID. Default:
	// none.
	Key string `json:"key,omitempty"`
	// MessageID is the application message id of messages that have no id of their own.
	// Default: one that is made.
	MessageID string `json:"message_id,omitempty"`
	// CorrelationID of all messages. Default: none.
	CorrelationID string `json:"correlation_id,omitempty"`
	// Priority of all messages, 0 to 255. Default: the library's, 4.
	Priority *int `json:"priority,omitempty"`
	// TimeToLive is after how long queues that heed it drop a message. Whole milliseconds.
	// Default: never.
	TimeToLive caddy.Duration `json:"time_to_live,omitempty"`
	// DeadLetter: what queues drop may go to their dead message queue. Default: on.
	DeadLetter *bool `json:"dead_letter,omitempty"`
}

// Consumer is what is read: topics, for which every identity has a queue of its own, or one
// queue that exists.
type Consumer struct {
	// Topics to read, all of them together; * and > are SMF's wildcards. They may hold
	// placeholders of the request, whose values can't be wildcards.
	Topics []string `json:"topics,omitempty"`
	// Queue to read, instead of topics. It must exist. It may hold placeholders of the
	// request.
	Queue string `json:"queue,omitempty"`
	// Shared says that all clients compete for the messages of the queue, so that each goes
	// to one of them. It must be on for a queue, because nobody expects it. Default: off.
	Shared bool `json:"shared,omitempty"`
	// Prefetch is how many unsettled messages a client may have where the gateway does not
	// say it. Default: 500. Solace's library holds up to 305 more.
	Prefetch int `json:"prefetch,omitempty"`
	// Provision: the queue of an identity is made, and its topics are added to it, when it is
	// needed. Off expects both to be there. Default: on.
	Provision *bool `json:"provision,omitempty"`
	// Quota bounds the queues that are made, in bytes; the broker counts in whole megabytes.
	// Default: the broker's.
	Quota int64 `json:"quota,omitempty"`
	// MaxRedeliveries is how often a message of a queue that is made comes again before it
	// is dropped, or goes to the dead message queue. At most 255. Default: the broker's.
	MaxRedeliveries int `json:"max_redeliveries,omitempty"`
	// Payload is typed or raw. Other clients may send texts, maps and streams in a form of
	// Solace's own: typed delivers texts as their bytes, and maps and streams as JSON; raw
	// delivers that form. The form can't be told from bytes that look just like it. Default:
	// typed.
	Payload string `json:"payload,omitempty"`
	// DeadLetter says that the queues have a dead message queue that exists, so that what
	// clients reject is put aside and not dropped. Default: off.
	DeadLetter bool `json:"dead_letter,omitempty"`
}

// The ways to deliver.
const (
	persistent = "persistent"
	direct     = "direct"
)

// The forms of payloads.
const (
	asTyped = "typed"
	raw     = "raw"
)

const (
	defaultVPN      = "default"
	defaultUser     = "default"
	defaultIdle     = 5 * time.Minute
	defaultMessages = 500
	defaultBytes    = 1 << 20
	maxPrefetch     = 10_000
	// maxTopic and maxQueue are the longest names that brokers take, in bytes.
	maxTopic = 250
	maxQueue = 200
)

func on(flag *bool) bool { return flag == nil || *flag }

func (p *Producer) confirms() bool { return p.Delivery != direct }

// resolve replaces what the environment and files say; what requests say is replaced for
// each of them.
func (s *Solace) resolve() {
	if p := s.Producer; p != nil {
		options.Global(&p.Key, &p.MessageID, &p.CorrelationID)
		for i := range p.Topics {
			options.Global(&p.Topics[i])
		}
	}
	if c := s.Consumer; c != nil {
		options.Global(&c.Queue)
		for i := range c.Topics {
			options.Global(&c.Topics[i])
		}
	}
}

// check finds what is wrong with the configuration as it is written.
func (s *Solace) check() error {
	switch {
	case len(s.URL) == 0:
		return errors.New("solace: url is missing: name one or more as tcp://host:55555 or tcps://host:55443")
	case s.Producer == nil && s.Consumer == nil:
		return errors.New("solace: neither producer nor consumer is configured: add at least one of them")
	case s.Idle < 0:
		return errors.New("solace: idle must not be negative")
	}
	if err := s.Producer.check(); err != nil {
		return fmt.Errorf("solace: producer: %w", err)
	}
	if err := s.Consumer.check(); err != nil {
		return fmt.Errorf("solace: consumer: %w", err)
	}
	return nil
}

func (p *Producer) check() error {
	if p == nil {
		return nil
	}
	switch {
	case len(p.Topics) == 0:
		return errors.New("it has no topics")
	case p.Delivery != "" && p.Delivery != persistent && p.Delivery != direct:
		return fmt.Errorf("delivery %q: use persistent, direct", p.Delivery)
	case p.Priority != nil && (*p.Priority < 0 || *p.Priority > math.MaxUint8):
		return errors.New("priority must be from 0 to 255")
	case p.TimeToLive < 0 || time.Duration(p.TimeToLive)%time.Millisecond != 0:
		return errors.New("time_to_live must be whole milliseconds, and not negative")
	}
	for i, topic := range p.Topics {
		if slices.Contains(p.Topics[:i], topic) {
			return fmt.Errorf("topic %s stands twice", topic)
		}
		if err := checkTopic(topic); err != nil {
			return err
		}
	}
	return nil
}

func (c *Consumer) check() error {
	if c == nil {
		return nil
	}
	if c.Prefetch < 0 || c.Prefetch > maxPrefetch {
		return fmt.Errorf("prefetch must be from 1 to %d", maxPrefetch)
	}
	if c.Payload != "" && c.Payload != asTyped && c.Payload != raw {
		return fmt.Errorf("payload %q: use typed, raw", c.Payload)
	}
	switch {
	case len(c.Topics) == 0 && c.Queue == "":
		return errors.New("name topics, for which every client has a queue of its own, or a queue")
	case len(c.Topics) > 0 && c.Queue != "":
		return fmt.Errorf("name either topics or a queue: to which topics queue %s is subscribed is said at the broker", c.Queue)
	case c.Queue != "":
		return c.checkQueue()
	case c.Shared:
		return errors.New("shared is for a queue: of topics, every client has a queue of its own; name the queue to compete for")
	case c.Quota < 0 || c.Quota > math.MaxInt32<<20:
		return errors.New("quota is too large")
	case c.MaxRedeliveries < 0 || c.MaxRedeliveries > math.MaxUint8:
		return errors.New("max_redeliveries must be from 1 to 255")
	case !on(c.Provision) && (c.Quota != 0 || c.MaxRedeliveries != 0):
		return errors.New("quota and max_redeliveries are for queues that are made, and provision is off")
	}
	for _, topic := range c.Topics {
		if err := checkSubscription(topic); err != nil {
			return err
		}
	}
	return nil
}

func (c *Consumer) checkQueue() error {
	switch {
	case !c.Shared:
		return fmt.Errorf("clients compete for the messages of queue %s, each message goes to one of them: "+
			"say so with shared, or name topics, for which every client has a queue of its own", c.Queue)
	case c.Provision != nil || c.Quota != 0 || c.MaxRedeliveries != 0:
		return fmt.Errorf("provision, quota and max_redeliveries are for the queues of identities; queue %s must exist", c.Queue)
	}
	return checkQueueName(c.Queue)
}

// checkTopic refuses what can't be published to.
func checkTopic(topic string) error {
	if err := checkLevels(topic); err != nil {
		return err
	}
	for level := range strings.SplitSeq(topic, "/") {
		if level == ">" || strings.HasSuffix(level, "*") {
			return fmt.Errorf("topic %q: * and > are wildcards, and what is published has one topic", topic)
		}
	}
	return nil
}

// checkSubscription refuses what can't be subscribed to.
func checkSubscription(topic string) error {
	if err := checkLevels(topic); err != nil {
		return err
	}
	if strings.HasPrefix(topic, "#") {
		return fmt.Errorf("topic %q: what begins with # is the broker's own; for a shared subscription, name a queue and write shared", topic)
	}
	return nil
}

func checkLevels(topic string) error {
	switch {
	case topic == "" || len(topic) > maxTopic:
		return fmt.Errorf("topic %.40q: a topic has 1 to %d bytes", topic, maxTopic)
	case strings.ContainsRune(topic, 0):
		return fmt.Errorf("topic %q: a topic can't hold NUL", topic)
	case strings.HasPrefix(topic, "/") || strings.HasSuffix(topic, "/") || strings.Contains(topic, "//"):
		return fmt.Errorf("topic %q: its levels must not be empty", topic)
	}
	return nil
}

func checkQueueName(name string) error {
	if name == "" || len(name) > maxQueue {
		return fmt.Errorf("queue %.40q: a queue's name has 1 to %d bytes", name, maxQueue)
	}
	if strings.ContainsAny(name, "'<>*?&;\x00") {
		return fmt.Errorf("queue %q: a queue's name can't hold any of ' < > * ? & ;", name)
	}
	return nil
}

// address completes and checks what url says of one broker.
func address(text string) (string, error) {
	wrong := func(why string) (string, error) {
		return "", fmt.Errorf("url: %s: write it like tcp://solace.example.com:55555 or tcps://solace.example.com:55443", why)
	}
	u, err := url.Parse(text)
	switch {
	case err != nil: // which may quote what is a secret
		return wrong("it can't be read")
	case u.User != nil:
		return wrong("a login does not belong into it, but into auth")
	case u.Scheme != "tcp" && u.Scheme != "tcps":
		return wrong(fmt.Sprintf("%q is neither tcp:// nor tcps://", text))
	case u.Hostname() == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return wrong(fmt.Sprintf("%q is more or less than a host and a port", text))
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"tcp": "55555", "tcps": "55443"}[u.Scheme]
	}
	return u.Scheme + "://" + net.JoinHostPort(u.Hostname(), port), nil
}

func isSecure(address string) bool { return strings.HasPrefix(address, "tcps:") }
