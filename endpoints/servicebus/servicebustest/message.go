package servicebustest

import (
	"bytes"
	"container/list"
	"errors"
	"strings"
	"time"
)

const (
	sectionHeader              = 0x70
	sectionDeliveryAnnotations = 0x71
	sectionAnnotations         = 0x72
	sectionProperties          = 0x73
	sectionApplication         = 0x74

	// batchFormat is the message format of a batch: each data section holds an encoded message.
	batchFormat = 0x80013700
)

// What the service annotates.
const (
	annotationSequence    = "x-opt-sequence-number"
	annotationEnqueued    = "x-opt-enqueued-time"
	annotationLockedUntil = "x-opt-locked-until"
	annotationState       = "x-opt-message-state"
	annotationSchedule    = "x-opt-scheduled-enqueue-time"
	annotationLockToken   = "x-opt-lock-token"
)

type messageState int32

// The first three are the values of x-opt-message-state.
const (
	stateReady messageState = iota
	stateDeferred
	stateScheduled
	stateLocked
	stateGone
)

// message is one stored message. Sections that nobody changes are kept as the sender encoded them.
type message struct {
	durable       bool
	priority      byte
	ttl           uint32 // milliseconds, 0: none
	deliveryCount uint32
	annotations   pairs
	application   pairs
	properties    []byte // the section, with its descriptor
	body          []byte // all sections after the application properties
	session       string
	hasSession    bool

	entity      *entity
	group       *group // the session it belongs to, where the entity requires sessions
	sequence    int64
	enqueued    time.Time
	state       messageState
	deferred    bool // deferred before it was locked: an abandon defers it again
	token       uuid
	lockedUntil time.Time
	lock        *list.Element // in the list of locked messages
	due         time.Time     // when it is enqueued (scheduled), or its time to live is over; zero: never
	dueIndex    int           // in the entity's heap; -1: not there
}

var errNoMessage = errors.New("transfer holds no message")

// parseMessage takes the sections of an encoded message apart. It keeps parts of encoded.
func parseMessage(encoded []byte) (*message, error) {
	m := &message{priority: 4, dueIndex: -1}
	d := decoder{buf: encoded}
	if len(encoded) == 0 {
		return nil, errNoMessage
	}
	for len(d.buf) > 0 {
		section := d.buf
		if d.octet() != 0 {
			return nil, errMalformed
		}
		code := d.unsigned(d.octet())
		switch code {
		case sectionHeader:
			inside := decoder{buf: section}
			_, header := inside.composite()
			m.durable, m.priority = header.flag(), byte(header.uint(4))
			m.ttl = header.u32(0)
			header.skip(1)
			m.deliveryCount = header.u32(0)
			d.settle(&inside)
			d.settle(&header.decoder)
			d.raw()
		case sectionDeliveryAnnotations:
			d.raw()
		case sectionAnnotations:
			m.annotations = d.pairs()
		case sectionProperties:
			d.raw()
			m.properties = section[:len(section)-len(d.buf)]
		case sectionApplication:
			m.application = d.pairs()
		default:
			m.body = section
			for len(d.buf) > 0 { // to know that it is well formed
				d.raw()
				if len(d.buf) > 0 && (d.octet() != 0 || d.unsigned(d.octet()) == 0) {
					d.fail(errMalformed)
				}
			}
		}
		if d.err != nil {
			return nil, d.err
		}
	}
	return m, m.inspect()
}

// inspect reads the session id, and leaves out what only the service annotates.
func (m *message) inspect() error {
	if f, ok := m.propertyFields(); ok {
		f.skip(10)
		if f.present() {
			m.session, m.hasSession = string(f.sized(f.octet())), true
		}
		if f.err != nil {
			return f.err
		}
	}
	kept, err := m.annotations.without(func(key string) bool {
		switch key {
		case annotationSequence, annotationEnqueued, annotationLockedUntil, annotationState:
			return true
		}
		return false
	})
	m.annotations = kept
	return err
}

func (m *message) propertyFields() (fields, bool) {
	if m.properties == nil {
		return fields{}, false
	}
	d := decoder{buf: m.properties}
	_, f := d.composite()
	return f, d.err == nil
}

