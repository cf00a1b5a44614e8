package subscriptions

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/store"
)

// describe says all that an index knows, in a form that two can be compared by.
func describe(x *index) []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	list := func(what string, o *ordered) {
		for i, e := range o.items {
			say("%s %d %s %s", what, i, e.created.UTC(), e.id)
		}
	}
	list("all", &x.all)
	for api, o := range x.apis {
		list("api "+api, o)
	}
	for name, p := range x.plans {
		list("plan "+name.api+" "+name.plan, &p.subs)
		list("push "+name.api+" "+name.plan, &p.push)
		if p.alive != 0 {
			say("alive %v %d", name, p.alive)
		}
		for app, e := range p.current {
			// Among those that ended, which one is remembered makes no difference.
			if e.live() {
				say("current %v %s %s", name, app.id, e.id)
			}
		}
		for app, spare := range p.spare {
			for _, e := range spare {
				say("spare %v %s %s", name, app.id, e.id)
			}
		}
	}
	for _, a := range x.apps {
		list("app "+a.id, &a.subs)
		if s := a.state.Load(); s != nil && !s.archived {
			holder, _ := x.clients.get(s.clientID)
			say("app %s %v client %v", a.id, *s, holder != nil)
		}
	}
	for _, e := range x.subs {
		if s := e.state.Load(); s != nil {
			say("sub %s %s %s %s %s %s %v", e.id, s.plan.plan, s.app.id, s.status, s.starts.UTC(), s.ends.UTC(), s.push != nil)
			keys := []string{}
			for _, k := range e.keys {
				keys = append(keys, k.id)
			}
			slices.Sort(keys)
			say("keys of %s %v", e.id, keys)
		}
	}
	for id, k := range x.keys {
		found, _ := x.byHash.get(k.hash)
		say("key %s %s %v %s %v", id, k.sub.id, k.revoked, k.expires.UTC(), found == k)
	}
	for e := range x.due {
		say("due %s", e.id)
	}
	say("names %v", x.names)
	say("problems %v", x.problems)
	say("secrets %v", x.hashedWith)
	slices.Sort(out)
	return out
}

func sameIndex(t *testing.T, got, want *index) {
	t.Helper()
	a, b := describe(got), describe(want)
	if slices.Equal(a, b) {
		return
	}
	for _, line := range a {
		if !slices.Contains(b, line) {
			t.Errorf("too much: %s", line)
		}
	}
	for _, line := range b {
		if !slices.Contains(a, line) {
			t.Errorf("missing: %s", line)
		}
	}
	t.Fatal("two indexes differ")
}

// TestIndexFollows does thousands of changes of every kind, in any order and damaged ones
// too, and compares the index that followed them with one that is made of what is there.
func TestIndexFollows(t *testing.T) {
	seeds := uint64(20)
	if testing.Short() {
		seeds = 4
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			m := &memory{records: map[store.Ref]store.Record{}}
			now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
			opts := Options{KeySecret: testSecret, Plan: noPlan, Now: func() time.Time { return now }}
			r, err := New(m, opts)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			for range 1500 {
				m.put(anyChange(random, now))
			}
			again, err := New(&memory{records: m.records}, opts)
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			sameIndex(t, r.index, again.index)
		})
	}
}

// anyChange is a change of one of a few records.
func anyChange(random *rand.Rand, now time.Time) (store.Ref, any) {
	one := func(n int) int { return random.IntN(n) }
	app, sub := fmt.Sprint("app", one(4)), fmt.Sprint("sub", one(12))
	if one(15) == 0 {
		return []store.Ref{applicationRef(app), subscriptionRef(sub), keyRef("key0")}[one(3)], nil // deleted
	}
	if one(30) == 0 {
		return []store.Ref{subscriptionRef(sub), keyRef("key1")}[one(2)], []int{1} // damaged
	}
	dates := []time.Time{{}, {}, now.Add(-time.Hour), now.Add(time.Hour)}
	switch one(4) {
	case 0:
		return applicationRef(app), Application{Name: app, ClientID: app + "-client", Archived: one(5) == 0}
	case 1:
		hash := keyHash{byte(one(6))}
		key := Key{Subscription: sub, Hash: base64.StdEncoding.EncodeToString(hash[:]), HashedWith: []string{"a", "b"}[one(2)], Expires: dates[one(4)]}
		if one(4) == 0 {
			key.RevokedAt = now
		}
		return keyRef("key" + strings.Repeat("x", int(hash[0]))), key
	}
	var sealed *Sealed
	if one(3) == 0 {
		sealed = &Sealed{Key: "a", Data: []byte{1}}
	}
	return subscriptionRef(sub), Subscription{
		Sealed: sealed, API: fmt.Sprint("api", one(2)), Plan: fmt.Sprint("plan", one(2)), Application: app,
		Status: []Status{Pending, Accepted, Accepted, Paused, Closed, Rejected}[one(6)],
		Starts: dates[one(4)], Ends: dates[one(4)], CreatedAt: now.Add(-time.Duration(one(3)) * time.Minute),
	}
}

// TestDamagedRecords are reported, and let nobody in.
func TestDamagedRecords(t *testing.T) {
	m, secrets := crowd(3)
	var sub store.Record
	for rec := range m.Range(KindSubscription) {
		if s, _ := readSubscription(rec); s.API == "api-0" {
			sub = rec
		}
	}
	m.set(applicationRef("broken"), "text")
	m.set(keyRef("broken"), Key{Subscription: "x", Hash: "secret-ish"})
	r, err := New(m, Options{KeySecret: testSecret, Plan: noPlan})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	d := r.Directory("api-0", "plan-0")
	if _, s := d.Key(secrets[0]); s.String() != "good" {
		t.Fatalf("the key stands %q", s)
	}
	m.put(sub.Ref, Subscription{API: "api-0", Plan: "plan-0", Application: "x", Status: "marvellous"})
	if _, s := d.Key(secrets[0]); s.String() != "unknown" {
		t.Errorf("the key of a damaged subscription stands %q", s)
	}
	list := r.Problems()
	if len(list) != 3 || strings.Contains(fmt.Sprint(list), "secret-ish") {
		t.Errorf("problems: %+v", list)
	}
	if _, there := r.Application("broken"); there {
		t.Error("a damaged application is there")
	}
	m.put(sub.Ref, Subscription{API: "api-0", Plan: "plan-0", Application: "x", Status: Accepted})
	if _, s := d.Key(secrets[0]); s.String() != "good" || len(r.Problems()) != 2 {
		t.Errorf("after repair it stands %q: %+v", s, r.Problems())
	}
}
