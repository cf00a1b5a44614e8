package rabbitmq

import (
	"context"
	"sync"
	"sync/atomic"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/caddy-message-api/caddy-message-api/message"
)

const (
	// outletCount is how many channels a connection publishes on. A channel is one process
	// at the broker.
	outletCount = 2
	// maxUnder is how many messages of a channel may be unconfirmed.
	maxUnder = 4096
)

// outlet is a place for a channel to publish on. The channel is opened when it is needed,
// and again after the broker closed it.
type outlet struct {
	cur     atomic.Pointer[pipe]
	opening chan struct{} // taken by who opens it
}

// publication is one message on its way.
type publication struct {
	exchange, key, id string
	size              int
	mark              int64 // of the wire, before it was written
	confirm           *amqp.DeferredConfirmation
	fate              *fate // set when the channel was closed on it
}

// place is what a returned message is recognised by.
type place struct{ exchange, key, id string }

// pipe is a channel in confirm mode.
type pipe struct {
	conn   *connection
	ch     *amqp.Channel
	lost   func(exchange string, err error)
	closes chan *amqp.Error
	load   atomic.Int32 // messages that somebody waits for
	handed chan *publication
	gone   chan struct{} // the watcher has ended, and the channel with it

	judged   sync.Once
	returned atomic.Int32 // how many returns wait for who they belong to

	mu        sync.Mutex
	under     []*publication  // in the order of sending; some may be confirmed
	space     []*publication  // that under was made in
	confirmed map[string]bool // exchanges that took something on this channel
	returns   map[place]int
}

// outlet returns the channel that has least to do, and opens another one when the others
// are busy.
func (c *connection) outlet(ctx context.Context, p *producer) (*pipe, error) {
	best := &c.outlets[0]
	least := int32(1 << 30)
	for i := range c.outlets {
		load := int32(0)
		if cur := c.outlets[i].cur.Load(); cur != nil && !cur.ch.IsClosed() {
			load = cur.load.Load()
		}
		if load < least {
			best, least = &c.outlets[i], load
		}
		if load == 0 {
			break
		}
	}
	if cur := best.cur.Load(); cur != nil && !cur.ch.IsClosed() {
		return cur, nil
	}
	return best.open(ctx, c, p)
}

// open opens the channel. Who comes meanwhile waits.
func (o *outlet) open(ctx context.Context, c *connection, p *producer) (*pipe, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case o.opening <- struct{}{}:
		defer func() { <-o.opening }()
	case <-ctx.Done():
		return nil, fault("opening a channel", ctx.Err())
	}
	if cur := o.cur.Load(); cur != nil && !cur.ch.IsClosed() {
		return cur, nil
	}
	ch, err := within(ctx, func() (*amqp.Channel, error) {
		ch, err := c.Channel()
		if err == nil {
			err = ch.Confirm(false)
		}
		return ch, err
	}, func(ch *amqp.Channel) { _ = ch.Close() })
	if err != nil {
		return nil, fault("opening a channel", err)
	}
	cur := &pipe{
		conn: c, ch: ch, lost: p.lost,
		closes: ch.NotifyClose(make(chan *amqp.Error, 1)),
		handed: make(chan *publication, maxUnder), gone: make(chan struct{}),
		confirmed: make(map[string]bool), returns: make(map[place]int),
	}
	// The library tells its listeners one after the other, and confirms the message only
	// then. So when the second has been told, what the first was told has been noted, and
	// whoever sees the confirmation sees the return.
	first, second := ch.NotifyReturn(make(chan amqp.Return)), ch.NotifyReturn(make(chan amqp.Return))
	c.watchers.Go(func() { cur.watch(first, second) })
	o.cur.Store(cur)
	return cur, nil
}

// admit waits until there is room for one more message.
func (p *pipe) admit(ctx context.Context, late <-chan struct{}) error {
	for {
		p.mu.Lock()
		p.trim()
		var oldest *publication
		if len(p.under) >= maxUnder {
			oldest = p.under[0]
		}
		p.mu.Unlock()
		if oldest == nil {
			return p.conn.wire.admit(ctx, late)
		}
		select {
		case <-oldest.confirm.Done():
		case <-ctx.Done():
			return ctx.Err()
		case <-late:
			return context.DeadlineExceeded
		}
	}
}

