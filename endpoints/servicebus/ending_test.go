package servicebus

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/endpoints/servicebus/servicebustest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// Messages that nobody has received are given back when a stream ends, so that others get
// them without waiting for the lock.
func TestNothingStaysLocked(t *testing.T) {
	for _, sessions := range []bool{false, true} {
		for _, count := range []int{1, 7, 100} {
			t.Run(fmt.Sprintf("sessions %t %d", sessions, count), func(t *testing.T) {
				n := namespace(t, servicebustest.Options{})
				n.Queue("q", servicebustest.Entity{Sessions: sessions})
				e := reading(t, n, func(c *Consumer) { c.Sessions = sessions })
				s := subscribe(t, e, message.Subscription{})
				put(t, n, "q", numbered(0, count)...)
				receiveAll(t, s, 1)
				_ = s.Close(context.Background())
				eventually(t, "nothing is locked", func() bool { return held(n) == 0 })
				if got := texts(receiveAll(t, subscribe(t, e, message.Subscription{}), count)); len(strings.Fields(got)) != count {
					t.Errorf("received %s", got)
				}
			})
		}
	}
}

// A receiver that has received nothing for long is replaced by another.
func TestAnIdleReceiverIsReplaced(t *testing.T) {
	n := namespace(t, servicebustest.Options{})
	n.Queue("q", servicebustest.Entity{})
	e := reading(t, n)
	e.consumer.recycle = 50 * time.Millisecond
	s := subscribe(t, e, message.Subscription{}).(*stream)
	epoch := func() uint64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.epoch
	}
	eventually(t, "it was replaced three times", func() bool { return epoch() > 3 })
	put(t, n, "q", numbered(0, 5)...)
	if err := settle(t, s, message.Ack, receiveAll(t, s, 5)...); err != nil {
		t.Error(err)
	}
	if got := n.Counts("q").Receivers; got > 2 {
		t.Errorf("%d receivers are left", got)
	}
}

// Streams share connections, up to a number.
func TestConnectionsAreShared(t *testing.T) {
	n := namespace(t, servicebustest.Options{})
	n.Queue("q", servicebustest.Entity{})
	e := reading(t, n)
	var wg sync.WaitGroup
	for range streamsPerConnection + 1 {
		wg.Go(func() { subscribe(t, e, message.Subscription{}) })
	}
	wg.Wait()
	if got := n.Connections(); got != 2 {
		t.Errorf("%d connections", got)
	}
}

// The end comes in time, whatever is going on, and leaves nothing behind.
func TestShutdownDuringFaults(t *testing.T) {
	for name, fault := range map[string]func(n *servicebustest.Server){
		"nothing":       func(*servicebustest.Server) {},
		"mute":          func(n *servicebustest.Server) { n.Mute(true) },
		"away":          func(n *servicebustest.Server) { n.Pause() },
		"silent sends":  func(n *servicebustest.Server) { always(n, servicebustest.OpSend, servicebustest.Fault{Silent: true}) },
		"silent settle": func(n *servicebustest.Server) { always(n, servicebustest.OpSettle, servicebustest.Fault{Silent: true}) },
		"deleted":       func(n *servicebustest.Server) { n.Delete("q") },
	} {
		for _, sessions := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, sessions %t", name, sessions), func(t *testing.T) {
				t.Parallel()
				n := namespace(t, servicebustest.Options{})
				n.Queue("q", servicebustest.Entity{Sessions: sessions})
				out := sending(t, n, func(p *Producer) { p.SessionID = "one" })
				in := reading(t, n, func(c *Consumer) { c.Sessions = sessions })
				publish(t, out, numbered(0, 50)...)
				s := subscribe(t, in, message.Subscription{})
				some := receiveAll(t, s, 5)
				fault(n)
				var wg sync.WaitGroup
				wg.Go(func() { publish(t, out, numbered(50, 10)...) })
				wg.Go(func() { _ = s.Settle(context.Background(), message.Ack, some...) })
				runtime.Gosched()
				begun := time.Now()
				_ = s.Close(context.Background())
				_ = in.Cleanup()
				_ = out.Cleanup()
				wg.Wait()
				if took := time.Since(begun); took > 7*time.Second {
					t.Errorf("it took %v", took)
				}
			})
		}
	}
}
