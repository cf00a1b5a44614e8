package module

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func newSlots() *slotTable { return &slotTable{held: make(map[string]chan struct{})} }

func TestSlotsExcludeEachOther(t *testing.T) {
	s := newSlots()
	holders := make(map[string]*int) // guarded by the slots alone: the race detector watches
	for i := range 3 {
		holders[fmt.Sprint(i)] = new(int)
	}
	var wg sync.WaitGroup
	for key, n := range holders {
		for range 20 {
			wg.Go(func() {
				for range 50 {
					release, err := s.acquire(t.Context(), key)
					if err != nil {
						t.Error(err)
						return
					}
					if *n++; *n != 1 {
						t.Errorf("%d hold slot %s", *n, key)
					}
					*n--
					release()
				}
			})
		}
	}
	wg.Wait()
	if len(s.held) != 0 {
		t.Errorf("%d slots are still held", len(s.held))
	}
}

// The next holder begins when the one before has let go, not earlier and not later.
func TestSlotHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots()
		release, err := s.acquire(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if other, err := s.acquire(t.Context(), "b"); err != nil {
			t.Fatal("another slot is not free:", err)
		} else {
			other()
		}
		got := make(chan func())
		go func() {
			r, err := s.acquire(t.Context(), "a")
			if err != nil {
				t.Error(err)
			}
			got <- r
		}()
		synctest.Wait()
		select {
		case <-got:
			t.Fatal("two hold one slot")
		default:
		}
		release()
		second := <-got
		release() // an old holder can't take the slot from a new one
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.acquire(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the slot is free: %v", err)
		}
		second()
		if third, err := s.acquire(t.Context(), "a"); err != nil {
			t.Error(err)
		} else {
			third()
		}
	})
}

func TestSlotWaitEndsWithContext(t *testing.T) {
	s := newSlots()
	release, err := s.acquire(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := s.acquire(ctx, "a")
		failed <- err
	}()
	cancel()
	if err := receive(t, failed, "the end of waiting"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
