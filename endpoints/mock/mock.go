package mock

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// The defaults and bounds of the configuration.
const (
	DefaultInterval = time.Second
	DefaultContent  = "mock message"
	MinInterval     = 10 * time.Microsecond
	MaxContent      = 1 << 20
	maxPairs        = 100
	maxPairBytes    = 64 << 10
)

// defaultWindow is used where a subscription has none.
var defaultWindow = message.Window{Messages: 1000, Bytes: 1 << 20}

func init() { caddy.RegisterModule(new(Mock)) }

// Mock is an endpoint that needs no broker: it makes messages by a clock, and takes and
// drops what is published. With `loopback` it delivers what is published to its own
// subscribers instead. It is for trying things out, for tests and for measuring.
//
// Each client has a clock and ids of its own, from "0", which start when it subscribes;
// with qos none all clients share one clock. All levels of qos work. What the mock
// remembers of a client (bookmarks, unsettled messages) is in memory only.
type Mock struct {
	// MessageInterval is the time between two messages, and before the first one. At
	// least 10µs; messages that are due at the same moment come together. Default: 1s, or
	// no generated messages at all with loopback.
	MessageInterval *caddy.Duration `json:"message_interval,omitempty"`
	// MessageContent is the payload of every generated message, taken literally, at most
	// 1 MiB. Default: "mock message".
	MessageContent *string `json:"message_content,omitempty"`
	// MessageCount is how many messages one subscription generates before it falls
	// silent, at least 1. A message that comes again counts once. Default: unlimited.
	MessageCount *int64 `json:"message_count,omitempty"`
	// Header are the headers of every generated message, in this order; names may repeat.
	// Default: none.
	Header []Pair `json:"header,omitempty"`
	// Metadata are facts that the mock tells about every message, as a broker would. Names
	// may not repeat. Default: none.
	Metadata []Pair `json:"metadata,omitempty"`
	// Loopback delivers what is published to all subscribers. There is no history then:
	// subscribers get what comes from now on, and only qos none and auto work. Default: off.
	Loopback bool `json:"loopback,omitempty"`

	logger      *zap.Logger
	scope       endpoints.Scope
	fingerprint atomic.Uint64 // origin, once it was asked for
	made        template
	interval    time.Duration // 0: no clock
	since       time.Time
	config      []byte
	epochs      atomic.Uint64
	published   atomic.Uint64
	names       names
	hub         hub

	shared     sync.Mutex
	sharedTick clock // zero until the first broadcast subscription
}

// Pair is a name and its value.
type Pair struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// CaddyModule implements caddy.Module.
func (*Mock) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  endpoints.Namespace + ".mock",
		New: func() caddy.Module { return new(Mock) },
	}
}

// Provision implements caddy.Provisioner.
func (m *Mock) Provision(ctx caddy.Context) error {
	m.logger = ctx.Logger()
	m.since = time.Now()
	config, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("endpoint mock: %w", err)
	}
	m.config = config
	switch {
	case m.MessageInterval != nil:
		m.interval = time.Duration(*m.MessageInterval)
	case !m.Loopback:
		m.interval = DefaultInterval
	}
	content := DefaultContent
	if m.MessageContent != nil {
		content = *m.MessageContent
	}
	m.made.payload = []byte(content)
	for _, p := range m.Header {
		m.made.headers = append(m.made.headers, message.Header{Name: p.Name, Value: p.Value})
	}
	for _, p := range m.Metadata {
		m.made.metadata = append(m.made.metadata, message.Text(p.Name, p.Value))
	}
	if m.Loopback {
		m.made.prefix = "tick-"
	}
	m.hub.metadata = m.made.metadata
	return nil
}

// Validate implements caddy.Validator.
func (m *Mock) Validate() error {
	switch {
	case m.MessageInterval != nil && time.Duration(*m.MessageInterval) < MinInterval:
		return fmt.Errorf("endpoint mock: message_interval %s: use at least %s", time.Duration(*m.MessageInterval), MinInterval)
	case len(m.made.payload) > MaxContent:
		return fmt.Errorf("endpoint mock: message_content has %d bytes: use at most %d", len(m.made.payload), MaxContent)
	case m.MessageCount != nil && *m.MessageCount < 1:
		return fmt.Errorf("endpoint mock: message_count %d: use at least 1, or leave it out for no end", *m.MessageCount)
	}
	if err := checkPairs("header", m.Header, true); err != nil {
		return err
	}
	return checkPairs("metadata", m.Metadata, false)
}

