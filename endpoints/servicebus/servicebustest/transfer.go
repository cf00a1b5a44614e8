package servicebustest

// maxRange bounds the deliveries of one disposition.
const maxRange = 1 << 20

// partial is a message of which not all frames have come.
type partial struct {
	begun   bool
	id      uint32
	format  uint32
	settled bool
	tooBig  bool
	payload []byte
}

// transfer takes a frame of a message that a client sends.
func (se *session) transfer(t transfer, err error) error {
	if err != nil {
		return err
	}
	se.nextIncoming++
	if se.received++; se.received >= incomingWindow/2 {
		se.sendFlow(nil, false)
	}
	l, err := se.link(t.handle)
	if err != nil || l.detached {
		return err
	}
	if !l.clientSends {
		return protocolError("amqp:not-allowed", "transfer on a link by which the client receives")
	}
	p := &l.partial
	if !p.begun {
		*p = partial{begun: true, id: t.id, format: t.format}
	}
	p.settled = p.settled || t.settled
	switch {
	case t.aborted:
		*p = partial{}
		return nil
	case uint64(len(p.payload)+len(t.payload)) > l.maxMessageSize():
		p.tooBig, p.payload = true, nil
	case !p.tooBig:
		p.payload = append(p.payload, t.payload...)
	}
	if t.more {
		return nil
	}
	whole := *p
	*p = partial{}
	return l.received(whole)
}

// received does what a whole message is for.
func (l *link) received(p partial) error {
	if l.left == 0 {
		l.detach(protocolError("amqp:link:transfer-limit-exceeded", "more messages than credit"))
		return nil
	}
	l.deliveryCount++
	l.left--
	if l.left < senderCredit/2 {
		l.left, l.credit = senderCredit, senderCredit
		l.session.sendFlow(l, false)
	}
	switch l.node {
	case nodeCBS:
		l.requested(p, OpToken)
	case nodeManagement:
		l.requested(p, OpManage)
	default:
		l.session.c.s.perform(&l.lane, OpSend, l.entity.name, func(f *Fault) { l.sent(p, f) })
	}
	return nil
}

// sent stores a message that a client sent, and answers.
func (l *link) sent(p partial, f *Fault) {
	if l.detached || f.silent() {
		return
	}
	if f != nil && f.Condition != "" && !f.Drop {
		if f.Detach {
			l.detach(f.asError())
			return
		}
		l.outcome(p, f.asError())
		return
	}
	refusal := l.keep(p)
	if !f.drops(l.session.c) {
		l.outcome(p, refusal)
	}
}

func (l *link) keep(p partial) *wireError {
	e := l.entity
	if p.tooBig {
		return protocolError("amqp:link:message-size-exceeded", "The message is larger than is currently allowed (%d bytes).", l.maxMessageSize())
	}
	if e.gone {
		return protocolError("amqp:not-found", "The messaging entity '%s' could not be found.", e.name)
	}
	messages, err := unpack(p.format, p.payload)
	if err != nil {
		return asWireError(err)
	}
	for _, m := range messages {
		m.deliveryCount = 0
	}
	if refusal := e.admit(messages); refusal != nil {
		return refusal
	}
	e.store(messages, e.s.now())
	return nil
}

// outcome tells the client what became of its message.
func (l *link) outcome(p partial, refusal *wireError) {
	switch {
	case p.settled:
	case refusal != nil:
		l.session.answer(true, p.id, codeRejected, refusal)
	default:
		l.session.answer(true, p.id, codeAccepted, nil)
	}
}

// disposition is what a client says of deliveries.
func (se *session) disposition(d disposition, err error) error {
	if err != nil {
		return err
	}
	if !d.receiver || d.outcome.code == 0 && !d.settled {
		return nil // what a sender says of its own messages changes nothing here
	}
	if n := d.last - d.first; n > maxRange {
		return protocolError("amqp:invalid-field", "disposition of %d deliveries", n)
	}
	for id := d.first; ; id++ {
		if u, ok := se.unsettled[id]; ok {
			se.c.s.perform(&u.link.lane, OpSettle, u.link.entity.name, func(f *Fault) { se.settle(id, u, d, f) })
		}
		if id == d.last {
			return nil
		}
	}
}

// settle settles one delivery and confirms it, where the client waits for that.
func (se *session) settle(id uint32, u lent, d disposition, f *Fault) {
	if u.link.detached || f.silent() {
		return
	}
	if f != nil && f.Condition != "" && !f.Drop {
		if f.Detach {
			u.link.detach(f.asError())
			return
		}
		se.confirm(id, d, f.asError())
		return
	}
	var refusal *wireError
	e := u.message.entity
	if u.message.state == stateLocked && u.message.token == u.token {
		e.settle(u.message, d.outcome)
	} else {
		refusal = lockLost()
	}
	if !f.drops(se.c) {
		se.confirm(id, d, refusal)
	}
}

func lockLost() *wireError {
	return protocolError("com.microsoft:message-lock-lost", "The lock supplied is invalid. Either the lock expired, or the message has already been removed from the queue.")
}

// confirm forgets the delivery. The answer to a dead-lettered one has no error: clients would take it for a failure.
func (se *session) confirm(id uint32, d disposition, refusal *wireError) {
	delete(se.unsettled, id)
	switch {
	case d.settled:
	case refusal != nil:
		se.answer(false, id, codeRejected, refusal)
	default:
		se.answer(false, id, byte(d.outcome.code), nil)
	}
}
