package mqtt5

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/endpoints/options"
)

// Will is what the server publishes when the gateway's publishing connection breaks without
// a goodbye. Texts may hold {env.*} and {file.*} placeholders.
type Will struct {
	// Topic to publish to. Required.
	Topic string `json:"topic,omitempty"`
	// Payload is the content. Default: empty.
	Payload string `json:"payload,omitempty"`
	// QoS is 0, 1 or 2. Default: 0.
	QoS int `json:"qos,omitempty"`
	// Retained has the server keep it. Default: off.
	Retained bool `json:"retained,omitempty"`
	// Delay is how long the server waits for the gateway to come back, in whole seconds.
	// Default: 0.
	Delay caddy.Duration `json:"delay,omitempty"`
}

// Producer is what is published to. Texts may hold placeholders of the request; their
// values may have 1 to 128 characters of A-Z a-z 0-9 . _ ~ - in the names of topics, and
// hold anything elsewhere.
type Producer struct {
	// Topic to publish to. Required.
	Topic string `json:"topic,omitempty"`
	// QoS is 0, 1 or 2. With 0 nothing is confirmed, and only entrypoints with `qos none`
	// can publish. Entrypoints with `qos none` always publish with QoS 0. Default: 1.
	QoS *int `json:"qos,omitempty"`
	// Retained has the server keep the newest message of the topic. Default: off.
	Retained bool `json:"retained,omitempty"`
	// MessageExpiry is after how long the server drops a message that it could not deliver,
	// in whole seconds. Default: never.
	MessageExpiry caddy.Duration `json:"message_expiry,omitempty"`
	// ResponseTopic tells receivers where answers are expected. Default: none.
	ResponseTopic string `json:"response_topic,omitempty"`
	// CorrelationData tells receivers what to send with an answer. Default: none.
	CorrelationData string `json:"correlation_data,omitempty"`
	// ContentType of messages that have no header content-type. Default: none.
	ContentType string `json:"content_type,omitempty"`
}

// Consumer is what is read.
type Consumer struct {
	// Topics are filters, in which + stands for one level and # at the end for all below;
	// all are read together. They may hold placeholders of the request; their values may
	// have 1 to 128 characters of A-Z a-z 0-9 . _ ~ -. At least one is required.
	Topics []string `json:"topic,omitempty"`
	// QoS is the highest QoS at which messages are delivered: 0, 1 or 2. With 0 the broker
	// keeps track of nobody: all clients read the broadcast. At `at_most_once` it is always
	// 0. Default: 1.
	QoS *int `json:"qos,omitempty"`
	// Share is how the sessions of one identity share the messages. With auto, as long as
	// this process knows of one session only, its subscription is a plain one, which all
	// brokers keep when they restart; as soon as there are two, they share
	// (`$share/<api>.<identifier>/<filter>`). With always they share from the first on,
	// which is right where one identity is served by several nodes at the same time: with
	// auto such sessions may both get a message. Default: auto.
	Share string `json:"share,omitempty"`
	// ReceiveMaximum is how many unsettled messages a client can have where the entrypoint
	// does not say it. Default: 500.
	ReceiveMaximum int `json:"receive_maximum,omitempty"`
}

var shareWords = []string{"auto", "always"}

func (p *Producer) qos() byte { return qosOf(p.QoS) }
func (c *Consumer) qos() byte { return qosOf(c.QoS) }

func qosOf(q *int) byte {
	if q == nil {
		return 1
	}
	return byte(*q) //nolint:gosec // checked
}

// check finds what is wrong with the configuration as it is written.
func (m *MQTT5) check() error {
	switch {
	case len(m.Servers) == 0:
		return errors.New("mqtt5: server is missing: name one or more as host:port, mqtt://, mqtts://, ws:// or wss://")
	case m.Producer == nil && m.Consumer == nil:
		return errors.New("mqtt5: neither producer nor consumer is configured: add at least one of them")
	case m.Will != nil && m.Producer == nil:
		return errors.New("mqtt5: a will belongs to the publishing connection, and there is no producer")
	case len(m.ClientID) > 64 || !isText(m.ClientID) || strings.ContainsAny(m.ClientID, " /+#"):
		return fmt.Errorf("mqtt5: client_id %q: use at most 64 characters, and no space, /, + or #", m.ClientID)
	}
	if _, err := seconds(m.KeepAlive, math.MaxUint16); err != nil {
		return fmt.Errorf("mqtt5: keep_alive: %w", err)
	}
	if _, err := seconds(m.SessionExpiry, math.MaxUint32-1); err != nil {
		return fmt.Errorf("mqtt5: session_expiry: %w", err)
	}
	if err := m.Will.check(); err != nil {
		return fmt.Errorf("mqtt5: will: %w", err)
	}
	if err := m.Producer.check(); err != nil {
		return fmt.Errorf("mqtt5: producer: %w", err)
	}
	if err := m.Consumer.check(); err != nil {
		return fmt.Errorf("mqtt5: consumer: %w", err)
	}
	return nil
}

