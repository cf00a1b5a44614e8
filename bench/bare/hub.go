package bare

import "sync"

// hub hands every message to all subscribers of one wire format.
type hub struct {
	mu   sync.Mutex
	subs map[*subscriber]struct{}
}

// subscriber is one client's backlog.
type subscriber struct {
	mu      sync.Mutex
	backlog [][]byte
	wake    chan struct{}
}

func newHub() *hub { return &hub{subs: make(map[*subscriber]struct{})} }

func (h *hub) join() *subscriber {
	s := &subscriber{wake: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.subs[s] = struct{}{}
	return s
}

func (h *hub) leave(s *subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.subs, s)
}

// send hands over an encoded message, which nobody changes from now on.
func (h *hub) send(event []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subs {
		s.push(event)
	}
}

func (h *hub) empty() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.subs) == 0
}

func (s *subscriber) push(event []byte) {
	s.mu.Lock()
	s.backlog = append(s.backlog, event)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// take returns the backlog, and keeps spare for the next one.
func (s *subscriber) take(spare [][]byte) [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	backlog := s.backlog
	s.backlog = spare
	return backlog
}
