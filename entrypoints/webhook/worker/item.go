package worker

import (
	"container/heap"
	"time"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// item is one delivery on its way. Items are used again, so that a message costs no
// allocation of its own.
type item struct {
	d    message.Delivery
	next *item // in the queue of its lane, or among the free ones
	at   time.Time
	no   uint64 // counts what was received
	size int
	from *source
	gen  uint32 // of the source, when it was received
	// place and placeBytes are where it stands in its source's account.
	place, placeBytes uint64
	// finished: it is to be acknowledged when all before it are.
	finished bool
	// id and fingerprint are there once it was taken up.
	id, fingerprint string
	// trial is there once an attempt has failed.
	trial *trial
}

// stale reports whether the delivery went away with its lane: it comes again.
func (it *item) stale() bool { return it.gen != it.from.gen || it.d.Epoch < it.from.floor }

// content reports whether nothing but its content tells the message from others.
func (it *item) content() bool { return it.d.Mark == (message.Mark{}) && it.d.ID == "" }

// trial is what is known of a message that has failed.
type trial struct {
	entrypoints.Parked
	// kept says that it is in the progress; held, that a delivery of the message is here.
	kept, held bool
	// since is when the last delivery of it went away.
	since time.Time
	// seen is how much had been delivered when it failed last, hurries how often it was
	// tried ahead of time, and verdict why it is not to be tried again.
	seen    int64
	hurries int
	verdict string
}

// source is a lane of the broker.
type source struct {
	name string
	hash uint64
	// gen changes when all that was lent from it goes to another consumer. What came by an
	// epoch below floor comes again here.
	gen   uint32
	floor uint64
	refs  int // items
	// received and bytes add up what came from it.
	received, bytes uint64
	// unsettled are its items in their order, where settling one settles all before it.
	unsettled []*item
	// round and oldest are for excess.
	round  uint64
	oldest *item
}

// lane is a queue of messages that have to wait for each other. It exists as long as it
// holds any.
type lane struct {
	key        uint64
	mapped     bool
	head, tail *item
	messages   int
	bytes      int
	next       *lane // among the runnable, or the free ones
	due        time.Time
	index      int // in the heap of the parked ones, or -1
}

func (l *lane) push(it *item) {
	if l.head == nil {
		l.head = it
	} else {
		l.tail.next = it
	}
	l.tail = it
	l.messages++
	l.bytes += it.size
}

func (l *lane) pop() *item {
	it := l.head
	l.head, it.next = it.next, nil
	l.messages--
	l.bytes -= it.size
	return it
}

// runnable is a queue of lanes.
type runnable struct{ head, tail *lane }

func (r *runnable) push(l *lane) {
	l.next = nil
	if r.head == nil {
		r.head = l
	} else {
		r.tail.next = l
	}
	r.tail = l
}

func (r *runnable) pushFront(l *lane) {
	l.next = r.head
	if r.head == nil {
		r.tail = l
	}
	r.head = l
}

func (r *runnable) pop() *lane {
	l := r.head
	if l != nil {
		r.head, l.next = l.next, nil
	}
	return l
}

// parked are the lanes that wait, the first to go on at the top.
type parked struct {
	lanes []*lane
	// messages and bytes are what they hold.
	messages, bytes int
}

func (p *parked) park(l *lane, due time.Time) {
	l.due = due
	p.messages += l.messages
	p.bytes += l.bytes
	heap.Push(p, l)
}

func (p *parked) remove(l *lane) {
	heap.Remove(p, l.index)
	p.messages -= l.messages
	p.bytes -= l.bytes
}

// Len implements heap.Interface, as do the other methods in capitals.
func (p *parked) Len() int           { return len(p.lanes) }
func (p *parked) Less(i, j int) bool { return p.lanes[i].due.Before(p.lanes[j].due) }

// Swap implements heap.Interface.
func (p *parked) Swap(i, j int) {
	p.lanes[i], p.lanes[j] = p.lanes[j], p.lanes[i]
	p.lanes[i].index, p.lanes[j].index = i, j
}

// Push implements heap.Interface.
func (p *parked) Push(x any) {
	l := x.(*lane)
	l.index = len(p.lanes)
	p.lanes = append(p.lanes, l)
}

// Pop implements heap.Interface.
func (p *parked) Pop() any {
	n := len(p.lanes) - 1
	l := p.lanes[n]
	p.lanes[n] = nil
	p.lanes = p.lanes[:n]
	l.index = -1
	return l
}

var _ heap.Interface = (*parked)(nil)
