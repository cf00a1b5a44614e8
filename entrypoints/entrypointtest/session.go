// Package entrypointtest lets an entrypoint be tested without gateway and broker: a
// Session whose ends, ticks and publish results the test decides, and a Feed that hands
// out what the test put in, encoded by the entrypoint's own Encoder.
//
// The doubles are strict. They fail the test when an entrypoint changes a shared frame,
// calls a feed from two goroutines at a time, or leaves a feed, an OnEnd or an Every
// behind when the test is over.
package entrypointtest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// Patience is how long Await, and the checks at the end of a test, wait.
const Patience = 10 * time.Second

// Session is a scripted entrypoints.Session for one exchange. Set the exported fields
// before the entrypoint runs; the methods may be called at any time.
type Session struct {
	// ID is what Identity returns.
	ID entrypoints.Identity
	// Logs holds what the entrypoint logged, from debug level on.
	Logs *observer.ObservedLogs
	// Feed is what Subscribe returns.
	Feed *Feed
	// PublishFunc answers Publish; nil answers Stored for each message.
	PublishFunc func(ctx context.Context, messages []*message.Message) ([]message.Result, error)
	// SubscribeFunc, if set, may refuse a Subscribe or hold it up.
	SubscribeFunc func(ctx context.Context, want entrypoints.Want) error
	// RealTime makes Every tick by the clock. Otherwise only Tick does it.
	RealTime bool

	tb     testing.TB
	logger *zap.Logger

	mu        sync.Mutex
	published []*message.Message
	wants     []entrypoints.Want
	ended     *entrypoints.End
	onEnd     map[int]func(entrypoints.End)
	every     map[int]ticking
	next      int
	sent      Count
	received  Count
}

// Count is a number of messages and their bytes.
type Count struct{ Messages, Bytes int }

type ticking struct {
	interval time.Duration
	f        func(time.Time)
	quit     chan struct{}
}

// NewSession makes a session whose leftovers are checked when the test ends.
func NewSession(tb testing.TB) *Session {
	core, logs := observer.New(zap.DebugLevel)
	s := &Session{
		ID: entrypoints.Identity{
			RequestID: "5b0f9b3c-1111-4222-8333-444455556666", TransactionID: "5b0f9b3c-7777-4888-8999-aaaabbbbcccc",
			Client: "client-1",
		},
		Logs: logs, tb: tb, logger: zap.New(core),
		onEnd: make(map[int]func(entrypoints.End)), every: make(map[int]ticking),
	}
	s.Feed = &Feed{tb: tb}
	tb.Cleanup(s.checkLeftovers)
	return s
}

func (s *Session) checkLeftovers() {
	if left := s.awaitNothingLeft(); left != "" {
		s.tb.Errorf("the entrypoint left behind: %s", left)
	}
}

func (s *Session) awaitNothingLeft() (left string) {
	deadline := time.Now().Add(Patience)
	for {
		left = s.leftovers()
		if left == "" || time.Now().After(deadline) {
			return left
		}
		time.Sleep(time.Millisecond)
	}
}

func (s *Session) leftovers() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.onEnd) > 0 || len(s.every) > 0 || s.Feed.open() {
		return fmt.Sprintf("%d OnEnd, %d Every, feed open: %t", len(s.onEnd), len(s.every), s.Feed.open())
	}
	return ""
}

// Identity returns s.ID.
func (s *Session) Identity() entrypoints.Identity { return s.ID }

// Logger returns the logger that fills s.Logs.
func (s *Session) Logger() *zap.Logger { return s.logger }

// Publish records the messages and answers by PublishFunc.
func (s *Session) Publish(ctx context.Context, messages ...*message.Message) ([]message.Result, error) {
	messages = slices.Clone(messages)
	s.mu.Lock()
	s.published = append(s.published, messages...)
	s.mu.Unlock()
	if s.PublishFunc != nil {
		return s.PublishFunc(ctx, messages)
	}
	results := make([]message.Result, len(messages))
	for i, m := range messages {
		results[i] = message.Result{Status: message.Stored, ID: m.ID}
	}
	return results, nil
}

// Published returns all messages that Publish saw.
func (s *Session) Published() []*message.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.published)
}

// Subscribe hands out s.Feed, unless SubscribeFunc refuses.
func (s *Session) Subscribe(ctx context.Context, want entrypoints.Want) (entrypoints.Feed, error) {
	s.mu.Lock()
	s.wants = append(s.wants, want)
	s.mu.Unlock()
	if s.SubscribeFunc != nil {
		if err := s.SubscribeFunc(ctx, want); err != nil {
			return nil, err
		}
	}
	s.Feed.begin(want)
	return s.Feed, nil
}

// Wants returns what was asked of Subscribe, call by call.
func (s *Session) Wants() []entrypoints.Want {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.wants)
}

// End ends the session, as the gateway would. Only the first call counts.
func (s *Session) End(end entrypoints.End) {
	s.mu.Lock()
	if s.ended != nil {
		s.mu.Unlock()
		return
	}
	s.ended = &end
	waiting := make([]func(entrypoints.End), 0, len(s.onEnd))
	for _, f := range s.onEnd {
		waiting = append(waiting, f)
	}
	s.mu.Unlock()
	for _, f := range waiting {
		go f(end)
	}
}

// OnEnd registers f; forget must be called before the test ends.
func (s *Session) OnEnd(f func(entrypoints.End)) (forget func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != nil {
		go f(*s.ended)
	}
	id := s.next
	s.next++
	s.onEnd[id] = f
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.onEnd, id)
	}
}

// Withheld says that of credentials.
func (s *Session) Withheld(header string) bool {
	return header == "Authorization" || header == "Cookie"
}

// Every registers f; stop must be called before the test ends.
func (s *Session) Every(d time.Duration, f func(now time.Time)) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.next
	s.next++
	t := ticking{interval: d, f: f, quit: make(chan struct{})}
	s.every[id] = t
	if s.RealTime {
		go t.run()
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if _, ok := s.every[id]; ok {
			close(t.quit)
			delete(s.every, id)
		}
	}
}

func (t ticking) run() {
	ticker := time.NewTicker(t.interval)
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			t.f(now)
		case <-t.quit:
			return
		}
	}
}

// Tick calls everything that was registered with Every. now may lie in the future.
func (s *Session) Tick(now time.Time) {
	s.mu.Lock()
	var due []func(time.Time)
	for _, t := range s.every {
		due = append(due, t.f)
	}
	s.mu.Unlock()
	for _, f := range due {
		f(now)
	}
}

// Intervals returns the intervals that are registered with Every, sorted.
func (s *Session) Intervals() []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []time.Duration
	for _, t := range s.every {
		all = append(all, t.interval)
	}
	slices.Sort(all)
	return all
}

// Sent adds to what SentCount returns.
func (s *Session) Sent(messages, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent.Messages += messages
	s.sent.Bytes += bytes
}

// Received adds to what ReceivedCount returns.
func (s *Session) Received(messages, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.received.Messages += messages
	s.received.Bytes += bytes
}

// SentCount returns the sum of all calls of Sent.
func (s *Session) SentCount() Count {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent
}

// ReceivedCount returns the sum of all calls of Received.
func (s *Session) ReceivedCount() Count {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.received
}

// Await waits until ok, or fails the test after Patience.
func Await(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	deadline := time.Now().Add(Patience)
	for !ok() {
		if time.Now().After(deadline) {
			tb.Fatalf("waited %s in vain for %s", Patience, what)
		}
		time.Sleep(time.Millisecond)
	}
}

// Interface guards
var _ entrypoints.Session = (*Session)(nil)
