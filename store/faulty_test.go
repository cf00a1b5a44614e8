package store

import (
	"context"
	"strings"
	"sync"

	"github.com/caddyserver/certmagic"
)

// faulty is a storage that counts, and that fails and hangs as it is told.
type faulty struct {
	certmagic.Storage
	mu    sync.Mutex
	loads map[string]int // by the last part of the key that is no number
	// before is asked before, and after after, each call. An error is that of the call.
	before, after func(op, key string) error
	// hang, if it is set, is waited for by calls that it says true for.
	hangs func(op, key string) bool
	free  chan struct{}
}

func newFaulty(s certmagic.Storage) *faulty {
	return &faulty{Storage: s, loads: make(map[string]int), free: make(chan struct{})}
}

func (f *faulty) set(before, after func(op, key string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before, f.after = before, after
}

// hang makes calls hang that do not heed their context, until release is called.
func (f *faulty) hang(hangs func(op, key string) bool) (release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	free := make(chan struct{})
	f.hangs, f.free = hangs, free
	return sync.OnceFunc(func() {
		f.mu.Lock()
		f.hangs = nil
		f.mu.Unlock()
		close(free)
	})
}

func (f *faulty) call(op, key string, do func() error) error {
	f.mu.Lock()
	before, after, hangs, free := f.before, f.after, f.hangs, f.free
	if op == "load" {
		f.loads[class(key)]++
	}
	f.mu.Unlock()
	if hangs != nil && hangs(op, key) {
		<-free
	}
	if before != nil {
		if err := before(op, key); err != nil {
			return err
		}
	}
	if err := do(); err != nil {
		return err
	}
	if after != nil {
		return after(op, key)
	}
	return nil
}

func class(key string) string {
	for _, one := range []string{"/head", "/log/", "/current", "/snapshot/"} {
		if strings.Contains(key, one) {
			return strings.Trim(one, "/")
		}
	}
	return key
}

// counted returns and forgets how much was loaded.
func (f *faulty) counted() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	loads := f.loads
	f.loads = make(map[string]int)
	return loads
}

func (f *faulty) Load(ctx context.Context, key string) (data []byte, err error) {
	err = f.call("load", key, func() error { data, err = f.Storage.Load(ctx, key); return err })
	return data, err
}

func (f *faulty) Store(ctx context.Context, key string, value []byte) error {
	return f.call("store", key, func() error { return f.Storage.Store(ctx, key, value) })
}

func (f *faulty) Delete(ctx context.Context, key string) error {
	return f.call("delete", key, func() error { return f.Storage.Delete(ctx, key) })
}

func (f *faulty) List(ctx context.Context, key string, recursive bool) (keys []string, err error) {
	err = f.call("list", key, func() error { keys, err = f.Storage.List(ctx, key, recursive); return err })
	return keys, err
}

func (f *faulty) Lock(ctx context.Context, name string) error {
	return f.call("lock", name, func() error { return f.Storage.Lock(ctx, name) })
}

func (f *faulty) Unlock(ctx context.Context, name string) error {
	return f.call("unlock", name, func() error { return f.Storage.Unlock(ctx, name) })
}

// memory is a storage in memory, with locks that last as long as they are held. It is quick,
// and has no files that vanish while they are listed.
type memory struct {
	mu    sync.Mutex
	files map[string][]byte
	locks map[string]chan struct{}
}

func newMemory() *memory {
	return &memory{files: make(map[string][]byte), locks: make(map[string]chan struct{})}
}
