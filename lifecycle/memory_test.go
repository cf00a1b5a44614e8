package lifecycle_test

import (
	"context"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
)

// memory is a storage of Caddy that needs no disk, because the table opens a store some
// thousand times. Tests of several nodes use files.
type memory struct {
	mu    sync.Mutex
	files map[string]memoryFile
	locks map[string]chan struct{}
}

type memoryFile struct {
	data []byte
	at   time.Time
}

func newMemory() *memory {
	return &memory{files: map[string]memoryFile{}, locks: map[string]chan struct{}{}}
}

// Lock implements certmagic.Locker.
func (m *memory) Lock(ctx context.Context, name string) error {
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
func (m *memory) Unlock(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.locks[name]:
		return nil
	default:
		return fmt.Errorf("%s is not locked", name)
	}
}

// Store implements certmagic.Storage.
func (m *memory) Store(_ context.Context, key string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[key] = memoryFile{data: append([]byte(nil), value...), at: time.Now()}
	return nil
}

// Load implements certmagic.Storage.
func (m *memory) Load(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, ok := m.files[key]
	if !ok {
		return nil, fmt.Errorf("%s: %w", key, fs.ErrNotExist)
	}
	return append([]byte(nil), f.data...), nil
}

// Delete implements certmagic.Storage.
func (m *memory) Delete(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := false
	for k := range m.files {
		if k == key || strings.HasPrefix(k, key+"/") {
			delete(m.files, k)
			found = true
		}
	}
	if !found {
		return fmt.Errorf("%s: %w", key, fs.ErrNotExist)
	}
	return nil
}

// Exists implements certmagic.Storage.
func (m *memory) Exists(_ context.Context, key string) bool {
	_, err := m.Stat(context.Background(), key)
	return err == nil
}

// List implements certmagic.Storage.
func (m *memory) List(_ context.Context, path string, recursive bool) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	seen := map[string]bool{}
	var keys []string
	for k := range m.files {
		below, ok := strings.CutPrefix(k, path+"/")
		if !ok {
			continue
		}
		if first, _, deeper := strings.Cut(below, "/"); deeper && !recursive {
			below = first
		}
		if !seen[below] {
			seen[below] = true
			keys = append(keys, path+"/"+below)
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	}
	return keys, nil
}

// Stat implements certmagic.Storage.
func (m *memory) Stat(_ context.Context, key string) (certmagic.KeyInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f, ok := m.files[key]; ok {
		return certmagic.KeyInfo{Key: key, Modified: f.at, Size: int64(len(f.data)), IsTerminal: true}, nil
	}
	for k := range m.files {
		if strings.HasPrefix(k, key+"/") {
			return certmagic.KeyInfo{Key: key}, nil
		}
	}
	return certmagic.KeyInfo{}, fmt.Errorf("%s: %w", key, fs.ErrNotExist)
}

// Interface guard.
var _ certmagic.Storage = (*memory)(nil)
