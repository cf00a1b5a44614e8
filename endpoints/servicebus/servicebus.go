// Package servicebus is the endpoint for Azure Service Bus, over AMQP 1.0.
//
// The client side (everything but servicebus.go, config.go and caddyfile.go) knows nothing
// of Caddy. It uses Microsoft's azservicebus for the protocol; connections, retries,
// batches, windows and the renewal of locks are its own.
package servicebus

import (
	"context"
	"fmt"
	"net"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/options"
	"github.com/caddy-message-api/caddy-message-api/message"
)

func init() { caddy.RegisterModule(ServiceBus{}) }

// ServiceBus is an endpoint that publishes to queues and topics of an Azure Service Bus
// namespace, and reads queues and subscriptions that its clients compete for.
//
// Publishing waits until the service has accepted the message. A message that may have
// reached the service is never sent again: what its outcome is, is then reported as
// unknown. Messages that arrive while others are on their way go out together in batches.
//
// Reading locks messages (peek-lock) and renews the locks for as long as a client holds
// them, up to `max_hold`. Acknowledging completes, giving back abandons, and rejecting
// dead-letters a message. At `at_most_once` the service deletes messages as it sends them.
// With `sessions on` each session is a lane of its own, in order.
//
// Metadata of messages: `queue`, or `topic` and `subscription`, `sequence_number`, and where
// they are set `enqueued_time` (Unix milliseconds), `message_id`, `session_id`,
// `partition_key`, `subject`, `content_type`, `correlation_id`, `to`, `reply_to`,
// `reply_to_session_id`, `delivery_count`, `time_to_live` (milliseconds), `expires_at` and
// `scheduled_enqueue_time` (Unix milliseconds), `enqueued_sequence_number`,
// `dead_letter_source`, `dead_letter_reason`, `dead_letter_error_description`.
type ServiceBus struct {
	// ConnectionString of the namespace, with a shared access key or signature. It should be
	// a placeholder ({env.SERVICE_BUS}, {file./run/secrets/servicebus}), so that no secret
	// stands in the configuration. With UseDevelopmentEmulator=true the connection is not
	// encrypted. Either this or namespace is required.
	ConnectionString string `json:"connection_string,omitempty"`
	// Namespace is the full host name, <name>.servicebus.windows.net. The gateway logs in
	// with what Azure's default credential chain finds: environment variables, workload
	// identity, managed identity, or the Azure CLI's login. Placeholders like {env.NAMESPACE}
	// are replaced.
	Namespace string `json:"namespace,omitempty"`
	// Transport is amqp (port 5671) or websocket (port 443, for networks that let nothing
	// else out; proxies are taken from HTTPS_PROXY). Default: amqp.
	Transport string `json:"transport,omitempty"`
	// CustomEndpoint (host or host:port) is what to connect to instead of the namespace's own
	// host, such as a private link or a gateway on the way. The certificate is still expected
	// to be the namespace's; see tls server_name.
	CustomEndpoint string `json:"custom_endpoint,omitempty"`
	// TLS says whom to trust. Connections are always encrypted, except to the emulator.
	// Default: what the system trusts.
	TLS *options.TLS `json:"tls,omitempty"`
	// Idle is after how long unused connections are closed. Default: 5m.
	Idle caddy.Duration `json:"idle,omitempty"`
	// Producer makes it possible to publish. At least one of producer and consumer must be
	// there.
	Producer *Producer `json:"producer,omitempty"`
	// Consumer makes it possible to subscribe.
	Consumer *Consumer `json:"consumer,omitempty"`

	producer *producer
	consumer *consumer
	fixed    *publisher // when nothing has to be expanded
	spec     *spec      // likewise
	dial     dialFunc   // how tests get between us and the service
}

// CaddyModule returns the Caddy module information.
func (ServiceBus) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  endpoints.Namespace + ".azure_service_bus",
		New: func() caddy.Module { return new(ServiceBus) },
	}
}

// Provision prepares the endpoint. It reads files, and talks to nobody.
func (s *ServiceBus) Provision(ctx caddy.Context) error {
	if err := s.provision(ctx); err != nil {
		return fmt.Errorf("azure_service_bus: %w", err)
	}
	return nil
}

func (s *ServiceBus) provision(ctx caddy.Context) error {
	s.resolve()
	if err := s.check(); err != nil {
		return err
	}
	cfg, err := s.connConfig()
	if err != nil {
		return err
	}
	cfg.logger = ctx.Logger()
	if p := s.Producer; p != nil {
		s.producer = newProducer(cfg)
		if !options.Dynamic(p.texts()...) {
			s.fixed = s.producer.publisher(p.properties())
		}
	}
	if c := s.Consumer; c != nil {
		s.consumer = newConsumer(cfg, c)
		if at := c.spec(); !options.Dynamic(at.queue, at.topic, at.subscription) {
			s.spec = at
		}
	}
	return nil
}

