package servicebus

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// Bounds of what waits for one queue or topic. A call is admitted whole when nothing waits.
const (
	maxWaiting      = 10_000
	maxWaitingBytes = 32 << 20
)

// outlet gathers what is to be sent to one queue or topic. What comes while nothing is on
// its way goes out at once; what comes meanwhile goes out together. All messages of a batch
// have one session id or partition key, so each of these is a queue of its own, of which
// one batch is on its way at a time.
type outlet struct {
	p      *producer
	entity string
	what   string    // names it, and where it is, for people
	used   time.Time // guarded by the producer

	opening chan struct{} // taken by who makes a sender

	mu      sync.Mutex
	cur     *sender
	gone    bool // forgotten: senders are closed when they are not needed
	groups  map[string][]*entry
	waiting int
	bytes   int
}

// call is what one Publish wants to have sent.
type call struct {
	entries []entry
	left    atomic.Int32
	done    chan struct{}
}

// entry is one message on its way.
type entry struct {
	call      *call
	msg       *azservicebus.Message
	size      int
	unwatched bool // nobody waits for it

	state atomic.Uint32
	// What follows is known when state is finished.
	status message.Status
	err    error
}

// The states of an entry.
const (
	waiting uint32 = iota
	abandoned
	flying
	finished
)

// sizeOf is about how much memory a message takes.
func sizeOf(m *azservicebus.Message) int {
	const overhead = 300
	return overhead + len(m.Body) + 64*len(m.ApplicationProperties)
}

// group is what has to stay together.
func (e *entry) group() string {
	switch {
	case e.msg.SessionID != nil:
		return "s" + *e.msg.SessionID
	case e.msg.PartitionKey != nil:
		return "p" + *e.msg.PartitionKey
	}
	return ""
}

// giveUp takes the entry back if it waits, and tells the state that it was in.
func (e *entry) giveUp() uint32 {
	if e.state.CompareAndSwap(waiting, abandoned) {
		return waiting
	}
	return e.state.Load()
}

// finish tells the outcome.
func (e *entry) finish(status message.Status, err error) {
	e.status, e.err = status, err
	e.state.Store(finished)
	if e.call.left.Add(-1) == 0 {
		close(e.call.done)
	}
}

// add takes a call's messages, or refuses them when too much waits already.
func (o *outlet) add(c *call) error {
	c.left.Store(int32(len(c.entries))) //nolint:gosec // a request does not hold that many
	bytes := 0
	for i := range c.entries {
		bytes += c.entries[i].size
	}
	var begun []string
	o.mu.Lock()
	if o.waiting > 0 && (o.waiting+len(c.entries) > maxWaiting || o.bytes+bytes > maxWaitingBytes) {
		o.mu.Unlock()
		e := message.Errorf(message.Busy, "%s: %d messages wait to be sent to Azure Service Bus already", o.what, maxWaiting)
		e.RetryAfter = time.Second
		return e
	}
	if o.groups == nil {
		o.groups = make(map[string][]*entry)
	}
	for i := range c.entries {
		e := &c.entries[i]
		name := e.group()
		list, busy := o.groups[name]
		if !busy {
			begun = append(begun, name)
		}
		o.groups[name] = append(list, e)
	}
	o.waiting += len(c.entries)
	o.bytes += bytes
	o.mu.Unlock()
	for _, name := range begun {
		if !o.p.spawn(func() { o.fly(name) }) {
			o.refuseGroup(name)
		}
	}
	return nil
}

// fly sends what waits in a group, until nothing does.
func (o *outlet) fly(name string) {
	for {
		entries := o.next(name)
		if entries == nil {
			return
		}
		o.send(entries)
	}
}

// next takes what waits in a group. An empty group is forgotten.
func (o *outlet) next(name string) []*entry {
	o.mu.Lock()
	defer o.mu.Unlock()
	entries := o.groups[name]
	if len(entries) == 0 {
		delete(o.groups, name)
		return nil
	}
	o.groups[name] = nil
	o.waiting -= len(entries)
	for _, e := range entries {
		o.bytes -= e.size
	}
	return entries
}

// refuseGroup is for a producer that has ended.
func (o *outlet) refuseGroup(name string) {
	for entries := o.next(name); entries != nil; entries = o.next(name) {
		for _, e := range entries {
			if e.state.CompareAndSwap(waiting, flying) {
				e.finish(message.Refused, message.Errorf(message.Unavailable, "%s: the endpoint was ended", o.what))
			}
		}
	}
}
