package servicebus

import "time"

// enqueue puts a message behind those that are ready, but within its session to its place:
// one that was given back comes again, and perhaps its successors still wait. s.mu is held.
func (s *stream) enqueue(l *lent) {
	s.readyBytes += l.size
	l.src.ready++
	n := len(s.ready)
	s.ready = append(s.ready, l)
	if l.src.session == nil || l.raw.SequenceNumber == nil {
		return
	}
	for i := n - 1; i >= 0; i-- {
		o := s.ready[i]
		if o.src != l.src {
			continue
		}
		if o.raw.SequenceNumber == nil || *o.raw.SequenceNumber < *l.raw.SequenceNumber {
			return
		}
		s.ready[i], s.ready[n] = s.ready[n], s.ready[i]
		n = i
	}
}

// hold begins to keep a message's lock. s.mu is held.
func (s *stream) hold(l *lent, now time.Time) {
	if l.raw.LockedUntil != nil && l.src.session == nil {
		l.until = *l.raw.LockedUntil
	}
	l.renewAt = renewal(now, l.until)
	if l.prev = s.last; l.prev != nil {
		l.prev.next = l
	} else {
		s.first = l
		signal(s.due)
	}
	s.last = l
}

// drop forgets a message, which must then be pruned if it was ready. s.mu is held.
func (s *stream) drop(l *lent) {
	switch l.state {
	case isReady:
		s.readyBytes -= l.size
		l.src.ready--
	case isOut, isSettling:
		s.out--
		s.outBytes -= l.size
		l.src.out--
	case isOver:
		return
	}
	l.state = isOver
	if l.prev != nil {
		l.prev.next = l.next
	} else {
		s.first = l.next
	}
	if l.next != nil {
		l.next.prev = l.prev
	} else {
		s.last = l.prev
	}
	l.prev, l.next = nil, nil
}

// prune removes from what is ready what was dropped. s.mu is held.
func (s *stream) prune() {
	kept := s.ready[:0]
	for _, l := range s.ready {
		if l.state == isReady {
			kept = append(kept, l)
		}
	}
	clear(s.ready[len(kept):])
	s.ready = kept
}