// trim forgets what is confirmed. p.mu is held.
func (p *pipe) trim() {
	n := 0
	for ; n < len(p.under) && isDone(p.under[n].confirm); n++ {
		u := p.under[n]
		if !u.confirm.Acked() && p.ch.IsClosed() {
			break // it is to be judged
		}
		if !p.confirmed[u.exchange] && u.confirm.Acked() {
			if len(p.confirmed) >= maxKnown {
				clear(p.confirmed)
			}
			p.confirmed[u.exchange] = true
		}
		p.under[n] = nil
	}
	if p.under = p.under[n:]; len(p.under) == 0 {
		p.under = p.space[:0] // which can be used again from its start
	}
}

func isDone(c *amqp.DeferredConfirmation) bool {
	select {
	case <-c.Done():
		return true
	default:
		return false
	}
}

// publish hands a message to the library, which writes it at once.
func (p *pipe) publish(u *publication, mandatory bool, msg amqp.Publishing) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	u.mark = p.conn.wire.mark()
	confirm, err := p.ch.PublishWithDeferredConfirm(u.exchange, u.key, mandatory, false, msg)
	if err != nil {
		return err
	}
	u.confirm = confirm
	if p.under = append(p.under, u); len(p.under) == 1 {
		p.space = p.under
	}
	p.load.Add(1)
	return nil
}

// outcome says what became of a message whose confirmation has come, or can't come any
// more. It is asked once for each message.
func (p *pipe) outcome(u *publication) (message.Status, error) {
	p.load.Add(-1)
	switch {
	case u.confirm.Acked():
		if p.returned.Load() > 0 && p.claim(u) {
			return message.Refused, message.Errorf(message.NotFound,
				"no queue takes messages from exchange %q with routing key %q (AMQP 312)", u.exchange, u.key)
		}
		return message.Stored, nil
	case !p.ch.IsClosed():
		e := message.Errorf(message.Unavailable,
			"RabbitMQ refused the message for exchange %q with routing key %q (basic.nack): a queue is full or not working", u.exchange, u.key)
		e.RetryAfter = retryAfter
		return message.Refused, e
	}
	p.judged.Do(p.judge)
	p.mu.Lock()
	defer p.mu.Unlock()
	if u.fate == nil {
		return message.Unknown, p.unknown(errChannelLost)
	}
	return u.fate.status, u.fate.err
}

// claim takes the return that belongs to a message, if there is one.
func (p *pipe) claim(u *publication) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := place{u.exchange, u.key, u.id}
	n := p.returns[at]
	if n == 0 {
		return false
	}
	if n == 1 {
		delete(p.returns, at)
	} else {
		p.returns[at] = n - 1
	}
	p.returned.Add(-1)
	return true
}

// hand leaves a message that nobody waits for to the watcher.
func (p *pipe) hand(ctx context.Context, u *publication) {
	select {
	case p.handed <- u:
		return
	default:
	}
	select {
	case p.handed <- u:
	case <-p.gone:
		p.settle(u)
	case <-ctx.Done(): // then its fate is not told
		p.load.Add(-1)
	}
}

// settle tells of a message that nobody waits for and that is not stored.
func (p *pipe) settle(u *publication) {
	if status, err := p.outcome(u); status != message.Stored {
		p.lost(u.exchange, err)
	}
}

// watch notes what the broker returns, and looks after messages that nobody waits for,
// until the channel ends.
func (p *pipe) watch(first, second <-chan amqp.Return) {
	var (
		current *publication
		done    <-chan struct{}
		in      = p.handed
	)
	for {
		select {
		case r, ok := <-first:
			if !ok {
				p.finish(current)
				return
			}
			p.mu.Lock()
			p.returns[place{r.Exchange, r.RoutingKey, r.MessageId}]++
			p.mu.Unlock()
			p.returned.Add(1)
			<-second
		case current = <-in:
			in, done = nil, current.confirm.Done()
		case <-done:
			p.settle(current)
			current, done, in = nil, nil, p.handed
		}
	}
}

// finish looks after what was left to the watcher when the channel ended.
func (p *pipe) finish(current *publication) {
	close(p.gone)
	for {
		if current != nil {
			<-current.confirm.Done()
			p.settle(current)
		}
		select {
		case current = <-p.handed:
		default:
			return
		}
	}
}
