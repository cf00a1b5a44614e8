// Package mqtt5 is the endpoint for MQTT 5 brokers.
//
// The client side (everything but mqtt5.go, config.go and caddyfile.go) knows nothing of
// Caddy. It uses the packet codec of eclipse/paho.golang; connections, keep-alive, windows,
// acknowledgements and sessions are its own, because paho's client can neither reject a
// message nor stop reading, and keeps to itself what it has sent.
package mqtt5

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/eclipse/paho.golang/packets"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/link"
	"github.com/caddy-message-api/caddy-message-api/endpoints/options"
	"github.com/caddy-message-api/caddy-message-api/message"
)

func init() { caddy.RegisterModule(MQTT5{}) }

// MQTT5 is an endpoint that publishes to and subscribes at MQTT 5 servers.
//
// Publishing uses one connection for all. With QoS 1 and 2 a message counts as stored when
// the server has acknowledged it; one that may have reached the server is never sent again:
// its outcome is then reported as unknown.
//
// Reading: sessions without an identity read one plain subscription per process, retained
// messages included. An identity is a client with a session of its own, which the server
// keeps for `session_expiry`; several connections of one identity share the messages
// (`$share/<api>.<identifier>/<filter>`). Messages are acknowledged in the order in which they came; rejected ones with
// a reason code; what is given back comes again on the same connection. At `at_most_once`
// the subscription has QoS 0.
//
// Headers are user properties, in their order; values that are not UTF-8 are in base64, and
// their names end in `;base64`. The header content-type is also the content type, and a
// message's id the user property `message-id`. Metadata of messages: `topic`, `qos`,
// `retain`, `redelivered`, `content_type`, `response_topic`, `correlation_data` (or
// `correlation_data_base64`), `message_expiry`, `payload_format`.
type MQTT5 struct {
	// Servers are addresses of one broker, tried in turn: host:port, or mqtt://, mqtts://,
	// ws:// and wss:// URLs. Ports default to 1883, 8883, 80 and 443, the path of a
	// WebSocket to /mqtt. Placeholders like {env.MQTT} are replaced; a value may hold
	// several addresses, separated by commas.
	Servers []string `json:"server,omitempty"`
	// TLS is for mqtts and wss; with it, addresses without a scheme are mqtts. Default for
	// these schemes: what the system trusts.
	TLS *options.TLS `json:"tls,omitempty"`
	// Auth is how the gateway logs in. Default: it does not.
	Auth *options.Auth `json:"auth,omitempty"`
	// ClientID begins all client identifiers. Default: message-api.
	ClientID string `json:"client_id,omitempty"`
	// KeepAlive is within what time the broker must hear of the gateway, in whole seconds.
	// A broker of which nothing comes for about one and a half times as long is given up.
	// Default: 30s.
	KeepAlive caddy.Duration `json:"keep_alive,omitempty"`
	// SessionExpiry is how long the broker keeps the session of an identity that is not
	// connected, with the messages for it, in whole seconds. Default: 24h.
	SessionExpiry caddy.Duration `json:"session_expiry,omitempty"`
	// Idle is after how long the unused publishing connection is closed. Default: 5m.
	Idle caddy.Duration `json:"idle,omitempty"`
	// Will is published by the broker when the publishing connection breaks. Default: none.
	Will *Will `json:"will,omitempty"`
	// Producer makes it possible to publish. At least one of producer and consumer must be
	// there.
	Producer *Producer `json:"producer,omitempty"`
	// Consumer makes it possible to subscribe.
	Consumer *Consumer `json:"consumer,omitempty"`

	client *client
	fixed  *publisher // when nothing has to be expanded
	spec   *spec      // likewise
	// dial is how tests get between us and the broker, and identities how they are another
	// process.
	dial       dialFunc
	identities *registry
}

const (
	defaultIdle      = 5 * time.Minute
	defaultKeepAlive = 30 * time.Second
	defaultExpiry    = 24 * time.Hour
	defaultPrefix    = "message-api"
	defaultMessages  = 500
	defaultBytes     = 1 << 20
)

// CaddyModule returns the Caddy module information.
func (MQTT5) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  endpoints.Namespace + ".mqtt5",
		New: func() caddy.Module { return new(MQTT5) },
	}
}

