package servicebustest

type attach struct {
	name                     string
	handle                   uint32
	receiver                 bool // the peer is the receiver
	senderMode, receiverMode byte
	sourceAddress            string
	sourceFilter             map[any]any
	targetAddress            string
	properties               map[any]any
}

func readAttach(f *fields) (a attach) {
	a.name, a.handle, a.receiver = f.text(), f.u32(0), f.flag()
	a.senderMode, a.receiverMode = byte(f.uint(2)), byte(f.uint(0))
	if code, source, ok := f.nested(); ok && code == codeSource {
		a.sourceAddress = source.text()
		source.skip(6)
		a.sourceFilter, _ = source.any().(map[any]any)
		f.settle(&source.decoder)
	}
	if code, target, ok := f.nested(); ok && code == codeTarget {
		a.targetAddress = target.text()
		f.settle(&target.decoder)
	}
	f.skip(6) // unsettled, incomplete-unsettled, initial-delivery-count, max-message-size, offered, desired capabilities
	a.properties, _ = f.any().(map[any]any)
	return a
}

type flow struct {
	nextIncoming          uint32
	incomingKnown         bool
	incomingWindow        uint32
	handle, deliveryCount uint32
	hasHandle             bool
	credit                uint32
	drain, echo           bool
}

func readFlow(f *fields) (w flow) {
	if w.incomingKnown = f.present(); w.incomingKnown {
		w.nextIncoming = uint32(f.unsigned(f.octet()))
	}
	w.incomingWindow = f.u32(0)
	f.skip(2) // next-outgoing-id, outgoing-window
	if w.hasHandle = f.present(); w.hasHandle {
		w.handle = uint32(f.unsigned(f.octet()))
	}
	w.deliveryCount, w.credit = f.u32(0), f.u32(0)
	f.skip(1) // available
	w.drain, w.echo = f.flag(), f.flag()
	return w
}

type transfer struct {
	handle, id, format     uint32
	settled, more, aborted bool
	payload                []byte
}

func readTransfer(f *fields, payload []byte) (t transfer) {
	t.handle, t.id = f.u32(0), f.u32(0)
	f.skip(1) // delivery-tag
	t.format, t.settled, t.more = f.u32(0), f.flag(), f.flag()
	f.skip(3) // rcv-settle-mode, state, resume
	t.aborted = f.flag()
	t.payload = payload
	return t
}

type disposition struct {
	receiver    bool
	first, last uint32
	settled     bool
	outcome     outcome
}

// outcome is what a receiver says of a delivery.
type outcome struct {
	code          uint64 // 0: none
	undeliverable bool
	properties    map[any]any // modified: to merge into the message's; rejected: the error's info
	err           wireError   // of rejected
}

func readDisposition(f *fields) (d disposition) {
	d.receiver, d.first = f.flag(), f.u32(0)
	d.last, d.settled = f.u32(d.first), f.flag()
	code, state, ok := f.nested()
	if !ok {
		return d
	}
	d.outcome.code = code
	switch code {
	case codeModified:
		state.skip(1) // delivery-failed: the service counts every abandoned delivery
		d.outcome.undeliverable = state.flag()
		d.outcome.properties, _ = state.any().(map[any]any)
	case codeRejected:
		if _, e, ok := state.nested(); ok {
			d.outcome.err = wireError{e.text(), e.text()}
			d.outcome.properties, _ = e.any().(map[any]any)
			state.settle(&e.decoder)
		}
	}
	f.settle(&state.decoder)
	return d
}
