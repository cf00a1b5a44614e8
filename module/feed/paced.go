package feed

import (
	"context"
	"sync"
	"time"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// pacedBurst is how many messages are asked for at a time: few enough that several sessions
// of one client get their share, and enough to make a write worth it.
const pacedBurst = 64

// paced is a feed that is read no faster than it is allowed to be.
type paced struct {
	entrypoints.Feed
	pace     func(want int) (allowed int, wait time.Duration)
	refund   func(n int)
	wake     func()
	pacedOut func()

	// behind: it was held back and has not been read to its end since, so that what was
	// dropped was dropped for that. Only Poll uses it.
	behind bool
	next   uint64 // the sequence number of the next message

	mu     sync.Mutex
	timer  *time.Timer // made when it is held back for the first time
	held   bool        // until the timer fires
	closed bool
}

// Paced reads f as fast as pace allows and no faster. Before each reading pace is asked for
// a number of messages: it answers how many may be read, or, with none, how long to wait.
// What was allowed and was not there goes to refund. When the time to wait is over, wake is
// called, which must be the Wake that f has; until then pace is not asked again. pacedOut,
// unless it is nil, is called each time that reading is held back.
//
// What is not read stays where it is: at the broker for a stream of one's own, in the log for
// a broadcast. A session that falls out of the log because it was held back is told of a gap
// with reason rate instead of slow_client.
func Paced(f entrypoints.Feed, pace func(want int) (allowed int, wait time.Duration), refund func(n int), wake, pacedOut func()) entrypoints.Feed {
	return &paced{
		Feed: f, pace: pace, refund: refund, wake: wake, pacedOut: pacedOut, next: 1,
	}
}

// Poll implements entrypoints.Feed.
func (p *paced) Poll(limit int) (entrypoints.Burst, error) {
	if p.waiting() {
		return entrypoints.Burst{First: p.next}, nil
	}
	want := pacedBurst
	if limit > 0 {
		want = min(limit, want)
	}
	allowed, wait := p.pace(want)
	if allowed <= 0 {
		p.holdBack(wait)
		return entrypoints.Burst{First: p.next}, nil
	}
	burst, err := p.Feed.Poll(allowed)
	p.next = burst.First + uint64(burst.Messages)
	if unused := allowed - burst.Messages; unused > 0 {
		p.refund(unused)
	}
	if burst.Gap != nil && burst.Gap.Reason == message.GapSlow && p.behind {
		// A new one: sessions of one log may share the old one.
		burst.Gap = &message.Gap{Reason: message.GapRate, Detail: "messages came faster than this client may receive them, and what it had not read was dropped"}
	}
	if burst.Empty() {
		p.behind = false
	}
	return burst, err
}

func (p *paced) waiting() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held || p.closed
}

func (p *paced) holdBack(wait time.Duration) {
	p.behind = true
	p.arm(max(wait, time.Millisecond)) // who asks again at once would ask for ever
	if p.pacedOut != nil {
		p.pacedOut()
	}
}

func (p *paced) arm(wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.held = true
	if p.timer == nil {
		p.timer = time.AfterFunc(wait, p.goOn)
		return
	}
	p.timer.Reset(wait)
}

// goOn ends the waiting. wake is called under the lock, so that it is not called once Close
// has returned; it does not block.
func (p *paced) goOn() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.held = false
	p.wake()
}

// Close implements entrypoints.Feed.
func (p *paced) Close(ctx context.Context) error {
	p.stop()
	return p.Feed.Close(ctx)
}

func (p *paced) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.timer != nil {
		p.timer.Stop()
	}
}

// Interface guards
var _ entrypoints.Feed = (*paced)(nil)
