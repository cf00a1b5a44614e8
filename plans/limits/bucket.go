package limits

import (
	"math"
	"time"

	"golang.org/x/time/rate"

	"github.com/caddy-message-api/caddy-message-api/plans"
)

// margin is added to every time to wait, so that what is waited for is there in spite of
// rounding.
const margin = time.Microsecond

// bucket holds what is left of a rate. Account.mu guards it.
type bucket struct {
	of   plans.Rate
	lim  *rate.Limiter
	seen time.Time
}

func perSecond(r plans.Rate) rate.Limit { return rate.Limit(float64(r.N) / r.Per.Seconds()) }

// burst is how much a bucket holds, also where int is small.
func burst(r plans.Rate) int { return int(min(r.N, math.MaxInt)) }

// rated returns the bucket for what is allowed now: none, the one that was there with what
// is left in it, or a full one.
func rated(b *bucket, of *plans.Rate, now time.Time) *bucket {
	switch {
	case of == nil || of.N <= 0 || of.Per <= 0:
		return nil
	case b == nil:
		return &bucket{of: *of, lim: rate.NewLimiter(perSecond(*of), burst(*of)), seen: now}
	case b.of != *of:
		b.settle(now)
		b.lim.SetLimitAt(now, perSecond(*of))
		b.lim.SetBurstAt(now, burst(*of))
		b.of = *of
	}
	return b
}

// settle notices a clock that went back. The limiter would give nothing until the old time
// has come again; told the new time, it goes on with what it has.
func (b *bucket) settle(now time.Time) {
	if now.Before(b.seen) {
		b.lim.SetLimitAt(now, b.lim.Limit())
	}
	b.seen = now
}

func (b *bucket) tokens(now time.Time) float64 {
	b.settle(now)
	return b.lim.TokensAt(now)
}

// take takes as many as there are, at most n.
func (b *bucket) take(now time.Time, n int) (taken int) {
	taken = int(min(float64(n), b.tokens(now)))
	if taken <= 0 || !b.lim.AllowN(now, taken) {
		return 0
	}
	return taken
}

// give puts back what was taken and not used; more than the bucket holds is spilt. Taking
// less than nothing is the limiter's way to do it.
func (b *bucket) give(now time.Time, n int) {
	b.settle(now)
	b.lim.AllowN(now, -n)
}

// until is how long it takes until there are n; never more than the bucket holds.
func (b *bucket) until(now time.Time, n int64) time.Duration {
	missing := float64(min(n, b.of.N)) - b.tokens(now)
	if missing <= 0 {
		return 0
	}
	return b.in(missing)
}

// in is how long it takes to get that many.
func (b *bucket) in(tokens float64) time.Duration {
	return time.Duration(math.Ceil(tokens*float64(b.of.Per)/float64(b.of.N))) + margin
}

// state tells how the bucket stands; it is reset when it is full.
func (b *bucket) state(tokens float64) State {
	left := max(int64(tokens), 0)
	s := State{Limit: b.of.N, Remaining: left}
	if missing := float64(b.of.N) - tokens; missing > 0 {
		s.Reset = b.in(missing)
	}
	return s
}
