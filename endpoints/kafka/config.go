package kafka

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/options"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// SASL is how the gateway logs in at the brokers. User and password may be placeholders
// ({env.KAFKA_PASSWORD}, {file./run/secrets/kafka}), so that no secret stands in the
// configuration.
type SASL struct {
	// Mechanism is plain, scram-sha-256 or scram-sha-512.
	Mechanism string `json:"mechanism,omitempty"`
	User      string `json:"user,omitempty"`
	Password  string `json:"password,omitempty"`
}

// Producer is what is published to.
type Producer struct {
	// Topics: each message goes to every one of them, and counts as stored when it is in
	// all. They may hold placeholders of the request.
	Topics []string `json:"topics,omitempty"`
	// Compression of the requests: none, gzip, snappy, lz4 or zstd. Default: none.
	Compression string `json:"compression,omitempty"`
	// Key of messages that bring none of their own; it may hold placeholders of the
	// request, and empty means none. Default: none.
	Key string `json:"key,omitempty"`
}

// Consumer is what is read.
type Consumer struct {
	// Topics to read, all of them together. They may hold placeholders of the request.
	Topics []string `json:"topics,omitempty"`
	// TopicPattern, instead of topics, is a regular expression (RE2) that must match the
	// whole name of a topic. Topics that are made later are read from their start.
	TopicPattern string `json:"topic_pattern,omitempty"`
	// AutoOffsetReset is where reading begins that has no position yet: latest or
	// earliest. Default: latest.
	AutoOffsetReset string `json:"auto_offset_reset,omitempty"`
}

// The words of the options.
var (
	mechanisms   = []string{"plain", "scram-sha-256", "scram-sha-512"}
	compressions = []string{"none", "gzip", "snappy", "lz4", "zstd"}
	resets       = []string{"latest", "earliest"}
)

// check finds what is wrong with the configuration as it is written.
func (k *Kafka) check() error {
	if len(k.Brokers) == 0 {
		return errors.New("kafka: brokers is missing: name one or more as host:port")
	}
	if k.Producer == nil && k.Consumer == nil {
		return errors.New("kafka: neither producer nor consumer is configured: add at least one of them")
	}
	if err := k.Producer.check(); err != nil {
		return err
	}
	return k.Consumer.check()
}

func (p *Producer) check() error {
	if p == nil {
		return nil
	}
	if len(p.Topics) == 0 {
		return errors.New("kafka: the producer has no topics")
	}
	if err := checkTopics(p.Topics); err != nil {
		return fmt.Errorf("kafka: producer: %w", err)
	}
	return oneOf("producer: compression", p.Compression, compressions)
}

func (c *Consumer) check() error {
	if c == nil {
		return nil
	}
	if (len(c.Topics) == 0) == (c.TopicPattern == "") {
		return errors.New("kafka: the consumer needs either topics or topic_pattern")
	}
	if _, err := compile(c.TopicPattern); err != nil {
		return err
	}
	if err := checkTopics(c.Topics); err != nil {
		return fmt.Errorf("kafka: consumer: %w", err)
	}
	return oneOf("consumer: auto_offset_reset", c.AutoOffsetReset, resets)
}

func checkTopics(topics []string) error {
	for _, t := range topics {
		if options.Dynamic(t) {
			continue
		}
		if err := checkTopic(t); err != nil {
			return err
		}
	}
	return nil
}

func oneOf(what, value string, words []string) error {
	if value == "" || slices.Contains(words, value) {
		return nil
	}
	return fmt.Errorf("kafka: %s %q: use %s", what, value, strings.Join(words, ", "))
}

// compile makes a pattern match whole names, as in Kafka's own clients.
func compile(pattern string) (*regexp.Regexp, error) {
	re, err := regexp.Compile(`^(?:` + pattern + `)$`)
	if err != nil {
		return nil, fmt.Errorf("kafka: consumer: topic_pattern: %w", err)
	}
	return re, nil
}

// clientConfig resolves addresses, secrets and files.
func (k *Kafka) clientConfig() (clientConfig, error) {
	cfg := clientConfig{Idle: time.Duration(k.Idle)}
	if cfg.Idle == 0 {
		cfg.Idle = defaultIdle
	}
	var err error
	if cfg.Brokers, err = options.Addresses(k.Brokers); err != nil {
		return cfg, fmt.Errorf("kafka: brokers: %w", err)
	}
	for _, address := range cfg.Brokers {
		if err := checkAddress(address); err != nil {
			return cfg, err
		}
	}
	if cfg.TLS, err = k.TLS.Config(); err != nil {
		return cfg, fmt.Errorf("kafka: tls: %w", err)
	}
	if cfg.SASL, err = k.SASL.mechanism(); err != nil {
		return cfg, fmt.Errorf("kafka: sasl: %w", err)
	}
	return cfg, nil
}

func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("kafka: broker %q: write it as host:port, e.g. kafka.example.com:9092", address)
	}
	n, err := strconv.Atoi(port)
	if err != nil || n < 1 || n > 65535 || host == "" {
		return fmt.Errorf("kafka: broker %q: write it as host:port, e.g. kafka.example.com:9092", address)
	}
	return nil
}

func (s *SASL) mechanism() (sasl.Mechanism, error) {
	if s == nil {
		return nil, nil //nolint:nilnil // no login is no error
	}
	user, password, err := (&options.Auth{User: s.User, Password: s.Password}).Resolve()
	if err != nil {
		return nil, err
	}
	switch s.Mechanism {
	case "plain":
		return plain.Mechanism{Username: user, Password: password}, nil
	case "scram-sha-256":
		return scram.Mechanism(scram.SHA256, user, password)
	case "scram-sha-512":
		return scram.Mechanism(scram.SHA512, user, password)
	}
	return nil, fmt.Errorf("mechanism %q: use %s", s.Mechanism, strings.Join(mechanisms, ", "))
}

func (p *Producer) codec() kafkago.Compression {
	return kafkago.Compression(max(slices.Index(compressions, p.Compression), 0))
}

func (c *Consumer) start() message.StartKind {
	if c.AutoOffsetReset == "earliest" {
		return message.StartEarliest
	}
	return message.StartLatest
}

func (c *Consumer) spec(topics []string) (*spec, error) {
	if c.TopicPattern == "" {
		return &spec{topics: distinct(topics)}, nil
	}
	re, err := compile(c.TopicPattern)
	return &spec{pattern: re}, err
}

func distinct(topics []string) []string {
	topics = slices.Sorted(slices.Values(topics))
	return slices.Compact(topics)
}

// expand replaces the request's placeholders in the names of topics.
func expand(topics []string, values endpoints.Values) ([]string, error) {
	all := make([]string, len(topics))
	for i, t := range topics {
		name, err := values.Name(t)
		if err != nil {
			return nil, err
		}
		if err := checkTopic(name); err != nil {
			return nil, message.Errorf(message.BadInput, "%w", err)
		}
		all[i] = name
	}
	return distinct(all), nil
}

func keyOf(text string) []byte {
	if text == "" {
		return nil
	}
	return []byte(text)
}
