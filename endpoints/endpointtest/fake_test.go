package endpointtest

import (
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// fakeRig wires all hooks to a fake with the given capabilities.
func fakeRig(caps message.Capabilities) *Rig {
	f := NewFake(caps)
	b := f.Broker
	consumed, letters := 0, 0
	rig := &Rig{
		Endpoint: f,
		Produce:  func(_ *testing.T, messages ...*message.Message) { f.Produce(messages...) },
		Consume: func(t *testing.T, n int) []*message.Message {
			return next(t, f.Messages(), &consumed, n)
		},
		Again: func(*testing.T) endpoints.Endpoint { return &Fake{Broker: b, Caps: caps, Topic: f.Topic} },
		Missing: func(*testing.T) endpoints.Endpoint {
			return &Fake{Broker: b, Caps: caps, Topic: "nowhere"}
		},
		Unreachable: func(*testing.T) endpoints.Endpoint {
			other := NewFake(caps)
			other.Broker.SetDown(true)
			return other
		},
		Cut:           func(*testing.T) { b.SetDown(true) },
		Restore:       func(*testing.T) { b.SetDown(false) },
		CutAfterWrite: func(*testing.T) { b.LoseAnswers(1) },
		Refuse:        func(*testing.T) { b.RefuseNext(1) },
		Restart:       func(*testing.T) { b.Break() },
		Truncate:      func(*testing.T) { b.Truncate(f.Topic) },
		Recreate:      func(*testing.T) { b.Recreate(f.Topic) },
	}
	if caps.DeadLetter {
		rig.DeadLetters = func(t *testing.T, n int) []*message.Message {
			return next(t, b.DeadLetters(f.Topic), &letters, n)
		}
	}
	return rig
}

// next returns the n messages after those that were returned before.
func next(t *testing.T, all []*message.Message, read *int, n int) []*message.Message {
	t.Helper()
	if len(all) < *read+n {
		t.Fatalf("the broker has %d messages, and %d were to be read after the first %d", len(all), n, *read)
	}
	*read += n
	return all[*read-n : *read]
}

// TestFake runs the suite on fakes of several kinds, which also shows that the suite asks
// for nothing that an honest endpoint can't do.
func TestFake(t *testing.T) {
	kinds := map[string]func(*message.Capabilities){
		"everything": func(*message.Capabilities) {},
		"ordered":    func(c *message.Capabilities) { c.OrderedSettle = true },
		"lending": func(c *message.Capabilities) {
			c.Positions, c.Copy, c.MaxHold = false, false, 300*time.Millisecond
		},
		"no positions": func(c *message.Capabilities) { c.Positions = false },
		"broadcast only": func(c *message.Capabilities) {
			*c = message.Capabilities{Subscribe: true, Copy: true}
		},
		"no confirm":    func(c *message.Capabilities) { c.Confirm = false },
		"publish only":  func(c *message.Capabilities) { *c = message.Capabilities{Publish: true, Confirm: true} },
		"automatic ack": func(c *message.Capabilities) { c.ManualSettle, c.DeadLetter, c.Fenced = false, false, false },
	}
	for name, change := range kinds {
		t.Run(name, func(t *testing.T) {
			caps := FakeCapabilities
			change(&caps)
			Run(t, Harness{
				New:  func(*testing.T) *Rig { return fakeRig(caps) },
				Keys: true, Headers: true, HeaderOrder: true, BinaryHeaders: true,
				Patience: 5 * time.Second, Quiet: 50 * time.Millisecond,
			})
		})
	}
}
