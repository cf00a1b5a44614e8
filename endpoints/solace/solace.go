//go:build cgo && (linux || darwin)

package solace

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/options"
	"github.com/caddy-message-api/caddy-message-api/message"
)

func init() { caddy.RegisterModule(Solace{}) }

// errBuild is nil where the library is there.
var errBuild error

// state is what is made while provisioning.
type state struct {
	conn     *connConfig
	producer *producer
	consumer *consumer
	fixed    *publisher // when nothing has to be expanded
	spec     *spec      // likewise
	tune     func(*connConfig)
}

// CaddyModule returns the Caddy module information.
func (Solace) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  endpoints.Namespace + ".solace",
		New: func() caddy.Module { return new(Solace) },
	}
}

// Provision prepares the endpoint. It reads files, and talks to nobody.
func (s *Solace) Provision(ctx caddy.Context) error {
	s.resolve()
	if err := s.check(); err != nil {
		return err
	}
	logsToCaddy()
	cfg, err := s.connConfig()
	if err != nil {
		return fmt.Errorf("solace: %w", err)
	}
	cfg.logger = ctx.Logger()
	if s.tune != nil {
		s.tune(cfg)
	}
	s.conn = cfg
	if p := s.Producer; p != nil {
		s.state.producer = newProducer(cfg, p)
		if !options.Dynamic(append(slices.Clone(p.Topics), p.Key, p.MessageID, p.CorrelationID)...) {
			s.fixed = s.state.producer.publisher(p.Topics, p.Key, p.MessageID, p.CorrelationID)
		}
	}
	if c := s.Consumer; c != nil {
		s.state.consumer = newConsumer(cfg, c)
		if !options.Dynamic(append(slices.Clone(c.Topics), c.Queue)...) {
			s.spec = newSpec(c.Topics, c.Queue)
		}
	}
	return nil
}

// connConfig resolves addresses, secrets and files.
func (s *Solace) connConfig() (*connConfig, error) {
	cfg := &connConfig{vpn: s.VPN, user: defaultUser, idle: time.Duration(s.Idle), name: s.clientName}
	if cfg.idle == 0 {
		cfg.idle = defaultIdle
	}
	var err error
	if s.VPN != "" {
		if cfg.vpn, err = options.Secret(s.VPN); err != nil {
			return nil, fmt.Errorf("vpn: %w", err)
		}
	}
	if cfg.vpn == "" {
		cfg.vpn = defaultVPN
	}
	addresses, err := options.Addresses(s.URL)
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	for _, text := range addresses {
		a, err := address(text)
		if err != nil {
			return nil, err
		}
		cfg.addresses = append(cfg.addresses, a)
	}
	if s.Auth != nil {
		if cfg.user, cfg.password, err = s.Auth.Resolve(); err != nil {
			return nil, fmt.Errorf("auth: %w", err)
		}
	}
	if s.TLS != nil && !slices.ContainsFunc(cfg.addresses, isSecure) {
		return nil, errors.New("tls: no address is a tcps:// one")
	}
	if cfg.trust, err = newTrust(s.TLS); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	cfg.byCertificate = cfg.trust.cert != ""
	if cfg.byCertificate && s.Auth != nil {
		return nil, errors.New("tls: Solace's client library logs in either by certificate or by password: leave out cert and key, or auth")
	}
	if cfg.byCertificate && !allSecure(cfg.addresses) {
		return nil, errors.New("tls: the gateway can log in by its certificate at tcps:// addresses only: write auth instead, or leave the others out")
	}
	return cfg, nil
}

func allSecure(addresses []string) bool {
	return !slices.ContainsFunc(addresses, func(a string) bool { return !isSecure(a) })
}

// clientName is what the broker's management shows of a connection.
func (s *Solace) clientName(use string) string {
	name := "caddy-message-api/" + use
	if s.scope.Owner != "" {
		name += "/" + s.scope.Owner
	}
	if s.scope.Name != "" {
		name += "/" + s.scope.Name
	}
	return name
}

// SetScope implements endpoints.Scoped.
func (s *Solace) SetScope(scope endpoints.Scope) { s.scope = scope }

// Validate implements caddy.Validator. Everything was checked while provisioning, where
// the placeholders are replaced.
func (s *Solace) Validate() error { return s.check() }

// Cleanup ends the connections.
func (s *Solace) Cleanup() error {
	if s.state.producer != nil {
		s.state.producer.link.Close()
	}
	if s.state.consumer != nil {
		s.state.consumer.close()
	}
	if s.conn != nil {
		return s.conn.trust.remove()
	}
	return nil
}

// Capabilities implements endpoints.Endpoint.
func (s *Solace) Capabilities() message.Capabilities {
	var caps message.Capabilities
	if p := s.Producer; p != nil {
		caps.Publish, caps.Confirm = true, p.confirms()
	}
	if c := s.Consumer; c != nil {
		own := c.Queue == ""
		caps.Subscribe, caps.ManualSettle = true, true
		caps.Copy, caps.Exclusive, caps.Shared = own, own, !own
		caps.DeadLetter = c.DeadLetter
		// Not Fenced: acknowledgements have no answer, and leave the library up to a second
		// later.
	}
	return caps
}

