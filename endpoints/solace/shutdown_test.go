//go:build cgo && (linux || darwin)

package solace

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/endpoints/endpointtest"
	"github.com/caddy-message-api/caddy-message-api/endpoints/solace/smftest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// Whatever the broker does or does not do, an endpoint ends in time, and so does everybody
// who waits for it.
func TestShutdown(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, b broker){
		"publishes are not acknowledged": func(_ *testing.T, b broker) { b.OnFault(always(smftest.OpPublish, smftest.Fault{Silent: true})) },
		"the broker is mute":             func(_ *testing.T, b broker) { b.Mute(true) },
		"the broker is away":             func(_ *testing.T, b broker) { b.Pause() },
		"logins are refused": func(_ *testing.T, b broker) {
			b.OnFault(always(smftest.OpLogin, smftest.Fault{Code: 401, Text: "Unauthorized"}))
			b.Drop()
		},
		"logins are not answered": func(_ *testing.T, b broker) {
			b.OnFault(always(smftest.OpLogin, smftest.Fault{Silent: true}))
			b.Drop()
		},
		"binds are refused": func(t *testing.T, b broker) {
			b.OnFault(always(smftest.OpBind, smftest.Fault{Code: 503, Text: "Queue Shutdown"}))
			for _, q := range b.Queues() {
				b.Unbind(q, "Queue Shutdown")
			}
		},
		"binds are not answered": func(t *testing.T, b broker) {
			b.OnFault(always(smftest.OpBind, smftest.Fault{Silent: true}))
			for _, q := range b.Queues() {
				b.Unbind(q, "Queue Shutdown")
			}
		},
		"messages are in hand": func(t *testing.T, b broker) { b.produce(t, "t", numbered(100)...) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := startBroker(t, smftest.Options{})
			s := unmanaged(t, b)
			streams := []message.Stream{}
			for _, sub := range []message.Subscription{{}, member} {
				stream, err := subscribeOnly(s, sub)
				if err != nil {
					t.Fatal(err)
				}
				streams = append(streams, stream)
			}
			publish(t, s, message.Auto, &message.Message{})
			for _, stream := range streams {
				receive(t, stream, 1)
			}
			spoil(t, b)
			defer b.Mute(false)
			var wg sync.WaitGroup
			p := publisherOf(t, s, endpointtest.Verbatim{})
			wg.Go(func() {
				if r := p.Publish(context.Background(), message.Auto, &message.Message{}); len(r) != 1 {
					t.Errorf("%d results", len(r))
				}
			})
			for _, stream := range streams {
				wg.Go(func() {
					for {
						if _, err := stream.Receive(context.Background()); err != nil {
							return
						}
					}
				})
			}
			time.Sleep(50 * time.Millisecond) // so that some of it has begun; nothing depends on it
			inTime(t, "closing the streams", func() {
				for _, stream := range streams {
					wg.Go(func() { closeStream(t, stream) })
				}
				inTime(t, "Cleanup", func() {
					if err := s.Cleanup(); err != nil {
						t.Error(err)
					}
				})
				wg.Wait()
			})
		})
	}
}

// unmanaged is an endpoint that the test itself ends.
func unmanaged(t *testing.T, b broker) *Solace {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	s := &Solace{URL: []string{b.URL()}, Producer: &Producer{Topics: []string{"t"}}, Consumer: &Consumer{Topics: []string{"t"}}}
	if err := s.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	return s
}

func subscribeOnly(s *Solace, sub message.Subscription) (message.Stream, error) {
	channel, err := s.Channel(endpointtest.Verbatim{})
	if err != nil {
		return nil, err
	}
	return s.Subscribe(context.Background(), channel, sub)
}

