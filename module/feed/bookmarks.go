package feed

import (
	"context"
	"sync"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// bookmarks stores an identity's position at the broker from time to time, without
// holding up the session.
type bookmarks struct {
	store message.Bookmarker

	mu     sync.Mutex
	idle   sync.Cond // busy became false
	latest message.Position
	dirty  bool
	busy   bool
	last   time.Time
	err    error
}

func newBookmarks(store message.Bookmarker, start message.Position) *bookmarks {
	b := &bookmarks{store: store, latest: start.Clone()}
	b.idle.L = &b.mu
	return b
}

// set says that everything before pos has been taken.
func (b *bookmarks) set(pos message.Position) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.latest, b.dirty = pos.Clone(), true
	b.kick()
}

// advance says that the given deliveries have been taken, and all before them.
func (b *bookmarks) advance(taken []lent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range taken {
		b.latest.Advance(taken[i].delivery.Mark)
	}
	b.dirty = true
	b.kick()
}

func (b *bookmarks) kick() {
	if b.busy || time.Since(b.last) < bookmarkEvery {
		return
	}
	b.busy = true
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
		defer cancel()
		b.mu.Lock()
		defer b.mu.Unlock()
		b.storeLatest(ctx)
		b.busy = false
		b.idle.Broadcast()
	}()
}

// storeLatest stores the latest position; b.mu is held, but not while the broker works.
func (b *bookmarks) storeLatest(ctx context.Context) {
	pos := b.latest.Clone()
	b.dirty = false
	b.mu.Unlock()
	err := b.store.Bookmark(ctx, pos)
	b.mu.Lock()
	b.last, b.err = time.Now(), err
	if err != nil {
		b.dirty = true // the next one tries again; a bookmark that is behind only repeats
	}
}

// flush stores what is not stored yet.
func (b *bookmarks) flush(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.busy {
		b.idle.Wait()
	}
	if b.dirty {
		b.storeLatest(ctx)
	}
	if b.dirty {
		return b.err
	}
	return nil
}
