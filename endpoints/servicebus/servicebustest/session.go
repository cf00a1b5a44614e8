package servicebustest

const (
	// incomingWindow is how many transfer frames a client may send before it is told of more room.
	incomingWindow = 5000
	handleMax      = 255
)

// session is one AMQP session. Its channel and handles are the client's in both directions.
type session struct {
	c            *conn
	channel      uint16
	links        map[uint32]*link
	nextIncoming uint32
	received     int // transfers since the last flow
	nextOutgoing uint32
	window       uint32 // how many transfer frames the client takes
	nextDelivery uint32
	unsettled    map[uint32]lent
	blocked      []blockedFrame // transfers that are begun and wait for the window
}

// lent is a delivery that the client has not settled yet.
type lent struct {
	link    *link
	message *message
	token   uuid
	group   *group
}

type blockedFrame struct {
	link    *link
	encoded []byte
}

func (c *conn) begin(channel uint16, f *fields) error {
	f.skip(1)
	se := &session{c: c, channel: channel, links: map[uint32]*link{}, unsettled: map[uint32]lent{}}
	se.nextIncoming = f.u32(0)
	se.window = f.u32(0)
	if f.err != nil || channel > channelMax || c.sessions[channel] != nil {
		return protocolError("amqp:connection:framing-error", "bad begin on channel %d", channel)
	}
	c.sessions[channel] = se
	c.send(func(b []byte) []byte {
		b, start, mark := openFrame(b, frameAMQP, channel, codeBegin)
		b = appendUint(appendUshort(b, channel), 0)
		b = appendUint(appendUint(appendUint(b, incomingWindow), incomingWindow), handleMax)
		return closeFrame(b, start, mark, 5, nil)
	})
	return nil
}

func (se *session) handle(code uint64, f *fields, payload []byte) error {
	switch code {
	case codeAttach:
		return se.attach(readAttach(f), f.err)
	case codeFlow:
		return se.flow(readFlow(f), f.err)
	case codeTransfer:
		return se.transfer(readTransfer(f, payload), f.err)
	case codeDisposition:
		return se.disposition(readDisposition(f), f.err)
	case codeDetach:
		return se.clientDetaches(f.u32(0), f.flag(), f.err)
	case codeEnd:
		se.drop()
		delete(se.c.sessions, se.channel)
		se.c.send(func(b []byte) []byte {
			b, start, mark := openFrame(b, frameAMQP, se.channel, codeEnd)
			return closeFrame(b, start, mark, 0, nil)
		})
		return nil
	}
	return protocolError("amqp:connection:framing-error", "unexpected performative %#02x", code)
}

// drop ends all links; nobody is told.
func (se *session) drop() {
	for _, l := range se.links {
		l.release()
	}
	clear(se.links)
	se.blocked = nil
}

func (se *session) link(handle uint32) (*link, error) {
	l := se.links[handle]
	if l == nil {
		return nil, protocolError("amqp:session:unattached-handle", "handle %d is not attached", handle)
	}
	return l, nil
}

// flow is the client's: more window, more credit, or a question.
func (se *session) flow(w flow, err error) error {
	if err != nil {
		return err
	}
	se.window = w.incomingWindow
	if w.incomingKnown {
		se.window = w.nextIncoming + w.incomingWindow - se.nextOutgoing
	}
	if !w.hasHandle {
		if w.echo {
			se.sendFlow(nil, false)
		}
		se.resume()
		return nil
	}
	l, err := se.link(w.handle)
	if err != nil || l.detached {
		return err
	}
	if !l.clientSends {
		l.credit = w.credit + w.deliveryCount - l.deliveryCount
		l.drain = w.drain
	}
	se.resume()
	if w.echo && !l.detached {
		se.sendFlow(l, false)
	}
	return nil
}

// resume sends what waited for the window, then lets links go on.
func (se *session) resume() {
	for len(se.blocked) > 0 && se.window > 0 {
		first := se.blocked[0]
		se.blocked = se.blocked[1:]
		if first.link.detached {
			continue
		}
		se.window--
		se.nextOutgoing++
		se.c.send(func(b []byte) []byte { return append(b, first.encoded...) })
	}
	for _, l := range se.links {
		l.resume()
	}
}

// sendFlow tells of the session's window and, where there is a link, of its credit.
func (se *session) sendFlow(l *link, drained bool) {
	se.received = 0
	se.c.send(func(b []byte) []byte {
		b, start, mark := openFrame(b, frameAMQP, se.channel, codeFlow)
		b = appendUint(appendUint(b, se.nextIncoming), incomingWindow)
		b = appendUint(appendUint(b, se.nextOutgoing), incomingWindow)
		if l == nil {
			return closeFrame(b, start, mark, 4, nil)
		}
		b = appendUint(appendUint(appendUint(b, l.handle), l.deliveryCount), l.credit)
		b = appendBool(appendUint(b, 0), drained)
		return closeFrame(b, start, mark, 9, nil)
	})
}

// transmit sends a message in as many frames as it needs, and returns its delivery id.
func (se *session) transmit(l *link, tag []byte, settled bool, payload []byte) uint32 {
	id := se.nextDelivery
	se.nextDelivery++
	room := se.c.peerMax - transferRoom
	for first := true; first || len(payload) > 0; first = false {
		part := payload[:min(room, len(payload))]
		payload = payload[len(part):]
		more := len(payload) > 0
		if se.window == 0 || len(se.blocked) > 0 {
			se.blocked = append(se.blocked, blockedFrame{l, se.appendTransfer(nil, l, id, tag, settled, more, part)})
			continue
		}
		se.window--
		se.nextOutgoing++
		se.c.outMu.Lock()
		if !se.c.ending {
			se.c.out = se.appendTransfer(se.c.out, l, id, tag, settled, more, part)
		}
		se.c.outMu.Unlock()
	}
	se.c.wake()
	return id
}

func (se *session) appendTransfer(b []byte, l *link, id uint32, tag []byte, settled, more bool, part []byte) []byte {
	b, start, mark := openFrame(b, frameAMQP, se.channel, codeTransfer)
	b = appendBinary(appendUint(appendUint(b, l.handle), id), tag)
	b = appendBool(appendBool(appendUint(b, 0), settled), more)
	return closeFrame(b, start, mark, 6, part)
}

// answer sends a disposition that settles.
func (se *session) answer(receiver bool, id uint32, code byte, e *wireError) {
	se.c.outMu.Lock()
	if !se.c.ending {
		b, start, mark := openFrame(se.c.out, frameAMQP, se.channel, codeDisposition)
		b = appendUint(appendUint(appendBool(b, receiver), id), id)
		b, state := openComposite(appendBool(b, true), code)
		count := 0
		if e != nil {
			b, count = appendError(b, e), 1
		}
		se.c.out = closeFrame(closeCompound(b, state, count), start, mark, 5, nil)
	}
	se.c.outMu.Unlock()
	se.c.wake()
}