// scheduled is when the sender wants it to be enqueued; zero: now.
func (m *message) scheduled() time.Time {
	if !bytes.Contains(m.annotations.encoded, []byte(annotationSchedule)) {
		return time.Time{}
	}
	at, _ := m.annotations.value(annotationSchedule).(time.Time)
	return at
}

// copy is the message as another entity stores it.
func (m *message) copy() *message {
	return &message{durable: m.durable, priority: m.priority, ttl: m.ttl, annotations: m.annotations, deliveryCount: m.deliveryCount,
		application: m.application, properties: m.properties, body: m.body, session: m.session, hasSession: m.hasSession, dueIndex: -1}
}

// change merges properties into the application properties.
func (m *message) change(properties map[any]any) {
	for key, value := range properties {
		if name, ok := key.(string); ok {
			m.application = m.application.with(name, value)
		}
	}
}

// unpack is the messages of a transfer: those of a batch, or the one.
func unpack(format uint32, encoded []byte) ([]*message, error) {
	envelope, err := parseMessage(encoded)
	if err != nil || format != batchFormat {
		return []*message{envelope}, err
	}
	var messages []*message
	d := decoder{buf: envelope.body}
	for len(d.buf) > 0 && d.err == nil {
		d.octet()
		if code := d.unsigned(d.octet()); code != 0x75 {
			d.raw()
			continue
		}
		code := d.octet()
		if code != 0xa0 && code != 0xb0 {
			return nil, errMalformed
		}
		m, err := parseMessage(d.sized(code))
		if err != nil {
			return nil, err
		}
		messages = append(messages, m)
	}
	if len(messages) == 0 && d.err == nil {
		return nil, errNoMessage
	}
	return messages, d.err
}

// appendTo encodes the message as the service delivers it.
func (m *message) appendTo(b []byte, withToken bool) []byte {
	b, mark := openComposite(b, sectionHeader)
	b = appendUbyte(appendBool(b, m.durable), m.priority)
	if m.ttl == 0 {
		b = appendNull(b)
	} else {
		b = appendUint(b, m.ttl)
	}
	b = appendUint(appendBool(b, m.deliveryCount == 0), m.deliveryCount)
	b = closeCompound(b, mark, 5)
	if withToken {
		b, mark = openCompound(append(b, 0x00, 0x53, sectionDeliveryAnnotations), 0xd1)
		b = appendUUID(appendSymbol(b, annotationLockToken), m.token)
		b = closeCompound(b, mark, 2)
	}
	b, mark = openCompound(append(b, 0x00, 0x53, sectionAnnotations), 0xd1)
	b = append(b, m.annotations.encoded...)
	b = appendLong(appendSymbol(b, annotationSequence), m.sequence)
	b = appendTime(appendSymbol(b, annotationEnqueued), m.enqueued)
	count := m.annotations.count + 4
	if m.state == stateLocked {
		b = appendTime(appendSymbol(b, annotationLockedUntil), m.lockedUntil)
		count += 2
	}
	if shown := m.shownState(); shown != stateReady {
		b = appendInt(appendSymbol(b, annotationState), int32(shown))
		count += 2
	}
	b = closeCompound(b, mark, count)
	b = append(b, m.properties...)
	if m.application.count > 0 {
		b, mark = openCompound(append(b, 0x00, 0x53, sectionApplication), 0xd1)
		b = closeCompound(append(b, m.application.encoded...), mark, m.application.count)
	}
	return append(b, m.body...)
}

func (m *message) shownState() messageState {
	switch {
	case m.deferred || m.state == stateDeferred:
		return stateDeferred
	case m.state == stateScheduled:
		return stateScheduled
	}
	return stateReady
}

// deliveryTag is the lock token in the byte order of a .NET GUID.
func (m *message) deliveryTag() (tag [16]byte) {
	tag = m.token
	tag[0], tag[3] = tag[3], tag[0]
	tag[1], tag[2] = tag[2], tag[1]
	tag[4], tag[5] = tag[5], tag[4]
	tag[6], tag[7] = tag[7], tag[6]
	return tag
}

// entityPath is an address without scheme, host and outer slashes, in lower case as the service compares it.
func entityPath(address string) string {
	if _, rest, found := strings.Cut(address, "://"); found {
		_, address, _ = strings.Cut(rest, "/")
	}
	return strings.ToLower(strings.Trim(address, "/"))
}
