package plain

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

func TestRepeat(t *testing.T) {
	var done atomic.Int64
	calls, err := Repeat(3, 20*time.Millisecond, func(context.Context, int, int) error {
		done.Add(1)
		time.Sleep(time.Millisecond)
		return nil
	})
	if err != nil || int64(len(calls.Took)) != done.Load() || done.Load() < 3 {
		t.Errorf("%d calls were made and %d told of: %v", done.Load(), len(calls.Took), err)
	}
	for _, took := range calls.Took {
		if took < time.Millisecond {
			t.Errorf("a call of a millisecond took %v", took)
		}
	}
}

func TestRepeatEndsWithTheFirstError(t *testing.T) {
	refused := errors.New("refused")
	calls, err := Repeat(1, time.Minute, func(_ context.Context, _, call int) error {
		if call == 2 {
			return refused
		}
		return nil
	})
	if !errors.Is(err, refused) || len(calls.Took) != 2 {
		t.Errorf("%d calls, %v", len(calls.Took), err)
	}
}
