package jwt

import (
	"crypto/sha256"
	"sync"
	"time"
)

// maxRecent is how many tokens one generation holds. There are two: about a megabyte in all.
const maxRecent = 4096

type digest = [sha256.Size]byte

// recent remembers tokens that were good, because verifying a signature takes a hundred
// times as long as looking it up. It knows them by their digest, not by themselves, and only
// as long as the keys that they were verified with are those of the issuer. The time is
// checked every time, and the subscription elsewhere.
//
// When the young generation is full it becomes the old one, and the old one is dropped; who
// is asked for again becomes young.
type recent struct {
	mu         sync.Mutex
	young, old map[digest]*token
}

func (r *recent) get(sum digest, keys *keySet, now time.Time) *token {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, ok := r.young[sum]
	if !ok {
		if t, ok = r.old[sum]; !ok {
			return nil
		}
		r.put(sum, t)
	}
	if t.keys != keys || now.After(t.expires) {
		delete(r.young, sum)
		delete(r.old, sum)
		return nil
	}
	if now.Before(t.notBefore) {
		return nil
	}
	return t
}

func (r *recent) add(sum digest, t *token) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.put(sum, t)
}

func (r *recent) put(sum digest, t *token) {
	if r.young == nil || len(r.young) >= maxRecent {
		r.young, r.old = make(map[digest]*token), r.young
	}
	r.young[sum] = t
}
