package limits_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/caddy-message-api/caddy-message-api/plans"
	"github.com/caddy-message-api/caddy-message-api/plans/limits"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is set by hand, and has no monotonic reading.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 11, 21, 16, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// cluster is what the nodes have told each other; node is one that counts in its own record.
type cluster struct {
	mu    sync.Mutex
	nodes []*node
}

type counter struct {
	key    string
	window int64
}

type node struct {
	of   *cluster
	mine map[counter]int64
	told map[counter]int64
	ends map[counter]time.Time
}

func (c *cluster) join() *node {
	n := &node{of: c, mine: make(map[counter]int64), told: make(map[counter]int64), ends: make(map[counter]time.Time)}
	c.nodes = append(c.nodes, n)
	return n
}

// sync tells every node what the others have.
func (c *cluster) sync() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.nodes {
		n.told = make(map[counter]int64)
		for _, other := range c.nodes {
			if other == n {
				continue
			}
			for k, v := range other.mine {
				n.told[k] += v
			}
		}
	}
}

func (n *node) Add(key string, window int64, count int64, end time.Time) int64 {
	n.of.mu.Lock()
	defer n.of.mu.Unlock()
	k := counter{key, window}
	n.mine[k] += count
	n.ends[k] = end
	return n.mine[k] + n.told[k]
}

func (n *node) Total(key string, window int64) int64 {
	n.of.mu.Lock()
	defer n.of.mu.Unlock()
	k := counter{key, window}
	return n.mine[k] + n.told[k]
}

func (n *node) sum() (total int64) {
	n.of.mu.Lock()
	defer n.of.mu.Unlock()
	for _, v := range n.mine {
		total += v
	}
	return total
}

func rated(t testing.TB, text string) *plans.Rate {
	t.Helper()
	r := new(plans.Rate)
	if err := r.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return r
}

func quota(t testing.TB, text string) *plans.Quota {
	t.Helper()
	q := new(plans.Quota)
	if err := q.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return q
}

var who = limits.Key{API: "orders", Plan: "gold", Who: "sub-1"}

// allowed asks n times and says how many were let in.
func allowed(a *limits.Account, n int) (count int) {
	for range n {
		if a.Request().Allowed {
			count++
		}
	}
	return count
}

func TestRate(t *testing.T) {
	c := newClock()
	a := limits.NewTable(limits.Options{Now: c.now}).Account(who, plans.Limits{RateLimit: rated(t, "10/1s")}, time.Time{}, nil)
	for i := range 10 {
		d := a.Request()
		if !d.Allowed || d.By != "" || d.Quota != nil || d.Rate.Limit != 10 || d.Rate.Remaining != int64(9-i) {
			t.Fatalf("request %d: %+v %+v", i, d, d.Rate)
		}
	}
	d := a.Request()
	if d.Allowed || d.By != limits.ByRateLimit || d.Rate.Remaining != 0 {
		t.Fatalf("the eleventh: %+v", d)
	}
	if d.RetryAfter < 100*time.Millisecond || d.RetryAfter > 101*time.Millisecond {
		t.Errorf("retry after %v, and one comes each 100ms", d.RetryAfter)
	}
	if d.Rate.Reset < time.Second || d.Rate.Reset > 1001*time.Millisecond {
		t.Errorf("full again in %v", d.Rate.Reset)
	}
	c.add(99 * time.Millisecond)
	if allowed(a, 1) != 0 {
		t.Error("let in before its time")
	}
	c.add(2 * time.Millisecond)
	if n := allowed(a, 3); n != 1 {
		t.Errorf("%d in the time for one", n)
	}
	c.add(time.Hour)
	if n := allowed(a, 100); n != 10 {
		t.Errorf("%d at once after an hour", n)
	}
}