// connConfig resolves addresses, secrets and files.
func (s *ServiceBus) connConfig() (*connConfig, error) {
	cfg := &connConfig{websocket: s.Transport == overWebSocket, idle: defaultIdle, net: s.dial}
	if s.Idle > 0 {
		cfg.idle = timeOf(s.Idle)
	}
	if cfg.net == nil {
		cfg.net = new(net.Dialer).DialContext
	}
	var err error
	if cfg.tls, err = s.TLS.Config(); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	if err := s.credentials(cfg); err != nil {
		return nil, err
	}
	return cfg, cfg.route(s.CustomEndpoint)
}

// Validate implements caddy.Validator. Everything was checked while provisioning, where
// the placeholders are replaced.
func (s *ServiceBus) Validate() error { return s.check() }

// Cleanup ends the connections.
func (s *ServiceBus) Cleanup() error {
	if s.producer != nil {
		s.producer.close()
	}
	if s.consumer != nil {
		s.consumer.close()
	}
	return nil
}

// Capabilities implements endpoints.Endpoint.
func (s *ServiceBus) Capabilities() message.Capabilities {
	caps := message.Capabilities{Publish: s.Producer != nil, Confirm: s.Producer != nil}
	if c := s.Consumer; c != nil {
		caps.Subscribe, caps.Shared, caps.ManualSettle, caps.DeadLetter, caps.Fenced = true, true, true, true, true
		caps.MaxHold = c.maxHold()
	}
	return caps
}

// Status implements endpoints.Endpoint: that of the connection that is worst off.
func (s *ServiceBus) Status() endpoints.Status {
	var all []endpoints.Status
	if s.producer != nil {
		all = append(all, s.producer.link.Status())
	}
	if s.consumer != nil {
		all = append(all, s.consumer.status()...)
	}
	for _, state := range []endpoints.State{endpoints.Down, endpoints.Up, endpoints.Connecting} {
		for _, one := range all {
			if one.State == state {
				return one
			}
		}
	}
	return all[0]
}

// Publisher implements endpoints.Publishing.
func (s *ServiceBus) Publisher(values endpoints.Values) (message.Publisher, error) {
	if s.Producer == nil {
		return nil, message.Errorf(message.Mismatch, "the Azure Service Bus endpoint has no producer")
	}
	if s.fixed != nil {
		return s.fixed, nil
	}
	props := s.Producer.properties()
	for _, name := range []*string{&props.queue, &props.topic} {
		var err error
		if *name, err = values.Name(*name); err != nil {
			return nil, err
		}
	}
	for _, text := range []*string{&props.subject, &props.sessionID, &props.partitionKey, &props.messageID} {
		var err error
		if *text, err = values.Text(*text); err != nil {
			return nil, err
		}
	}
	if err := props.check(); err != nil {
		return nil, &message.Error{Kind: message.BadInput, Detail: err.Error(), Err: err}
	}
	return s.producer.publisher(props), nil
}

// Channel implements endpoints.Subscribing.
func (s *ServiceBus) Channel(values endpoints.Values) (endpoints.Channel, error) {
	if s.Consumer == nil {
		return endpoints.Channel{}, message.Errorf(message.Mismatch, "the Azure Service Bus endpoint has no consumer")
	}
	at := s.spec
	if at == nil {
		at = s.Consumer.spec()
		for _, name := range []*string{&at.queue, &at.topic, &at.subscription} {
			var err error
			if *name, err = values.Name(*name); err != nil {
				return endpoints.Channel{}, err
			}
		}
		if err := at.check(); err != nil {
			return endpoints.Channel{}, &message.Error{Kind: message.BadInput, Detail: err.Error(), Err: err}
		}
	}
	return endpoints.Channel{Key: at.path(), Spec: at}, nil
}

// Subscribe implements endpoints.Subscribing.
func (s *ServiceBus) Subscribe(ctx context.Context, channel endpoints.Channel, sub message.Subscription) (message.Stream, error) {
	at, ok := channel.Spec.(*spec)
	if !ok {
		return nil, message.Errorf(message.Internal, "the channel is not one of the Azure Service Bus endpoint")
	}
	if sub.Mode != message.Shared {
		return nil, message.Errorf(message.Mismatch, "the Azure Service Bus endpoint has no %s subscriptions, only shared ones", sub.Mode)
	}
	if sub.Window.Messages <= 0 {
		sub.Window.Messages = s.Consumer.prefetch()
	}
	if sub.Window.Bytes <= 0 {
		sub.Window.Bytes = defaultBytes
	}
	// A caller that goes must not interrupt the library: see defaultSetup.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	return s.consumer.subscribe(ctx, at, sub)
}

var (
	_ caddy.Provisioner     = (*ServiceBus)(nil)
	_ caddy.Validator       = (*ServiceBus)(nil)
	_ caddy.CleanerUpper    = (*ServiceBus)(nil)
	_ endpoints.Endpoint    = (*ServiceBus)(nil)
	_ endpoints.Publishing  = (*ServiceBus)(nil)
	_ endpoints.Subscribing = (*ServiceBus)(nil)
	_ endpoints.Prober      = (*ServiceBus)(nil)
)
