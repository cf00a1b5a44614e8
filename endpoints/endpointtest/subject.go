package endpointtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// subscribeLimit is how long Subscribe, a publish to a broker that is down, and Close may
// take: the five seconds of the contract, and one for a busy machine.
const subscribeLimit = 6 * time.Second

// subject is what one promise is checked on: a fresh rig, with the verbs in which the
// promises are told.
type subject struct {
	*testing.T
	Harness
	*Rig
	caps message.Capabilities
	mode message.Mode
	// run makes broker-side names differ from those of earlier runs.
	run string
	// fed is how many messages were produced so far.
	fed int
	rng *rand.Rand
}

func newSubject(t *testing.T, h Harness, f *facts, mode message.Mode) *subject {
	t.Helper()
	options := append(slices.Clone(h.Ignore), currentGoroutines())
	t.Cleanup(func() {
		if !t.Failed() { // a failure explains itself better than what it left behind
			noLeak(t, h.Patience, options)
		}
	})
	seed := rand.Uint64()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("random seed %d", seed)
		}
	})
	s := &subject{
		T: t, Harness: h, Rig: h.New(t), caps: f.caps, mode: mode,
		run: strconv.FormatUint(seed, 36), rng: rand.New(rand.NewPCG(seed, 0)),
	}
	if s.Values == nil {
		s.Values = Verbatim{}
	}
	return s
}

// another is an endpoint as another process would have it, where the rig knows how.
func (s *subject) another() endpoints.Endpoint {
	if s.Again == nil {
		return s.Endpoint
	}
	return s.Again(s.T)
}

// name makes a broker-side name for an identity.
func (s *subject) name(identifier string) string { return "suite-" + s.run + "." + identifier }

// within is a context for what must happen.
func (s *subject) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	s.Cleanup(cancel)
	return ctx
}

// make makes n messages that are told apart by a number in their payload.
func (s *subject) make(n, size int) []*message.Message {
	messages := make([]*message.Message, n)
	for i := range messages {
		text := fmt.Sprintf("message %06d", s.fed+i)
		if pad := size - len(text); pad > 0 {
			text += " " + strings.Repeat("x", pad-1)
		}
		messages[i] = &message.Message{
			Key:     fmt.Appendf(nil, "key-%d", (s.fed+i)%7),
			Payload: []byte(text),
		}
	}
	s.fed += n
	return messages
}

// feed puts n messages into the channel and returns their numbers. Where the channel
// fills by itself it does nothing and returns nil.
func (s *subject) feed(n int) []int { return s.feedSized(n, 0) }

func (s *subject) feedSized(n, size int) []int {
	s.Helper()
	if s.Generates {
		return nil
	}
	numbers := make([]int, n)
	for i := range numbers {
		numbers[i] = s.fed + i
	}
	s.Produce(s.T, s.make(n, size)...)
	return numbers
}

// number tells which message this is.
func (s *subject) number(m *message.Message) int {
	s.Helper()
	text := m.ID
	if !s.Generates {
		fields := strings.Fields(string(m.Payload))
		if len(fields) < 2 || fields[0] != "message" {
			s.Fatalf("payload %.60q is none that was produced", m.Payload)
		}
		text = fields[1]
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		s.Fatalf("message %q has no number: %v", text, err)
	}
	return n
}

func (s *subject) numbers(deliveries []message.Delivery) []int {
	s.Helper()
	numbers := make([]int, len(deliveries))
	for i, d := range deliveries {
		numbers[i] = s.number(d.Message)
	}
	return numbers
}

// exactly checks that the deliveries are the wanted messages, each once. Where the
// channel fills by itself it checks that none is missing in between.
func (s *subject) exactly(deliveries []message.Delivery, want []int) {
	s.Helper()
	got := s.numbers(deliveries)
	slices.Sort(got)
	if unique := slices.Compact(slices.Clone(got)); len(unique) != len(got) {
		s.Errorf("messages came more than once: %v", got)
	}
	s.complete(deliveries, want)
}

// complete checks that the deliveries are the wanted messages, each at least once.
func (s *subject) complete(deliveries []message.Delivery, want []int) {
	s.Helper()
	got := s.numbers(deliveries)
	slices.Sort(got)
	got = slices.Compact(got)
	if s.Generates {
		for i := 1; i < len(got); i++ {
			if got[i] != got[i-1]+1 {
				s.Errorf("nothing came between messages %d and %d", got[i-1], got[i])
			}
		}
		return
	}
	want = slices.Clone(want)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		s.Errorf("received messages %v, want %v", got, want)
	}
}

// none checks that no delivery is one of the forbidden ones.
func (s *subject) none(deliveries, forbidden []message.Delivery, why string) {
	s.Helper()
	old := s.numbers(forbidden)
	for _, n := range s.numbers(deliveries) {
		if slices.Contains(old, n) {
			s.Errorf("message %d came again, but %s", n, why)
		}
	}
}

// inOrder checks that within each lane the messages stand in the order in which they
// were produced.
func (s *subject) inOrder(deliveries []message.Delivery) {
	s.Helper()
	last := make(map[string]int)
	for _, d := range deliveries {
		n := s.number(d.Message)
		if before, ok := last[d.Lane]; ok && n <= before {
			s.Errorf("lane %q: message %d came after %d", d.Lane, n, before)
		}
		last[d.Lane] = n
	}
}

// eventually polls until f is true.
func (s *subject) eventually(what string, f func() bool) {
	s.Helper()
	for deadline := time.Now().Add(s.Patience); !f(); {
		if time.Now().After(deadline) {
			s.Fatalf("%s: not within %v", what, s.Patience)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
