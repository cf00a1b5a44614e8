package workers

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-message-api/caddy-message-api/store/storetest"
)

// lockLife is how long a lock outlives its node, as with files.
const lockLife = 10 * time.Second

// shared is a storage that several nodes share, whose locks end some time after their node.
type shared struct {
	*storetest.Memory
	mu    sync.Mutex
	locks map[string]*disk
}

// disk is one node's handle on it. Each call takes a while, and fails and hangs as it is told.
type disk struct {
	*shared
	mu     sync.Mutex
	err    error
	hang   chan struct{}
	counts map[string]int
}

var errDisk = errors.New("no space left on device")

func (d *disk) call(op string) error {
	time.Sleep(time.Millisecond)
	d.mu.Lock()
	d.counts[op]++
	hang := d.hang
	d.mu.Unlock()
	if hang != nil {
		<-hang
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// fail has calls fail with err, or go well again. stall has them hang until free is called.
func (d *disk) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
	if err != nil {
		d.breaks()
	}
}

// breaks has the locks end that nobody can keep alive any more. d.mu is held.
func (d *disk) breaks() {
	time.AfterFunc(lockLife, func() {
		d.mu.Lock()
		broken := d.err != nil || d.hang != nil
		d.mu.Unlock()
		if broken {
			d.expire(d)
		}
	})
}

func (d *disk) stall() (free func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	hang := make(chan struct{})
	d.hang = hang
	d.breaks()
	return sync.OnceFunc(func() {
		d.mu.Lock()
		d.hang = nil
		d.mu.Unlock()
		close(hang)
	})
}

// counted returns and forgets how often the storage was called.
func (d *disk) counted() map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	counts := d.counts
	d.counts = make(map[string]int)
	return counts
}

func (d *disk) Store(ctx context.Context, key string, value []byte) error {
	if err := d.call("store"); err != nil {
		return err
	}
	return d.Memory.Store(ctx, key, value)
}

func (d *disk) Load(ctx context.Context, key string) ([]byte, error) {
	if err := d.call("load"); err != nil {
		return nil, err
	}
	return d.Memory.Load(ctx, key)
}

func (d *disk) List(ctx context.Context, key string, recursive bool) ([]string, error) {
	if err := d.call("list"); err != nil {
		return nil, err
	}
	return d.Memory.List(ctx, key, recursive)
}

func (d *disk) Delete(ctx context.Context, key string) error {
	if err := d.call("delete"); err != nil {
		return err
	}
	return d.Memory.Delete(ctx, key)
}

func (d *disk) Lock(ctx context.Context, name string) error {
	if err := d.call("lock"); err != nil {
		return err
	}
	for {
		d.shared.mu.Lock()
		if d.locks[name] == nil {
			d.locks[name] = d
			d.shared.mu.Unlock()
			return nil
		}
		d.shared.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (d *disk) Unlock(_ context.Context, name string) error {
	if err := d.call("unlock"); err != nil {
		return err
	}
	d.shared.mu.Lock()
	defer d.shared.mu.Unlock()
	if d.locks[name] == d {
		delete(d.locks, name)
	}
	return nil
}

// expire ends the locks of a node that is dead.
func (s *shared) expire(d *disk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, holder := range s.locks {
		if holder == d {
			delete(s.locks, name)
		}
	}
}

// Interface guard
var _ certmagic.Storage = (*disk)(nil)
