// Package rabbitmq is the endpoint for RabbitMQ, over AMQP 0-9-1.
//
// The client side (everything but rabbitmq.go, config.go and caddyfile.go) knows nothing
// of Caddy. It uses rabbitmq/amqp091-go for the protocol; connections, channels, windows,
// settlement and positions are its own.
package rabbitmq

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/options"
	"github.com/caddy-message-api/caddy-message-api/message"
)

func init() { caddy.RegisterModule(RabbitMQ{}) }

// RabbitMQ is an endpoint that publishes to exchanges and reads from queues of RabbitMQ
// (3.10 or newer), over AMQP 0-9-1. Other brokers of that protocol may work.
//
// Publishing waits for the broker's confirmation. A message that no queue takes is an
// error (404), unless `mandatory off` says otherwise. A message that may have reached the
// broker is never sent again: what its outcome is, is then reported as unknown.
//
// Reading an exchange gives each identity a queue of its own, `<api>.<identifier>.<hash>`,
// which outlives its sessions for a day, and each process one queue for all anonymous
// clients, which lives as long as its connection. Reading a queue that clients share must
// be said. Reading a stream gives every client all of it, from any position.
//
// Metadata of messages: `exchange` and `routing_key`, and where they are set
// `redelivered`, `content_type`, `content_encoding`, `delivery_mode`, `priority`,
// `correlation_id`, `reply_to`, `expiration`, `message_id`, `timestamp` (Unix
// milliseconds), `type`, `user_id`, `app_id` and `stream_offset`.
type RabbitMQ struct {
	// Addresses (host:port) of one or more nodes of the broker, tried in turn.
	// Placeholders like {env.RABBITMQ} are replaced; a value may hold several addresses,
	// separated by commas.
	Server []string `json:"server,omitempty"`
	// VirtualHost to work in. Default: /
	VirtualHost string `json:"virtual_host,omitempty"`
	// TLS, when present, encrypts the connections. With a certificate and without auth, the
	// gateway logs in by it (EXTERNAL). Default: plaintext.
	TLS *options.TLS `json:"tls,omitempty"`
	// Auth is how the gateway logs in. Default: guest with the password guest, which
	// RabbitMQ lets in from its own host only.
	Auth *options.Auth `json:"auth,omitempty"`
	// Heartbeat is how often either side says that it is there. A connection on which
	// nothing came for one and a half of it is lost. At least 1s. Default: 10s.
	Heartbeat caddy.Duration `json:"heartbeat,omitempty"`
	// Idle is after how long unused connections are closed. Default: 5m.
	Idle caddy.Duration `json:"idle,omitempty"`
	// Producer makes it possible to publish. At least one of producer and consumer must
	// be there.
	Producer *Producer `json:"producer,omitempty"`
	// Consumer makes it possible to subscribe.
	Consumer *Consumer `json:"consumer,omitempty"`

	scope    endpoints.Scope
	producer *producer
	consumer *consumer
	fixed    *publisher // when nothing has to be expanded
	spec     *spec      // likewise
	dial     dialFunc   // how tests get between us and the broker
}

// CaddyModule returns the Caddy module information.
func (RabbitMQ) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  endpoints.Namespace + ".rabbitmq",
		New: func() caddy.Module { return new(RabbitMQ) },
	}
}

// Provision prepares the endpoint. It reads files, and talks to nobody.
func (r *RabbitMQ) Provision(ctx caddy.Context) error {
	cfg, err := r.connConfig()
	if err != nil {
		return err
	}
	cfg.logger = ctx.Logger()
	r.resolve()
	if err := r.check(); err != nil {
		return err
	}
	if p := r.Producer; p != nil {
		r.producer = newProducer(cfg, p)
		if exchange := p.exchangeName(); !options.Dynamic(exchange, p.RoutingKey) {
			r.fixed = r.producer.publisher(exchange, p.RoutingKey)
		}
	}
	if c := r.Consumer; c != nil {
		r.consumer = newConsumer(cfg, c)
		if s := c.spec(); !options.Dynamic(append(slices.Clone(s.keys), s.exchange, s.queue)...) {
			r.spec = s
		}
	}
	return nil
}