// An endpoint that comes and goes, as with reloads, leaves nothing behind: no goroutine, no
// thread, nobody at the broker, and no file.
func TestRounds(t *testing.T) {
	rounds := 100
	if testing.Short() {
		rounds = 10
	}
	b := startBroker(t, smftest.Options{})
	round := func() {
		s := unmanaged(t, b)
		copied, err := subscribeOnly(s, message.Subscription{})
		if err != nil {
			t.Fatal(err)
		}
		queue, err := subscribeOnly(s, member)
		if err != nil {
			t.Fatal(err)
		}
		if r := publish(t, s, message.Auto, &message.Message{}); r.Status != message.Stored {
			t.Fatalf("%+v", r)
		}
		got, _ := receive(t, queue, 1)
		settle(t, queue, message.Ack, got...)
		receive(t, copied, 1)
		closeStream(t, queue)
		closeStream(t, copied)
		if err := s.Cleanup(); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		round() // what is made once and kept
	}
	goroutines, before := runtime.NumGoroutine(), threads(t)
	for range rounds {
		round()
	}
	eventually(t, "the broker is alone", func() bool { return b.Clients() == 0 && len(b.Subscriptions()) == 0 })
	eventually(t, "the goroutines are as many as before", func() bool { return runtime.NumGoroutine() <= goroutines })
	// The runtime keeps threads that were in the midst of the library; there are few.
	if after := threads(t); after > before+10 {
		t.Errorf("%d threads before, %d after %d rounds", before, after, rounds)
	} else {
		t.Logf("%d threads before, %d after %d rounds", before, after, rounds)
	}
}

// threads is how many the process has, where that is easily known.
func threads(t *testing.T) int {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		if runtime.GOOS != "linux" {
			return 0
		}
		t.Fatal(err)
	}
	return len(tasks)
}

// Everything that was confirmed is read, whatever connections break meanwhile.
func TestNothingIsLost(t *testing.T) {
	messages, drops := 5_000, 5
	if os.Getenv("MESSAGE_API_SOAK") != "" {
		messages, drops = 100_000, 20
	}
	for _, renumber := range []bool{false, true} {
		t.Run(fmt.Sprintf("renumber=%t", renumber), func(t *testing.T) { nothingIsLost(t, renumber, messages, drops) })
	}
}

func nothingIsLost(t *testing.T, renumber bool, messages, drops int) {
	b := startBroker(t, smftest.Options{RenumberAfterRebind: renumber, AckEvery: 8})
	s := b.endpoint(t, &Solace{Producer: &Producer{Topics: []string{"t"}}, Consumer: &Consumer{Topics: []string{"t"}}})
	streams := []message.Stream{open(t, s, member), open(t, s, member)}
	const callers = 8
	var publishing sync.WaitGroup
	p := publisherOf(t, s, endpointtest.Verbatim{})
	for c := range callers {
		publishing.Go(func() {
			for n := c; n < messages; n += callers {
				for { // as a client would: what may be stored is sent again by it alone
					r := p.Publish(context.Background(), message.Auto, &message.Message{Payload: fmt.Append(nil, n)})[0]
					if r.Status == message.Stored {
						break
					}
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	var dropping, reading sync.WaitGroup
	cut := 0
	dropping.Go(func() {
		for range drops {
			time.Sleep(time.Duration(messages/drops) * 100 * time.Microsecond)
			cut += b.Drop()
		}
	})
	var mu sync.Mutex
	got := make(map[string]int)
	ctx, cancel := context.WithCancel(t.Context())
	for _, stream := range streams {
		reading.Go(func() {
			for {
				batch, err := stream.Receive(ctx)
				if err != nil {
					return
				}
				// What can't be settled comes again, and counts then.
				if stream.Settle(ctx, message.Ack, batch.Deliveries...) != nil {
					continue
				}
				mu.Lock()
				for _, d := range batch.Deliveries {
					got[string(d.Payload)]++
				}
				mu.Unlock()
			}
		})
	}
	publishing.Wait()
	dropping.Wait()
	complete := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(got) == messages
	}
	eventually(t, "all messages are read", complete)
	cancel()
	reading.Wait()
	repeated := 0
	for _, n := range got {
		repeated += n - 1
	}
	t.Logf("%d messages, %d drops of %d connections: %d repeated", messages, drops, cut, repeated)
	if cut < 2 {
		t.Errorf("only %d connections were cut", cut)
	}
}
