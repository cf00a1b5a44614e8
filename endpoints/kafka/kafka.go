// Package kafka is the endpoint for Apache Kafka and everything that speaks its protocol.
//
// The client side (everything but kafka.go and caddyfile.go) knows nothing of Caddy. It
// uses segmentio/kafka-go for connections, TLS, SASL, the wire codec and group
// membership; batching, partitioning, fetching, positions and commits are its own.
package kafka

import (
	"context"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/link"
	"github.com/caddy-message-api/caddy-message-api/endpoints/options"
	"github.com/caddy-message-api/caddy-message-api/message"
)

func init() { caddy.RegisterModule(Kafka{}) }

// Kafka is an endpoint that reads from and writes to topics of a Kafka cluster (0.11 or
// newer).
//
// Publishing waits for all in-sync replicas (acks=all). A message is sent at once when
// its partition is idle; what arrives while a request is under way goes into the next
// one. Messages with a key go to the partition that Kafka's Java client would choose. A
// message whose metadata has the flag `tombstone`, and that has no payload, is stored as
// null. Topics are never created. A message that may have reached the broker is never
// sent again: what its outcome is, is then reported as unknown.
//
// Reading: sessions without an identity, and those that resume, read all partitions by
// their own position. An identity at `auto` and `at_most_once` is a consumer group of
// its name, `<api>.<identifier>`; its bookmark is kept in the group of that name with
// `.bookmark` at the end. New partitions, and new topics that a pattern matches, are
// found within a few seconds. Transactions are read uncommitted. Rejected messages are
// skipped, because Kafka has no dead letters.
//
// Metadata of messages: `topic`, `partition`, `offset`, `timestamp` (Unix milliseconds),
// `key` (or `key_base64`, when it is not UTF-8) and `tombstone` (true when the value is
// null; the payload is then empty). The id is `topic@partition#offset`.
type Kafka struct {
	// Addresses (host:port) of one or more brokers, from which the others are learned.
	// Placeholders like {env.KAFKA} are replaced; a value may hold several addresses,
	// separated by commas.
	Brokers []string `json:"brokers,omitempty"`
	// TLS, when present, encrypts the connections. Default: plaintext.
	TLS *options.TLS `json:"tls,omitempty"`
	// SASL is how the gateway logs in. Default: it does not.
	SASL *SASL `json:"sasl,omitempty"`
	// Producer makes it possible to publish. At least one of producer and consumer must
	// be there.
	Producer *Producer `json:"producer,omitempty"`
	// Consumer makes it possible to subscribe.
	Consumer *Consumer `json:"consumer,omitempty"`
	// Idle is after how long unused connections are closed. Default: 5m.
	Idle caddy.Duration `json:"idle,omitempty"`

	client   *client
	producer *producer
	fixed    *publisher // when nothing has to be expanded
	spec     *spec      // likewise
	dial     dialFunc   // how tests get between us and the broker
}

const (
	defaultIdle     = 5 * time.Minute
	defaultMessages = 500
	defaultBytes    = 1 << 20
	// farewell is how long Cleanup waits for messages that are on their way.
	farewell = 2 * time.Second
)

// CaddyModule returns the Caddy module information.
func (Kafka) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  endpoints.Namespace + ".kafka",
		New: func() caddy.Module { return new(Kafka) },
	}
}

// Provision prepares the endpoint. It reads files, and talks to nobody.
func (k *Kafka) Provision(ctx caddy.Context) error {
	cfg, err := k.clientConfig()
	if err != nil {
		return err
	}
	k.resolve()
	if err := k.check(); err != nil {
		return err
	}
	cfg.Dial = k.dial
	k.client = newClient(cfg)
	if k.Producer != nil {
		lost := link.NewLosses(ctx.Logger(), "messages that were published at level none are not stored")
		k.producer = newProducer(k.client, k.Producer.codec(), func(topic string, err error) {
			lost.Note(1, err, zap.String("topic", topic))
		})
		if p := k.Producer; !options.Dynamic(p.Topics...) && !options.Dynamic(p.Key) {
			k.fixed = &publisher{p: k.producer, topics: distinct(p.Topics), key: keyOf(p.Key)}
		}
	}
	if c := k.Consumer; c != nil && !options.Dynamic(c.Topics...) {
		k.spec, err = c.spec(c.Topics)
	}
	return err
}

// resolve replaces what the environment and files say in the names of topics; what
// requests say is replaced for each of them.
func (k *Kafka) resolve() {
	if p := k.Producer; p != nil {
		for i := range p.Topics {
			options.Global(&p.Topics[i])
		}
	}
	if c := k.Consumer; c != nil {
		for i := range c.Topics {
			options.Global(&c.Topics[i])
		}
		options.Global(&c.TopicPattern)
	}
}

