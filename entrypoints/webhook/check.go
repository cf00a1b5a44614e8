package webhook

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/entrypoints/webhook/egress"
	"github.com/caddy-message-api/caddy-message-api/entrypoints/webhook/envelope"
)

// maxSecrets is how many secrets sign a delivery: the new one and the old one.
const maxSecrets = 2

// Consumer implements entrypoints.Pushing. asked is a merge patch (RFC 7386) of what is in
// force. What was shown in the place of a secret means that secret. Without secrets a new
// subscription gets one; an empty list leaves deliveries unsigned.
func (e *Entrypoint) Consumer(old, asked json.RawMessage) (whole, seen json.RawMessage, err error) {
	var before map[string]any
	if old != nil {
		if before, err = object(old); err != nil {
			return nil, nil, fmt.Errorf("the configuration in force: %w", err)
		}
	}
	patch, err := object(asked)
	if err != nil {
		return nil, nil, err
	}
	merged, flaws := merge(before, patch)
	if _, there := merged["secrets"]; !there {
		if before != nil {
			flaws = append(flaws, flaw("secrets", "can't be taken away: give new ones, or [] for unsigned deliveries")...)
		}
		merged["secrets"] = []any{envelope.NewSecret()}
	}
	c := new(Consumer)
	flaws = append(flaws, decode(merged, c)...)
	if len(flaws) == 0 {
		flaws = e.check(c)
	}
	if len(flaws) > 0 {
		return nil, nil, flaws
	}
	if whole, err = json.Marshal(c); err != nil {
		return nil, nil, err
	}
	tree, err := object(whole)
	if err != nil {
		return nil, nil, err
	}
	seen, err = json.Marshal(shown(tree))
	return whole, seen, err
}

// flawList collects what is wrong with a configuration.
type flawList struct{ entrypoints.Flaws }

func (l *flawList) add(path string, err error) {
	if err != nil {
		l.Flaws = append(l.Flaws, entrypoints.Flaw{Path: path, Detail: err.Error()})
	}
}

func (l *flawList) addf(path, format string, args ...any) {
	l.add(path, fmt.Errorf(format, args...))
}

func at(list string, i int) string { return fmt.Sprintf("%s[%d]", list, i) }

// check says all that is wrong with a configuration, the bounds of the entrypoint included.
func (e *Entrypoint) check(c *Consumer) entrypoints.Flaws {
	l := new(flawList)
	_, err := e.policy.CheckURL(c.Callback)
	l.add("callback", err)
	if len(c.Secrets) > maxSecrets {
		l.addf("secrets", "%d are too many: use one, or two while they are exchanged", len(c.Secrets))
	}
	for i, text := range c.Secrets {
		_, err := envelope.ParseSecret(text)
		l.add(at("secrets", i), err)
	}
	c.checkHeaders(l)
	if c.Auth != nil {
		e.checkAuth(l, c.Auth)
	}
	_, err = c.TLS.config()
	l.add("tls", err)
	if c.CloudEvents != nil {
		for _, f := range c.CloudEvents.check() {
			l.add("cloudevents."+f.name, f.err)
		}
	}
	e.checkDelivery(l, c)
	if len(l.Flaws) == 0 { // of the headers together
		s := e.settingsOf(c)
		_, err := e.newEnvelope(moduleName, c, &s)
		l.add("headers", err)
	}
	return l.Flaws
}

func (c *Consumer) checkHeaders(l *flawList) {
	n := 0
	for _, name := range sortedKeys(c.Headers) {
		n += len(c.Headers[name])
		if len(c.Headers[name]) == 0 {
			l.addf(below("headers", name), "has no value: use null to take a header away")
		}
		for _, value := range c.Headers[name] {
			l.add(below("headers", name), envelope.CheckHeader(name, value))
		}
	}
	if n > envelope.MaxFixedHeaders {
		l.addf("headers", "%d values are too many: use up to %d", n, envelope.MaxFixedHeaders)
	}
}

// checkDelivery compares what a subscription asks for with what the entrypoint allows.
func (e *Entrypoint) checkDelivery(l *flawList, c *Consumer) {
	most := &e.defaults
	if c.Concurrency < 0 || c.Concurrency > most.concurrency {
		l.addf("concurrency", "%d: use 1 to %d, which is what the entrypoint allows", c.Concurrency, most.concurrency)
	}
	if time.Duration(c.Timeout) > most.timeout {
		l.addf("timeout", "%s: use up to %s, which is what the entrypoint allows", c.Timeout, Duration(most.timeout))
	}
	word := func(path, value string, words []string) {
		switch {
		case value != "" && !known(value, words):
			l.addf(path, "%q: use %s", value, listed(words))
		case value == deadLetter && e.DeadLetter == "":
			l.addf(path, "the API has no place for dead letters: use another action")
		}
	}
	word("order", c.Order, orders)
	word("on_client_error", c.OnClientError, clientErrorActions)
	word("on_exhausted", c.OnExhausted, exhaustedActions)
	if c.Retry == nil && c.Timeout == 0 {
		return
	}
	words := c.Retry.words()
	faults := words.check()
	for _, f := range faults {
		l.add("retry."+f.name, f.err)
	}
	if s := e.settingsOf(c); len(faults) == 0 && s.timeout <= most.timeout {
		l.add("retry", s.fits(most))
	}
}

// settingsOf is what a subscription asks for, over what the entrypoint says.
func (e *Entrypoint) settingsOf(c *Consumer) settings {
	s := e.defaults
	s.timeout = orElse(time.Duration(c.Timeout), s.timeout)
	s.concurrency = orElse(c.Concurrency, s.concurrency)
	s.order = orElse(c.Order, s.order)
	s.onClientError = orElse(c.OnClientError, s.onClientError)
	s.onExhausted = orElse(c.OnExhausted, s.onExhausted)
	s.cloudEvents = orElse(c.CloudEvents, s.cloudEvents)
	words := c.Retry.words()
	s.retry = words.over(s.retry)
	return s
}

// checkAuth prefixes what is wrong with the credentials.
func (e *Entrypoint) checkAuth(l *flawList, cfg *egress.AuthConfig) {
	if !known(cfg.Type, authTypes) {
		l.addf("auth.type", "%.64q: use %s", cfg.Type, listed(authTypes))
		return
	}
	err := egress.CheckAuth(*cfg, &e.policy)
	flaws, ok := errors.AsType[entrypoints.Flaws](err)
	if !ok {
		l.add("auth", err)
	}
	for _, f := range flaws {
		l.addf(below("auth", f.Path), "%s", f.Detail)
	}
}

// config is what a subscription says of TLS by itself, or nil.
func (t *ConsumerTLS) config() (*tls.Config, error) {
	if t == nil || *t == (ConsumerTLS{}) {
		return nil, nil //nolint:nilnil // no TLS options of its own are no error
	}
	opt := egress.TLSOptions{ServerName: t.ServerName}
	if t.CA != "" {
		opt.CA = []string{t.CA}
	}
	return egress.NewTLS(opt)
}
