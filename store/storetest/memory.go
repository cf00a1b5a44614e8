// Package storetest is a storage of Caddy in memory, for tests that are not about files. Files
// would make them wait: for the disk at each write, and for locks that are held, which certmagic
// looks at once a second.
package storetest

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
)

// Memory is a certmagic.Storage. Several stores on one are nodes that share it.
type Memory struct {
	mu    sync.Mutex
	files map[string][]byte
	locks map[string]chan struct{}
}

// NewMemory makes an empty one.
func NewMemory() *Memory {
	return &Memory{files: make(map[string][]byte), locks: make(map[string]chan struct{})}
}

// Lock implements certmagic.Locker.
func (m *Memory) Lock(ctx context.Context, name string) error {
	m.mu.Lock()
	lock := m.locks[name]
	if lock == nil {
		lock = make(chan struct{}, 1)
		m.locks[name] = lock
	}
	m.mu.Unlock()
	select {
	case lock <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Unlock implements certmagic.Locker.
func (m *Memory) Unlock(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.locks[name]:
		return nil
	default:
		return errors.New("not locked")
	}
}

// Store implements certmagic.Storage.
func (m *Memory) Store(_ context.Context, key string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[key] = slices.Clone(value)
	return nil
}

// Load implements certmagic.Storage.
func (m *Memory) Load(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.files[key]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return slices.Clone(data), nil
}

// Delete implements certmagic.Storage.
func (m *Memory) Delete(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range m.under(key) {
		delete(m.files, k)
	}
	delete(m.files, key)
	return nil
}

// Exists implements certmagic.Storage.
func (m *Memory) Exists(_ context.Context, key string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.files[key]
	return ok || len(m.under(key)) > 0
}

// List implements certmagic.Storage. It lists what is deeper too, as storages do that know no folders.
func (m *Memory) List(_ context.Context, key string, _ bool) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	keys := m.under(key)
	if keys == nil {
		return nil, fs.ErrNotExist
	}
	return keys, nil
}

// Stat implements certmagic.Storage.
func (m *Memory) Stat(_ context.Context, key string) (certmagic.KeyInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.files[key]
	if !ok {
		return certmagic.KeyInfo{}, fs.ErrNotExist
	}
	return certmagic.KeyInfo{Key: key, Modified: time.Now(), Size: int64(len(data)), IsTerminal: true}, nil
}

// under are the keys below one.
func (m *Memory) under(key string) (keys []string) {
	for k := range m.files {
		if strings.HasPrefix(k, key+"/") {
			keys = append(keys, k)
		}
	}
	return keys
}

// Interface guard
var _ certmagic.Storage = (*Memory)(nil)
