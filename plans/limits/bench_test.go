package limits_test

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/plans"
	"github.com/caddy-message-api/caddy-message-api/plans/limits"
)

func plenty(b testing.TB) plans.Limits {
	return plans.Limits{
		RateLimit: rated(b, "1000000000000/1s"), Quota: quota(b, "1000000000000/1d"),
		PublishRate: rated(b, "1000000000000/1s"), ReceiveRate: rated(b, "1000000000000/1s"),
	}
}

// What a request costs: finding the account, asking it, and telling the client.
func BenchmarkRequest(b *testing.B) {
	for name, l := range map[string]plans.Limits{
		"rate": {RateLimit: rated(b, "1000000000000/1s")}, "quota": {Quota: quota(b, "1000000000000/1d")},
		"rate and quota": plenty(b), "refused": {RateLimit: rated(b, "1/1h")}, "nothing limited": {},
	} {
		b.Run(name, func(b *testing.B) {
			table, n := limits.NewTable(limits.Options{}), new(cluster).join()
			b.ReportAllocs()
			for b.Loop() {
				d := table.Account(who, l, time.Time{}, n).Request()
				sink.Store(d.Allowed)
			}
		})
	}
}

var sink atomic.Bool

func BenchmarkRequestParallel(b *testing.B) {
	for name, accounts := range map[string]int{"one account": 1, "50000 accounts": 50_000} {
		b.Run(name, func(b *testing.B) {
			table, n, l := limits.NewTable(limits.Options{}), new(cluster).join(), plenty(b)
			l.Quota = nil // the counters of the test have one lock for all
			keys := make([]limits.Key, accounts)
			for i := range keys {
				keys[i] = keyOf(i)
			}
			b.ReportAllocs()
			var start atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				for i := int(start.Add(7919)); pb.Next(); i++ {
					if !table.Account(keys[i%accounts], l, time.Time{}, n).Request().Allowed {
						b.Error("refused")
						return
					}
				}
			})
		})
	}
}

func BenchmarkSetHeaders(b *testing.B) {
	d := limits.Decision{Allowed: true,
		Rate:  &limits.State{Limit: 1000, Remaining: 999, Reset: time.Second},
		Quota: &limits.State{Limit: 100_000, Remaining: 54_321, Reset: time.Hour}}
	h := make(http.Header)
	b.ReportAllocs()
	for b.Loop() {
		d.SetHeaders(h)
	}
}

func BenchmarkMessages(b *testing.B) {
	a := limits.NewTable(limits.Options{}).Account(who, plenty(b), time.Time{}, nil)
	b.Run("publish", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			a.Publish(1)
		}
	})
	b.Run("receive 64 and refund 63", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			n, _ := a.Receive(64)
			a.Refund(n - 1)
		}
	})
}

// What a flood of clients that are never seen again costs, in a table that is full.
func BenchmarkNewAccounts(b *testing.B) {
	table, l := limits.NewTable(limits.Options{Max: 10_000}), plenty(b)
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i++
		table.Account(keyOf(i), l, time.Time{}, nil)
	}
}

func TestRequestAllocations(t *testing.T) {
	table, n, l := limits.NewTable(limits.Options{}), new(cluster).join(), plenty(t)
	got := testing.AllocsPerRun(1000, func() {
		d := table.Account(who, l, time.Time{}, n).Request()
		if !d.Allowed || d.Rate == nil || d.Quota == nil {
			t.Fatal("refused")
		}
	})
	if got > 1 {
		t.Errorf("%v allocations", got)
	}
}
