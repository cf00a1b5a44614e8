package servicebustest

import (
	"container/list"
	"time"
)

// group is one session of an entity that requires sessions: messages with the same session id, which one link has at
// a time. (The AMQP session is session.)
type group struct {
	id      string
	e       *entity
	backlog backlog
	locked  *list.List // of *message
	stored  int        // messages, whatever their state
	link    *link      // who has it
	until   time.Time
	lock    *list.Element // in the entity's lockedGroups
	offered bool          // is in the entity's available
	state   []byte
	changed time.Time // when state was set
}

func (e *entity) group(id string) *group {
	g := e.groups[id]
	if g == nil {
		g = &group{id: id, e: e, locked: list.New()}
		e.groups[id] = g
	}
	return g
}

// tidy forgets a session in which nothing is left.
func (g *group) tidy() {
	if g.link == nil && g.stored == 0 && g.state == nil {
		delete(g.e.groups, g.id)
	}
}

// offer makes a session with messages available, if nobody has it; who waits longest gets it.
func (g *group) offer() {
	if g.link != nil || g.offered || g.backlog.ready == 0 {
		return
	}
	g.offered = true
	g.e.available = append(g.e.available, g)
}

// grant gives available sessions to those who wait for one.
func (e *entity) grant() {
	for len(e.acceptors) > 0 {
		g := e.nextGroup()
		if g == nil {
			return
		}
		l := e.acceptors[0]
		e.acceptors = e.acceptors[1:]
		if l.timeout != nil {
			l.timeout.Stop()
		}
		g.acquire(l)
	}
}

// nextGroup takes the session that is longest available.
func (e *entity) nextGroup() *group {
	for len(e.available) > 0 {
		g := e.available[0]
		e.available = e.available[1:]
		g.offered = false
		if g.link == nil && g.backlog.ready > 0 {
			return g
		}
	}
	return nil
}

// acquire locks a session that is free for a link, and tells its client.
func (g *group) acquire(l *link) {
	g.link, l.group = l, g
	g.until = g.e.s.now().Add(g.e.config.LockDuration)
	g.lock = g.e.lockedGroups.PushBack(g)
	g.e.arm(g.until)
	l.accept()
}

// renew makes the lock of a session, and of its messages, last anew.
func (g *group) renew() {
	g.until = g.e.s.now().Add(g.e.config.LockDuration)
	g.e.lockedGroups.MoveToBack(g.lock)
	for element := g.locked.Front(); element != nil; element = element.Next() {
		element.Value.(*message).lockedUntil = g.until
	}
	g.e.arm(g.until)
}

// free takes a session from its link. Its messages come back, counted as delivered when its lock ran out, not when
// its link was closed.
func (g *group) free(counted bool) {
	if g.link == nil {
		return
	}
	g.link.group, g.link = nil, nil
	g.e.lockedGroups.Remove(g.lock)
	g.lock = nil
	for front := g.locked.Front(); front != nil; front = g.locked.Front() {
		if counted {
			g.e.counts.Expired++
		}
		g.e.giveBack(front.Value.(*message), counted)
	}
	g.offer()
	g.tidy()
}

// expire ends the lock of a session because its time is over.
func (g *group) expire() {
	l := g.link
	g.free(true)
	l.detach(protocolError("com.microsoft:session-lock-lost",
		"The session lock has expired on the session with id '%s'. Accept a new session.", g.id))
}
