package smftest

import (
	"encoding/binary"
	"fmt"
)

// Versions of the control messages for guaranteed messaging. Up to the second, their
// lengths count words of four bytes.
const (
	minAssured   = 2
	maxAssured   = 6
	wordsAssured = 2
)

// Kinds of control messages.
const (
	ctlOpen   = 0x0 // a publisher's flow
	ctlAck    = 0x3
	ctlBind   = 0x4
	ctlUnbind = 0x5
	ctlClose  = 0x7
	ctlCreate = 0x8
	ctlDelete = 0x9
	ctlActive = 0xc
)

// Their parameters.
const (
	argLastSent     = 0x01
	argLastAcked    = 0x02
	argWindow       = 0x03
	argOutcome      = 0x05
	argFlow         = 0x06
	argQueue        = 0x07
	argFlowName     = 0x0a
	argDurability   = 0x0b
	argAccess       = 0x0c
	argPermission   = 0x11
	argQuota        = 0x13
	argMaxSize      = 0x14
	argGranted      = 0x15
	argRespectTTL   = 0x16
	argActive       = 0x20
	argWantActive   = 0x21
	argPublisher    = 0x23
	argRedeliveries = 0x2a
	argEndpoint     = 0x2c
	argUnacked      = 0x31
	argMask         = 0x3f

	durable      = 1
	nonDurable   = 2
	exclusive    = 1
	nonExclusive = 2
)

// control is a control message, as far as it interests us.
type control struct {
	version, kind       byte
	flow                uint32
	lastSent, lastAcked uint64
	window              int
	hasWindow           bool
	name, queue         string
	durability, access  byte
	wantsActive         bool
	respectTTL          bool
	redeliveries        int
	unacked             int
	outcomes            []outcome
}

// outcome is what became of the messages of a range of ids.
type outcome struct {
	from, to uint64 // from 0: everything up to
	kind     byte
}

// Kinds of outcomes.
const (
	accepted = 0
	failed   = 1
	released = 2
	rejected = 3
)

func parseControl(b []byte) (control, error) {
	if len(b) < 3 {
		return control{}, fmt.Errorf("%w: control message of %d bytes", errMalformed, len(b))
	}
	m := control{version: b[0]}
	head, size := 3, uint64(b[1]&0x0f)<<8|uint64(b[2])
	if m.kind = b[1] >> 4; m.version > wordsAssured {
		if head = 6; len(b) < head {
			return m, fmt.Errorf("%w: control message of %d bytes", errMalformed, len(b))
		}
		m.kind, size = b[1], number(b[2:6])
	} else {
		size *= 4
	}
	if size < uint64(head) || size > uint64(len(b)) {
		return m, fmt.Errorf("%w: control message of %d bytes in %d", errMalformed, size, len(b))
	}
	for rest := b[head:size]; len(rest) > 0; {
		if rest[0] == 0 { // padding
			rest = rest[1:]
			continue
		}
		value, n, err := lengthValue(rest)
		if err != nil {
			return m, err
		}
		if err := m.note(rest[0]&argMask, value); err != nil {
			return m, err
		}
		rest = rest[n:]
	}
	return m, nil
}

func (m *control) note(kind byte, value []byte) error {
	n := number(value)
	switch kind {
	case argLastSent:
		m.lastSent = n
	case argLastAcked:
		m.lastAcked = n
	case argWindow:
		m.window, m.hasWindow = int(byte(n)), true
	case argOutcome:
		if len(value) != 16 && len(value) != 17 {
			return fmt.Errorf("%w: outcome of %d bytes", errMalformed, len(value))
		}
		o := outcome{from: number(value[:8]), to: number(value[8:16])}
		if len(value) == 17 {
			o.kind = value[16]
		}
		m.outcomes = append(m.outcomes, o)
	case argFlow:
		m.flow = uint32(n)
	case argQueue:
		m.queue = text(value)
	case argFlowName:
		m.name = text(value)
	case argDurability:
		m.durability = byte(n)
	case argAccess:
		m.access = byte(n)
	case argWantActive:
		m.wantsActive = n != 0
	case argRespectTTL:
		m.respectTTL = n != 0
	case argRedeliveries:
		m.redeliveries = int(byte(n))
	case argUnacked:
		m.unacked = int(uint32(n))
	}
	return nil
}

// appendAssured appends a control message in its frame, in the version that the client
// speaks.
func appendAssured(b []byte, version, kind byte, tag []byte, answer status, args []byte) []byte {
	var body []byte
	if version > wordsAssured {
		body = binary.BigEndian.AppendUint32(append(make([]byte, 0, 6+len(args)), version, kind), uint32(6+len(args)))
		return appendControl(b, protoAssured, tag, answer, append(body, args...))
	}
	words := (3 + len(args) + 3) / 4
	body = append(make([]byte, 0, 4*words), version, kind<<4|byte(words>>8), byte(words))
	body = append(body, args...)
	for len(body) < 4*words {
		body = append(body, 0)
	}
	return appendControl(b, protoAssured, tag, answer, body)
}

// assured carries out a control message.
func (c *conn) assured(f frame) error {
	tag, err := tagOf(f.params)
	if err != nil {
		return err
	}
	m, err := parseControl(f.body)
	if err != nil {
		return err
	}
	reply := func(answer status, args []byte) func(b []byte) []byte {
		return func(b []byte) []byte { return appendAssured(b, m.version, m.kind, tag, answer, args) }
	}
	switch m.kind {
	case ctlOpen:
		return c.open(m, reply)
	case ctlClose:
		c.s.closeSender(c, m.flow)
		c.write(reply(statusOK, append32(nil, argFlow, m.flow)))
		return nil
	case ctlAck:
		return c.settle(m)
	case ctlBind:
		return c.bind(m, reply)
	case ctlUnbind:
		c.unbind(m, reply)
		return nil
	case ctlCreate:
		return c.create(m, reply)
	case ctlDelete:
		return c.remove(m, reply)
	case ctlActive: // the client has heard that it is active
		return nil
	default:
		return c.answer(Fault{}, reply(status{400, "Not Supported"}, nil))
	}
}

// echo says what a queue is made with. The client library does not take its own bytes for
// an answer: they are flagged as "report if not understood".
func (m *control) echo() []byte {
	args := appendText(nil, argQueue, m.queue)
	return append(args, argDurability, 3, m.durability, argAccess, 3, m.access)
}

// replier makes the answer to a control message.
type replier = func(answer status, args []byte) func(b []byte) []byte
