package limits

import (
	"sync"
	"time"

	"github.com/caddy-message-api/caddy-message-api/plans"
)

const (
	// turnLength is for how long messages are saved up before they are handed out, unless
	// the rate is slower than one in that time: few timers, and writes that are worth it.
	turnLength = 20 * time.Millisecond
	// maxWait bounds how far ahead turns are given, since those before may never be used,
	// and when one is to ask again at the latest, so that a raised limit is noticed.
	maxWait = time.Minute
)

// Account is what one client may still use of one plan. It is safe for concurrent use. A nil
// *Account limits nothing.
type Account struct {
	key   Key
	shard *shard
	// Guarded by shard.mu: open sessions, whether it was found again since the last look,
	// and
	// whether the table has forgotten it.
	held int
	used bool
	gone bool

	now func() time.Time

	mu      sync.Mutex
	limits  plans.Limits
	rate    *bucket
	quota   *quota
	publish *bucket
	receive *bucket
	turn    time.Time // when the next one may come who was told to wait
}

// set makes the limits apply from now on. What was used stays used.
func (a *Account) set(l plans.Limits, since time.Time, c Counters) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.quota = counted(a.quota, &a.key, l.Quota, since, c)
	if l == a.limits {
		return
	}
	a.limits = l
	now := a.now()
	a.rate = rated(a.rate, l.RateLimit, now)
	a.publish = rated(a.publish, l.PublishRate, now)
	a.receive = rated(a.receive, l.ReceiveRate, now)
	a.turn = time.Time{}
}

// Request asks for one request, and counts it if it is allowed. Where both limits refuse, the
// rate limit is named, and the time is that of the later one.
func (a *Account) Request() Decision {
	// Small enough to be inlined, so that the states need no heap where the decision stays
	// with the caller.
	return a.request(new(states))
}

type states struct{ rate, quota State }

func (a *Account) request(s *states) Decision {
	d := Decision{Allowed: true}
	if a == nil {
		return d
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.rate == nil && a.quota == nil {
		return d
	}
	now := a.now()
	var tokens float64
	var used int64
	if a.rate != nil {
		if tokens = a.rate.tokens(now); tokens < 1 {
			d = Decision{By: ByRateLimit, RetryAfter: a.rate.until(now, 1)}
		}
	}
	if a.quota != nil {
		a.quota.window(now)
		if used = a.quota.used(); used >= a.quota.of.N {
			d.refuse(ByQuota, time.Duration(a.quota.end-now.UnixNano()))
		}
	}
	if d.Allowed {
		tokens, used = a.charge(now, tokens)
	}
	if a.rate != nil {
		s.rate = a.rate.state(tokens)
		d.Rate = &s.rate
	}
	if a.quota != nil {
		s.quota = a.quota.state(now, used)
		d.Quota = &s.quota
	}
	return d
}

// charge counts a request that both limits allow.
func (a *Account) charge(now time.Time, had float64) (tokens float64, used int64) {
	if a.rate != nil {
		a.rate.lim.AllowN(now, 1)
		tokens = had - 1
	}
	if a.quota != nil {
		used = a.quota.count()
	}
	return tokens, used
}

// Publish asks for n messages to be published, and counts those that are allowed. When not
// all are, retry is when the others can be, or as many of them as can ever be at once.
func (a *Account) Publish(n int) (allowed int, retry time.Duration) {
	if a == nil || n <= 0 {
		return max(n, 0), 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.publish == nil {
		return n, 0
	}
	now := a.now()
	if allowed = a.publish.take(now, n); allowed < n {
		retry = a.publish.until(now, int64(n-allowed))
	}
	return allowed, retry
}

// Receive asks for want messages to be delivered, and counts those that are allowed. When
// none are, wait is when to ask again, and not before: sessions of one account are given
// turns, so that each gets its share.
func (a *Account) Receive(want int) (allowed int, wait time.Duration) {
	if a == nil || want <= 0 {
		return max(want, 0), 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.receive == nil {
		return want, 0
	}
	now := a.now()
	if allowed = a.receive.take(now, want); allowed > 0 {
		return allowed, 0
	}
	return 0, a.nextTurn(now, want)
}

// nextTurn says when one who wants that many is to come again. Turns follow each other, so
// that who comes first does not always come first.
func (a *Account) nextTurn(now time.Time, want int) time.Duration {
	one := max(a.receive.until(now, 1), time.Millisecond)
	length := max(a.receive.in(1), min(a.receive.in(float64(min(int64(want), a.receive.of.N))), turnLength))
	turn := now.Add(max(one, min(length, turnLength)))
	if a.turn.After(turn) {
		turn = a.turn
	}
	if bound := now.Add(max(one, maxWait)); turn.After(bound) {
		turn = bound
	}
	a.turn = turn.Add(length)
	return min(turn.Sub(now), maxWait)
}

// Refund gives back what Receive allowed and was not used.
func (a *Account) Refund(n int) {
	if a == nil || n <= 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.receive != nil {
		a.receive.give(a.now(), n)
	}
}
