package servicebustest

import (
	"slices"
	"strings"
	"time"
)

type nodeKind int

const (
	nodeEntity nodeKind = iota
	nodeCBS
	nodeManagement
)

const (
	// senderCredit is how many messages a client may send before it is given more.
	senderCredit = 1000
	// sessionFilter names the filter by which a client asks for a session of an entity; its code is sessionFilterCode.
	sessionFilter     = "com.microsoft:session-filter"
	sessionFilterCode = 0x00000137000000C
	// acceptTimeout is how long a client waits for any session if it doesn't say.
	acceptTimeout = 60 * time.Second
)

// link is one end of an AMQP link.
type link struct {
	session     *session
	request     attach
	name        string
	handle      uint32
	clientSends bool
	node        nodeKind
	entity      *entity // nil for $cbs
	attached    bool    // the client was told so
	detached    bool    // by us; the client's answer is still to come, or nothing is
	lane        lane

	// The client sends.
	partial partial
	left    uint32 // of the credit given

	// Both: how many deliveries there were.
	deliveryCount uint32

	// The client receives.
	credit     uint32
	drain      bool
	presettled bool
	queued     bool   // in the entity's waiting
	held       bool   // a fault delays the next delivery
	decided    *Fault // what is left of that fault
	group      *group
	timeout    *time.Timer // while it waits for any session
	replies    [][]byte    // of $cbs and $management, that wait for credit
}

// attach begins a link.
func (se *session) attach(a attach, err error) error {
	switch {
	case err != nil:
		return err
	case a.handle > handleMax:
		return protocolError("amqp:connection:framing-error", "handle %d is more than %d", a.handle, handleMax)
	case se.links[a.handle] != nil:
		return protocolError("amqp:session:handle-in-use", "handle %d is in use", a.handle)
	}
	l := &link{session: se, request: a, name: a.name, handle: a.handle, clientSends: !a.receiver}
	l.presettled = a.receiver && a.senderMode == 1
	se.links[a.handle] = l
	address, op := a.sourceAddress, OpAttachReceiver
	if l.clientSends {
		address, op = a.targetAddress, OpAttachSender
	}
	s := se.c.s
	path := entityPath(address)
	if path == "$cbs" {
		l.node = nodeCBS
		l.accept()
		return nil
	}
	if owner, found := strings.CutSuffix(path, "/$management"); found {
		l.node = nodeManagement
		l.bind(owner, address)
		return nil
	}
	l.entity = s.entities[path]
	s.perform(&l.lane, op, l.entityName(path), func(f *Fault) {
		switch {
		case l.detached || f.silent() || f.drops(se.c):
		case f != nil && f.Condition != "":
			l.refuse(f.asError())
		default:
			l.bind(path, address)
		}
	})
	return nil
}

// entityName is the name that faults are asked about.
func (l *link) entityName(path string) string {
	if l.entity != nil {
		return l.entity.name
	}
	return path
}

// bind connects the link with its entity, or says why not.
func (l *link) bind(path, address string) {
	c := l.session.c
	l.entity = c.s.entities[path]
	switch e := l.entity; {
	case !c.mayUse(path):
		l.refuse(protocolError("amqp:unauthorized-access", "Unauthorized access. 'Send,Listen' claim(s) are required to perform this operation. Resource: '%s'.", address))
	case e == nil:
		l.refuse(protocolError("amqp:not-found", "The messaging entity '%s' could not be found.", address))
	case l.node == nodeManagement:
		l.accept()
	case l.clientSends && e.parent != nil:
		l.refuse(protocolError("amqp:not-allowed", "Nothing can be sent to '%s': it is a subscription or a queue of dead letters.", address))
	case !l.clientSends && e.topic:
		l.refuse(protocolError("amqp:not-allowed", "Nothing can be received from '%s': it is a topic.", address))
	case l.clientSends:
		e.senders[l] = struct{}{}
		l.accept()
	default:
		l.bindReceiver()
	}
}

func (l *link) bindReceiver() {
	e := l.entity
	wanted, filtered := l.request.sourceFilter[sessionFilter]
	if d, ok := wanted.(described); ok {
		wanted = d.value
	}
	switch {
	case filtered && !e.config.Sessions:
		l.refuse(protocolError("amqp:not-allowed", "A sessionful message receiver cannot be created on an entity that does not require sessions: '%s'.", e.name))
	case !filtered && e.config.Sessions:
		l.refuse(protocolError("amqp:not-allowed", "It is not possible for an entity that requires sessions to create a non-sessionful message receiver: '%s'.", e.name))
	case !filtered:
		e.receivers[l] = struct{}{}
		l.accept()
	default:
		l.session.c.s.perform(&l.lane, OpSession, e.name, func(f *Fault) {
			switch {
			case l.detached || f.silent() || f.drops(l.session.c):
			case f != nil && f.Condition != "":
				l.refuse(f.asError())
			default:
				e.receivers[l] = struct{}{}
				l.acquireSession(wanted)
			}
		})
	}
}

