package module

import (
	"context"
	"sync"
)

// slots hand over what only one generation of a configuration may do at a time, like
// reading a channel under a name that the broker ties to one connection: the new holder
// begins when the old one has drained.
var slots = &slotTable{held: make(map[string]chan struct{})}

type slotTable struct {
	mu   sync.Mutex
	held map[string]chan struct{} // closed when the slot is free again
}

// acquire waits for the slot, and returns the function that frees it. After ctx it gives
// up with ctx's error.
func (s *slotTable) acquire(ctx context.Context, key string) (release func(), err error) {
	for {
		s.mu.Lock()
		busy, taken := s.held[key]
		if !taken {
			mine := make(chan struct{})
			s.held[key] = mine
			s.mu.Unlock()
			return func() { s.release(key, mine) }, nil
		}
		s.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *slotTable) release(key string, mine chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[key] == mine {
		delete(s.held, key)
		close(mine)
	}
}