// connConfig resolves addresses, secrets and files.
func (r *RabbitMQ) connConfig() (*connConfig, error) {
	cfg := &connConfig{
		vhost: r.VirtualHost, heartbeat: time.Duration(r.Heartbeat), idle: time.Duration(r.Idle),
		user: "guest", password: "guest", name: r.connectionName, net: r.dial,
	}
	if cfg.heartbeat == 0 {
		cfg.heartbeat = defaultHeartbeat
	}
	if cfg.idle == 0 {
		cfg.idle = defaultIdle
	}
	if cfg.net == nil {
		cfg.net = new(net.Dialer).DialContext
	}
	var err error
	if cfg.vhost, err = options.Secret(r.VirtualHost); err != nil && r.VirtualHost != "" {
		return nil, fmt.Errorf("rabbitmq: virtual_host: %w", err)
	}
	if cfg.vhost == "" {
		cfg.vhost = "/"
	}
	if cfg.addresses, err = options.Addresses(r.Server); err != nil {
		return nil, fmt.Errorf("rabbitmq: server: %w", err)
	}
	for _, address := range cfg.addresses {
		if err := checkAddress(address); err != nil {
			return nil, err
		}
	}
	if cfg.tls, err = r.TLS.Config(); err != nil {
		return nil, fmt.Errorf("rabbitmq: tls: %w", err)
	}
	if r.Auth != nil {
		if cfg.user, cfg.password, err = r.Auth.Resolve(); err != nil {
			return nil, fmt.Errorf("rabbitmq: auth: %w", err)
		}
	}
	cfg.external = r.Auth == nil && cfg.tls != nil && len(cfg.tls.Certificates) > 0
	return cfg, nil
}

// connectionName is what the broker's management shows of a connection.
func (r *RabbitMQ) connectionName(use string) string {
	name := "caddy-message-api " + use
	if r.scope.Owner != "" {
		name += " " + r.scope.Owner
	}
	if r.scope.Name != "" {
		name += " " + r.scope.Name
	}
	return name
}

// SetScope implements endpoints.Scoped.
func (r *RabbitMQ) SetScope(s endpoints.Scope) { r.scope = s }

// Validate implements caddy.Validator. Everything was checked while provisioning, where
// the placeholders are replaced.
func (r *RabbitMQ) Validate() error { return r.check() }

// Cleanup ends the connections.
func (r *RabbitMQ) Cleanup() error {
	if r.producer != nil {
		r.producer.link.Close()
	}
	if r.consumer != nil {
		r.consumer.close()
	}
	return nil
}

// Capabilities implements endpoints.Endpoint.
func (r *RabbitMQ) Capabilities() message.Capabilities {
	caps := message.Capabilities{Publish: r.Producer != nil, Confirm: r.Producer != nil}
	c := r.Consumer
	if c == nil {
		return caps
	}
	caps.Subscribe = true
	if c.Queue != nil && c.Queue.Type == stream {
		caps.Copy, caps.Positions = true, true
		return caps
	}
	caps.ManualSettle, caps.Fenced = true, true
	caps.DeadLetter = c.DeadLetterExchange != ""
	caps.Shared = c.Queue != nil
	caps.Copy, caps.Exclusive = c.Queue == nil, c.Queue == nil
	return caps
}

// Status implements endpoints.Endpoint: that of the connection that is worst off.
func (r *RabbitMQ) Status() endpoints.Status {
	var all []endpoints.Status
	if r.producer != nil {
		all = append(all, r.producer.link.Status())
	}
	if r.consumer != nil {
		all = append(all, r.consumer.first().Status())
	}
	for _, state := range []endpoints.State{endpoints.Down, endpoints.Up, endpoints.Connecting} {
		for _, s := range all {
			if s.State == state {
				return s
			}
		}
	}
	return all[0]
}