func (w *Will) check() error {
	if w == nil {
		return nil
	}
	if err := checkTopic(w.Topic); err != nil {
		return err
	}
	if len(w.Payload) > 0xffff {
		return errors.New("the payload is longer than 65,535 bytes")
	}
	if _, err := seconds(w.Delay, math.MaxUint32); err != nil {
		return fmt.Errorf("delay: %w", err)
	}
	return checkQoS(w.QoS)
}

func (p *Producer) check() error {
	if p == nil {
		return nil
	}
	if p.Topic == "" {
		return errors.New("topic is missing")
	}
	if !options.Dynamic(p.Topic) {
		if err := checkTopic(p.Topic); err != nil {
			return err
		}
	}
	if p.ResponseTopic != "" && !options.Dynamic(p.ResponseTopic) {
		if err := checkTopic(p.ResponseTopic); err != nil {
			return fmt.Errorf("response_topic: %w", err)
		}
	}
	if !isText(p.ContentType) || len(p.CorrelationData) > 0xffff {
		return errors.New("content_type and correlation_data are at most 65,535 bytes, and content_type is UTF-8 text")
	}
	if _, err := seconds(p.MessageExpiry, math.MaxUint32); err != nil {
		return fmt.Errorf("message_expiry: %w", err)
	}
	return checkQoS(int(p.qos()))
}

func (c *Consumer) check() error {
	if c == nil {
		return nil
	}
	if len(c.Topics) == 0 {
		return errors.New("topic is missing: name one or more filters")
	}
	for _, f := range c.Topics {
		if options.Dynamic(f) {
			continue
		}
		if err := checkFilter(f); err != nil {
			return err
		}
	}
	if !slices.Contains(shareWords, c.Share) && c.Share != "" {
		return fmt.Errorf("share %q: use %s", c.Share, strings.Join(shareWords, ", "))
	}
	if c.ReceiveMaximum < 0 || c.ReceiveMaximum > math.MaxUint16 {
		return fmt.Errorf("receive_maximum %d: use 1 to 65535", c.ReceiveMaximum)
	}
	if c.QoS != nil {
		return checkQoS(*c.QoS)
	}
	return nil
}

func checkQoS(q int) error {
	if q < 0 || q > 2 {
		return fmt.Errorf("qos %d: use 0, 1 or 2", q)
	}
	return nil
}

// seconds is a duration as MQTT writes it.
func seconds(d caddy.Duration, most int64) (int64, error) {
	n := int64(math.Ceil(time.Duration(d).Seconds()))
	if n < 0 || n > most {
		return 0, fmt.Errorf("%s is not between 0 and %d seconds", time.Duration(d), most)
	}
	return n, nil
}

// checkTopic refuses what is no name of a topic.
func checkTopic(topic string) error {
	switch {
	case topic == "":
		return errors.New("the topic is empty")
	case !isText(topic):
		return fmt.Errorf("topic %.40q: a topic is UTF-8 text of at most 65,535 bytes, without NUL", topic)
	case strings.ContainsAny(topic, "+#"):
		return fmt.Errorf("topic %q: + and # stand for several topics, and a message goes to one", topic)
	}
	return nil
}

// checkFilter refuses what is no filter of topics.
func checkFilter(filter string) error {
	if filter == "" || !isText(filter) {
		return fmt.Errorf("filter %.40q: a filter is UTF-8 text of 1 to 65,535 bytes, without NUL", filter)
	}
	if strings.HasPrefix(filter, "$share/") {
		return fmt.Errorf("filter %q: leave out $share: clients with an identity share by themselves", filter)
	}
	levels := strings.Split(filter, "/")
	for i, level := range levels {
		switch {
		case strings.Contains(level, "#") && (level != "#" || i < len(levels)-1):
			return fmt.Errorf("filter %q: # stands alone, at the end", filter)
		case strings.Contains(level, "+") && level != "+":
			return fmt.Errorf("filter %q: + stands alone between slashes", filter)
		}
	}
	return nil
}
