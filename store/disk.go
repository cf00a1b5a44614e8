package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
)

// maxHanging bounds the calls that a storage has left unanswered, each of which costs a
// goroutine until it returns.
const maxHanging = 256

// disk is the storage, as the store uses it: nothing waits longer than timeout, not even
// where the storage does not heed its context.
type disk struct {
	handle  atomic.Pointer[certmagic.Storage]
	prefix  string
	timeout time.Duration
	calls   chan struct{}
}

func newDisk(storage certmagic.Storage, prefix string, timeout time.Duration) *disk {
	d := &disk{prefix: prefix, timeout: timeout, calls: make(chan struct{}, maxHanging)}
	d.use(storage)
	return d
}

func (d *disk) use(storage certmagic.Storage) { d.handle.Store(&storage) }

func (d *disk) storage() certmagic.Storage { return *d.handle.Load() }

// key is where something is: below the prefix.
func (d *disk) key(parts ...string) string { return d.prefix + "/" + strings.Join(parts, "/") }

// errSilent is the cause when the storage does not answer in time.
var errSilent = errors.New("the storage did not answer in time")

// start begins a call and returns at once. The result is buffered: nobody has to wait for it.
func (d *disk) start(ctx context.Context, call func(context.Context, certmagic.Storage) error) (<-chan error, context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeoutCause(ctx, d.timeout, errSilent)
	result := make(chan error, 1)
	select {
	case d.calls <- struct{}{}:
	case <-ctx.Done():
		result <- context.Cause(ctx)
		return result, ctx, cancel
	}
	storage := d.storage()
	go func() {
		defer func() { <-d.calls }()
		result <- call(ctx, storage)
	}()
	return result, ctx, cancel
}

// do makes a call, within bounded time.
func (d *disk) do(ctx context.Context, call func(context.Context, certmagic.Storage) error) error {
	result, ctx, cancel := d.start(ctx, call)
	defer cancel()
	select {
	case err := <-result:
		if err != nil && ctx.Err() != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w (%w)", context.Cause(ctx), err)
		}
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (d *disk) load(ctx context.Context, key string) ([]byte, error) {
	loaded := make(chan []byte, 1)
	err := d.do(ctx, func(ctx context.Context, storage certmagic.Storage) error {
		data, err := storage.Load(ctx, key)
		loaded <- data
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", key, err)
	}
	return <-loaded, nil
}

func (d *disk) store(ctx context.Context, key string, value []byte) error {
	err := d.do(ctx, func(ctx context.Context, storage certmagic.Storage) error { return storage.Store(ctx, key, value) })
	if err != nil {
		return fmt.Errorf("writing %s: %w", key, err)
	}
	return nil
}

func (d *disk) delete(ctx context.Context, key string) error {
	err := d.do(ctx, func(ctx context.Context, storage certmagic.Storage) error { return storage.Delete(ctx, key) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("deleting %s: %w", key, err)
	}
	return nil
}

// listTries is how often a listing is begun again that broke off because a file vanished
// under it: file storage walks, and others write there.
const listTries = 8

// list returns what is below key, without it. A key that does not exist has nothing below.
func (d *disk) list(ctx context.Context, key string, recursive bool) ([]string, error) {
	var err error
	for range listTries {
		listed := make(chan []string, 1)
		exists := false
		err = d.do(ctx, func(ctx context.Context, storage certmagic.Storage) error {
			keys, err := storage.List(ctx, key, recursive)
			if errors.Is(err, fs.ErrNotExist) {
				exists = storage.Exists(ctx, key)
			}
			listed <- keys
			return err
		})
		switch {
		case err == nil:
			return trim(<-listed, key), nil
		case !errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("listing %s: %w", key, err)
		case !exists:
			return nil, nil
		}
	}
	return nil, fmt.Errorf("listing %s: %w", key, err)
}

// trim cuts the prefix off the keys of a listing.
func trim(keys []string, prefix string) []string {
	out := keys[:0:0]
	for _, key := range keys {
		if rest, ok := strings.CutPrefix(strings.Trim(key, "/"), prefix+"/"); ok && rest != "" {
			out = append(out, rest)
		}
	}
	return out
}

// children lists the names directly below key. Some storages list everything that is deeper
// too, or leave out what is only a directory: the first part of a longer key is a name.
func (d *disk) children(ctx context.Context, key string) ([]string, error) {
	keys, err := d.list(ctx, key, false)
	for i := range keys {
		keys[i], _, _ = strings.Cut(keys[i], "/")
	}
	slices.Sort(keys)
	return slices.Compact(keys), err
}
