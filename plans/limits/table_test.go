package limits_test

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/plans"
	"github.com/caddy-message-api/caddy-message-api/plans/limits"
)

func keyOf(i int) limits.Key { return limits.Key{API: "a", Plan: "p", Who: strconv.Itoa(i)} }

func TestAccountsAreKept(t *testing.T) {
	c := newClock()
	table := limits.NewTable(limits.Options{Now: c.now})
	l := func() plans.Limits { return plans.Limits{RateLimit: rated(t, "5/1h")} }
	keys := []limits.Key{who, {API: "orders", Plan: "gold", Who: "sub-2"}, {API: "orders", Plan: "silver", Who: "sub-1"}, {API: "bills", Plan: "gold", Who: "sub-1"}}
	for _, k := range keys {
		if n := allowed(table.Account(k, l(), time.Time{}, nil), 3); n != 3 {
			t.Errorf("%v: %d", k, n)
		}
	}
	for _, k := range keys { // equal limits of another configuration
		if n := allowed(table.Account(k, l(), time.Time{}, nil), 5); n != 2 {
			t.Errorf("%v: %d more were let in", k, n)
		}
	}
	if table.Len() != len(keys) {
		t.Errorf("%d accounts", table.Len())
	}
}

func TestChangedLimitsApplyFromNowOn(t *testing.T) {
	c, n := newClock(), new(cluster).join()
	table := limits.NewTable(limits.Options{Now: c.now})
	with := func(l plans.Limits) *limits.Account { return table.Account(who, l, time.Time{}, n) }
	a := with(plans.Limits{RateLimit: rated(t, "10/1h")})
	if got := allowed(a, 20); got != 10 {
		t.Fatalf("%d", got)
	}
	a = with(plans.Limits{RateLimit: rated(t, "100/1s")})
	if got := allowed(a, 1); got != 0 {
		t.Error("a higher rate gave a fresh burst")
	}
	c.add(time.Second)
	if got := allowed(a, 500); got != 100 {
		t.Errorf("%d at the higher rate", got)
	}
	c.add(time.Second)
	with(plans.Limits{RateLimit: rated(t, "3/1s")})
	if got := allowed(a, 500); got != 3 {
		t.Errorf("%d at the lower rate, of the account from before", got)
	}
	with(plans.Limits{RateLimit: rated(t, "3/1s"), Quota: quota(t, "5/1d")})
	c.add(time.Hour)
	if got := allowed(a, 500); got != 3 {
		t.Errorf("%d", got)
	}
	with(plans.Limits{Quota: quota(t, "6/1d")})
	if got := allowed(a, 500); got != 3 {
		t.Errorf("%d after the quota was raised from 5 to 6, of which 3 were used", got)
	}
	with(plans.Limits{Quota: quota(t, "2/1d")})
	if d := a.Request(); d.Allowed || d.Quota.Remaining != 0 || d.Quota.Limit != 2 {
		t.Errorf("%+v %+v after the quota was lowered", d, d.Quota)
	}
	with(plans.Limits{Quota: quota(t, "2/1d calendar")})
	if got := allowed(a, 500); got != 2 {
		t.Errorf("%d in windows of another kind", got)
	}
	if with(plans.Limits{}) != nil {
		t.Error("an account where nothing is limited")
	}
	if got := allowed(a, 500); got != 500 {
		t.Errorf("%d for one who has the account from before", got)
	}
}

// The windows of quotas of different length have the same numbers at times.
func TestCountersAreNotMixedUp(t *testing.T) {
	n := new(cluster).join()
	table := limits.NewTable(limits.Options{Now: newClock().now})
	keys := []limits.Key{{"a b", "c", "d"}, {"a", "b c", "d"}, {"a", "b", "c d"}, {"a+b", "c", "d"}, {"a%20b", "c", "d"}, {"a", "b", "2001:db8::1"}}
	for _, text := range []string{"1/1h", "1/1h calendar", "1/1d", "1/1d calendar", "1/1w", "1/1mo", "1/1mo calendar"} {
		for _, k := range keys {
			if got := allowed(table.Account(k, plans.Limits{Quota: quota(t, text)}, time.Time{}, n), 2); got != 1 {
				t.Errorf("%v %s: %d", k, text, got)
			}
		}
	}
}

