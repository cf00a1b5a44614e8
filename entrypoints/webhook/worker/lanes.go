package worker

import (
	"hash/maphash"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// manySources is how many lanes of the broker are remembered although nothing of them is
// here.
const manySources = 256

// item makes a delivery into an item.
func (e *engine) item(d *message.Delivery, s *source, now time.Time) *item {
	it := e.freeItem
	if it == nil {
		it = new(item)
	} else {
		e.freeItem = it.next
		it.next = nil
	}
	e.received++
	it.d, it.at, it.no, it.size = *d, now, e.received, d.Size()
	it.from, it.gen, it.finished = s, s.gen, false
	s.refs++
	account := e.account(s)
	account.received++
	account.bytes += uint64(it.size)
	it.place, it.placeBytes = account.received, account.bytes
	if e.ordered() && !it.stale() {
		s.unsettled = append(s.unsettled, it)
	}
	e.here++
	e.bytes += it.size
	return it
}

// account is where an item of a source is accounted for.
func (e *engine) account(s *source) *source {
	if e.opt.HoldsAll {
		return &e.all
	}
	return s
}

// free gives an item back.
func (e *engine) free(it *item) {
	it.from.refs--
	it.d = message.Delivery{} // its message may be large
	it.from, it.trial, it.id, it.fingerprint = nil, nil, "", ""
	it.next, e.freeItem = e.freeItem, it
}

// source finds a lane of the broker.
func (e *engine) source(name string) *source {
	if s := e.latest; s != nil && s.name == name {
		return s
	}
	s := e.sources[name]
	if s == nil {
		s = &source{name: name, hash: maphash.String(e.seed, name)}
		e.sources[name] = s
	}
	e.latest = s
	return s
}

// sweep forgets lanes of the broker of which nothing is here. Some brokers have as many as
// there are messages.
func (e *engine) sweep() {
	for name, s := range e.sources {
		if s.refs == 0 {
			delete(e.sources, name)
		}
	}
	e.latest = nil
	e.sweepAt = max(manySources, 2*len(e.sources))
}

// queue puts an item into its lane, and reports whether that can go on now.
func (e *engine) queue(it *item) bool {
	l := e.lane(it)
	first := l.head == nil
	l.push(it)
	if l.index >= 0 {
		e.parked.messages++
		e.parked.bytes += it.size
	}
	if first {
		e.ready.push(l)
	}
	return first
}

// lane finds what an item has to wait for.
func (e *engine) lane(it *item) *lane {
	if e.single != nil {
		return e.single
	}
	if e.opt.Order == None {
		e.several = true
		return e.newLane()
	}
	key := it.from.hash
	if e.opt.Order == ByKey && it.d.Key != nil {
		// Two keys whose hashes are equal wait for each other, which harms neither.
		key = (key ^ maphash.Bytes(e.seed, it.d.Key)) * 0x9e3779b97f4a7c15
	}
	l := e.lanes[key]
	if l == nil {
		e.several = e.several || e.lastKey != 0 && key != e.lastKey
		e.lastKey = key
		l = e.newLane()
		l.key, l.mapped = key, true
		e.lanes[key] = l
	}
	return l
}

func (e *engine) newLane() *lane {
	l := e.freeLane
	if l == nil {
		return &lane{index: -1}
	}
	e.freeLane, l.next = l.next, nil
	return l
}

// remove takes the head from a lane that nobody else has at the moment.
func (e *engine) remove(l *lane) *item {
	it := l.pop()
	e.here--
	e.bytes -= it.size
	return it
}

// goOn lets a lane go on, if there is anything in it.
func (e *engine) goOn(l *lane) {
	switch {
	case l.head != nil:
		e.ready.push(l)
	case l != e.single:
		if l.mapped {
			delete(e.lanes, l.key)
			l.mapped = false
		}
		l.tail = nil
		l.next, e.freeLane = e.freeLane, l
	}
	if e.blocked && e.mayReceive() {
		e.blocked = false
		e.roomy.Signal()
	}
}

// revoke takes note that lanes went to another consumer.
func (e *engine) revoke(names []string) (any bool) {
	for _, name := range names {
		if s := e.sources[name]; s != nil {
			s.gen++
			any = e.outdate(s) || any
		}
	}
	return any
}

// outdate drops from a source's account what has become stale, and reports whether there
// may be more. What is queued is dropped when its turn comes.
func (e *engine) outdate(s *source) bool {
	n := 0
	for _, it := range s.unsettled {
		switch {
		case !it.stale():
			s.unsettled[n] = it
			n++
		case it.finished:
			e.free(it)
		}
	}
	clear(s.unsettled[n:])
	s.unsettled = s.unsettled[:n]
	return s.refs > 0
}

// unparkStale lets lanes go on whose head comes again.
func (e *engine) unparkStale() int {
	var stale []*lane
	for _, l := range e.parked.lanes {
		if l.head.stale() {
			stale = append(stale, l)
		}
	}
	for _, l := range stale {
		e.parked.remove(l)
		e.ready.push(l)
	}
	return len(stale)
}