// Provision prepares the endpoint. It reads files, and talks to nobody.
func (m *MQTT5) Provision(ctx caddy.Context) error {
	m.resolve()
	if err := m.check(); err != nil {
		return err
	}
	c := &client{logger: ctx.Logger(), streams: make(map[*stream]struct{}), prefix: m.ClientID, dial: m.dial}
	if c.identities = m.identities; c.identities == nil {
		c.identities = identities
	}
	if c.dial == nil {
		c.dial = new(net.Dialer).DialContext
	}
	if err := m.prepare(c); err != nil {
		return fmt.Errorf("mqtt5: %w", err)
	}
	m.client = c
	if p := m.Producer; p != nil {
		m.startPublishing()
		if !options.Dynamic(p.Topic, p.ResponseTopic, p.CorrelationData, p.ContentType) {
			m.fixed = m.publisher(p.Topic, p.ResponseTopic, p.CorrelationData, p.ContentType)
		}
	}
	if r := m.Consumer; r != nil {
		c.alwaysShare = r.Share == "always"
		if !options.Dynamic(r.Topics...) {
			m.spec = newSpec(r.Topics, r.qos())
		}
	}
	return nil
}

// resolve replaces what the environment and files say; what requests say is replaced for
// each of them.
func (m *MQTT5) resolve() {
	options.Global(&m.ClientID)
	if w := m.Will; w != nil {
		options.Global(&w.Topic, &w.Payload)
	}
	if p := m.Producer; p != nil {
		options.Global(&p.Topic, &p.ResponseTopic, &p.CorrelationData, &p.ContentType)
	}
	if r := m.Consumer; r != nil {
		for i := range r.Topics {
			options.Global(&r.Topics[i])
		}
	}
}

func (m *MQTT5) prepare(c *client) error {
	addresses, err := options.Addresses(m.Servers)
	if err != nil {
		return fmt.Errorf("server: %w", err)
	}
	for _, a := range addresses {
		s, err := parseServer(a, m.TLS != nil)
		if err != nil {
			return fmt.Errorf("server: %w", err)
		}
		c.servers = append(c.servers, s)
	}
	if c.tls, err = m.TLS.Config(); err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	if c.user, c.password, err = m.Auth.Resolve(); err != nil {
		return fmt.Errorf("auth: %w", err)
	}
	if len(c.user) > 0xffff || len(c.password) > 0xffff || !isText(c.user) {
		return fmt.Errorf("auth: user and password are at most 65,535 bytes, and the user is UTF-8 text")
	}
	if c.prefix == "" {
		c.prefix = defaultPrefix
	}
	keepAlive, _ := seconds(orDefault(m.KeepAlive, defaultKeepAlive), 0xffff)    // checked
	expiry, _ := seconds(orDefault(m.SessionExpiry, defaultExpiry), 0xffff_fffe) // checked
	c.keepAlive, c.expiry = uint16(keepAlive), uint32(expiry)                    //nolint:gosec // checked
	return nil
}

func orDefault(d caddy.Duration, otherwise time.Duration) caddy.Duration {
	if d == 0 {
		return caddy.Duration(otherwise)
	}
	return d
}

// startPublishing sets the publishing connection up; it is made when it is first needed.
func (m *MQTT5) startPublishing() {
	c := m.client
	lost := link.NewLosses(c.logger, "messages of QoS 0 were lost with the connection")
	c.publishing = link.New(link.Options[*sender]{
		Name: "the MQTT server", Addresses: c.addresses(), Logger: c.logger,
		Idle: time.Duration(orDefault(m.Idle, defaultIdle)),
		Dial: func(ctx context.Context, address string) (*sender, <-chan error, error) {
			connect := c.connect(c.randomID())
			connect.CleanStart = true
			m.Will.put(connect)
			conn, err := c.open(ctx, address, connect)
			if err != nil {
				return nil, nil, err
			}
			s := &sender{conn: conn, box: newOutbox(conn, func(n int, err error) { lost.Note(n, err) })}
			conn.start(s.box)
			return s, conn.lost, nil
		},
		Close: func(s *sender) {
			s.box.finish()
			s.close()
		},
	})
}

// put makes the will part of a CONNECT.
func (w *Will) put(connect *packets.Connect) {
	if w == nil {
		return
	}
	connect.WillFlag, connect.WillTopic, connect.WillMessage = true, w.Topic, []byte(w.Payload)
	connect.WillQOS, connect.WillRetain = byte(w.QoS), w.Retained //nolint:gosec // checked
	connect.WillProperties = &packets.Properties{}
	if delay, _ := seconds(w.Delay, 0xffff_ffff); delay > 0 {
		d := uint32(delay) //nolint:gosec // checked
		connect.WillProperties.WillDelayInterval = &d
	}
}

func (m *MQTT5) publisher(topic, responseTopic, correlation, contentType string) *publisher {
	expiry, _ := seconds(m.Producer.MessageExpiry, 0xffff_ffff) // checked
	return &publisher{
		link: m.client.publishing, topic: topic, qos: m.Producer.qos(), retain: m.Producer.Retained, contentType: contentType,
		fixed:   appendFixed(nil, uint32(expiry), responseTopic, correlation), //nolint:gosec // checked
		stored:  []message.Field{message.Text("topic", topic)},
		unheard: []message.Field{message.Text("topic", topic), message.Flag("subscribers", false)},
	}
}

