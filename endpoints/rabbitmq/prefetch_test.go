package rabbitmq

import (
	"testing"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// A consumer is replaced when another prefetch suits the messages better, and then left
// alone.
func TestFlow(t *testing.T) {
	window := message.Window{Messages: 500, Bytes: 1 << 20}
	f := flow{prefetch: firstPrefetch}
	come := func(n, size int) (changed int) {
		for range n {
			if to := f.came(size, true, window); to > 0 {
				f.prefetch, f.its = to, 0
				changed = to
			}
		}
		return changed
	}
	if to := come(firstPrefetch-1, 200); to != 0 {
		t.Errorf("changed to %d before it was used up", to)
	}
	if to := come(1, 200); to != 500-firstPrefetch {
		t.Errorf("small messages: changed to %d", to)
	}
	if to := come(484, 200); to != 0 {
		t.Errorf("changed to %d again", to)
	}
	f.went(500, 500*200, 484)
	if to := come(60, 100<<10); to == 0 || to > 30 {
		t.Errorf("large messages: changed to %d", to)
	}
	at := f.prefetch
	if come(20, 100<<10); f.prefetch != at {
		t.Errorf("changed from %d to %d with the same messages", at, f.prefetch)
	}
	if f.out != 80 {
		t.Errorf("%d are out", f.out)
	}
	f.went(80, f.bytes, f.its)
	if to := come(100, 200); to < 300 {
		t.Errorf("small messages again: changed to %d", to)
	}
}
