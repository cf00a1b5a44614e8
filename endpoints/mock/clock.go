package mock

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

const (
	defaultWindow = 500
	batchBytes    = 64 << 10
	// pace is the shortest time between two batches: messages that come faster are
	// delivered together.
	pace = time.Millisecond
	// channelName stands in marks. There is one channel, with one partition.
	channelName = "mock"
)

var errClosed = errors.New("the subscription was closed")

// template is what all messages of an endpoint have in common.
type template struct {
	interval time.Duration
	payload  []byte
	headers  []message.Header
	metadata []message.Field
	count    int64 // 0 is unlimited
}

// make makes the message with the number n, which is due at at.
func (t *template) make(n int64, at time.Time) *message.Message {
	return &message.Message{
		ID: strconv.FormatInt(n, 10), Payload: t.payload, Headers: t.headers, Metadata: t.metadata, Time: at,
	}
}

// grid says which message is due when: number first+k at start + (k+1) intervals. Nothing
// is ever early.
type grid struct {
	tmpl  *template
	start time.Time
	first int64
}

func (g *grid) at(n int64) time.Time {
	return g.start.Add(time.Duration(n-g.first+1) * g.tmpl.interval)
}

// due is how many messages have come by now: all numbers below it.
func (g *grid) due(now time.Time) int64 {
	n := g.first + int64(now.Sub(g.start)/g.tmpl.interval)
	if g.tmpl.count > 0 {
		n = min(n, g.tmpl.count)
	}
	return n
}

// wait is how long it takes until the message n is due; ok is false when it never is.
func (g *grid) wait(n int64, now time.Time) (d time.Duration, ok bool) {
	if g.tmpl.count > 0 && n >= g.tmpl.count {
		return 0, false
	}
	return max(g.at(n).Sub(now), pace), true
}

// room is how many messages fit into a batch.
func (t *template) room(window message.Window) int {
	n := window.Messages
	if n <= 0 {
		n = defaultWindow
	}
	size := max(len(t.payload), 1)
	limit := batchBytes
	if window.Bytes > 0 {
		limit = min(limit, window.Bytes)
	}
	return max(1, min(n, limit/size+1))
}

// Channel implements endpoints.Subscribing: there is one.
func (m *Mock) Channel(endpoints.Values) (endpoints.Channel, error) {
	return endpoints.Channel{Key: channelName}, nil
}

// Subscribe implements endpoints.Subscribing.
func (m *Mock) Subscribe(_ context.Context, _ endpoints.Channel, sub message.Subscription) (message.Stream, error) {
	if m.hub != nil {
		return m.hub.subscribe(sub.Window), nil
	}
	if sub.Mode == message.Member {
		return m.groups.join(sub), nil
	}
	return m.newClock(sub), nil
}

// clock is a stream by position: Broadcast, Assigned, and auto without an identity.
type clock struct {
	mock   *Mock
	name   string
	window message.Window
	gap    *message.Gap
	closed chan struct{}
	once   sync.Once

	mu   sync.Mutex
	grid grid
	next int64
}

func (m *Mock) newClock(sub message.Subscription) *clock {
	c := &clock{mock: m, name: sub.Name, window: sub.Window, closed: make(chan struct{})}
	switch {
	case sub.Position != nil && sub.Position.Origin != m.origin:
		c.gap = &message.Gap{Reason: message.GapForeign, Detail: "the cursor belongs to another channel; reading begins anew"}
	case sub.Position != nil:
		mark, _ := sub.Position.Find(channelName, 0)
		c.next = mark.Next
	case sub.Name != "":
		c.next = m.groups.bookmark(sub.Name)
	}
	c.grid = grid{tmpl: &m.tmpl, start: time.Now(), first: c.next}
	return c
}

// Position implements message.Positioned.
func (c *clock) Position() message.Position {
	c.mu.Lock()
	defer c.mu.Unlock()
	return message.Position{Origin: c.mock.origin, Marks: []message.Mark{{Channel: channelName, Next: c.next}}}
}

// Bookmark implements message.Bookmarker.
func (c *clock) Bookmark(_ context.Context, at message.Position) error {
	if mark, ok := at.Find(channelName, 0); ok && c.name != "" && at.Origin == c.mock.origin {
		c.mock.groups.setBookmark(c.name, mark.Next)
	}
	return nil
}

// Receive implements message.Stream.
func (c *clock) Receive(ctx context.Context) (message.Batch, error) {
	if gap := c.takeGap(); gap != nil {
		return message.Batch{Gap: gap}, nil
	}
	for {
		batch, wait, ticking := c.take(time.Now())
		if len(batch.Deliveries) > 0 {
			return batch, nil
		}
		if err := sleep(ctx, c.closed, nil, wait, ticking); err != nil {
			return message.Batch{}, err
		}
	}
}

func (c *clock) takeGap() *message.Gap {
	c.mu.Lock()
	defer c.mu.Unlock()
	gap := c.gap
	c.gap = nil
	return gap
}

// take returns what is due, or how long to wait for it.
func (c *clock) take(now time.Time) (batch message.Batch, wait time.Duration, ticking bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(c.grid.due(now)-c.next, int64(c.grid.tmpl.room(c.window)))
	if n <= 0 {
		wait, ticking = c.grid.wait(c.next, now)
		return batch, wait, ticking
	}
	batch.Deliveries = make([]message.Delivery, n)
	for i := range batch.Deliveries {
		at := c.grid.at(c.next)
		batch.Deliveries[i] = message.Delivery{
			Message: c.grid.tmpl.make(c.next, at), Attempt: 1, Lane: channelName,
			Mark: message.Mark{Channel: channelName, Next: c.next + 1},
		}
		c.next++
	}
	return batch, 0, true
}

// Settle implements message.Stream: nothing is owed when reading by position.
func (c *clock) Settle(context.Context, message.Settlement, ...message.Delivery) error { return nil }

// Close implements message.Stream.
func (c *clock) Close(context.Context) error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

// sleep waits for the time, for wake, for the end of the subscription, or for ctx.
func sleep(ctx context.Context, closed, wake <-chan struct{}, d time.Duration, ticking bool) error {
	var tick <-chan time.Time
	if ticking {
		t := time.NewTimer(d)
		defer t.Stop()
		tick = t.C
	}
	select {
	case <-tick:
		return nil
	case <-wake:
		return nil
	case <-closed:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}