func TestIdleAccountsAreForgotten(t *testing.T) {
	for _, most := range []int{1, 50, 1000, 5000} {
		table := limits.NewTable(limits.Options{Max: most})
		l := plans.Limits{RateLimit: rated(t, "1/1h")}
		for i := range 4 * most {
			table.Account(keyOf(i), l, time.Time{}, nil)
			if table.Len() > most+32 {
				t.Fatalf("%d accounts of at most %d", table.Len(), most)
			}
		}
		if table.Len() < most*8/10 {
			t.Errorf("only %d of %d are kept", table.Len(), most)
		}
	}
}

func TestWhoIsBusyIsNotForgotten(t *testing.T) {
	table := limits.NewTable(limits.Options{Max: 100})
	l := plans.Limits{RateLimit: rated(t, "1/1h")}
	busy := table.Account(who, l, time.Time{}, nil)
	allowed(busy, 1)
	for i := range 5000 {
		table.Account(keyOf(i), l, time.Time{}, nil)
		if i%20 == 0 && table.Account(who, l, time.Time{}, nil) != busy {
			t.Fatalf("forgotten after %d others", i)
		}
	}
}

func TestHeldAccountsAreNotForgotten(t *testing.T) {
	table := limits.NewTable(limits.Options{Max: 100})
	l := plans.Limits{RateLimit: rated(t, "1/1h")}
	held := make([]*limits.Account, 300)
	for i := range held { // more than there is room for
		held[i] = table.Account(keyOf(i), l, time.Time{}, nil).Hold()
		allowed(held[i], 1)
	}
	for i := 1000; i < 3000; i++ {
		table.Account(keyOf(i), l, time.Time{}, nil)
	}
	for i, a := range held {
		if table.Account(keyOf(i), l, time.Time{}, nil) != a {
			t.Fatalf("account %d was forgotten while a session held it", i)
		}
		a.Release()
		a.Release() // once too often does nothing
	}
	for i := 3000; i < 6000; i++ {
		table.Account(keyOf(i), l, time.Time{}, nil)
	}
	if table.Len() > 101 {
		t.Errorf("%d accounts are left of at most 100", table.Len())
	}
}

// An account that was forgotten between being found and held comes back, or its successor
// takes its place.
func TestHoldAfterForgetting(t *testing.T) {
	table := limits.NewTable(limits.Options{Max: 2})
	l := plans.Limits{RateLimit: rated(t, "5/1h")}
	flood := func() {
		for i := range 20 {
			table.Account(keyOf(i), l, time.Time{}, nil)
		}
	}
	a := table.Account(who, l, time.Time{}, nil)
	flood()
	if got := a.Hold(); got != a || table.Account(who, l, time.Time{}, nil) != a {
		t.Fatal("it did not come back")
	}
	a.Release()
	flood()
	successor := table.Account(who, l, time.Time{}, nil)
	if successor == a {
		t.Fatal("it was not forgotten")
	}
	if a.Hold() != successor {
		t.Error("two accounts for one client")
	}
	flood()
	if table.Account(who, l, time.Time{}, nil) != successor {
		t.Error("the successor was not held")
	}
	successor.Release()
}

func TestClockThatGoesBack(t *testing.T) {
	for _, back := range []time.Duration{time.Millisecond, time.Hour, 400 * 24 * time.Hour} {
		c, n := newClock(), new(cluster).join()
		table := limits.NewTable(limits.Options{Now: c.now})
		l := plans.Limits{RateLimit: rated(t, "10/1s"), PublishRate: rated(t, "10/1s"), ReceiveRate: rated(t, "10/1s"), Quota: quota(t, "1000/1mo calendar")}
		a := table.Account(who, l, time.Time{}, n)
		use := func() (requests, published, received int) {
			published, _ = a.Publish(100)
			received, _ = a.Receive(100)
			return allowed(a, 100), published, received
		}
		use()
		c.add(-back)
		if r, p, v := use(); r+p+v != 0 {
			t.Errorf("%v back: %d, %d and %d for nothing", back, r, p, v)
		}
		if d := a.Request(); d.RetryAfter > 101*time.Millisecond {
			t.Errorf("%v back: refused for %v", back, d.RetryAfter)
		}
		c.add(500 * time.Millisecond)
		if r, p, v := use(); r != 5 || p != 5 || v != 5 {
			t.Errorf("%v back, and half a second on: %d, %d and %d instead of 5", back, r, p, v)
		}
		c.add(back) // and right again: at most a burst
		if r, p, v := use(); r > 10 || p > 10 || v > 10 {
			t.Errorf("%v back and forth: %d, %d and %d", back, r, p, v)
		}
	}
}

