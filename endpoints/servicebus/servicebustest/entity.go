package servicebustest

import (
	"container/heap"
	"container/list"
	"time"
)

// entity is a queue, a subscription, a topic (which holds nothing itself) or a queue of dead letters. The server's
// mutex guards it.
type entity struct {
	s      *Server
	name   string
	config Entity
	parent *entity // the topic of a subscription, or whose dead letters these are
	dead   *entity // where dead letters go; nil: this is such a queue, or a topic
	gone   bool

	topic         bool
	subscriptions []*entity

	sequence  int64
	all       map[int64]*message // whatever is stored
	backlog   backlog            // without sessions
	locked    *list.List         // of *message; the order in which locks end, since all last equally long
	due       byDue
	scheduled int
	deferred  int
	counts    Counts // only what counts up

	groups       map[string]*group // the sessions
	lockedGroups *list.List        // of *group, in the order in which locks end
	available    []*group          // those with messages that nobody has, oldest first
	acceptors    []*link           // who waits for any session
	waiting      []*link           // receivers with credit, who is next first
	receivers    map[*link]struct{}
	senders      map[*link]struct{}
	takers       []*taker
	timer        *time.Timer
	armed        time.Time
}

func newEntity(s *Server, name string, config Entity) *entity {
	if config.LockDuration <= 0 {
		config.LockDuration = 30 * time.Second
	}
	if config.MaxDeliveryCount <= 0 {
		config.MaxDeliveryCount = 10
	}
	if config.MaxMessageBytes <= 0 {
		config.MaxMessageBytes = 256 << 10
	}
	return &entity{
		s: s, name: name, config: config, all: map[int64]*message{}, locked: list.New(), lockedGroups: list.New(),
		groups: map[string]*group{}, receivers: map[*link]struct{}{}, senders: map[*link]struct{}{},
	}
}

// admit says why messages can't be stored; nil: they can.
func (e *entity) admit(messages []*message) *wireError {
	targets := e.subscriptions
	if !e.topic {
		targets = []*entity{e}
	}
	for _, target := range targets {
		if most := target.config.MaxMessages; most > 0 && len(target.all)+len(messages) > most {
			return protocolError("amqp:resource-limit-exceeded", "The maximum entity size has been reached or exceeded for '%s'.", e.name)
		}
		for _, m := range messages {
			if target.config.Sessions && !m.hasSession {
				return protocolError("amqp:not-allowed", "The SessionId was not set on a message, and it cannot be sent to '%s'. "+
					"Entities that have session support enabled can only receive messages that have the SessionId set to a valid value.", e.name)
			}
		}
	}
	return nil
}

// store takes admitted messages over, and hands out what it can.
func (e *entity) store(messages []*message, now time.Time) {
	for _, m := range messages {
		if at := m.scheduled(); at.After(now) {
			e.schedule(m, at)
			continue
		}
		e.arrive(m, now)
	}
	e.pump()
	for _, subscription := range e.subscriptions {
		subscription.pump()
	}
}

// arrive makes a message available: a topic's in each of its subscriptions.
func (e *entity) arrive(m *message, now time.Time) {
	e.counts.Stored++
	if !e.topic {
		e.enqueue(m, now)
		return
	}
	for _, subscription := range e.subscriptions {
		subscription.counts.Stored++
		subscription.enqueue(m.copy(), now)
	}
}

// number gives a message its place in the entity.
func (e *entity) number(m *message, now time.Time) {
	e.sequence++
	m.entity, m.sequence, m.enqueued = e, e.sequence, now
	e.all[m.sequence] = m
}

func (e *entity) enqueue(m *message, now time.Time) {
	e.number(m, now)
	if m.ttl > 0 && e.dead != nil {
		m.due = now.Add(time.Duration(m.ttl) * time.Millisecond)
	}
	if e.config.Sessions {
		m.group = e.group(m.session)
		m.group.stored++
	}
	e.ready(m)
}

// ready makes a message available: at the end, or in its old place.
func (e *entity) ready(m *message) {
	if !m.due.IsZero() && m.dueIndex < 0 {
		heap.Push(&e.due, m)
		e.arm(m.due)
	}
	if m.group != nil {
		m.group.backlog.add(m)
		m.group.offer()
		if m.group.link != nil {
			m.group.link.await()
		}
		return
	}
	e.backlog.add(m)
}

func (e *entity) schedule(m *message, at time.Time) {
	e.number(m, e.s.now())
	m.state, m.due = stateScheduled, at
	heap.Push(&e.due, m)
	e.scheduled++
	e.arm(at)
}

// lock lends a message out; the caller has taken it from its backlog.
func (e *entity) lock(m *message, now time.Time) {
	e.undue(m)
	m.state, m.token = stateLocked, e.s.tokenFor(m.sequence)
	if m.group != nil && m.group.link != nil {
		m.lockedUntil = m.group.until
		m.lock = m.group.locked.PushBack(m)
		return
	}
	m.lockedUntil = now.Add(e.config.LockDuration)
	m.lock = e.locked.PushBack(m)
	e.arm(m.lockedUntil)
}

func (e *entity) undue(m *message) {
	if m.dueIndex >= 0 {
		heap.Remove(&e.due, m.dueIndex)
	}
}

