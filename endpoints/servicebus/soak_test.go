package servicebus

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/endpoints/endpointtest"
	"github.com/caddy-message-api/caddy-message-api/endpoints/servicebus/servicebustest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// At at_least_once nothing that was confirmed is lost, however often the connections break,
// and nothing that was refused is there.
func TestNothingIsLost(t *testing.T) {
	t.Parallel()
	total, drops := 5_000, 4
	if os.Getenv("MESSAGE_API_SOAK") != "" {
		total, drops = 100_000, 20
	}
	n := namespace(t, servicebustest.Options{})
	n.Queue("q", servicebustest.Entity{LockDuration: shortLock, MaxDeliveryCount: 1000})
	out, in := sending(t, n), reading(t, n)
	p, err := out.Publisher(endpointtest.Verbatim{})
	if err != nil {
		t.Fatal(err)
	}
	status := make([]message.Status, total) // by the number of the message
	var sent sync.WaitGroup
	const callers = 16
	var progress sync.Mutex
	published := 0
	for c := range callers {
		sent.Go(func() {
			for i := c; i < total; i += callers {
				for {
					r := p.Publish(t.Context(), message.Auto, &message.Message{Payload: []byte(strconv.Itoa(i))})[0]
					if status[i] = r.Status; r.Status != message.Refused {
						break
					}
					time.Sleep(time.Millisecond) // as a client that was told to come again
				}
				progress.Lock()
				published++
				progress.Unlock()
			}
		})
	}
	done := make(chan struct{})
	var saboteur sync.WaitGroup
	saboteur.Go(func() {
		for k := range drops {
			at := (k + 1) * total / (drops + 1)
			for reached := false; !reached; {
				select {
				case <-done:
					return
				case <-time.After(time.Duration(1+rand.IntN(5)) * time.Millisecond):
				}
				progress.Lock()
				reached = published >= at
				progress.Unlock()
			}
			n.Drop()
		}
	})
	seen, repeated := receiveEach(t, in, total, func() bool {
		progress.Lock()
		defer progress.Unlock()
		return published == total
	}, n)
	sent.Wait()
	close(done)
	saboteur.Wait()
	lost, unknown := 0, 0
	for i, s := range status {
		if s == message.Unknown {
			unknown++
		}
		if s == message.Stored && !seen[i] {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("%d messages were confirmed and lost", lost)
	}
	t.Logf("%d messages, %d drops: %d lost, %d unknown, %d repeated", total, drops, lost, unknown, repeated)
}

// receiveEach reads until everything was published and nothing is left.
func receiveEach(t *testing.T, in *ServiceBus, total int, published func() bool, n *servicebustest.Server) ([]bool, int) {
	s := subscribe(t, in, message.Subscription{QoS: message.AtLeastOnce})
	seen, repeated := make([]bool, total), 0
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		b, err := s.Receive(ctx)
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				t.Fatalf("the stream ended: %v", err)
			}
			if c := n.Counts("q"); published() && c.Active+c.DeadLetter == 0 {
				break
			}
			continue
		}
		for _, d := range b.Deliveries {
			i, err := strconv.Atoi(string(d.Payload))
			if err != nil {
				t.Fatal(err)
			}
			if seen[i] {
				repeated++
			}
			seen[i] = true
		}
		_ = settle(t, s, message.Ack, b.Deliveries...) // what is stale comes again
	}
	return seen, repeated
}
