package httpget

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

const (
	// maxResponse ends a response: it is built in memory, so that it has a length and can
	// still become an error.
	maxResponse = 16 << 20
	// pollAtMost keeps one burst, which the bound on bytes can't cut, small.
	pollAtMost = 100
	// maxGaps ends a response whose broker has nothing but gaps to tell.
	maxGaps = 16
)

// collected is what a response will hold.
type collected struct {
	items    []byte
	messages int
	bytes    int
	gaps     []gap
	err      error
}

// gap is a message.Gap with its place among the items.
type gap struct {
	message.Gap
	Before int `json:"before"`
}

// collector gathers messages until the response is full, its time is over, the session
// ends or the client is gone.
type collector struct {
	collected
	limit    int
	maxBytes int
	deadline time.Time

	// wake is the only thing that is waited for, so that waiting needs no select.
	wake    chan struct{}
	ended   atomic.Bool
	waiting bool
	release [3]func()
}

func newCollector(e *Entrypoint, limit int, deadline time.Time) *collector {
	return &collector{limit: limit, maxBytes: e.maxBytes, deadline: deadline, wake: make(chan struct{}, 1)}
}

func (c *collector) wakeUp() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *collector) collect(ctx context.Context, feed entrypoints.Feed, s entrypoints.Session) {
	for !c.full() {
		burst, err := feed.Poll(min(c.limit-c.messages, pollAtMost))
		if err != nil {
			c.err = err
			return
		}
		if !burst.Empty() {
			c.add(&burst)
			if time.Now().Before(c.deadline) {
				continue
			}
			return
		}
		c.wait(ctx, s)
		if c.ended.Load() || ctx.Err() != nil || !time.Now().Before(c.deadline) {
			return
		}
	}
}

func (c *collector) full() bool {
	return c.messages >= c.limit || len(c.items) >= c.maxBytes || len(c.gaps) >= maxGaps
}

// add copies the burst: it is valid only until the next Poll.
func (c *collector) add(burst *entrypoints.Burst) {
	if burst.Gap != nil {
		c.gaps = append(c.gaps, gap{Gap: *burst.Gap, Before: c.messages})
	}
	for _, frame := range burst.Frames {
		c.items = append(c.items, frame...)
	}
	c.messages += burst.Messages
	c.bytes += burst.Bytes
}

// wait returns when there is something new. Timer and callbacks are made at the first
// wait: a request that finds all it wants does without them.
func (c *collector) wait(ctx context.Context, s entrypoints.Session) {
	if !c.waiting {
		c.waiting = true
		timer := time.AfterFunc(time.Until(c.deadline), c.wakeUp)
		gone := context.AfterFunc(ctx, c.wakeUp)
		c.release = [...]func(){
			func() { timer.Stop() },
			func() { gone() },
			s.OnEnd(func(entrypoints.End) {
				c.ended.Store(true)
				c.wakeUp()
			}),
		}
	}
	<-c.wake
}

func (c *collector) stop() {
	if !c.waiting {
		return
	}
	for _, release := range c.release {
		release()
	}
}
