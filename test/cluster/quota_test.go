package cluster

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// Two nodes that are asked as fast as they can answer grant a quota together, and no more
// beyond it than goes through between their looks at each other.
func TestQuotaOverTwoNodes(t *testing.T) {
	const quota, requests = 5000, 10_000
	// A node may answer 7,000 requests a second: with a second between looks both would have
	// answered all before the first.
	const interval = syncInterval / 4
	onEach(t, func(t *testing.T, storage string) {
		a, b := startTwo(t, storage, interval)
		deployed := a.deploy("counted", quotaPlan)
		s := a.subscribe("counted")
		b.sees(deployed, "the key", "/counted", s.key, http.StatusOK) // one is granted
		nodes := []*node{a, b}
		granted, took := flood(t, nodes, requests, "/counted", s.key)
		granted++

		rate := float64(requests) / took.Seconds() / float64(len(nodes)) // of one node
		allowed := quota + float64(len(nodes))*rate*interval.Seconds()
		t.Logf("%d requests in %s, %.0f/s on each node: %d granted of %d, at most %.0f allowed with looks every %s",
			requests, took.Round(time.Millisecond), rate, granted, quota, allowed, interval)
		if allowed >= requests {
			t.Skip("this machine answers everything before the nodes look at each other")
		}
		if granted < quota {
			t.Errorf("%d granted, which is less than the quota of %d", granted, quota)
		}
		if float64(granted) > allowed {
			t.Errorf("%d granted, which is more than %d + %d nodes × %.0f/s × %s", granted, quota, len(nodes), rate, interval)
		}
		spent := time.Now()
		for _, n := range nodes {
			n.sees(spent, "a spent quota", "/counted", s.key, http.StatusTooManyRequests)
		}
		answer := b.get("/counted", s.key)
		if answer.Header.Get("X-Quota-Remaining") != "0" || answer.Header.Get("Retry-After") == "" {
			t.Errorf("a refused request gets %v", answer.Header)
		}
	})
}

// flood posts requests to the nodes in turn, with several clients, and counts what is granted.
func flood(t *testing.T, nodes []*node, requests int64, path, key string) (granted int64, took time.Duration) {
	t.Helper()
	var next, ok atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for range 8 {
		wg.Go(func() {
			for i := next.Add(1); i <= requests; i = next.Add(1) {
				n := nodes[i%int64(len(nodes))]
				answer, err := gateway.TryDo(n.client, http.MethodPost, n.URL(path), "x", keyHeader(key)...)
				switch {
				case err != nil:
					t.Errorf("request %d to %s: %v", i, n.name, err)
					return
				case answer.Status/100 == 2:
					ok.Add(1)
				case answer.Status != http.StatusTooManyRequests:
					t.Error(fmt.Sprintf("request %d to %s: ", i, n.name), answer.Status, answer.Body)
					return
				}
			}
		})
	}
	wg.Wait()
	return ok.Load(), time.Since(began)
}
