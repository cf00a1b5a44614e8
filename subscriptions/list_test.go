package subscriptions

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

func TestLists(t *testing.T) {
	w := newWorld(t)
	if n := len(w.list(Filter{})); n != 0 {
		t.Fatalf("%d subscriptions in nothing", n)
	}
	for i := range 12 {
		name := fmt.Sprintf("app-%02d", i)
		w.application(name)
		for _, api := range []string{"orders", "bills"} {
			sub, _ := w.subscribe(name, api, "auto")
			if i%4 == 3 {
				must[Subscription](t)(w.Pause(t.Context(), "ann", sub.ID, ""))
			}
		}
	}
	for _, c := range []struct {
		filter Filter
		want   int
	}{
		{Filter{}, 24}, {Filter{API: "orders"}, 12}, {Filter{API: "orders", Plan: "auto"}, 12}, {Filter{Plan: "auto"}, 24},
		{Filter{Plan: "keys"}, 0}, {Filter{API: "nix"}, 0}, {Filter{API: "nix", Plan: "auto"}, 0}, {Filter{Application: "app-03"}, 2},
		{Filter{Application: "nix"}, 0}, {Filter{Application: "app-03", API: "bills", Plan: "auto", Status: Paused}, 1},
		{Filter{Status: Paused}, 6}, {Filter{Status: Closed}, 0}, {Filter{Status: "nonsense"}, 0},
	} {
		list := w.list(c.filter)
		if len(list) != c.want {
			t.Errorf("%+v: %d subscriptions; want %d", c.filter, len(list), c.want)
		}
		if !slices.IsSortedFunc(list, func(a, b Subscription) int { return a.CreatedAt.Compare(b.CreatedAt) }) {
			t.Errorf("%+v: out of order", c.filter)
		}
		if len(list) > 1 {
			c.filter.After = list[0].Cursor()
			if rest := w.list(c.filter); len(rest) != c.want-1 || rest[0].ID != list[1].ID {
				t.Errorf("%+v: %d of %d follow the first", c.filter, len(rest), c.want)
			}
		}
	}
	if _, err := w.Subscriptions(Filter{After: "nonsense"}); kindOf(err) != Invalid {
		t.Errorf("a cursor that is none: %v", err)
	}
	var names []string
	for app := range w.Applications() {
		names = append(names, app.ID)
	}
	if len(names) != 12 || !slices.IsSorted(names) {
		t.Errorf("applications: %v", names)
	}
	for app := range w.ApplicationsAfter("app-04") {
		if app.ID != "app-05" {
			t.Errorf("after app-04 comes %s", app.ID)
		}
		break
	}
	if n := w.LiveSubscriptions("orders", "auto"); n != 12 {
		t.Errorf("%d live subscriptions", n)
	}
	if n := w.LiveSubscriptions("orders", ""); n != 12 {
		t.Errorf("%d live subscriptions of the API", n)
	}
}

// TestPages reads pages while others subscribe: nothing that was there is missing or double.
func TestPages(t *testing.T) {
	m, _ := crowd(2500)
	r, err := New(m, Options{KeySecret: testSecret, Plan: noPlan})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	before := map[string]bool{}
	for rec := range m.Range(KindSubscription) {
		before[rec.ID] = true
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 2000 { // anywhere between the others, and at the end
			created := time.Date(2026, 1, 1, 0, 0, i*7, 0, time.UTC)
			m.put(subscriptionRef(newID(created)), Subscription{
				API: "api-1", Plan: "plan-1", Application: "more", Status: Closed, CreatedAt: created, ProcessedAt: created,
			})
		}
	}()
	seen := map[string]int{}
	for after, n := "", 1; n > 0; {
		n = 0
		seq, err := r.Subscriptions(Filter{After: after})
		if err != nil {
			t.Fatal(err)
		}
		for sub := range seq {
			seen[sub.ID]++
			after = sub.Cursor()
			if n++; n == 100 {
				break
			}
		}
	}
	<-done
	for id := range before {
		if seen[id] != 1 {
			t.Errorf("%s was seen %d times", id, seen[id])
		}
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%s was seen %d times", id, n)
		}
	}
}

func TestClosePlan(t *testing.T) {
	w := newWorld(t)
	n := 3*batch + 7
	var secrets []string
	for i := range n {
		name := fmt.Sprint("app-", i)
		w.application(name)
		_, key := w.subscribe(name, "orders", "auto")
		secrets = append(secrets, key.Secret)
		if i == 0 {
			w.subscribe(name, "bills", "auto")
		}
	}
	w.ends()
	closed, err := w.ClosePlan(t.Context(), "bob", "orders", "auto", "no more orders")
	if err != nil || closed != n || len(w.ends()) != n || w.LiveSubscriptions("orders", "auto") != 0 || w.LiveSubscriptions("bills", "") != 1 {
		t.Errorf("%d of %d closed, %v", closed, n, err)
	}
	for _, s := range secrets {
		if got := w.key("orders", "auto", s).String(); got != "closed" {
			t.Fatalf("a key stands %q", got)
		}
	}
	for _, sub := range w.list(Filter{API: "orders"}) {
		if sub.Status != Closed || sub.Reason != "no more orders" || sub.UpdatedBy != "bob" {
			t.Fatalf("closed: %+v", sub)
		}
	}
	if closed, err = w.ClosePlan(t.Context(), "bob", "orders", "auto", ""); closed != 0 || err != nil {
		t.Errorf("again: %d, %v", closed, err)
	}
	if closed, err = w.ClosePlan(t.Context(), "bob", "no", "plan", ""); closed != 0 || err != nil {
		t.Errorf("no plan: %d, %v", closed, err)
	}
}
