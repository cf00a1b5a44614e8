package webhook

import (
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/entrypoints/webhook/egress"
	"github.com/caddy-message-api/caddy-message-api/entrypoints/webhook/envelope"
	"github.com/caddy-message-api/caddy-message-api/entrypoints/webhook/worker"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// Provision applies the defaults, reads the files, and refuses what can't work. Nothing is
// called yet.
func (e *Entrypoint) Provision(ctx caddy.Context) error {
	e.logger = ctx.Logger()
	e.setDefaults()
	if err := errors.Join(e.checkOptions()...); err != nil {
		return fmt.Errorf("entrypoint %s: %w", moduleName, err)
	}
	if err := e.prepare(); err != nil {
		return fmt.Errorf("entrypoint %s: %w", moduleName, err)
	}
	if e.TLS != nil && e.TLS.InsecureSkipVerify {
		e.logger.Warn("insecure_skip_verify: webhooks are delivered to whoever answers")
	}
	return nil
}

// Cleanup closes the connections that nobody uses any more.
func (e *Entrypoint) Cleanup() error {
	if e.couriers != nil {
		e.couriers.close()
	}
	return nil
}

func (e *Entrypoint) setDefaults() {
	final := stop
	if e.DeadLetter != "" {
		final = deadLetter
	}
	s := &e.defaults
	s.timeout = orElse(time.Duration(e.Timeout), DefaultTimeout)
	s.concurrency = orElse(e.Concurrency, DefaultConcurrency)
	s.order = orElse(e.Order, orderKey)
	s.onClientError = orElse(e.OnClientError, final)
	s.onExhausted = orElse(e.OnExhausted, final)
	words := e.Retry.words()
	s.retry = words.over(worker.Retry{
		Strategy: worker.Exponential, Attempts: DefaultAttempts, Delay: DefaultDelay, MaxDelay: DefaultMaxDelay, Jitter: DefaultJitter,
	})
	e.dialTimeout = orElse(time.Duration(e.ConnectTimeout), min(DefaultConnectTimeout, s.timeout))
	e.connections = orElse(e.Connections, DefaultConnections)
	e.maxResponse = orElse(e.MaxResponse, DefaultMaxResponse)
	e.firstPause, e.letterWait, e.letterIdle = firstPause, letterWait, letterIdle
}

func orElse[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

func (e *Entrypoint) checkOptions() (errs []error) {
	s := &e.defaults
	add := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	word := func(name, value string, words []string) {
		if !known(value, words) {
			add(fmt.Errorf("%s %q: use %s", name, value, listed(words)))
		}
	}
	if e.QoS == message.None {
		add(errors.New("qos none: use auto, at_most_once or at_least_once"))
	}
	add(within("timeout", s.timeout, time.Millisecond, MaxTimeout))
	add(within("connect_timeout", e.dialTimeout, time.Millisecond, s.timeout))
	add(inRange("concurrency", int64(s.concurrency), 1, MaxConcurrency))
	add(inRange("connections", int64(e.connections), 1, MaxConnections))
	add(inRange("max_response", e.maxResponse, 1, MaxMaxResponse))
	word("order", s.order, orders)
	word("on_client_error", s.onClientError, clientErrorActions)
	word("on_exhausted", s.onExhausted, exhaustedActions)
	if e.DeadLetter == "" {
		const missing = " dead_letter needs an endpoint: name one by `dead_letter <endpoint>`"
		if s.onClientError == deadLetter {
			add(errors.New("on_client_error" + missing))
		}
		if s.onExhausted == deadLetter {
			add(errors.New("on_exhausted" + missing))
		}
	}
	words := e.Retry.words()
	for _, f := range words.check() {
		add(fmt.Errorf("retry: %s %w", f.name, f.err))
	}
	if _, err := envelope.New(envelope.Options{API: moduleName, Allow: e.MessageHeaders}); err != nil {
		add(fmt.Errorf("message_headers: %w", err))
	}
	return errs
}

// prepare replaces placeholders and reads files.
func (e *Entrypoint) prepare() error {
	networks, err := egress.ParseNetworks(e.AllowNetworks)
	if err != nil {
		return fmt.Errorf("allow_networks: %w", err)
	}
	hosts, err := egress.ParseHosts(e.AllowHosts)
	if err != nil {
		return fmt.Errorf("allow_hosts: %w", err)
	}
	if err = e.prepareProxy(); err != nil {
		return fmt.Errorf("proxy: %w", err)
	}
	if e.tls, err = e.TLS.config(); err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	if e.CloudEvents != nil {
		c := *e.CloudEvents
		for _, text := range []*string{&c.Source, &c.Type} {
			if *text, err = global(*text); err != nil {
				return fmt.Errorf("cloudevents: %w", err)
			}
		}
		for _, f := range c.check() {
			return fmt.Errorf("cloudevents: %s: %w", f.name, f.err)
		}
		e.defaults.cloudEvents = &c
	}
	e.policy = egress.Policy{AllowHTTP: e.AllowHTTP, Networks: networks, Hosts: hosts}
	e.couriers = newCouriers(e)
	return nil
}

// prepareProxy never quotes the URL, which may hold a password.
func (e *Entrypoint) prepareProxy() error {
	if e.Proxy == "" {
		return nil
	}
	text, err := global(e.Proxy)
	if err != nil {
		return err
	}
	e.proxy, err = egress.ParseProxy(text)
	return err
}

func inRange(name string, n, least, most int64) error {
	if n < least || n > most {
		return fmt.Errorf("%s %d: use %d to %d", name, n, least, most)
	}
	return nil
}
