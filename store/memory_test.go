package store

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
)

func (m *memory) Lock(ctx context.Context, name string) error {
	m.mu.Lock()
	l := m.locks[name]
	if l == nil {
		l = make(chan struct{}, 1)
		m.locks[name] = l
	}
	m.mu.Unlock()
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *memory) Unlock(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.locks[name]:
		return nil
	default:
		return errors.New("not locked")
	}
}

func (m *memory) Store(_ context.Context, key string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[key] = slices.Clone(value)
	return nil
}

func (m *memory) Load(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.files[key]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return slices.Clone(data), nil
}

func (m *memory) Delete(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for other := range m.files {
		if other == key || strings.HasPrefix(other, key+"/") {
			delete(m.files, other)
		}
	}
	return nil
}

func (m *memory) Exists(_ context.Context, key string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for other := range m.files {
		if other == key || strings.HasPrefix(other, key+"/") {
			return true
		}
	}
	return false
}

// List is that of a storage that knows no folders: it lists everything that is deeper too.
func (m *memory) List(_ context.Context, key string, _ bool) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var keys []string
	for other := range m.files {
		if strings.HasPrefix(other, key+"/") {
			keys = append(keys, other)
		}
	}
	if keys == nil {
		return nil, fs.ErrNotExist
	}
	return keys, nil
}

func (m *memory) Stat(_ context.Context, key string) (certmagic.KeyInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.files[key]
	if !ok {
		return certmagic.KeyInfo{}, fs.ErrNotExist
	}
	return certmagic.KeyInfo{Key: key, Modified: time.Now(), Size: int64(len(data)), IsTerminal: true}, nil
}

// keys lists the files whose name contains part.
func (m *memory) keys(part string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var keys []string
	for key := range m.files {
		if strings.Contains(key, part) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// change edits a file.
func (m *memory) change(key string, f func([]byte) []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[key] = f(m.files[key])
}

// Interface guards
var (
	_ certmagic.Storage = (*memory)(nil)
	_ certmagic.Storage = (*faulty)(nil)
)
