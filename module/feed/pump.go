package feed

import (
	"context"
	"errors"
	"fmt"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// pump receives from a stream of one's own, one batch ahead of the session at most, so
// that the window at the broker stays the only buffer.
//
// As long as the stream has something ready whenever it is asked, the session's goroutine
// receives by itself. Only a stream that makes it wait gets a goroutine of its own.
type pump struct {
	stream  message.Stream
	opt     *Options
	running bool

	cancel context.CancelFunc
	done   chan struct{}
	want   chan struct{} // the session took the last batch
	ready  chan message.Batch
	err    error // set before ready is closed, or when not running
}

// ended is a context that is over: receiving with it returns what is ready, or at once.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

func newPump(stream message.Stream, opt *Options) *pump { return &pump{stream: stream, opt: opt} }

func (p *pump) start() {
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel, p.done = cancel, make(chan struct{})
	p.want, p.ready = make(chan struct{}, 1), make(chan message.Batch, 1)
	p.running = true
	p.want <- struct{}{}
	go p.run(ctx)
}

func (p *pump) run(ctx context.Context) {
	defer close(p.done)
	defer p.opt.Wake()
	defer close(p.ready)
	for {
		select {
		case <-p.want:
		case <-ctx.Done():
			p.err = ctx.Err()
			return
		}
		batch, err := p.receive(ctx)
		if err != nil {
			p.err = err
			return
		}
		p.ready <- batch
		p.opt.Wake()
	}
}

// receive gets the next batch with something in it. At at_most_once it is settled here,
// before anybody sees it; a batch that can't be settled is dropped, counted and told as
// a gap.
func (p *pump) receive(ctx context.Context) (message.Batch, error) {
	var gap *message.Gap
	for {
		batch, err := p.stream.Receive(ctx)
		if err != nil {
			return batch, err
		}
		if p.opt.QoS == message.AtMostOnce && len(batch.Deliveries) > 0 {
			if err := p.settleFirst(batch.Deliveries); err != nil {
				if p.opt.Dropped != nil {
					p.opt.Dropped(len(batch.Deliveries))
				}
				gap = &message.Gap{Reason: message.GapUnsettled, Detail: fmt.Sprintf(
					"%d messages could not be settled before hand-over and were dropped", len(batch.Deliveries))}
				continue
			}
		}
		if batch.Gap == nil {
			batch.Gap = gap
		}
		if len(batch.Deliveries) > 0 || batch.Gap != nil {
			return batch, nil
		}
	}
}

func (p *pump) settleFirst(deliveries []message.Delivery) error {
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	return p.stream.Settle(ctx, message.Ack, deliveries...)
}

// take returns the next batch, if there is one. ok is false when there is none; err is
// final.
func (p *pump) take() (batch message.Batch, ok bool, err error) {
	if !p.running {
		if p.err != nil {
			return batch, false, p.err
		}
		batch, err := p.receive(ended)
		switch {
		case err == nil:
			return batch, true, nil
		case !errors.Is(err, context.Canceled):
			p.err = err
			return batch, false, err
		}
		p.start()
	}
	select {
	case batch, open := <-p.ready:
		if !open {
			return batch, false, p.err
		}
		p.want <- struct{}{}
		return batch, true, nil
	default:
		return batch, false, nil
	}
}

// stop ends receiving; closing the stream is the caller's.
func (p *pump) stop() {
	if p.running {
		p.cancel()
		<-p.done
	}
}

// left is what was received and not taken before stop.
func (p *pump) left() []message.Delivery {
	if p.running {
		batch := <-p.ready // at most one, and closed by now
		return batch.Deliveries
	}
	return nil
}