// Whatever the rate, who waits for RetryAfter is let in, and who comes before is not.
func TestRetryAfterIsTrue(t *testing.T) {
	for _, text := range []string{"1/1ms", "1/1s", "3/1s", "7/1m", "1/1h", "999/1h", "100000/1s", "1000000000000/1h"} {
		c := newClock()
		r := rated(t, text)
		a := limits.NewTable(limits.Options{Now: c.now}).Account(who, plans.Limits{RateLimit: r, PublishRate: r}, time.Time{}, nil)
		for i := int64(0); i < min(r.N, 100_000); i++ {
			if !a.Request().Allowed {
				t.Fatalf("%s: request %d was refused", text, i)
			}
		}
		for i := range 50 {
			if r.N > 100_000 {
				break // more than can be asked for one by one
			}
			d := a.Request()
			if d.Allowed {
				t.Fatalf("%s: round %d: let in before its time", text, i)
			}
			c.add(d.RetryAfter)
			if d = a.Request(); !d.Allowed {
				t.Fatalf("%s: round %d: waited, and was refused: %+v", text, i, d)
			}
		}
		all := int(r.N)
		a.Publish(all)
		for i := range 50 {
			n, retry := a.Publish(all)
			c.add(retry)
			if rest, _ := a.Publish(all - n); rest != all-n {
				t.Fatalf("%s: round %d: %d of %d messages after waiting %v", text, i, rest, all-n, retry)
			}
		}
	}
}

func TestQuota(t *testing.T) {
	for text, reset := range map[string]time.Duration{
		"5/1d":          12 * time.Hour, // the subscription began at 04:00
		"5/1d calendar": 8 * time.Hour,
		"5/1h calendar": time.Hour,
		"5/1w calendar": (24 + 8) * time.Hour, // it is Saturday
		"5/1mo":         10*24*time.Hour + 12*time.Hour,
	} {
		t.Run(text, func(t *testing.T) {
			c, n := newClock(), new(cluster).join()
			since := time.Date(2026, 9, 2, 4, 0, 0, 0, time.UTC)
			a := limits.NewTable(limits.Options{Now: c.now}).Account(who, plans.Limits{Quota: quota(t, text)}, since, n)
			for i := range 5 {
				if d := a.Request(); !d.Allowed || d.Rate != nil || *d.Quota != (limits.State{Limit: 5, Remaining: int64(4 - i), Reset: reset}) {
					t.Fatalf("request %d: %+v %+v", i, d, d.Quota)
				}
			}
			d := a.Request()
			if d.Allowed || d.By != limits.ByQuota || d.RetryAfter != reset || d.Quota.Remaining != 0 {
				t.Fatalf("the sixth: %+v %+v", d, d.Quota)
			}
			for _, end := range n.ends {
				if !end.Equal(c.now().Add(reset)) {
					t.Errorf("the counters were told that the window ends at %v", end)
				}
			}
			c.add(reset - time.Nanosecond)
			if allowed(a, 1) != 0 {
				t.Error("let in within the window")
			}
			c.add(time.Nanosecond)
			if got := allowed(a, 10); got != 5 {
				t.Errorf("%d in the next window", got)
			}
			if n.sum() != 10 {
				t.Errorf("%d were counted", n.sum())
			}
		})
	}
}

func TestNeitherIsChargedWhenEitherRefuses(t *testing.T) {
	t.Run("rate", func(t *testing.T) {
		c, n := newClock(), new(cluster).join()
		a := limits.NewTable(limits.Options{Now: c.now}).Account(who, plans.Limits{RateLimit: rated(t, "2/1s"), Quota: quota(t, "100/1d")}, time.Time{}, n)
		allowed(a, 50)
		if n.sum() != 2 {
			t.Errorf("the quota was charged %d times for 2 requests", n.sum())
		}
		if d := a.Request(); d.By != limits.ByRateLimit || d.Quota.Remaining != 98 {
			t.Errorf("%+v %+v", d, d.Quota)
		}
	})
	t.Run("quota", func(t *testing.T) {
		c, n := newClock(), new(cluster).join()
		a := limits.NewTable(limits.Options{Now: c.now}).Account(who, plans.Limits{RateLimit: rated(t, "20/1s"), Quota: quota(t, "3/1d")}, time.Time{}, n)
		allowed(a, 50)
		d := a.Request()
		if d.By != limits.ByQuota || d.Rate.Remaining != 17 || n.sum() != 3 {
			t.Errorf("%+v, rate %+v, counted %d", d, d.Rate, n.sum())
		}
	})
	t.Run("both", func(t *testing.T) {
		c, n := newClock(), new(cluster).join()
		a := limits.NewTable(limits.Options{Now: c.now}).Account(who, plans.Limits{RateLimit: rated(t, "3/1m"), Quota: quota(t, "3/1d")}, time.Time{}, n)
		allowed(a, 3)
		if d := a.Request(); d.By != limits.ByRateLimit || d.RetryAfter != 8*time.Hour {
			t.Errorf("%+v: the rate refuses first, and the quota for longer", d)
		}
	})
}

