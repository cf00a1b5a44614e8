package subscriptions

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

// ram is a storage of Caddy in memory. Files would make most of these tests wait: for the
// disk at each write, and for locks that are held, which certmagic looks at once a second.
type ram struct {
	mu    sync.Mutex
	files map[string][]byte
	locks map[string]chan struct{}
}

func newRAM() *ram {
	return &ram{files: make(map[string][]byte), locks: make(map[string]chan struct{})}
}

func (m *ram) Lock(ctx context.Context, name string) error {
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

func (m *ram) Unlock(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.locks[name]:
		return nil
	default:
		return errors.New("not locked")
	}
}

func (m *ram) Store(_ context.Context, key string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[key] = slices.Clone(value)
	return nil
}

func (m *ram) Load(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.files[key]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return slices.Clone(data), nil
}

func (m *ram) Delete(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range m.under(key) {
		delete(m.files, k)
	}
	delete(m.files, key)
	return nil
}

func (m *ram) Exists(_ context.Context, key string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.files[key]
	return ok || len(m.under(key)) > 0
}

// List lists what is deeper too, as storages do that know no folders.
func (m *ram) List(_ context.Context, key string, _ bool) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	keys := m.under(key)
	if keys == nil {
		return nil, fs.ErrNotExist
	}
	return keys, nil
}

func (m *ram) Stat(_ context.Context, key string) (certmagic.KeyInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.files[key]
	if !ok {
		return certmagic.KeyInfo{}, fs.ErrNotExist
	}
	return certmagic.KeyInfo{Key: key, Modified: time.Now(), Size: int64(len(data)), IsTerminal: true}, nil
}

// under are the keys below one.
func (m *ram) under(key string) (keys []string) {
	for k := range m.files {
		if strings.HasPrefix(k, key+"/") {
			keys = append(keys, k)
		}
	}
	return keys
}

// Interface guard
var _ certmagic.Storage = (*ram)(nil)