func TestParallelRequestsAreCountedExactly(t *testing.T) {
	n := new(cluster).join()
	c := newClock()
	table := limits.NewTable(limits.Options{Now: c.now})
	l := plans.Limits{RateLimit: rated(t, "500/1h"), Quota: quota(t, "300/1d"), PublishRate: rated(t, "1000/1h"), ReceiveRate: rated(t, "1000/1h")}
	var in, published, received atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 200 {
				a := table.Account(who, l, time.Time{}, n).Hold()
				if a.Request().Allowed {
					in.Add(1)
				}
				got, _ := a.Publish(3)
				published.Add(int64(got))
				if got, _ = a.Receive(3); got > 0 {
					a.Refund(1)
					received.Add(int64(got) - 1)
				}
				a.Release()
				table.Account(keyOf(i), l, time.Time{}, n).Request()
			}
		})
	}
	wg.Wait()
	rest, _ := table.Account(who, l, time.Time{}, n).Receive(10) // what was refunded last
	received.Add(int64(rest))
	if in.Load() != 300 || published.Load() != 1000 || received.Load() != 1000 {
		t.Errorf("%d of 300 requests, %d of 1000 published, %d of 1000 received", in.Load(), published.Load(), received.Load())
	}
}

// Over several nodes a quota is overshot by what one interval brings, and by no more,
// wherever in the interval it is used up.
func TestQuotaOverNodes(t *testing.T) {
	for _, tc := range []struct {
		nodes    int
		rate     string
		interval time.Duration
	}{{1, "100/1s", 5 * time.Second}, {2, "100/1s", 5 * time.Second}, {2, "2000/1s", time.Second}, {3, "50/1s", 30 * time.Second}} {
		t.Run(fmt.Sprint(tc.nodes, " nodes ", tc.rate, " every ", tc.interval), func(t *testing.T) {
			least, most, phases := int(1e9), 0, 5
			if testing.Short() {
				phases = 2
			}
			for phase := range phases {
				over := overshoot(t, tc.nodes, rated(t, tc.rate), tc.interval, tc.interval*time.Duration(phase)/time.Duration(phases))
				least, most = min(least, over), max(most, over)
			}
			bound := tc.nodes * int(rated(t, tc.rate).N) * int(tc.interval/time.Second)
			t.Logf("from %d to %d over 10000, at most %d", least, most, bound)
			if least < 0 || most > bound || tc.nodes == 1 && most != 0 {
				t.Errorf("from %d to %d over", least, most)
			}
		})
	}
}

// overshoot has every node asked for as much as the rate allows, from after the burst that a
// quiet client has, and says by how many of 10,000 the quota was overshot.
func overshoot(t *testing.T, nodes int, r *plans.Rate, interval, phase time.Duration) int {
	const total, step = 10_000, 10 * time.Millisecond
	c, shared := newClock(), new(cluster)
	l := plans.Limits{RateLimit: r, Quota: quota(t, strconv.Itoa(total)+"/1d")}
	accounts := make([]*limits.Account, nodes)
	for i := range accounts {
		accounts[i] = limits.NewTable(limits.Options{Now: c.now}).Account(who, l, time.Time{}, shared.join())
		allowed(accounts[i], int(r.N))
	}
	in := nodes * int(r.N)
	for at := phase; ; at += step {
		if at%interval == 0 {
			if shared.sync(); in >= total {
				return in - total // all know it now
			}
		}
		for _, a := range accounts {
			for a.Request().Allowed {
				in++
			}
		}
		c.add(step)
	}
}

// Nodes that begin late, vanish and come back never make an account negative or give more
// than the quota once all have told each other.
func TestQuotaWithLateNews(t *testing.T) {
	c, shared := newClock(), new(cluster)
	r := rand.New(rand.NewPCG(1, 2))
	l := plans.Limits{Quota: quota(t, "100/1h calendar")}
	table := limits.NewTable(limits.Options{Now: c.now})
	nodes := []*node{shared.join(), shared.join()}
	for range 2000 {
		switch r.IntN(10) {
		case 0:
			shared.sync()
		case 1:
			c.add(time.Duration(r.IntN(600)) * time.Second)
		default:
			d := table.Account(keyOf(r.IntN(3)), l, time.Time{}, nodes[r.IntN(2)]).Request()
			if d.Quota.Remaining < 0 || d.Quota.Remaining > 100 || d.Quota.Reset <= 0 || d.Quota.Reset > time.Hour || d.Allowed == (d.RetryAfter > 0) {
				t.Fatalf("%+v %+v", d, d.Quota)
			}
		}
	}
}