func TestHeaders(t *testing.T) {
	for name, tc := range map[string]struct {
		d    limits.Decision
		want map[string]string
	}{
		"nothing limited": {limits.Decision{Allowed: true}, nil},
		"rate": {limits.Decision{Allowed: true, Rate: &limits.State{Limit: 10, Remaining: 9, Reset: 1}},
			map[string]string{"X-Rate-Limit-Limit": "10", "X-Rate-Limit-Remaining": "9", "X-Rate-Limit-Reset": "1"}},
		"both, refused": {limits.Decision{RetryAfter: 90*time.Second + 1,
			Rate: &limits.State{Limit: 10, Reset: 2 * time.Second}, Quota: &limits.State{Limit: 1e12, Remaining: 3, Reset: 36 * time.Hour}},
			map[string]string{"X-Rate-Limit-Limit": "10", "X-Rate-Limit-Remaining": "0", "X-Rate-Limit-Reset": "2",
				"X-Quota-Limit": "1000000000000", "X-Quota-Remaining": "3", "X-Quota-Reset": "129600", "Retry-After": "91"}},
		"at once is a second": {limits.Decision{RetryAfter: time.Nanosecond}, map[string]string{"Retry-After": "1"}},
		"never zero":          {limits.Decision{}, map[string]string{"Retry-After": "1"}},
	} {
		h := http.Header{"X-Rate-Limit-Limit": {"stale"}, "Other": {"stays"}}
		if len(tc.want) == 0 || tc.want["X-Rate-Limit-Limit"] == "" {
			h = http.Header{"Other": {"stays"}}
		}
		tc.d.SetHeaders(h)
		if len(h) != len(tc.want)+1 || h.Get("Other") != "stays" {
			t.Errorf("%s: %v", name, h)
		}
		for k, v := range tc.want {
			if got := h.Values(k); len(got) != 1 || got[0] != v {
				t.Errorf("%s: %s is %q, want %s", name, k, got, v)
			}
		}
		for k := range h { // appending to one must not write into the next
			h.Add(k, "more")
		}
		for k, v := range tc.want {
			if h.Get(k) != v {
				t.Errorf("%s: %s became %q", name, k, h.Get(k))
			}
		}
	}
	for _, name := range limits.HeaderNames {
		if http.CanonicalHeaderKey(name) != name {
			t.Errorf("%s is not how net/http writes it", name)
		}
	}
}

func TestPublish(t *testing.T) {
	c := newClock()
	a := limits.NewTable(limits.Options{Now: c.now}).Account(who, plans.Limits{PublishRate: rated(t, "100/1s")}, time.Time{}, nil)
	for _, tc := range []struct {
		n, allowed int
		retry      time.Duration
	}{
		{0, 0, 0}, {-1, 0, 0}, {60, 60, 0}, {60, 40, 200 * time.Millisecond}, {1, 0, 10 * time.Millisecond}, {1000, 0, time.Second},
	} {
		got, retry := a.Publish(tc.n)
		if got != tc.allowed || retry < tc.retry || retry > tc.retry+time.Millisecond {
			t.Errorf("%d: %d now, the rest in %v, want %+v", tc.n, got, retry, tc)
		}
	}
	if d := a.Request(); !d.Allowed || d.Rate != nil {
		t.Errorf("requests are not limited: %+v", d)
	}
	if n, _ := a.Receive(7); n != 7 {
		t.Errorf("receiving is not limited, and %d of 7 were allowed", n)
	}
}

