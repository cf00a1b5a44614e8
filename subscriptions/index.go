package subscriptions

import (
	"encoding/json"
	"fmt"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-message-api/caddy-message-api/plans"
	"github.com/caddy-message-api/caddy-message-api/store"
)

// index is what look-ups and lists need of the records; the rest stays in the store. What a
// request reads has locks of its own (tables, planIndex) or none (the states), so that no list,
// however long, makes a request wait.
type index struct {
	mu    sync.RWMutex
	apps  map[string]*appEntry
	subs  map[string]*subEntry
	keys  map[string]*keyEntry
	plans map[planName]*planIndex
	apis  map[string]*ordered
	all   ordered
	// names are the ids of the applications in order.
	names []string

	byHash  table[keyHash, *keyEntry]
	clients table[string, *appEntry]

	// due are the live subscriptions that are over: expired, or of an archived application.
	due     map[*subEntry]struct{}
	overdue chan struct{}
	// hashedWith counts the keys by the secret they were made under.
	hashedWith map[string]int
	problems   map[store.Ref]string

	// ended, times and pushed are gathered while changes are applied, and told without the lock.
	ended []Ended
	times []deadline
	// pushed says that something about push subscriptions has changed.
	pushed  bool
	loading bool
}

type planName struct{ api, plan string }

// appEntry is an application. Without a state it is only spoken of by others so far.
type appEntry struct {
	id    string
	state atomic.Pointer[appState]
	subs  ordered
}

type appState struct {
	clientID string
	archived bool
}

// subEntry is a subscription. Its state is replaced, never changed.
type subEntry struct {
	id      string
	state   atomic.Pointer[subState]
	created time.Time
	keys    []*keyEntry
	// open says that sessions may be running on it, or may come to without another change.
	open bool
}

type subState struct {
	plan         *planIndex
	app          *appEntry
	status       Status
	starts, ends time.Time
	since        time.Time
	limits       *plans.Limits
	// push is the whole subscription, if it is one with a consumer configuration: so
	// Pushed decodes nothing. It is replaced, never changed.
	push *Subscription
}

// keyEntry is a key. But for open it is replaced, never changed.
type keyEntry struct {
	id         string
	hash       keyHash
	sub        *subEntry
	created    time.Time
	expires    time.Time
	revoked    bool
	hashedWith string
	open       bool
}

func newIndex() *index {
	seed := maphash.MakeSeed()
	return &index{
		apps: map[string]*appEntry{}, subs: map[string]*subEntry{}, keys: map[string]*keyEntry{},
		plans: map[planName]*planIndex{}, apis: map[string]*ordered{},
		byHash:  newTable[keyHash, *keyEntry](func(h keyHash) uint64 { return uint64(h[0]) }),
		clients: newTable[string, *appEntry](func(id string) uint64 { return maphash.String(seed, id) }),
		due:     map[*subEntry]struct{}{}, overdue: make(chan struct{}, 1), hashedWith: map[string]int{}, problems: map[store.Ref]string{},
	}
}

// apply brings one record into the index. What can't be read is reported and counts as gone.
func (x *index) apply(rec store.Record, now time.Time) {
	var err error
	switch rec.Kind {
	case KindApplication:
		err = x.applyApplication(rec, now)
	case KindSubscription:
		err = x.applySubscription(rec, now)
	case KindKey:
		err = x.applyKey(rec, now)
	default:
		return
	}
	if err != nil {
		x.problem(rec.Ref, err.Error())
		return
	}
	delete(x.problems, rec.Ref)
}

func (x *index) problem(ref store.Ref, detail string) { x.problems[ref] = detail }

// decode reads the data of a record. A JSON error can quote what it read, which is nobody's
// business in the case of a key; so it is told by type alone.
func decode(rec store.Record, into any) error {
	if err := json.Unmarshal(rec.Data, into); err != nil {
		return fmt.Errorf("the record is damaged (%T)", err)
	}
	return nil
}

func (x *index) app(id string) *appEntry {
	e := x.apps[id]
	if e == nil {
		e = &appEntry{id: id}
		x.apps[id] = e
	}
	return e
}

func (x *index) sub(id string) *subEntry {
	e := x.subs[id]
	if e == nil {
		e = &subEntry{id: id}
		x.subs[id] = e
	}
	return e
}

func (x *index) api(id string) *ordered {
	list := x.apis[id]
	if list == nil {
		list = new(ordered)
		x.apis[id] = list
	}
	return list
}

func (x *index) plan(api, plan string) *planIndex {
	name := planName{api, plan}
	p := x.plans[name]
	if p == nil {
		p = newPlanIndex(strings.Clone(api), strings.Clone(plan))
		x.plans[planName{p.api, p.plan}] = p
	}
	return p
}

// planOf is plan for those who have no lock.
func (x *index) planOf(api, plan string) *planIndex {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.plan(api, plan)
}
