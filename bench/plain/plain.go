// Package plain drives the plain clients that the gateway is compared with.
package plain

import (
	"context"
	"errors"
	"sync"
	"time"
)

// patience is how long the last publishes may take after the time is over.
const patience = 30 * time.Second

// Calls is how long each confirmed publish took.
type Calls struct {
	Took []time.Duration
}

// PublishOne publishes one message for a caller and waits until it is confirmed.
type PublishOne func(ctx context.Context, caller, call int) error

// Repeat has all callers publish for a while, each as soon as its last message is
// confirmed.
func Repeat(callers int, d time.Duration, publish PublishOne) (Calls, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d+patience)
	defer cancel()
	took := make([][]time.Duration, callers)
	errs := make([]error, callers)
	var wg sync.WaitGroup
	end := time.Now().Add(d)
	for i := range callers {
		wg.Go(func() {
			for call, start := 0, time.Now(); start.Before(end); call++ {
				if errs[i] = publish(ctx, i, call); errs[i] != nil {
					return
				}
				now := time.Now()
				took[i] = append(took[i], now.Sub(start))
				start = now
			}
		})
	}
	wg.Wait()
	var all Calls
	for _, t := range took {
		all.Took = append(all.Took, t...)
	}
	return all, errors.Join(errs...)
}
