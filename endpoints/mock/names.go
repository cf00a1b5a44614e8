package mock

import (
	"cmp"
	"container/list"
	"slices"
	"sync"
	"time"
)

// maxNames is how many names are remembered that nobody uses.
const maxNames = 10_000

// names remembers where each name stands. The zero value is ready to use.
type names struct {
	mu   sync.Mutex
	all  map[string]*name
	idle list.List // of *name: those that nobody uses, the last one used in front
}

// name is where a name stands: every id before next was given out, and those in back
// are to be given out again.
type name struct {
	text string
	// users and idle are guarded by names.mu, the rest by mu.
	users int
	idle  *list.Element

	mu      sync.Mutex
	next    int64
	back    []returned // by id
	members map[*member]bool
}

// returned is a message that was given back.
type returned struct {
	id      int64
	attempt int // how often it was delivered
	made    time.Time
}

// acquire returns the name, which is remembered at least until it is released.
func (n *names) acquire(text string) *name {
	n.mu.Lock()
	defer n.mu.Unlock()
	e := n.all[text]
	if e == nil {
		if n.all == nil {
			n.all = make(map[string]*name)
		}
		e = &name{text: text, members: make(map[*member]bool)}
		n.all[text] = e
	}
	if e.idle != nil {
		n.idle.Remove(e.idle)
		e.idle = nil
	}
	e.users++
	return e
}

// release ends one acquire. When too many names are idle, the oldest is forgotten.
func (n *names) release(e *name) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if e.users--; e.users > 0 {
		return
	}
	e.idle = n.idle.PushFront(e)
	for n.idle.Len() > maxNames {
		oldest := n.idle.Remove(n.idle.Back()).(*name)
		delete(n.all, oldest.text)
	}
}

// stands is the id at which the name would begin to read by position: the first that is
// not settled.
func (n *names) stands(text string) int64 {
	n.mu.Lock()
	e := n.all[text]
	n.mu.Unlock()
	if e == nil {
		return 0
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stands()
}

func (e *name) stands() int64 {
	first := e.next
	if len(e.back) > 0 {
		first = min(first, e.back[0].id)
	}
	for m := range e.members {
		for id := range m.owed {
			first = min(first, id)
		}
	}
	return first
}

// advance sets the bookmark: nothing before id is given out again. It never goes back.
func (e *name) advance(id int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.next = max(e.next, id)
	i, _ := e.find(id)
	e.back = slices.Delete(e.back, 0, i)
}

// giveBack puts a message where it will be given out again. It is called with mu held.
func (e *name) giveBack(r returned) {
	i, _ := e.find(r.id)
	e.back = slices.Insert(e.back, i, r)
}

func (e *name) find(id int64) (int, bool) {
	return slices.BinarySearchFunc(e.back, id, func(r returned, id int64) int { return cmp.Compare(r.id, id) })
}

// rouse wakes all members, because there is something for one of them.
func (e *name) rouse() {
	for m := range e.members {
		m.rouse()
	}
}