// Validate implements caddy.Validator. Everything was checked while provisioning, where
// the placeholders are replaced.
func (k *Kafka) Validate() error { return k.check() }

// Cleanup ends the connections, after a moment for messages that are on their way.
func (k *Kafka) Cleanup() error {
	if k.producer != nil {
		k.producer.close(farewell)
	}
	if k.client != nil {
		k.client.close()
	}
	return nil
}

// Capabilities implements endpoints.Endpoint.
func (k *Kafka) Capabilities() message.Capabilities {
	reads, writes := k.Consumer != nil, k.Producer != nil
	return message.Capabilities{
		Publish: writes, Confirm: writes,
		Subscribe: reads, Copy: reads, Exclusive: reads, ManualSettle: reads, Positions: reads, Fenced: reads,
		Earliest: reads && k.Consumer.AutoOffsetReset == "earliest",
	}
}

// Status implements endpoints.Endpoint.
func (k *Kafka) Status() endpoints.Status { return k.client.health.status(k.client.address()) }

// Publisher implements endpoints.Publishing.
func (k *Kafka) Publisher(values endpoints.Values) (message.Publisher, error) {
	if k.Producer == nil {
		return nil, message.Errorf(message.Mismatch, "the Kafka endpoint has no producer")
	}
	if k.fixed != nil {
		return k.fixed, nil
	}
	topics, err := expand(k.Producer.Topics, values)
	if err != nil {
		return nil, err
	}
	key, err := values.Text(k.Producer.Key)
	if err != nil {
		return nil, err
	}
	return &publisher{p: k.producer, topics: topics, key: keyOf(key)}, nil
}

// Channel implements endpoints.Subscribing.
func (k *Kafka) Channel(values endpoints.Values) (endpoints.Channel, error) {
	if k.Consumer == nil {
		return endpoints.Channel{}, message.Errorf(message.Mismatch, "the Kafka endpoint has no consumer")
	}
	s := k.spec
	if s == nil {
		topics, err := expand(k.Consumer.Topics, values)
		if err != nil {
			return endpoints.Channel{}, err
		}
		if s, err = k.Consumer.spec(topics); err != nil {
			return endpoints.Channel{}, err
		}
	}
	return endpoints.Channel{Key: s.key(), Spec: s}, nil
}

// Subscribe implements endpoints.Subscribing.
func (k *Kafka) Subscribe(ctx context.Context, channel endpoints.Channel, sub message.Subscription) (message.Stream, error) {
	s, ok := channel.Spec.(*spec)
	if !ok {
		return nil, message.Errorf(message.Internal, "the channel is not one of the Kafka endpoint")
	}
	if sub.From.Kind == message.StartDefault {
		sub.From.Kind = k.Consumer.start()
	}
	if sub.Window.Messages <= 0 {
		sub.Window.Messages = defaultMessages
	}
	if sub.Window.Bytes <= 0 {
		sub.Window.Bytes = defaultBytes
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	switch sub.Mode {
	case message.Broadcast, message.Assigned:
		return k.client.subscribeAssigned(ctx, s, sub)
	case message.Member:
		return k.client.subscribeMember(ctx, s, sub)
	}
	return nil, message.Errorf(message.Mismatch, "the Kafka endpoint has no %s subscriptions", sub.Mode)
}

// Probe implements endpoints.Prober: the cluster answers and the topics that are known
// without a request are there.
func (k *Kafka) Probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	all := &spec{}
	if k.fixed != nil {
		all.topics = append(all.topics, k.fixed.topics...)
	}
	if k.spec != nil {
		all.topics = append(all.topics, k.spec.topics...)
	}
	all.topics = distinct(all.topics)
	t, err := k.client.metadata(ctx, all.topics, false)
	if err != nil {
		return k.client.unavailable(err)
	}
	if problem, _ := all.problem(t, all.matching(t)); problem != nil {
		return problem
	}
	return nil
}

var (
	_ caddy.Provisioner     = (*Kafka)(nil)
	_ caddy.Validator       = (*Kafka)(nil)
	_ caddy.CleanerUpper    = (*Kafka)(nil)
	_ endpoints.Endpoint    = (*Kafka)(nil)
	_ endpoints.Publishing  = (*Kafka)(nil)
	_ endpoints.Subscribing = (*Kafka)(nil)
	_ endpoints.Prober      = (*Kafka)(nil)
)
