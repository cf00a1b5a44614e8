package subscriptions

import (
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-message-api/caddy-message-api/store"
)

// page is how many are looked up at a time while a list is read: the index is free in between.
const page = 256

// Application returns an application.
func (r *Registry) Application(id string) (Application, bool) {
	rec, there := r.store.Get(store.Ref{Kind: KindApplication, ID: id})
	if !there {
		return Application{}, false
	}
	app, err := readApplication(rec)
	return app, err == nil
}

// Applications are all applications, archived ones too, in the order of their ids.
func (r *Registry) Applications() iter.Seq[Application] { return r.ApplicationsAfter("") }

// ApplicationsAfter are the applications whose ids come after id.
func (r *Registry) ApplicationsAfter(id string) iter.Seq[Application] {
	return func(yield func(Application) bool) {
		for last := id; ; {
			ids := r.index.namesAfter(last, page)
			for _, id := range ids {
				if app, there := r.Application(id); there && !yield(app) {
					return
				}
			}
			if len(ids) < page {
				return
			}
			last = ids[len(ids)-1]
		}
	}
}

// Subscription returns a subscription.
func (r *Registry) Subscription(id string) (Subscription, bool) {
	rec, there := r.store.Get(store.Ref{Kind: KindSubscription, ID: id})
	if !there {
		return Subscription{}, false
	}
	sub, err := readSubscription(rec)
	return sub, err == nil
}

// Subscriptions are those that the filter lets through, in the order in which they were
// created, and by id where that is the same moment. The error is about the filter.
func (r *Registry) Subscriptions(f Filter) (iter.Seq[Subscription], error) {
	created, id, err := parseCursor(f.After)
	if err != nil {
		return nil, err
	}
	return func(yield func(Subscription) bool) {
		created, id := created, id
		for more := true; more; {
			var entries []*subEntry
			entries, created, id, more = r.index.pageAfter(f, created, id, page)
			for _, e := range entries {
				sub, there := r.Subscription(e.id)
				if there && f.matches(&sub) && !yield(sub) {
					return
				}
			}
		}
	}, nil
}

func (f *Filter) matches(s *Subscription) bool {
	return (f.API == "" || f.API == s.API) && (f.Plan == "" || f.Plan == s.Plan) &&
		(f.Application == "" || f.Application == s.Application) && (f.Status == "" || f.Status == s.Status)
}

func parseCursor(text string) (created time.Time, id string, err error) {
	if text == "" {
		return time.Time{}, "", nil
	}
	millis, id, ok := strings.Cut(text, ".")
	n, parseErr := strconv.ParseInt(millis, 36, 64)
	if !ok || parseErr != nil {
		return time.Time{}, "", &Error{Kind: Invalid, Detail: "the place to go on from is none that a list has named",
			Problems: []Problem{{Path: "after", Detail: fmt.Sprintf("%q is no cursor", clip(text))}}}
	}
	return time.UnixMilli(n), id, nil
}

// Key returns a key, without the key.
func (r *Registry) Key(id string) (Key, bool) {
	rec, there := r.store.Get(store.Ref{Kind: KindKey, ID: id})
	if !there {
		return Key{}, false
	}
	key, err := readKey(rec)
	return key, err == nil
}

// Keys are the keys of a subscription, ended ones too, in the order in which they were made.
func (r *Registry) Keys(subscription string) []Key {
	var keys []Key
	for _, id := range r.index.keysOf(subscription) {
		if key, there := r.Key(id); there {
			keys = append(keys, key)
		}
	}
	return keys
}

// list returns the shortest list in which everything is that the filter lets through.
func (x *index) list(f Filter) *ordered {
	switch {
	case f.Application != "":
		if app := x.apps[f.Application]; app != nil {
			return &app.subs
		}
		return nil
	case f.API != "" && f.Plan != "":
		if p := x.plans[planName{f.API, f.Plan}]; p != nil {
			return &p.subs
		}
		return nil
	case f.API != "":
		return x.apis[f.API]
	}
	return &x.all
}

// pageAfter returns what comes next, the place to go on from, and whether there is more. It
// reads no more than a bounded part of the list, whether something matches or not.
func (x *index) pageAfter(f Filter, created time.Time, id string, n int) (found []*subEntry, at time.Time, last string, more bool) {
	const look = 4096
	x.mu.RLock()
	defer x.mu.RUnlock()
	list := x.list(f)
	if list == nil {
		return nil, created, id, false
	}
	i := 0
	if id != "" || !created.IsZero() {
		var there bool
		if i, there = list.find(created, id); there {
			i++
		}
	}
	for end := min(i+look, len(list.items)); i < end && len(found) < n; i++ {
		e := list.items[i]
		created, id = e.created, e.id
		if s := e.state.Load(); s != nil && (f.Status == "" || s.status == f.Status) && (f.Plan == "" || s.plan.plan == f.Plan) {
			found = append(found, e)
		}
	}
	return found, created, id, i < len(list.items)
}

func (x *index) keysOf(subscription string) []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	e := x.subs[subscription]
	if e == nil {
		return nil
	}
	keys := slices.SortedFunc(slices.Values(e.keys), func(a, b *keyEntry) int {
		if c := a.created.Compare(b.created); c != 0 {
			return c
		}
		return strings.Compare(a.id, b.id)
	})
	ids := make([]string, len(keys))
	for i, k := range keys {
		ids[i] = k.id
	}
	return ids
}

func (x *index) namesAfter(id string, n int) []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	i, there := slices.BinarySearch(x.names, id)
	if there {
		i++
	}
	return slices.Clone(x.names[i:min(i+n, len(x.names))])
}

func (x *index) addName(id string) {
	if x.loading {
		x.names = append(x.names, id)
		return
	}
	if i, there := slices.BinarySearch(x.names, id); !there {
		x.names = slices.Insert(x.names, i, id)
	}
}

func (x *index) forgetName(id string) {
	x.names = slices.DeleteFunc(x.names, func(name string) bool { return name == id })
}

func (x *index) live(api, plan string) int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if plan != "" {
		if p := x.plans[planName{api, plan}]; p != nil {
			return p.alive
		}
		return 0
	}
	n := 0
	for name, p := range x.plans {
		if name.api == api {
			n += p.alive
		}
	}
	return n
}

func (x *index) takeEnded() []Ended {
	ended := x.ended
	x.ended = nil
	return ended
}

func (x *index) takeTimes() []deadline {
	times := x.times
	x.times = nil
	return times
}

func (x *index) takePushed() bool {
	pushed := x.pushed
	x.pushed = false
	return pushed
}

// report lists what is wrong, in no order. secret is the name of the secret in use.
func (x *index) report(secret string) []Problem {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var list []Problem
	for ref, detail := range x.problems {
		list = append(list, Problem{Path: ref.String(), Detail: detail})
	}
	for name, n := range x.hashedWith {
		if name != secret {
			list = append(list, Problem{Path: KindKey, Detail: fmt.Sprintf(
				"%d keys were made under another key secret (%s) than the one in use (%s): they let nobody in", n, clip(name), secret)})
		}
	}
	for _, p := range x.plans {
		p.mu.RLock()
		for app, spare := range p.spare {
			list = append(list, Problem{Path: KindSubscription + "/" + spare[0].id, Detail: fmt.Sprintf(
				"the application %q has %d live subscriptions to the plan %q of %q: close all but one", app.id, len(spare)+1, p.plan, p.api)})
		}
		p.mu.RUnlock()
	}
	return list
}
