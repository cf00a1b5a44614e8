package webhook

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// queue is a broker's queue: what is not settled comes again with the next stream.
type queue struct {
	mu      sync.Mutex
	waiting []message.Delivery
	lent    map[*message.Message]message.Delivery
	acked   []message.Delivery
	wake    chan struct{}
	// fail is what the next streams end with, or can't begin with.
	fail, refuse []error
	opened       int
	logs         bool          // it is a log, which keeps all
	stopped      chan struct{} // has one when nobody waits for messages any more
}

func newQueue(deliveries ...message.Delivery) *queue {
	q := &queue{lent: make(map[*message.Message]message.Delivery), wake: make(chan struct{}, 1), stopped: make(chan struct{}, 1)}
	q.add(deliveries...)
	return q
}

func (q *queue) add(deliveries ...message.Delivery) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, deliveries...)
	q.rouse()
}

func (q *queue) rouse() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) subscribe() (message.Stream, bool, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.opened++
	if len(q.refuse) > 0 {
		err := q.refuse[0]
		q.refuse = q.refuse[1:]
		return nil, false, err
	}
	return &stream{q: q, epoch: uint64(q.opened)}, !q.logs, nil
}

func (q *queue) settled() []message.Delivery {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.acked)
}

func (q *queue) left() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting)
}

type stream struct {
	q     *queue
	epoch uint64
	read  int // of a log
}

func (s *stream) Receive(ctx context.Context) (message.Batch, error) {
	for {
		if b, err := s.poll(); err != nil || len(b.Deliveries) > 0 {
			return b, err
		}
		select {
		case <-s.q.wake:
		case <-ctx.Done():
			select {
			case s.q.stopped <- struct{}{}:
			default:
			}
			return message.Batch{}, ctx.Err()
		}
	}
}

func (s *stream) poll() (b message.Batch, err error) {
	q := s.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.fail) > 0 {
		err = q.fail[0]
		q.fail = q.fail[1:]
		return b, err
	}
	if q.logs {
		b.Deliveries = slices.Clone(q.waiting[s.read:])
		s.read = len(q.waiting)
		return b, nil
	}
	for _, d := range q.waiting {
		d.Epoch = s.epoch
		q.lent[d.Message] = d
		b.Deliveries = append(b.Deliveries, d)
	}
	q.waiting = nil
	return b, nil
}

func (s *stream) Settle(_ context.Context, how message.Settlement, deliveries ...message.Delivery) error {
	q := s.q
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, d := range deliveries {
		if _, ok := q.lent[d.Message]; !ok || d.Epoch != s.epoch {
			return message.ErrStale
		}
		delete(q.lent, d.Message)
		switch how {
		case message.Ack:
			q.acked = append(q.acked, d)
		case message.Release:
			q.waiting = append(q.waiting, d)
		default:
			panic("a webhook rejects nothing at the broker")
		}
	}
	return nil
}

func (s *stream) Close(context.Context) error {
	q := s.q
	q.mu.Lock()
	defer q.mu.Unlock()
	for m, d := range q.lent {
		if d.Epoch == s.epoch {
			q.waiting = append(q.waiting, d)
			delete(q.lent, m)
		}
	}
	q.rouse()
	return nil
}

// grave is a place of dead letters.
type grave struct {
	*queue
	broken error
}

func (*grave) Name() string { return "dead" }

func (g *grave) Put(_ context.Context, messages ...*message.Message) error {
	if g.broken != nil {
		return g.broken
	}
	for _, m := range messages {
		g.add(message.Delivery{Message: m})
	}
	return nil
}

func (g *grave) Read(context.Context, message.Window) (message.Stream, bool, error) {
	return g.subscribe()
}

// push is a subscription.
type push struct {
	t        testing.TB
	consumer json.RawMessage
	source   *queue
	dead     *grave
	log      *zap.Logger
	caps     message.Capabilities
	pace     chan struct{} // nil is no rate

	mu          sync.Mutex
	progress    *entrypoints.Progress
	sent, bytes int
}

func newPush(t testing.TB, e *Entrypoint, asked string, source *queue) *push {
	t.Helper()
	whole, _, err := e.Consumer(nil, json.RawMessage(asked))
	if err != nil {
		t.Fatal(err)
	}
	return &push{t: t, consumer: whole, source: source, log: zap.NewNop(), progress: new(entrypoints.Progress),
		caps: message.Capabilities{Subscribe: true, Exclusive: true, ManualSettle: true}}
}

func (p *push) API() string                        { return "orders-hooks" }
func (p *push) Subscription() string               { return "sub-1" }
func (p *push) Consumer() json.RawMessage          { return p.consumer }
func (p *push) Capabilities() message.Capabilities { return p.caps }
func (p *push) Logger() *zap.Logger                { return p.log }
func (p *push) Paced() bool                        { return p.pace != nil }

func (p *push) Pace(ctx context.Context) error {
	select {
	case <-p.pace:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *push) Subscribe(context.Context, message.Window) (message.Stream, bool, error) {
	return p.source.subscribe()
}

func (p *push) DeadLetters() entrypoints.DeadLetters {
	if p.dead == nil {
		return nil
	}
	return p.dead
}

func (p *push) Progress() *entrypoints.Progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.progress
}

func (p *push) Keep(now *entrypoints.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.progress = now
}

func (p *push) Sent(messages, bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent += messages
	p.bytes += bytes
}

// start has the entrypoint deliver until the test, or what is returned, ends it.
func (p *push) start(e *Entrypoint) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Deliver(ctx, p) }()
	var once sync.Once
	var err error
	stop = func() error {
		once.Do(func() {
			cancel()
			select {
			case err = <-done:
			case <-time.After(20 * time.Second):
				p.t.Error("the worker does not end")
			}
		})
		return err
	}
	p.t.Cleanup(func() { _ = stop() })
	return stop
}

// ends waits until the worker ends by itself.
func (p *push) ends(e *Entrypoint) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := e.Deliver(ctx, p)
	if ctx.Err() != nil {
		p.t.Error("the worker does not end by itself")
	}
	return err
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if is() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

func one(payload string) message.Delivery {
	return message.Delivery{Message: &message.Message{Payload: []byte(payload)}, Lane: "q"}
}