// unlock ends a message's lock, without saying what becomes of the message.
func (e *entity) unlock(m *message) {
	if m.lock == nil {
		return
	}
	if m.group != nil {
		m.group.locked.Remove(m.lock)
	}
	e.locked.Remove(m.lock) // nothing happens in the list that it is not in
	m.lock = nil
}

// held is the message that a lock token lends; nil where the lock is over.
func (e *entity) held(token uuid) *message {
	m := e.all[tokenSequence(token)]
	if m == nil || m.state != stateLocked || m.token != token {
		return nil
	}
	return m
}

// remove ends a message that is in no backlog.
func (e *entity) remove(m *message) {
	e.unlock(m)
	e.undue(m)
	m.state = stateGone
	delete(e.all, m.sequence)
	if m.group != nil {
		m.group.stored--
		m.group.tidy()
	}
}

// giveBack ends a lock without settlement. It counts as a delivery, or does not.
func (e *entity) giveBack(m *message, counted bool) {
	e.unlock(m)
	if counted {
		m.deliveryCount++
		if e.dead != nil && int(m.deliveryCount) >= e.config.MaxDeliveryCount {
			e.bury(m, "MaxDeliveryCountExceeded", "Message could not be consumed after the maximum delivery count of attempts.")
			return
		}
	}
	if m.deferred {
		m.state = stateDeferred
		e.deferred++
		return
	}
	if !m.due.IsZero() && !m.due.After(e.s.now()) {
		e.lapse(m)
		return
	}
	e.ready(m)
}

// bury moves a message that is in no backlog to the dead letters.
func (e *entity) bury(m *message, reason, description string) {
	e.remove(m)
	if e.dead == nil {
		return
	}
	letter := m.copy()
	letter.application = letter.application.with("DeadLetterReason", reason).with("DeadLetterErrorDescription", description)
	e.dead.counts.Stored++
	e.dead.enqueue(letter, e.s.now())
	e.dead.pump()
}

// lapse ends a message whose time to live is over; it is in no backlog.
func (e *entity) lapse(m *message) {
	e.counts.Lapsed++
	if e.config.DeadLetterExpired && e.dead != nil {
		e.bury(m, "TTLExpiredException", "The message expired and was dead lettered.")
		return
	}
	e.remove(m)
}

// settle does what the holder of a lock wants.
func (e *entity) settle(m *message, o outcome) {
	switch {
	case o.code == codeAccepted:
		e.counts.Completed++
		e.remove(m)
	case o.code == codeRejected:
		reason, description := deadLetterReason(&o)
		m.change(o.properties)
		e.bury(m, reason, description)
	case o.code == codeModified && o.undeliverable:
		m.change(o.properties)
		e.unlock(m)
		m.state, m.deferred = stateDeferred, true
		e.deferred++
	case o.code == codeModified:
		e.counts.Abandoned++
		m.change(o.properties)
		e.giveBack(m, true)
	default: // released, or nothing said
		e.giveBack(m, false)
	}
	e.pump()
}

// deadLetterReason takes the reason out of what came with the rejection.
func deadLetterReason(o *outcome) (reason, description string) {
	reason, description = o.err.condition, o.err.description
	if r, ok := o.properties["DeadLetterReason"].(string); ok {
		reason = r
	}
	if d, ok := o.properties["DeadLetterErrorDescription"].(string); ok {
		description = d
	}
	delete(o.properties, "DeadLetterReason")
	delete(o.properties, "DeadLetterErrorDescription")
	return reason, description
}

// arm sees to it that tick runs at that time, or before.
func (e *entity) arm(at time.Time) {
	if e.gone || !e.armed.IsZero() && !at.Before(e.armed) {
		return
	}
	e.armed = at
	wait := at.Sub(e.s.now())
	if e.timer == nil {
		e.timer = time.AfterFunc(wait, func() { e.s.locked(e.tick) })
		return
	}
	e.timer.Reset(wait)
}

// tick does what time has come for.
func (e *entity) tick() {
	if e.gone {
		return
	}
	e.armed = time.Time{}
	now := e.s.now()
	for front := e.locked.Front(); front != nil && !front.Value.(*message).lockedUntil.After(now); front = e.locked.Front() {
		e.counts.Expired++
		e.giveBack(front.Value.(*message), true)
	}
	for front := e.lockedGroups.Front(); front != nil && !front.Value.(*group).until.After(now); front = e.lockedGroups.Front() {
		front.Value.(*group).expire()
	}
	for len(e.due) > 0 && !e.due[0].due.After(now) {
		e.fallDue(e.due[0], now)
	}
	if front := e.locked.Front(); front != nil {
		e.arm(front.Value.(*message).lockedUntil)
	}
	if front := e.lockedGroups.Front(); front != nil {
		e.arm(front.Value.(*group).until)
	}
	if len(e.due) > 0 {
		e.arm(e.due[0].due)
	}
	e.pump()
	for _, subscription := range e.subscriptions {
		subscription.pump()
	}
}

func (e *entity) fallDue(m *message, now time.Time) {
	e.undue(m)
	switch m.state {
	case stateScheduled: // becomes new, with a number of its own
		e.scheduled--
		delete(e.all, m.sequence)
		m.due = time.Time{}
		e.arrive(m, now)
	case stateReady:
		if m.group != nil {
			m.group.backlog.drop(m)
		} else {
			e.backlog.drop(m)
		}
		e.lapse(m)
	}
}