// Status implements endpoints.Endpoint: that of the connection that is worst off.
func (s *Solace) Status() endpoints.Status {
	var all []endpoints.Status
	if s.state.producer != nil {
		all = append(all, s.state.producer.link.Status())
	}
	if s.state.consumer != nil {
		all = append(all, s.state.consumer.status()...)
	}
	for _, state := range []endpoints.State{endpoints.Down, endpoints.Up, endpoints.Connecting} {
		for _, status := range all {
			if status.State == state {
				return status
			}
		}
	}
	return all[0]
}

// Publisher implements endpoints.Publishing.
func (s *Solace) Publisher(values endpoints.Values) (message.Publisher, error) {
	p := s.Producer
	if p == nil {
		return nil, message.Errorf(message.Mismatch, "the Solace endpoint has no producer")
	}
	if s.fixed != nil {
		return s.fixed, nil
	}
	topics, err := names(values, p.Topics, checkTopic)
	if err != nil {
		return nil, err
	}
	texts := [...]string{p.Key, p.MessageID, p.CorrelationID}
	for i := range texts {
		if texts[i], err = values.Text(texts[i]); err != nil {
			return nil, err
		}
	}
	return s.state.producer.publisher(topics, texts[0], texts[1], texts[2]), nil
}

// names expands the placeholders of topics or queues, and checks what came of it.
func names(values endpoints.Values, texts []string, check func(string) error) ([]string, error) {
	out := make([]string, len(texts))
	for i, text := range texts {
		name, err := values.Name(text)
		if err != nil {
			return nil, err
		}
		if err := check(name); err != nil {
			return nil, message.Errorf(message.BadInput, "%w", err)
		}
		out[i] = name
	}
	return out, nil
}

// Channel implements endpoints.Subscribing.
func (s *Solace) Channel(values endpoints.Values) (endpoints.Channel, error) {
	c := s.Consumer
	if c == nil {
		return endpoints.Channel{}, message.Errorf(message.Mismatch, "the Solace endpoint has no consumer")
	}
	spec := s.spec
	if spec == nil {
		topics, err := names(values, c.Topics, checkSubscription)
		if err != nil {
			return endpoints.Channel{}, err
		}
		queue := c.Queue
		if queue != "" {
			expanded, err := names(values, []string{queue}, checkQueueName)
			if err != nil {
				return endpoints.Channel{}, err
			}
			queue = expanded[0]
		}
		spec = newSpec(topics, queue)
	}
	return endpoints.Channel{Key: spec.key, Spec: spec}, nil
}

// Subscribe implements endpoints.Subscribing.
func (s *Solace) Subscribe(ctx context.Context, channel endpoints.Channel, sub message.Subscription) (message.Stream, error) {
	spec, ok := channel.Spec.(*spec)
	if !ok {
		return nil, message.Errorf(message.Internal, "the channel is not one of the Solace endpoint")
	}
	if sub.Window.Messages <= 0 {
		sub.Window.Messages = defaultMessages
		if s.Consumer.Prefetch > 0 {
			sub.Window.Messages = s.Consumer.Prefetch
		}
	}
	if sub.Window.Bytes <= 0 {
		sub.Window.Bytes = defaultBytes
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	caps := s.Capabilities()
	switch {
	case sub.Mode == message.Member && sub.Name == "":
		return nil, message.Errorf(message.Internal, "a member has no name")
	case sub.Mode == message.Broadcast && caps.Copy:
		return s.state.consumer.subscribeDirect(ctx, spec, sub)
	case sub.Mode == message.Member && caps.Exclusive, sub.Mode == message.Shared && caps.Shared:
		return s.state.consumer.subscribeQueue(ctx, spec, sub)
	}
	return nil, message.Errorf(message.Mismatch, "the Solace endpoint, as it is configured, has no %s subscriptions", sub.Mode)
}

// Probe implements endpoints.Prober: the broker lets us in. Whether queues and topics are
// there can't be asked without reading them.
func (s *Solace) Probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if s.state.producer != nil {
		if _, err := s.state.producer.link.Get(ctx); err != nil {
			return err
		}
	}
	if s.state.consumer != nil {
		if _, err := s.state.consumer.first().Get(ctx); err != nil {
			return err
		}
	}
	return nil
}

var (
	_ caddy.Provisioner     = (*Solace)(nil)
	_ caddy.Validator       = (*Solace)(nil)
	_ caddy.CleanerUpper    = (*Solace)(nil)
	_ endpoints.Endpoint    = (*Solace)(nil)
	_ endpoints.Publishing  = (*Solace)(nil)
	_ endpoints.Subscribing = (*Solace)(nil)
	_ endpoints.Prober      = (*Solace)(nil)
	_ endpoints.Scoped      = (*Solace)(nil)
)
