package worker

import "github.com/caddy-message-api/caddy-message-api/entrypoints"

const (
	// maxHurries is how often a message is tried ahead of time, because it keeps others
	// from being delivered, before it is given up.
	maxHurries = 4
	// maxNotes bounds what may be received of all lanes since a message that waits, where
	// the broker is told only up to where all is settled (positions): the endpoint has to
	// take notes of all that is behind it, and all that comes again after a crash.
	maxNotes = 1 << 15
)

// relieve sees to it that messages which wait for another attempt don't keep others from
// being delivered: when what is held because of them takes up half of the window, the
// oldest doesn't wait any more. It returns how many lanes became runnable.
//
// A client that fails altogether is no reason for that. So a message is tried ahead of time
// only if another one was delivered since it failed, or if no other is waiting, and given
// up only after that has happened several times, or when its schedule is over. A client that
// asks to be left alone is. As long as there is only one lane, nobody is kept.
func (e *engine) relieve() (woken int) {
	e.pressed = false
	if !e.several {
		return 0
	}
	for e.parked.Len() > 0 && e.excessive() {
		l := e.culprit()
		if l == nil {
			e.pressed = true // until something is delivered
			return woken
		}
		e.parked.remove(l)
		t := l.head.trial
		if t.hurries++; t.hurries > maxHurries {
			t.verdict = reasonWindow
		}
		e.ready.pushFront(l)
		woken++
	}
	return woken
}

// culprit is the lane whose head has waited for longest, if that is not to wait any more.
func (e *engine) culprit() *lane {
	var oldest *lane
	accounts := e.ordered() || e.opt.HoldsAll
	for _, l := range e.parked.lanes {
		if oldest != nil && oldest.head.no < l.head.no || !accounts && !e.hasty(l.head.trial) {
			continue
		}
		oldest = l
	}
	// Where what came after the oldest is held because of it, others are of no interest.
	if oldest == nil || !e.hasty(oldest.head.trial) {
		return nil
	}
	return oldest
}

// hasty says that there is a point in trying a message ahead of time.
func (e *engine) hasty(t *trial) bool {
	return t.Outcome != entrypoints.Throttled && (e.Delivered > t.seen || e.parked.Len() == 1)
}

// excessive says that too much is held because of messages that wait.
func (e *engine) excessive() bool {
	window := e.opt.Window
	if !e.tracked {
		return e.parked.messages > window.Messages/2 || e.parked.bytes > window.Bytes/2
	}
	messages, bytes := e.behind()
	if e.ordered() || e.opt.HoldsAll {
		return messages > uint64(window.Messages/2) || bytes > uint64(window.Bytes/2)
	}
	return messages > maxNotes || e.parked.messages > window.Messages/2 || e.parked.bytes > window.Bytes/2
}

// behind adds up what was received since the oldest parked message of each account, in the
// cases in which that matters.
func (e *engine) behind() (messages, bytes uint64) {
	e.round++
	for _, l := range e.parked.lanes {
		it := l.head
		if !e.ordered() && !e.opt.HoldsAll && it.d.Mark.Channel == "" {
			continue
		}
		a := e.account(it.from)
		switch {
		case a.round != e.round:
			a.round, a.oldest = e.round, it
			messages += a.received - it.place + 1
			bytes += a.bytes - it.placeBytes + uint64(it.size)
		case it.place < a.oldest.place:
			messages += a.oldest.place - it.place
			bytes += a.oldest.placeBytes - it.placeBytes + uint64(it.size) - uint64(a.oldest.size)
			a.oldest = it
		}
	}
	return messages, bytes
}