// Publisher implements endpoints.Publishing.
func (r *RabbitMQ) Publisher(values endpoints.Values) (message.Publisher, error) {
	if r.Producer == nil {
		return nil, message.Errorf(message.Mismatch, "the RabbitMQ endpoint has no producer")
	}
	if r.fixed != nil {
		return r.fixed, nil
	}
	exchange, err := values.Name(r.Producer.exchangeName())
	if err != nil {
		return nil, err
	}
	key, err := values.Name(r.Producer.RoutingKey)
	if err != nil {
		return nil, err
	}
	for what, name := range map[string]string{"exchange": exchange, "routing key": key} {
		if len(name) > maxShort {
			return nil, message.Errorf(message.BadInput, "the %s %.40s… has %d bytes: RabbitMQ takes up to %d", what, name, len(name), maxShort)
		}
	}
	return r.producer.publisher(exchange, key), nil
}

func (p *Producer) exchangeName() string {
	if p.Exchange == nil {
		return ""
	}
	return p.Exchange.Name
}

// spec is what is read, as it is configured.
func (c *Consumer) spec() *spec {
	s := &spec{keys: c.RoutingKey}
	if c.Exchange != nil {
		s.exchange = c.Exchange.Name
	}
	if c.Queue != nil {
		s.queue = c.Queue.Name
	}
	return s
}

// Channel implements endpoints.Subscribing.
func (r *RabbitMQ) Channel(values endpoints.Values) (endpoints.Channel, error) {
	if r.Consumer == nil {
		return endpoints.Channel{}, message.Errorf(message.Mismatch, "the RabbitMQ endpoint has no consumer")
	}
	s := r.spec
	if s == nil {
		s = r.Consumer.spec()
		s.keys = slices.Clone(s.keys)
		names := []*string{&s.exchange, &s.queue}
		for i := range s.keys {
			names = append(names, &s.keys[i])
		}
		for _, name := range names {
			var err error
			if *name, err = values.Name(*name); err != nil {
				return endpoints.Channel{}, err
			}
			if len(*name) > maxShort {
				return endpoints.Channel{}, message.Errorf(message.BadInput, "%.40s… has %d bytes: RabbitMQ takes up to %d", *name, len(*name), maxShort)
			}
		}
	}
	return endpoints.Channel{Key: s.key(), Spec: s}, nil
}

// Subscribe implements endpoints.Subscribing.
func (r *RabbitMQ) Subscribe(ctx context.Context, channel endpoints.Channel, sub message.Subscription) (message.Stream, error) {
	s, ok := channel.Spec.(*spec)
	if !ok {
		return nil, message.Errorf(message.Internal, "the channel is not one of the RabbitMQ endpoint")
	}
	if sub.Window.Messages <= 0 {
		sub.Window.Messages = defaultMessages
		if r.Consumer.Prefetch > 0 {
			sub.Window.Messages = r.Consumer.Prefetch
		}
	}
	sub.Window.Messages = min(sub.Window.Messages, maxPrefetch)
	if sub.Window.Bytes <= 0 {
		sub.Window.Bytes = defaultBytes
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	caps := r.Capabilities()
	switch {
	case caps.Positions && (sub.Mode == message.Broadcast || sub.Mode == message.Assigned):
		return r.consumer.subscribeLog(ctx, s, sub)
	case sub.Mode == message.Broadcast && caps.Copy, sub.Mode == message.Member && caps.Exclusive, sub.Mode == message.Shared && caps.Shared:
		return r.consumer.subscribeQueue(ctx, s, sub)
	}
	return nil, message.Errorf(message.Mismatch, "the RabbitMQ endpoint, as it is configured, has no %s subscriptions", sub.Mode)
}

var (
	_ caddy.Provisioner     = (*RabbitMQ)(nil)
	_ caddy.Validator       = (*RabbitMQ)(nil)
	_ caddy.CleanerUpper    = (*RabbitMQ)(nil)
	_ endpoints.Endpoint    = (*RabbitMQ)(nil)
	_ endpoints.Publishing  = (*RabbitMQ)(nil)
	_ endpoints.Subscribing = (*RabbitMQ)(nil)
	_ endpoints.Prober      = (*RabbitMQ)(nil)
	_ endpoints.Scoped      = (*RabbitMQ)(nil)
)
