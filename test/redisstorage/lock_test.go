package redisstorage_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/test/brokers"
	"github.com/caddy-message-api/caddy-message-api/test/redisstorage"
)

func mustLock(t *testing.T, s *redisstorage.Storage, name string) {
	t.Helper()
	if err := s.Lock(t.Context(), name); err != nil {
		t.Fatal(err)
	}
}

func mustUnlock(t *testing.T, s *redisstorage.Storage, name string) {
	t.Helper()
	if err := s.Unlock(t.Context(), name); err != nil {
		t.Fatal(err)
	}
}

func tryLock(t *testing.T, s *redisstorage.Storage, name string) bool {
	t.Helper()
	ok, err := s.TryLock(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

// One at a time, be they goroutines of one process or two processes.
func TestOnlyOneHasTheLock(t *testing.T) {
	addr := brokers.Redis(t).Addr()
	nodes := []*redisstorage.Storage{open(t, addr), open(t, addr)}
	var wg sync.WaitGroup
	inside := make(chan struct{}, 1) // full while somebody holds the lock
	for i := range 40 {
		wg.Go(func() {
			s := nodes[i%2]
			if err := s.Lock(t.Context(), "l"); err != nil {
				t.Error(err)
				return
			}
			select {
			case inside <- struct{}{}:
			default:
				t.Error("two have the lock")
			}
			<-inside
			if err := s.Unlock(t.Context(), "l"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	mustLock(t, nodes[0], "l")
	if !tryLock(t, nodes[1], "other") {
		t.Error("another name is locked too")
	}
	mustUnlock(t, nodes[0], "l")
	mustUnlock(t, nodes[1], "other")
}

func TestWaitingForALockEndsWithItsContext(t *testing.T) {
	addr := brokers.Redis(t).Addr()
	one, other := open(t, addr), open(t, addr)
	mustLock(t, one, "l")
	defer mustUnlock(t, one, "l")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := other.Lock(ctx, "l"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it says %v", err)
	}
	if err := other.Unlock(t.Context(), "l"); err == nil {
		t.Error("who does not hold a lock can give it back")
	}
	if tryLock(t, other, "l") {
		t.Error("and then has it")
	}
}

// A holder keeps its lock for as long as it lives, and one that died only for LockTTL.
func TestLockLivesWithItsHolder(t *testing.T) {
	addr := brokers.Redis(t).Addr()
	other := open(t, addr)
	holder := redisstorage.Open(redisstorage.Options{Address: addr, LockTTL: 600 * time.Millisecond})
	mustLock(t, holder, "l")
	for until := time.Now().Add(1500 * time.Millisecond); time.Now().Before(until); {
		if tryLock(t, other, "l") {
			t.Fatal("a lock whose holder lives was given to another")
		}
	}
	if err := holder.Destruct(); err != nil { // as in death: nothing is given back
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	began := time.Now()
	if err := other.Lock(ctx, "l"); err != nil {
		t.Fatalf("the lock of the dead: %v", err)
	}
	t.Logf("taken over %s after its holder's death", time.Since(began).Round(time.Millisecond))
	mustUnlock(t, other, "l")
}

// Who lost its lock is told, and does not give back that of another.
func TestLostLockIsTold(t *testing.T) {
	server := brokers.Redis(t)
	holder, other := open(t, server.Addr()), open(t, server.Addr())
	mustLock(t, holder, "l")
	server.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 1200*time.Millisecond) // twice LockTTL
	defer cancel()
	<-ctx.Done()
	server.Resume()
	ctx, cancel = context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := other.Lock(ctx, "l"); err != nil {
		t.Fatal(err)
	}
	if err := holder.Unlock(t.Context(), "l"); err == nil {
		t.Error("its holder is not told")
	}
	if tryLock(t, holder, "l") {
		t.Error("the lock of another was given back")
	}
	mustUnlock(t, other, "l")
}
