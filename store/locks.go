package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// keyedLocks are this process's own locks, under names. Waiting for the storage's takes a
// second on files, so goroutines of one process wait for each other here.
type keyedLocks struct {
	mu sync.Mutex
	m  map[string]*keyedLock
}

type keyedLock struct {
	held  chan struct{}
	users int
}

func (k *keyedLocks) init() { k.m = make(map[string]*keyedLock) }

func (k *keyedLocks) lock(ctx context.Context, name string) error {
	k.mu.Lock()
	l := k.m[name]
	if l == nil {
		l = &keyedLock{held: make(chan struct{}, 1)}
		k.m[name] = l
	}
	l.users++
	k.mu.Unlock()
	select {
	case l.held <- struct{}{}:
		return nil
	case <-ctx.Done():
		k.leave(name, l)
		return context.Cause(ctx)
	}
}

func (k *keyedLocks) unlock(name string) {
	k.mu.Lock()
	l := k.m[name]
	k.mu.Unlock()
	<-l.held
	k.leave(name, l)
}

func (k *keyedLocks) leave(name string, l *keyedLock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(k.m, name)
	}
}

// lockName is a hash: storages fold case and drop characters, and two names that become one
// would wait for each other for ever.
func (s *Store) lockName(ref Ref) string {
	h := sha256.Sum256([]byte(ref.Kind + "\x00" + ref.ID))
	return s.disk.key("lock", hex.EncodeToString(h[:10]))
}

// lockRefs takes the locks for refs, in an order that all nodes share.
func (s *Store) lockRefs(ctx context.Context, refs []Ref) (unlock func(), err error) {
	names := make([]string, len(refs))
	for i, ref := range refs {
		names[i] = s.lockName(ref)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	var undo []func()
	unlock = sync.OnceFunc(func() {
		for _, f := range slices.Backward(undo) {
			f()
		}
	})
	for _, name := range names {
		if err := s.refs.lock(ctx, name); err != nil {
			unlock()
			return nil, fmt.Errorf("another change of the record is still on its way: %w", err)
		}
		undo = append(undo, func() { s.refs.unlock(name) })
		release, err := s.lockStorage(ctx, name)
		if err != nil {
			unlock()
			return nil, fmt.Errorf("could not lock the record: another node is changing it, or died while it did "+
				"(then the lock ends by itself after some seconds), or the storage hangs: %w", err)
		}
		undo = append(undo, release)
	}
	return unlock, nil
}

// lockStorage takes one lock of the storage.
func (s *Store) lockStorage(ctx context.Context, name string) (release func(), err error) {
	return s.lockBy(ctx, name, func(ctx context.Context, storage certmagic.Storage) error { return storage.Lock(ctx, name) })
}

// lockBy takes a lock by calling take. The context of the call lives as long as the lock:
// some storages keep a lock alive by it.
func (s *Store) lockBy(ctx context.Context, name string, take func(context.Context, certmagic.Storage) error) (release func(), err error) {
	hold, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel) // while it waits
	storage := s.disk.storage()
	result := make(chan error, 1)
	select {
	case s.disk.calls <- struct{}{}:
	case <-ctx.Done():
		cancel()
		return nil, context.Cause(ctx)
	}
	go func() {
		defer func() { <-s.disk.calls }()
		result <- take(hold, storage)
	}()
	undo := func() {
		cancel()
		s.debts.unlock(s, storage, name)
	}
	select {
	case err = <-result:
		stop()
		if err != nil {
			cancel()
			return nil, err
		}
		return undo, nil
	case <-ctx.Done():
		go func() {
			if <-result == nil {
				undo()
			}
		}()
		return nil, context.Cause(ctx)
	}
}

// unlockDebts are locks that the storage failed to release: others would wait for them for
// ever, so it is tried again.
type unlockDebts struct {
	mu   sync.Mutex
	list []debt
}

type debt struct {
	storage certmagic.Storage
	name    string
}

func (d *unlockDebts) unlock(s *Store, storage certmagic.Storage, name string) {
	if !d.try(context.Background(), s, storage, name) {
		d.mu.Lock()
		d.list = append(d.list, debt{storage, name})
		d.mu.Unlock()
	}
}

func (d *unlockDebts) try(ctx context.Context, s *Store, storage certmagic.Storage, name string) bool {
	err := s.disk.do(ctx, func(ctx context.Context, _ certmagic.Storage) error { return storage.Unlock(ctx, name) })
	if err != nil {
		s.log.Warn("store: could not release a lock of the storage; trying again", zap.String("lock", name), zap.Error(err))
	}
	return err == nil
}

// pay tries to release what is still locked.
func (d *unlockDebts) pay(ctx context.Context, s *Store) {
	d.mu.Lock()
	list := d.list
	d.list = nil
	d.mu.Unlock()
	for i, one := range list {
		if !d.try(ctx, s, one.storage, one.name) {
			d.mu.Lock()
			d.list = append(d.list, list[i:]...)
			d.mu.Unlock()
			return
		}
	}
}
