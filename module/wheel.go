package module

import (
	"sync"
	"time"
)

// wheel calls what sessions want to have called again and again, from one goroutine: a
// heartbeat costs a list entry instead of a timer. It ticks only while somebody waits.
var wheel = newWheel(100 * time.Millisecond)

const wheelSlots = 1024

type timingWheel struct {
	tick time.Duration

	mu      sync.Mutex
	slots   [wheelSlots]*spoke // heads of circular lists; nil when empty
	now     int
	entries int
	running bool
}

// spoke is one entry of the wheel.
type spoke struct {
	prev, next *spoke
	f          func(time.Time)
	ticks      int
	rounds     int // full turns still to wait
	slot       int // -1 when stopped
}

func newWheel(tick time.Duration) *timingWheel { return &timingWheel{tick: tick} }

// every has f called about every d until stop is called. f runs on the wheel's
// goroutine: it must not block, and must not call the wheel.
func (w *timingWheel) every(d time.Duration, f func(time.Time)) (stop func()) {
	s := &spoke{f: f, ticks: max(1, int((d+w.tick-1)/w.tick))}
	w.mu.Lock()
	w.insert(s)
	w.entries++
	if !w.running {
		w.running = true
		go w.run()
	}
	w.mu.Unlock()
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if s.slot >= 0 {
			w.unlink(s)
			s.slot = -1
			w.entries--
		}
	}
}

func (w *timingWheel) insert(s *spoke) {
	s.slot = (w.now + s.ticks) % wheelSlots
	s.rounds = (s.ticks - 1) / wheelSlots
	head := w.slots[s.slot]
	if head == nil {
		s.prev, s.next = s, s
		w.slots[s.slot] = s
		return
	}
	s.prev, s.next = head.prev, head
	head.prev.next, head.prev = s, s
}

func (w *timingWheel) unlink(s *spoke) {
	if s.next == s {
		w.slots[s.slot] = nil
	} else {
		s.prev.next, s.next.prev = s.next, s.prev
		if w.slots[s.slot] == s {
			w.slots[s.slot] = s.next
		}
	}
	s.prev, s.next = nil, nil
}

func (w *timingWheel) run() {
	t := time.NewTicker(w.tick)
	defer t.Stop()
	for now := range t.C {
		w.mu.Lock()
		if w.entries == 0 {
			w.running = false
			w.mu.Unlock()
			return
		}
		w.now = (w.now + 1) % wheelSlots
		due := w.due()
		for _, s := range due {
			s.f(now)
		}
		w.mu.Unlock()
	}
}

// due takes the entries whose time has come and puts them back for their next time.
func (w *timingWheel) due() []*spoke {
	var list []*spoke
	head := w.slots[w.now]
	if head == nil {
		return nil
	}
	for s := head; ; s = s.next {
		list = append(list, s)
		if s.next == head {
			break
		}
	}
	due := list[:0]
	for _, s := range list {
		if s.rounds > 0 {
			s.rounds--
			continue
		}
		w.unlink(s)
		w.insert(s)
		due = append(due, s)
	}
	return due
}
