package servicebus

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/endpoints/link"
)

// maxOutlets bounds the queues and topics that messages are sent to at a time. Requests can
// name them.
const maxOutlets = 256

// producer sends to the queues and topics of a namespace, over one connection.
type producer struct {
	link *link.Link[*connection]
	// lost is told of messages that nobody waited for and that are not known to be stored.
	lost func(what string, n int, err error)

	//nolint:containedctx // the life of the producer, which no single call owns
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	outlets map[string]*outlet
}

func newProducer(cfg *connConfig) *producer {
	losses := link.NewLosses(cfg.logger, "messages that nobody waited for are not known to be stored")
	p := &producer{
		link:    cfg.link(),
		outlets: make(map[string]*outlet),
		lost:    func(what string, n int, err error) { losses.Note(n, err, zap.String("to", what)) },
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// outlet is the way to one queue or topic.
func (p *producer) outlet(props *properties) *outlet {
	p.mu.Lock()
	defer p.mu.Unlock()
	name := props.entity()
	o := p.outlets[name]
	if o == nil {
		if len(p.outlets) >= maxOutlets {
			p.forget()
		}
		o = &outlet{p: p, entity: name, what: props.what() + " at " + p.link.Address(), opening: make(chan struct{}, 1)}
		p.outlets[name] = o
	}
	o.used = time.Now()
	return o
}

// forget gives up the outlet that was not used for the longest time. p.mu is held.
func (p *producer) forget() {
	var oldest *outlet
	for _, o := range p.outlets {
		if oldest == nil || o.used.Before(oldest.used) {
			oldest = o
		}
	}
	delete(p.outlets, oldest.entity)
	oldest.retire()
}

// spawn runs f, unless the producer has ended.
func (p *producer) spawn(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.wg.Go(f)
	return true
}

// close ends everything. What is on its way has an unknown outcome.
func (p *producer) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	p.link.Close()
	p.wg.Wait()
}
