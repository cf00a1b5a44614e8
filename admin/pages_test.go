package admin

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/subscriptions"
)

// 2,500 subscriptions are read page by page while others are made and closed: each of them
// comes once. With -short there are fewer pages.
func TestPagesWhileOthersAreAdded(t *testing.T) {
	before, during := 2500, 300
	if testing.Short() {
		before, during = 450, 80
	}
	b := newBench(t)
	deployed(b)
	want := b.subscribeMany(0, before)
	pages := newGate()
	var adding sync.WaitGroup
	adding.Go(func() {
		for i := range during {
			pages.wait(i / 20) // some between every two pages
			b.subscribeOne(before + i)
		}
	})
	seen := map[string]int{}
	last := ""
	for q := (SubscriptionQuery{API: "orders"}); ; {
		page, err := b.client.SubscriptionPage(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		pages.open()
		for _, s := range page.Items {
			seen[s.ID]++
			last = s.ID
		}
		if len(page.Items) != 100 && page.Next != "" {
			t.Fatalf("a page of %d in the middle", len(page.Items))
		}
		if q.After = page.Next; q.After == "" {
			break
		}
	}
	pages.openAll()
	adding.Wait()
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%s came %d times", id, n)
		}
	}
	for _, id := range want {
		if seen[id] == 0 {
			t.Errorf("%s is missing", id)
		}
	}
	t.Logf("%d of %d were seen, the last is %s", len(seen), before+during, last)
	n := 0
	for _, err := range b.client.Subscriptions(t.Context(), SubscriptionQuery{Status: "accepted"}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != before+during {
		t.Errorf("%d afterwards, want %d", n, before+during)
	}
	b.countApplications(before + during)
}

func (b *bench) countApplications(want int) {
	b.Helper()
	seen := map[string]bool{}
	for a, err := range b.client.Applications(b.Context()) {
		if err != nil {
			b.Fatal(err)
		}
		seen[a.ID] = true
	}
	if len(seen) != want {
		b.Errorf("%d applications, want %d", len(seen), want)
	}
}

// subscribeMany goes straight to the registry, several at a time.
func (b *bench) subscribeMany(from, n int) []string {
	b.Helper()
	ids := make([]string, n)
	var wg sync.WaitGroup
	for worker := range 32 {
		wg.Go(func() {
			for i := worker; i < n; i += 32 {
				ids[i] = b.subscribeOne(from + i)
			}
		})
	}
	wg.Wait()
	return ids
}

func (b *bench) subscribeOne(i int) string {
	ctx, id := context.Background(), fmt.Sprintf("app-%05d", i)
	if _, err := b.subscriptions.CreateApplication(ctx, "test", subscriptions.Application{ID: id, Name: id}); err != nil {
		b.Error(err)
		return ""
	}
	s, _, err := b.subscriptions.Subscribe(ctx, "test", subscriptions.SubscribeRequest{API: "orders", Plan: "gold", Application: id})
	if err != nil {
		b.Error(err)
	}
	return s.ID
}

// gate lets one goroutine go on as far as another has come.
type gate struct {
	mu      sync.Mutex
	changed *sync.Cond
	n       int
}

func newGate() *gate {
	g := &gate{}
	g.changed = sync.NewCond(&g.mu)
	return g
}

func (g *gate) advance(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n += n
	g.changed.Broadcast()
}

func (g *gate) open()    { g.advance(1) }
func (g *gate) openAll() { g.advance(1 << 30) }

// wait waits until it was opened more than n times.
func (g *gate) wait(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.n <= n {
		g.changed.Wait()
	}
}

func TestPagesOfAPIs(t *testing.T) {
	b := newBench(t)
	for i := range 7 {
		b.must(nil, http.MethodPut, fmt.Sprintf("apis/api-%d", i), definition(fmt.Sprintf("/%d", i), "gold", "silver", "bronze"))
	}
	var ids []string
	for a, err := range b.client.APIs(t.Context(), APIQuery{PageQuery: PageQuery{Limit: 3}}) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, a.ID)
	}
	if fmt.Sprint(ids) != "[api-0 api-1 api-2 api-3 api-4 api-5 api-6 declared]" {
		t.Error(ids)
	}
	var plans []string
	after := ""
	for range 3 {
		var page Page[Plan]
		b.must(&page, http.MethodGet, "apis/api-1/plans?limit=1&after="+after, "")
		plans, after = append(plans, page.Items[0].Name), page.Next
	}
	if fmt.Sprint(plans) != "[gold silver bronze]" || after != "" {
		t.Error(plans, after)
	}
	var exact Page[API]
	if b.must(&exact, http.MethodGet, "apis?limit=8", ""); exact.Next != "" || len(exact.Items) != 8 {
		t.Errorf("%d items, next %q: there is no page after the last", len(exact.Items), exact.Next)
	}
}