func checkPairs(what string, pairs []Pair, repeat bool) error {
	if len(pairs) > maxPairs {
		return fmt.Errorf("endpoint mock: %d of %s: use at most %d", len(pairs), what, maxPairs)
	}
	seen, bytes := make(map[string]bool), 0
	for _, p := range pairs {
		if p.Name == "" {
			return fmt.Errorf("endpoint mock: %s needs a name that is not empty", what)
		}
		if seen[p.Name] && !repeat {
			return fmt.Errorf("endpoint mock: %s %q stands twice", what, p.Name)
		}
		seen[p.Name] = true
		bytes += len(p.Name) + len(p.Value)
	}
	if bytes > maxPairBytes {
		return fmt.Errorf("endpoint mock: %s has %d bytes: use at most %d", what, bytes, maxPairBytes)
	}
	return nil
}

// SetScope implements endpoints.Scoped.
func (m *Mock) SetScope(scope endpoints.Scope) {
	m.scope = scope
	m.fingerprint.Store(0)
}

// origin is the fingerprint that the mock's cursors carry: of its configuration, and of
// where it stands, so that another API's cursors are not taken for its own.
func (m *Mock) origin() uint64 {
	if known := m.fingerprint.Load(); known != 0 {
		return known
	}
	h := sha256.New()
	fmt.Fprintf(h, "%q %q ", m.scope.Owner, m.scope.Name) // a hash takes everything
	h.Write(m.config)
	made := binary.BigEndian.Uint64(h.Sum(nil))
	m.fingerprint.Store(made)
	return made
}

// Capabilities implements endpoints.Endpoint.
func (m *Mock) Capabilities() message.Capabilities {
	if m.Loopback {
		return message.Capabilities{Publish: true, Confirm: true, Subscribe: true, Copy: true}
	}
	return message.Capabilities{
		Publish: true, Confirm: true, Subscribe: true, Copy: true, PerSession: true, Exclusive: true,
		ManualSettle: true, Positions: true, Fenced: true,
	}
}

// Status implements endpoints.Endpoint: there is no connection that could be down.
func (m *Mock) Status() endpoints.Status {
	return endpoints.Status{State: endpoints.Up, Since: m.since}
}

// Probe implements endpoints.Prober.
func (m *Mock) Probe(ctx context.Context) error { return ctx.Err() }

// Channel implements endpoints.Subscribing. The mock has one channel.
func (m *Mock) Channel(endpoints.Values) (endpoints.Channel, error) {
	return endpoints.Channel{Key: "mock"}, nil
}

// Subscribe implements endpoints.Subscribing.
func (m *Mock) Subscribe(ctx context.Context, _ endpoints.Channel, sub message.Subscription) (message.Stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if sub.Window.Messages <= 0 {
		sub.Window.Messages = defaultWindow.Messages
	}
	if sub.Window.Bytes <= 0 {
		sub.Window.Bytes = defaultWindow.Bytes
	}
	switch {
	case sub.Mode == message.Broadcast && m.Loopback:
		return m.newLoop(sub), nil
	case m.Loopback, sub.Mode == message.Shared:
		return nil, message.Errorf(message.Mismatch, "endpoint mock has no %s subscriptions as it is configured", sub.Mode)
	case sub.Mode == message.Member:
		return m.newMember(sub), nil
	default:
		return m.newReading(sub), nil
	}
}

// Cleanup implements caddy.CleanerUpper. There is nothing to end: streams hold nothing but
// memory.
func (m *Mock) Cleanup() error {
	if m.logger != nil {
		m.logger.Debug("endpoint ends", zap.Uint64("published", m.published.Load()))
	}
	return nil
}

var (
	_ caddy.Module          = (*Mock)(nil)
	_ caddy.Provisioner     = (*Mock)(nil)
	_ caddy.Validator       = (*Mock)(nil)
	_ caddy.CleanerUpper    = (*Mock)(nil)
	_ endpoints.Endpoint    = (*Mock)(nil)
	_ endpoints.Publishing  = (*Mock)(nil)
	_ endpoints.Subscribing = (*Mock)(nil)
	_ endpoints.Scoped      = (*Mock)(nil)
	_ endpoints.Prober      = (*Mock)(nil)
)
