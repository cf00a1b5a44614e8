package servicebustest

// pump hands out what is ready to those who have credit for it, in turn.
func (e *entity) pump() {
	if e.gone {
		return
	}
	e.serveTakers()
	e.grant()
	for len(e.waiting) > 0 {
		l := e.waiting[0]
		var m *message
		able := l.able()
		if able {
			m = l.source().next()
		}
		if able && m == nil && l.group == nil {
			return
		}
		e.waiting = e.waiting[1:]
		l.queued = false
		if m != nil {
			l.await()
			l.offer(m)
		}
	}
}

// source is where the link's messages come from.
func (l *link) source() *backlog {
	if l.group != nil {
		return &l.group.backlog
	}
	return &l.entity.backlog
}

// able tells whether a delivery can be sent now.
func (l *link) able() bool {
	return l.credit > 0 && l.attached && !l.detached && !l.held && l.session.window > 0 && len(l.session.blocked) == 0 && l.session.c.takes()
}

// await puts a link that has credit in the queue of those who want messages.
func (l *link) await() {
	if l.queued || l.credit == 0 || l.detached || l.entity == nil {
		return
	}
	l.queued = true
	l.entity.waiting = append(l.entity.waiting, l)
}

// resume goes on with what waited for credit, for room in the session's window, or for the writer.
func (l *link) resume() {
	switch {
	case l.clientSends || !l.attached || l.detached:
	case l.node != nodeEntity:
		l.flushReplies()
	default:
		l.await()
		l.entity.pump()
		l.finishDrain()
	}
}

// offer asks for faults, and delivers.
func (l *link) offer(m *message) {
	f := l.decided
	if l.decided = nil; f == nil {
		f = l.session.c.s.ask(OpDeliver, l.entity.name)
		if f != nil && f.Delay > 0 {
			l.source().add(m)
			l.postpone(f)
			return
		}
	}
	switch {
	case f == nil || *f == Fault{}:
		l.deliver(m)
	case f.Drop:
		l.lend(m)
		l.session.c.sever()
	case f.Silent:
		l.lend(m)
	default:
		l.source().add(m)
		l.detach(f.asError())
	}
}

// postpone lets a link wait before its next delivery, which then meets the rest of the fault.
func (l *link) postpone(f *Fault) {
	rest := *f
	rest.Delay = 0
	l.held = true
	l.session.c.s.after(f.Delay, func() {
		l.held, l.decided = false, &rest
		l.resume()
	})
}

// lend locks a message for the link; one that is received and deleted is gone.
func (l *link) lend(m *message) {
	e := l.entity
	e.counts.Delivered++
	if l.presettled {
		e.counts.Completed++
		e.remove(m)
		return
	}
	e.lock(m, e.s.now())
}

func (l *link) deliver(m *message) {
	s := l.session.c.s
	if l.presettled {
		m.token = s.tokenFor(m.sequence)
	}
	group := m.group
	l.lend(m)
	l.credit--
	l.deliveryCount++
	s.scratch = m.appendTo(s.scratch[:0], false)
	tag := m.deliveryTag()
	id := l.session.transmit(l, tag[:], l.presettled, s.scratch)
	if !l.presettled {
		l.session.unsettled[id] = lent{link: l, message: m, token: m.token, group: group}
	}
	if l.credit == 0 {
		l.finishDrain()
	}
}

// finishDrain gives up the credit that is left over, and says so.
func (l *link) finishDrain() {
	if !l.drain || l.held || l.detached {
		return
	}
	l.drain = false
	l.deliveryCount += l.credit
	l.credit = 0
	l.session.sendFlow(l, true)
}

// taker waits for messages behind everybody's back.
type taker struct {
	left  int
	taken []*message
	done  chan struct{}
}

func (e *entity) serveTakers() {
	for len(e.takers) > 0 {
		t := e.takers[0]
		for t.left > 0 {
			m := e.takeOne()
			if m == nil {
				return
			}
			e.counts.Delivered++
			e.counts.Completed++
			e.remove(m)
			t.taken = append(t.taken, m)
			t.left--
		}
		e.takers = e.takers[1:]
		close(t.done)
	}
}

// takeOne takes the next ready message out of its backlog; with sessions, of one that nobody has.
func (e *entity) takeOne() *message {
	if !e.config.Sessions {
		return e.backlog.next()
	}
	g := e.nextGroup()
	if g == nil {
		return nil
	}
	m := g.backlog.next()
	g.offer()
	return m
}
