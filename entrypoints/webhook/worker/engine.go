package worker

import (
	"context"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// engine is one running worker: a goroutine that receives, up to Concurrency that send, one
// that settles, and one that keeps time. They meet under one mutex, which a message on its
// way passes twice: once with its batch, and once when it is done.
type engine struct {
	opt  Options
	seed maphash.Seed
	// once and tracked: at_most_once, and at any other level with an account at the broker.
	once, tracked bool

	// read ends when no more is to be taken up, send when what is under way is to be cut,
	// and settling when the broker is not to be told anything any more.
	//nolint:containedctx // the life of the worker, in its stages
	read, send, settling            context.Context
	stopRead, cutSend, stopSettling context.CancelFunc
	outer                           context.Context //nolint:containedctx // the caller's
	crew                            sync.WaitGroup  // who receives and who sends
	settler, keeper                 sync.WaitGroup
	ending                          chan struct{} // closed when the worker has to end by itself
	kick                            chan struct{} // something is due earlier than the keeper knows
	quit                            chan struct{} // ends the keeper
	known                           atomic.Int64  // trials without a delivery
	stopped                         atomic.Bool   // the same as draining

	mu       sync.Mutex
	draining bool
	err      error // why ending is closed
	failure  *entrypoints.Failure

	lanes    map[uint64]*lane
	single   *lane // with a concurrency of 1
	sources  map[string]*source
	all      source // stands for all lanes of the broker, where they share an account
	latest   *source
	sweepAt  int
	ready    runnable
	parked   parked
	armed    time.Time // when the keeper looks next
	received uint64
	here     int // messages that are not finished
	bytes    int // of these
	busy     int // lanes whose head is under way
	pressed  bool
	several  bool // more than one lane was seen
	lastKey  uint64
	round    uint64

	workers  int
	idle     int
	retire   int       // workers that are to end
	spare    int       // the fewest that were idle since the last look
	lookIdle time.Time // when to look for idle workers again
	work     sync.Cond
	roomy    sync.Cond
	blocked  bool // the receiver waits for room
	freeItem *item
	freeLane *lane

	settle  settlements
	records map[string]*trial // by fingerprint
	expires time.Time         // when the next of those without a delivery may be dropped
	news    news
	entrypoints.Progress
}

func newEngine(ctx context.Context, opt Options) *engine {
	e := &engine{
		opt: opt, seed: maphash.MakeSeed(), outer: ctx,
		once:    opt.QoS == message.AtMostOnce,
		tracked: opt.Settles && opt.QoS != message.AtMostOnce,
		ending:  make(chan struct{}), kick: make(chan struct{}, 1), quit: make(chan struct{}),
		sweepAt: manySources,
		lanes:   make(map[uint64]*lane), sources: make(map[string]*source),
	}
	e.work.L, e.roomy.L, e.settle.due.L = &e.mu, &e.mu, &e.mu
	base := context.WithoutCancel(ctx)
	e.read, e.stopRead = context.WithCancel(base)
	e.send, e.cutSend = context.WithCancel(base)
	e.settling, e.stopSettling = context.WithCancel(base)
	if opt.Concurrency == 1 {
		e.single = &lane{index: -1}
	}
	e.load(opt.Progress)
	return e
}

// add puts a batch into the lanes.
func (e *engine) add(b *message.Batch) {
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if b.Gap != nil {
		e.Gaps++
		e.counted()
	}
	if len(e.sources) > e.sweepAt {
		e.sweep()
	}
	stale := e.revoke(b.Revoked)
	woken := 0
	for i := range b.Deliveries {
		d := &b.Deliveries[i]
		s := e.source(d.Lane)
		if d.Attempt > 1 && d.Epoch > s.floor && e.tracked {
			// It comes again by another connection, and so does all that came by those
			// before. Until that is seen, what is here may be all that there is: not
			// everything that a broker delivers is delivered again.
			s.floor = d.Epoch
			stale = e.outdate(s) || stale
		}
		if e.queue(e.item(d, s, now)) {
			woken++
		}
	}
	if stale {
		woken += e.unparkStale()
	}
	if e.parked.Len() > 0 {
		woken += e.relieve()
	}
	e.wake(woken)
}

// wake sets as many to work as there are lanes that became runnable.
func (e *engine) wake(lanes int) {
	for ; lanes > 0 && !e.draining; lanes-- {
		switch {
		case e.idle > 0:
			e.idle--
			e.spare = min(e.spare, e.idle)
			e.work.Signal()
		case e.workers < e.opt.Concurrency:
			e.workers++
			e.crew.Go(e.sender)
		default:
			return
		}
	}
}
