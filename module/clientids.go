package module

import "sync"

// maxClientIDs bounds the memory of clientIDs: about 100 bytes each.
const maxClientIDs = 8192

// clientIDs remembers the identifiers of addresses, because hashing one is a good part
// of what a small request costs.
var clientIDs = &idCache{known: make(map[string]string)}

type idCache struct {
	mu    sync.RWMutex
	known map[string]string
}

// of returns inferClient(address).
func (c *idCache) of(address string) string {
	c.mu.RLock()
	id, ok := c.known[address]
	c.mu.RUnlock()
	if ok {
		return id
	}
	id = inferClient(address)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) >= maxClientIDs {
		clear(c.known)
	}
	c.known[address] = id
	return id
}