func TestReceiveAndRefund(t *testing.T) {
	c := newClock()
	a := limits.NewTable(limits.Options{Now: c.now}).Account(who, plans.Limits{ReceiveRate: rated(t, "100/1s")}, time.Time{}, nil)
	got, wait := a.Receive(64)
	if got != 64 || wait != 0 {
		t.Fatalf("%d, %v", got, wait)
	}
	a.Refund(60)
	if got, _ = a.Receive(200); got != 96 {
		t.Fatalf("%d after 4 of 100 were used", got)
	}
	if got, wait = a.Receive(64); got != 0 || wait < 20*time.Millisecond || wait > 21*time.Millisecond {
		t.Fatalf("%d, again in %v", got, wait)
	}
	c.add(wait)
	if got, _ = a.Receive(64); got != 2 {
		t.Fatalf("%d after %v at 100/1s", got, wait)
	}
	c.add(time.Minute)
	a.Refund(1000) // more than the bucket holds is spilt
	if got, _ = a.Receive(1000); got != 100 {
		t.Fatalf("%d at once", got)
	}
	a.Refund(0)
	a.Refund(-5)
	if got, _ = a.Receive(1); got != 0 {
		t.Error("a refund of nothing gave something")
	}
}

// One account, many sessions with a backlog: each gets its share, and together they get what
// is allowed, whatever the rate. With -short they share for a fifth of the time.
func TestSessionsOfOneAccountShare(t *testing.T) {
	for _, tc := range []struct {
		rate     string
		sessions int
		seconds  int
	}{{"10/1s", 5, 60}, {"1000/1s", 10, 10}, {"20000/1s", 3, 5}, {"1/1s", 3, 120}, {"50/1s", 200, 60}} {
		if testing.Short() {
			tc.seconds /= 5
		}
		c := newClock()
		a := limits.NewTable(limits.Options{Now: c.now}).Account(who, plans.Limits{ReceiveRate: rated(t, tc.rate)}, time.Time{}, nil)
		a.Receive(1 << 30) // the burst
		next, got := make([]time.Time, tc.sessions), make([]int, tc.sessions)
		asked, end := 0, c.now().Add(time.Duration(tc.seconds)*time.Second)
		for c.now().Before(end) {
			for i := range next {
				for !c.now().Before(next[i]) {
					n, wait := a.Receive(64)
					asked++
					got[i] += n
					if n == 0 {
						next[i] = c.now().Add(wait)
					}
				}
			}
			c.add(time.Millisecond)
		}
		total, least, most := 0, got[0], got[0]
		for _, n := range got {
			total, least, most = total+n, min(least, n), max(most, n)
		}
		r := rated(t, tc.rate)
		want := float64(r.N) * float64(tc.seconds) / r.Per.Seconds()
		t.Logf("%s over %d sessions in %ds: %d in all, from %d to %d each, asked %d times", tc.rate, tc.sessions, tc.seconds, total, least, most, asked)
		if float64(total) < 0.97*want-1 || float64(total) > want+1 {
			t.Errorf("%s: %d in all, want %v", tc.rate, total, want)
		}
		if fair := total / tc.sessions; least < fair/2-1 || most > 2*fair+2 {
			t.Errorf("%s: from %d to %d each", tc.rate, least, most)
		}
		if asked > total+60*tc.seconds+tc.sessions*(tc.seconds+2) {
			t.Errorf("%s: asked %d times for %d messages", tc.rate, asked, total)
		}
	}
}

func TestNilAccountLimitsNothing(t *testing.T) {
	table := limits.NewTable(limits.Options{})
	a := table.Account(who, plans.Limits{MaxSessions: 3}, time.Time{}, nil)
	if a != nil || table.Len() != 0 {
		t.Fatal("an account for a client that nothing limits")
	}
	if d := a.Hold().Request(); !d.Allowed || d.Rate != nil || d.Quota != nil {
		t.Errorf("%+v", d)
	}
	if n, retry := a.Publish(5); n != 5 || retry != 0 {
		t.Error("publish")
	}
	if n, wait := a.Receive(5); n != 5 || wait != 0 {
		t.Error("receive")
	}
	a.Refund(1)
	a.Release()
}