// Validate implements caddy.Validator. Everything was checked while provisioning, where
// the placeholders are replaced.
func (m *MQTT5) Validate() error { return m.check() }

// Cleanup ends the connections.
func (m *MQTT5) Cleanup() error {
	if m.client != nil {
		m.client.close()
	}
	return nil
}

// Capabilities implements endpoints.Endpoint.
func (m *MQTT5) Capabilities() message.Capabilities {
	caps := message.Capabilities{Publish: m.Producer != nil, Subscribe: m.Consumer != nil}
	caps.Confirm = caps.Publish && m.Producer.qos() > 0
	caps.Copy = caps.Subscribe
	// With QoS 0 the broker keeps track of nobody.
	caps.Exclusive = caps.Subscribe && m.Consumer.qos() > 0
	caps.ManualSettle, caps.Fenced, caps.HoldsBehind = caps.Exclusive, caps.Exclusive, caps.Exclusive
	return caps
}

// Status implements endpoints.Endpoint.
func (m *MQTT5) Status() endpoints.Status { return m.client.status() }

// Publisher implements endpoints.Publishing.
func (m *MQTT5) Publisher(values endpoints.Values) (message.Publisher, error) {
	p := m.Producer
	if p == nil {
		return nil, message.Errorf(message.Mismatch, "the MQTT endpoint has no producer")
	}
	if m.fixed != nil {
		return m.fixed, nil
	}
	topic, err := values.Name(p.Topic)
	if err != nil {
		return nil, err
	}
	if err := checkTopic(topic); err != nil {
		return nil, message.Errorf(message.BadInput, "%w", err)
	}
	response, err := values.Name(p.ResponseTopic)
	if err != nil {
		return nil, err
	}
	correlation, err := values.Text(p.CorrelationData)
	if err != nil {
		return nil, err
	}
	contentType, err := values.Text(p.ContentType)
	if err != nil {
		return nil, err
	}
	if len(correlation) > 0xffff || len(response) > 0xffff || !isText(contentType) {
		return nil, message.Errorf(message.BadInput,
			"response topic, correlation data and content type have at most 65,535 bytes, and the content type is UTF-8 text")
	}
	return m.publisher(topic, response, correlation, contentType), nil
}

// Channel implements endpoints.Subscribing.
func (m *MQTT5) Channel(values endpoints.Values) (endpoints.Channel, error) {
	if m.Consumer == nil {
		return endpoints.Channel{}, message.Errorf(message.Mismatch, "the MQTT endpoint has no consumer")
	}
	s := m.spec
	if s == nil {
		filters := make([]string, len(m.Consumer.Topics))
		for i, f := range m.Consumer.Topics {
			name, err := values.Name(f)
			if err != nil {
				return endpoints.Channel{}, err
			}
			if err := checkFilter(name); err != nil {
				return endpoints.Channel{}, message.Errorf(message.BadInput, "%w", err)
			}
			filters[i] = name
		}
		s = newSpec(filters, m.Consumer.qos())
	}
	return endpoints.Channel{Key: s.key(), Spec: s}, nil
}

// Subscribe implements endpoints.Subscribing.
func (m *MQTT5) Subscribe(ctx context.Context, channel endpoints.Channel, sub message.Subscription) (message.Stream, error) {
	s, ok := channel.Spec.(*spec)
	if !ok {
		return nil, message.Errorf(message.Internal, "the channel is not one of the MQTT endpoint")
	}
	switch {
	case sub.Mode != message.Broadcast && (sub.Mode != message.Member || s.qos == 0):
		return nil, message.Errorf(message.Mismatch, "the MQTT endpoint has no %s subscriptions", sub.Mode)
	case sub.Mode == message.Member && sub.Name == "":
		return nil, message.Errorf(message.Internal, "a member has no name")
	}
	if sub.Window.Messages <= 0 {
		sub.Window.Messages = m.Consumer.window()
	}
	if sub.Window.Bytes <= 0 {
		sub.Window.Bytes = defaultBytes
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return m.client.subscribe(ctx, s, sub)
}

func (c *Consumer) window() int {
	if c.ReceiveMaximum > 0 {
		return c.ReceiveMaximum
	}
	return defaultMessages
}

// Probe implements endpoints.Prober: a broker lets us in.
func (m *MQTT5) Probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return m.client.probe(ctx)
}

var (
	_ caddy.Provisioner     = (*MQTT5)(nil)
	_ caddy.Validator       = (*MQTT5)(nil)
	_ caddy.CleanerUpper    = (*MQTT5)(nil)
	_ endpoints.Endpoint    = (*MQTT5)(nil)
	_ endpoints.Publishing  = (*MQTT5)(nil)
	_ endpoints.Subscribing = (*MQTT5)(nil)
	_ endpoints.Prober      = (*MQTT5)(nil)
)
