// Package mock is an endpoint that needs no broker: it makes messages by the clock, or
// hands what is published to whoever listens.
//
// What it guarantees is what a perfect broker in the same process would: what is published
// is taken at once, what is delivered comes in order and exactly once, at every level. It
// keeps nothing over a restart. With loopback it is a bounded in-memory channel: a
// subscriber that falls more than a window behind is told of a gap.
package mock

import (
	"fmt"
	"hash/fnv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/caddyfile/parse"
	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

func init() {
	caddy.RegisterModule(new(Mock))
}

// Mock makes messages without a broker, to try out an API or to test clients.
//
// Without loopback, every session gets messages of its own, one per interval, the first
// one interval after it subscribed, with the ids 0, 1, 2 and so on; a session that brings a
// cursor continues the count. At qos none all sessions share one clock. What is published
// is taken and forgotten.
//
// With loopback, what is published is delivered to all who are subscribed, and nothing
// else is, unless message_interval is written.
type Mock struct {
	// MessageInterval is the time between two messages, at least 10µs. Default: 1s; with
	// loopback, none.
	MessageInterval caddy.Duration `json:"message_interval,omitempty"`
	// MessageContent is the payload, at most 1 MiB. Default: "mock message".
	MessageContent *string `json:"message_content,omitempty"`
	// MessageCount is how many messages a session gets. Default: unlimited.
	MessageCount int64 `json:"message_count,omitempty"`
	// Headers are on every message.
	Headers []Pair `json:"headers,omitempty"`
	// Metadata is on every message.
	Metadata []Pair `json:"metadata,omitempty"`
	// Loopback delivers what is published to the subscribers. Default: false.
	Loopback bool `json:"loopback,omitempty"`

	log    *zap.Logger
	tmpl   template
	origin uint64
	groups *groups
	hub    *hub
}

// Pair is a name and a value.
type Pair struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

const (
	defaultInterval = time.Second
	minInterval     = 10 * time.Microsecond
	defaultContent  = "mock message"
	maxContent      = 1 << 20
)

// CaddyModule implements caddy.Module.
func (*Mock) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: endpoints.Namespace + ".mock", New: func() caddy.Module { return new(Mock) }}
}

// Provision implements caddy.Provisioner.
func (m *Mock) Provision(ctx caddy.Context) error {
	m.log = ctx.Logger()
	return m.setUp()
}

// setUp checks the options and makes the endpoint ready, without Caddy.
func (m *Mock) setUp() error {
	interval := time.Duration(m.MessageInterval)
	ticks := interval != 0 || !m.Loopback
	if interval == 0 {
		interval = defaultInterval
	}
	content := defaultContent
	if m.MessageContent != nil {
		content = *m.MessageContent
	}
	switch {
	case interval < minInterval:
		return fmt.Errorf("message_interval %s is less than %s", interval, minInterval)
	case len(content) > maxContent:
		return fmt.Errorf("message_content has %d bytes, more than %d", len(content), maxContent)
	case m.MessageCount < 0:
		return fmt.Errorf("message_count %d is less than 1", m.MessageCount)
	}
	m.tmpl = template{interval: interval, payload: []byte(content), count: m.MessageCount}
	for _, h := range m.Headers {
		m.tmpl.headers = append(m.tmpl.headers, message.Header{Name: h.Name, Value: h.Value})
	}
	for _, f := range m.Metadata {
		m.tmpl.metadata = append(m.tmpl.metadata, message.Text(f.Name, f.Value))
	}
	m.groups = newGroups(&m.tmpl)
	if m.Loopback {
		m.hub = newHub()
		if ticks {
			m.hub.ticks = &m.tmpl
		}
	}
	return nil
}

// SetScope implements endpoints.Scoped: cursors belong to one endpoint of one API.
func (m *Mock) SetScope(s endpoints.Scope) {
	h := fnv.New64a()
	fmt.Fprintf(h, "mock\x00%s\x00%s", s.Owner, s.Name)
	m.origin = h.Sum64()
}

// UnmarshalCaddyfile implements caddyfile.Unmarshaler.
//
//	endpoint mock [<name>] {
//		message_interval <duration>
//		message_content  <text>
//		message_count    <number>
//		header           <name> <value>
//		metadata         <name> <value>
//		loopback         [on|off]
//	}
func (m *Mock) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if err := parse.NoArgs(d); err != nil {
		return err
	}
	var content string
	var count int
	set := parse.String("message_content", &content)
	set.Set = func(d *caddyfile.Dispenser) error {
		m.MessageContent = &content
		return parse.String("message_content", &content).Set(d)
	}
	err := parse.Block(d, "endpoint mock",
		parse.Duration("message_interval", &m.MessageInterval),
		set,
		parse.Int("message_count", &count, 1),
		parse.Pairs("header", func(k, v string) { m.Headers = append(m.Headers, Pair{k, v}) }),
		parse.Pairs("metadata", func(k, v string) { m.Metadata = append(m.Metadata, Pair{k, v}) }),
		parse.Flag("loopback", &m.Loopback),
	)
	m.MessageCount = int64(count)
	return err
}

// Capabilities implements endpoints.Endpoint.
func (m *Mock) Capabilities() message.Capabilities {
	caps := message.Capabilities{Publish: true, Confirm: true, Subscribe: true, Copy: true}
	if !m.Loopback {
		caps.PerSession, caps.Exclusive, caps.ManualSettle = true, true, true
		caps.Positions, caps.Fenced, caps.Earliest = true, true, false
	}
	return caps
}

// Status implements endpoints.Endpoint: there is nothing that could be down.
func (m *Mock) Status() endpoints.Status { return endpoints.Status{State: endpoints.Up} }

// Interface guards.
var (
	_ caddy.Provisioner     = (*Mock)(nil)
	_ caddyfile.Unmarshaler = (*Mock)(nil)
	_ endpoints.Endpoint    = (*Mock)(nil)
	_ endpoints.Publishing  = (*Mock)(nil)
	_ endpoints.Subscribing = (*Mock)(nil)
	_ endpoints.Scoped      = (*Mock)(nil)
	_ message.Stream        = (*clock)(nil)
	_ message.Positioned    = (*clock)(nil)
	_ message.Bookmarker    = (*clock)(nil)
	_ message.Stream        = (*member)(nil)
	_ message.Stream        = (*subscriber)(nil)
	_ message.Publisher     = (*Mock)(nil)
)