// acquireSession gets the session with that id, or waits for any.
func (l *link) acquireSession(wanted any) {
	e := l.entity
	if id, ok := wanted.(string); ok {
		g := e.group(id)
		if g.link != nil {
			l.refuse(protocolError("com.microsoft:session-cannot-be-locked", "The requested session '%s' cannot be accepted. It may be locked by another receiver.", id))
			return
		}
		g.acquire(l)
		return
	}
	wait := acceptTimeout
	switch ms := l.request.properties["com.microsoft:timeout"].(type) {
	case uint32:
		wait = time.Duration(ms) * time.Millisecond
	case int32:
		wait = time.Duration(max(ms, 0)) * time.Millisecond
	}
	e.acceptors = append(e.acceptors, l)
	e.grant()
	if l.attached {
		return
	}
	l.timeout = l.session.c.s.after(wait, func() {
		if !l.attached && !l.detached {
			l.refuse(protocolError("com.microsoft:timeout", "The operation did not complete within the allotted timeout of %s.", wait))
		}
	})
}

// accept tells the client that the link is attached.
func (l *link) accept() {
	l.attached = true
	l.sendAttach(true)
	if l.clientSends {
		l.left = senderCredit
		l.credit = senderCredit
		l.session.sendFlow(l, false)
	}
}

// refuse attaches a link without terminus, and detaches it with the reason.
func (l *link) refuse(e *wireError) {
	l.attached = true
	l.sendAttach(false)
	l.detach(e)
}

func (l *link) sendAttach(accepted bool) {
	a := &l.request
	l.session.c.send(func(b []byte) []byte {
		b, start, mark := openFrame(b, frameAMQP, l.session.channel, codeAttach)
		b = appendBool(appendUint(appendString(b, a.name), l.handle), l.clientSends)
		b = appendUbyte(appendUbyte(b, a.senderMode), a.receiverMode)
		if accepted {
			b = l.appendSource(b)
			target, inside := openComposite(b, codeTarget)
			b = closeCompound(appendOptional(target, a.targetAddress), inside, 1)
		} else {
			b = appendNull(appendNull(b))
		}
		b = appendNull(appendNull(b)) // unsettled, incomplete-unsettled
		if l.clientSends {
			b = appendNull(b)
		} else {
			b = appendUint(b, 0)
		}
		b = appendUlong(b, l.maxMessageSize())
		b = appendNull(appendNull(b)) // capabilities
		if l.group == nil {
			return closeFrame(b, start, mark, 13, nil)
		}
		b, properties := openCompound(b, 0xd1)
		b = appendLong(appendSymbol(b, "com.microsoft:locked-until-utc"), ticks(l.group.until))
		return closeFrame(closeCompound(b, properties, 2), start, mark, 14, nil)
	})
}

// appendSource adds the source, with the id of the session that the client got.
func (l *link) appendSource(b []byte) []byte {
	b, inside := openComposite(b, codeSource)
	b = appendOptional(b, l.request.sourceAddress)
	if l.group == nil {
		return closeCompound(b, inside, 1)
	}
	for range 6 {
		b = appendNull(b)
	}
	b, filter := openCompound(b, 0xd1)
	b = appendValue(appendSymbol(b, sessionFilter), described{uint64(sessionFilterCode), l.group.id})
	return closeCompound(closeCompound(b, filter, 2), inside, 8)
}

func (l *link) maxMessageSize() uint64 {
	if l.node == nodeEntity && l.entity != nil {
		return uint64(l.entity.config.MaxMessageBytes)
	}
	return 1 << 20
}

// ticks is a time in units of 100 ns since the year 1, as .NET counts.
func ticks(t time.Time) int64 { return t.UnixMilli()*10_000 + 621_355_968_000_000_000 }

// detach closes the link from our side.
func (l *link) detach(e *wireError) {
	if l.detached {
		return
	}
	l.release()
	l.sendDetach(e)
}

func (l *link) sendDetach(e *wireError) {
	l.session.c.send(func(b []byte) []byte {
		b, start, mark := openFrame(b, frameAMQP, l.session.channel, codeDetach)
		b = appendError(appendBool(appendUint(b, l.handle), true), e)
		return closeFrame(b, start, mark, 3, nil)
	})
}

func (se *session) clientDetaches(handle uint32, _ bool, err error) error {
	if err != nil {
		return err
	}
	l, err := se.link(handle)
	if err != nil {
		return err
	}
	delete(se.links, handle)
	if !l.detached {
		l.release()
		l.sendDetach(nil)
	}
	return nil
}

// release gives back what the link held. Message locks stay until they run out; a session is free at once.
func (l *link) release() {
	if l.detached {
		return
	}
	l.detached = true
	if l.timeout != nil {
		l.timeout.Stop()
	}
	l.partial = partial{}
	for id, u := range l.session.unsettled {
		if u.link == l {
			delete(l.session.unsettled, id)
		}
	}
	e := l.entity
	if e == nil || l.node != nodeEntity {
		return
	}
	delete(e.senders, l)
	delete(e.receivers, l)
	e.acceptors, e.waiting = without(e.acceptors, l), without(e.waiting, l)
	if g := l.group; g != nil {
		g.free(false)
		e.pump()
	}
}

// without copies: whoever calls may be in the middle of the old one.
func without(links []*link, l *link) []*link {
	if i := slices.Index(links, l); i >= 0 {
		return slices.Concat(links[:i], links[i+1:])
	}
	return links
}
