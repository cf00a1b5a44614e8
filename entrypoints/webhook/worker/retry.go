package worker

import (
	"math"
	"time"
)

// Strategy is how delays grow.
type Strategy uint8

// The strategies. Exponential doubles the delay after each attempt, Linear adds Delay to
// it, and with NoRetry the first attempt is the last.
const (
	Exponential Strategy = iota
	Linear
	NoRetry
)

var strategyNames = [...]string{Exponential: "exponential", Linear: "linear", NoRetry: "none"}

func (s Strategy) String() string { return strategyNames[s] }

// Unlimited is the number of attempts that never ends.
const Unlimited = -1

// Retry is a schedule of attempts.
type Retry struct {
	Strategy Strategy
	// Attempts is how many there are in all, the first included, or Unlimited. 0 means 1.
	Attempts int
	// Delay is what comes before the second attempt, and MaxDelay is what no delay exceeds;
	// 0 means no such bound.
	Delay, MaxDelay time.Duration
	// Jitter is the share of a delay that is random, from 0 to 1: it makes delays shorter.
	Jitter float64
}

// limit is how many attempts there are, or Unlimited.
func (r Retry) limit() int {
	switch {
	case r.Strategy == NoRetry:
		return 1
	case r.Attempts < 0:
		return Unlimited
	}
	return max(r.Attempts, 1)
}

// over reports whether there is nothing to follow after so many attempts.
func (r Retry) over(attempts int) bool {
	limit := r.limit()
	return limit != Unlimited && attempts >= limit
}

// After is the delay between the end of an attempt, which are counted from 1, and the next
// one. random is from 0 to 1.
func (r Retry) After(attempt int, random float64) time.Duration {
	attempt = max(attempt, 1)
	delay := float64(r.Delay)
	if r.Strategy == Linear {
		delay *= float64(attempt)
	} else {
		delay = math.Ldexp(delay, min(attempt-1, 1000))
	}
	bound := float64(math.MaxInt64 / 2)
	if r.MaxDelay > 0 {
		bound = float64(r.MaxDelay)
	}
	delay = min(delay, bound)
	jitter := min(max(r.Jitter, 0), 1)
	return time.Duration(delay * (1 - jitter*(1-min(max(random, 0), 1))))
}

// Total is the longest time from the beginning of the first attempt to the end of the
// last, if each takes timeout; -1 means that there is no end.
func (r Retry) Total(timeout time.Duration) time.Duration {
	limit := r.limit()
	if limit == Unlimited {
		return -1
	}
	total := timeout
	for attempt := 1; attempt < limit; attempt++ {
		step := r.After(attempt, 1) + timeout
		if total > math.MaxInt64-step {
			return math.MaxInt64
		}
		total += step
	}
	return total
}
