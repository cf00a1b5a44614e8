package webhook

import (
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/caddy-message-api/caddy-message-api/entrypoints/webhook/worker"
)

// settings are what can be said both by the entrypoint and, within its bounds, by a
// subscription; nothing is left open in them.
type settings struct {
	timeout                    time.Duration
	concurrency                int
	order                      string
	retry                      worker.Retry
	onClientError, onExhausted string
	cloudEvents                *CloudEvents
}

// retryWords are the options of a retry as the entrypoint and subscriptions have them alike;
// zero values are left open.
type retryWords struct {
	strategy        string
	attempts        int
	delay, maxDelay time.Duration
	jitter          *float64
}

func (r *Retry) words() retryWords {
	if r == nil {
		return retryWords{}
	}
	return retryWords{r.Strategy, r.Attempts, time.Duration(r.Delay), time.Duration(r.MaxDelay), r.Jitter}
}

func (r *ConsumerRetry) words() retryWords {
	if r == nil {
		return retryWords{}
	}
	return retryWords{r.Strategy, r.Attempts, time.Duration(r.Delay), time.Duration(r.MaxDelay), r.Jitter}
}

// fault is what is wrong with one member.
type fault struct {
	name string
	err  error
}

// check looks at each option by itself.
func (w *retryWords) check() (faults []fault) {
	add := func(name string, err error) {
		if err != nil {
			faults = append(faults, fault{name, err})
		}
	}
	if w.strategy != "" && !known(w.strategy, strategies) {
		add("strategy", fmt.Errorf("%q: use %s", w.strategy, listed(strategies)))
	}
	if w.attempts != 0 && w.attempts != Unlimited && (w.attempts < 1 || w.attempts > MaxAttempts) {
		add("attempts", fmt.Errorf("%d: use 1 to %d, or %d for unlimited", w.attempts, MaxAttempts, Unlimited))
	}
	if w.strategy == noRetry && w.attempts != 0 && w.attempts != 1 {
		add("attempts", errors.New("the strategy none has one attempt: leave attempts out"))
	}
	if w.delay < 0 || w.delay > MaxDelay {
		add("delay", fmt.Errorf("%s: use up to %s", w.delay, MaxDelay))
	}
	if w.maxDelay < 0 || w.maxDelay > MaxDelay {
		add("max_delay", fmt.Errorf("%s: use up to %s", w.maxDelay, MaxDelay))
	}
	if w.maxDelay != 0 && w.maxDelay < w.delay {
		add("max_delay", fmt.Errorf("%s is shorter than the delay, %s", w.maxDelay, w.delay))
	}
	if w.jitter != nil && !(*w.jitter >= 0 && *w.jitter <= 1) {
		add("jitter", fmt.Errorf("%v: use a share of 0 to 1, like 0.2", *w.jitter))
	}
	return faults
}

// over puts what w says in the place of what base says.
func (w *retryWords) over(base worker.Retry) worker.Retry {
	switch w.strategy {
	case exponential:
		base.Strategy = worker.Exponential
	case linear:
		base.Strategy = worker.Linear
	case noRetry:
		base.Strategy, base.Attempts = worker.NoRetry, 1
	}
	if w.attempts != 0 {
		base.Attempts = w.attempts
	}
	if w.delay != 0 {
		base.Delay = w.delay
	}
	if w.maxDelay != 0 {
		base.MaxDelay = w.maxDelay
	}
	base.MaxDelay = max(base.MaxDelay, base.Delay)
	if w.jitter != nil {
		base.Jitter = *w.jitter
	}
	return base
}

// fits says why a schedule is more than the entrypoint's, or nil.
func (s *settings) fits(most *settings) error {
	if most.retry.Attempts != Unlimited {
		if s.retry.Attempts == Unlimited {
			return fmt.Errorf("unlimited attempts are more than the entrypoint allows: use up to %d", most.retry.Attempts)
		}
		if s.retry.Attempts > most.retry.Attempts {
			return fmt.Errorf("%d attempts are more than the entrypoint allows: use up to %d", s.retry.Attempts, most.retry.Attempts)
		}
	}
	bound := most.retry.Total(most.timeout)
	if total := s.retry.Total(s.timeout); bound >= 0 && (total < 0 || total > bound) {
		return fmt.Errorf("all attempts may take %s together, and the entrypoint allows %s: use fewer attempts, or shorter delays",
			Duration(total), Duration(bound))
	}
	return nil
}

// bound cuts s down to the bounds of the entrypoint, which may have become narrower since a
// subscription was accepted.
func (s *settings) bound(most *settings) {
	s.timeout = min(s.timeout, most.timeout)
	s.concurrency = min(s.concurrency, most.concurrency)
	if s.fits(most) != nil {
		s.retry = most.retry
	}
}

func (c *CloudEvents) check() (faults []fault) {
	if c.Source == "" {
		faults = append(faults, fault{"source", errors.New("required: a URI reference that tells where events come from, like /shop/orders")})
	} else if _, err := url.Parse(c.Source); err != nil || !visible(c.Source) {
		faults = append(faults, fault{"source", fmt.Errorf("%q is no URI reference: write it like /shop/orders or https://example.com/orders", c.Source)})
	}
	switch {
	case c.Type == "":
		faults = append(faults, fault{"type", errors.New("required: what has happened, like com.example.order.created")})
	case len(c.Type) > maxText || !visible(c.Type):
		faults = append(faults, fault{"type", fmt.Errorf("%.64q: use up to %d visible characters of ASCII", c.Type, maxText)})
	}
	return faults
}

// maxText bounds texts that go into headers.
const maxText = 1024

// visible reports whether a text is visible ASCII alone.
func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
