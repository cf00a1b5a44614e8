package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
)

// appender is the only writer of this node's files. Changes that come while it is at work
// wait, and go out together.
type appender struct {
	s    *Store
	id   atomic.Pointer[string]
	wake chan struct{}
	stop chan struct{}

	mu     sync.Mutex
	queue  []*request
	ended  bool
	head   head // as it was last stored, or at least tried
	stored uint64
	// started is when the writing of head began, by the monotonic clock.
	started time.Time
	lost    string // the node id whose files somebody has removed
	stale   bool   // the head in the storage is not the last one

	// The rest belongs to the goroutine.
	next    uint64 // the number of the next batch
	voids   [][2]uint64
	pending *batch       // its head may be stored or not
	orphans []*Record    // of a batch that was pending under an earlier id
	hanging <-chan error // a write that the storage has not answered
	wrote   time.Time    // when the head was stored
	writing time.Time    // when the last write began, by the monotonic clock
}

// request is something to append, or (without records) a wish for a fresh head.
type request struct {
	records []*Record
	// counts is set if they are not changes of records that must follow on what memory holds,
	// but what the node of that id has counted.
	counts string
	closed bool
	state  atomic.Int32
	done   chan error
}

// The states of a request.
const (
	queued int32 = iota
	taken
	cancelled
)

// batch is what is written as one file.
type batch struct {
	seq      uint64
	data     []byte
	records  []*Record
	requests []*request
}

func newAppender(s *Store) *appender {
	a := &appender{s: s, wake: make(chan struct{}, 1), stop: make(chan struct{}), next: 1}
	id := newNodeID()
	a.id.Store(&id)
	return a
}

func (a *appender) node() string { return *a.id.Load() }

func (a *appender) info() NodeInfo {
	a.mu.Lock()
	defer a.mu.Unlock()
	return NodeInfo{ID: a.node(), Host: hostname(), Self: true, Alive: true, Seq: a.head.Seq, Seen: a.head.Time}
}

var hostname = sync.OnceValue(func() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
})

// submit queues a request and waits for its result until ctx ends. settled is called once the
// outcome is known, which may be later than submit returns.
func (a *appender) submit(ctx context.Context, r *request, settled func()) error {
	r.done = make(chan error, 1)
	a.mu.Lock()
	if a.ended {
		a.mu.Unlock()
		settled()
		return ErrClosed
	}
	a.queue = append(a.queue, r)
	a.ended = r.closed
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
	select {
	case err := <-r.done:
		settled()
		return err
	case <-ctx.Done():
	}
	if r.state.CompareAndSwap(queued, cancelled) {
		settled()
		return fail(ErrUnavailable, context.Cause(ctx))
	}
	// It is being written: the storage had its time too, or almost.
	go func() { <-r.done; settled() }()
	return fail(ErrUncertain, context.Cause(ctx))
}

func (a *appender) run() {
	for {
		select {
		case <-a.wake:
		case <-a.stop:
			return
		}
		a.mu.Lock()
		queue := a.queue
		a.queue = nil
		a.mu.Unlock()
		for len(queue) > 0 {
			queue = a.some(queue)
		}
	}
}

// some writes as many of the requests as go into one batch, and returns the rest.
func (a *appender) some(queue []*request) (rest []*request) {
	var requests []*request
	size, count := 0, 0
	for i, r := range queue {
		weight := r.weight()
		if size > 0 && size+weight > batchBytes {
			rest = queue[i:]
			break
		}
		if r.state.CompareAndSwap(queued, taken) {
			requests, size, count = append(requests, r), size+weight, count+len(r.records)
		}
	}
	if err := a.ready(); err != nil {
		finish(requests, err)
		return rest
	}
	requests, beats := a.sort(requests)
	if len(requests) > 0 {
		a.append(requests)
	}
	for _, r := range beats {
		r.done <- a.beatNow(r.closed)
	}
	return rest
}

func (r *request) weight() int {
	n := 0
	for _, one := range r.records {
		n += int(weight(one))
	}
	return n
}

func finish(requests []*request, err error) {
	for _, r := range requests {
		r.done <- err
	}
}

// ready brings to an end what an earlier failure has left open, and takes another id where
// the present one's files can't be relied on.
func (a *appender) ready() error {
	a.mu.Lock()
	lost := a.lost == a.node()
	a.mu.Unlock()
	// Others may take this node for dead, fold its log and remove it.
	late := !a.wrote.IsZero() && a.s.opt.Now().Round(0).Sub(a.wrote) > a.s.tune.deadAfter/2
	if lost || late {
		if a.pending != nil {
			a.orphans, a.pending = slices.DeleteFunc(a.pending.records, func(r *Record) bool { return r.Kind == counterKind }), nil
		}
		a.rename()
	}
	if a.pending != nil {
		if err := a.publish(a.pending.seq, false); err != nil {
			return fail(ErrUnavailable, err)
		}
		a.commit(a.pending)
		a.pending = nil
	}
	if len(a.orphans) == 0 {
		return nil
	}
	r := &request{records: a.orphans, done: make(chan error, 1)}
	a.append([]*request{r})
	err := <-r.done
	if err == nil || errors.Is(err, ErrUncertain) {
		a.orphans = nil // stored, or pending again
	}
	if err != nil {
		return fail(ErrUnavailable, err)
	}
	return nil
}

// rename goes on under a new id, with an empty log.
func (a *appender) rename() {
	old, id := a.node(), newNodeID()
	a.s.view.mu.Lock()
	if a.s.view.known[old] > 0 {
		a.s.view.nodes[old] = &nodeState{head: head{Seq: a.s.view.known[old], Time: a.wrote}, changed: time.Now()}
	}
	a.s.view.mu.Unlock()
	a.s.counters.rename(old)
	a.s.leases.lost()
	a.mu.Lock()
	a.id.Store(&id)
	a.head, a.stored, a.stale = head{}, 0, false
	a.mu.Unlock()
	a.next, a.voids, a.wrote = 1, nil, time.Time{}
}

// sort leaves out requests that something else was faster than, and those with nothing to
// append.
func (a *appender) sort(requests []*request) (appends, beats []*request) {
	versions := make(map[Ref]uint64)
	for _, r := range requests {
		switch {
		case len(r.records) == 0:
			beats = append(beats, r)
		case r.counts == a.node() || r.counts == "" && a.follows(r, versions):
			appends = append(appends, r)
		default:
			r.done <- ErrConflict
		}
	}
	return appends, beats
}

// follows says whether the records are the next versions of what is in memory and in versions.
func (a *appender) follows(r *request, versions map[Ref]uint64) bool {
	for _, one := range r.records {
		before, ok := versions[one.Ref]
		if old := a.s.mem.get(one.Ref); !ok && old != nil {
			before = old.Version
		}
		if one.Version != before+1 {
			return false
		}
	}
	for _, one := range r.records {
		versions[one.Ref] = one.Version
	}
	return true
}

// append writes one batch, and then the head that makes it count.
func (a *appender) append(requests []*request) {
	b := &batch{seq: a.next, requests: requests}
	if err := a.encode(b); err != nil {
		finish(requests, fmt.Errorf("store: %w", err))
		return
	}
	key := a.s.disk.key("nodes", a.node(), "log", batchName(b.seq))
	a.next++
	if err := a.write(key, b.data); err != nil {
		// It may still arrive. No head will ever count it.
		a.void(b.seq)
		finish(requests, fail(ErrUnavailable, err))
		return
	}
	if err := a.publish(b.seq, false); err != nil {
		a.pending = b
		finish(requests, fail(ErrUncertain, err))
		b.requests = nil
		return
	}
	a.commit(b)
}

func (a *appender) void(seq uint64) {
	if n := len(a.voids); n > 0 && a.voids[n-1][1] == seq-1 {
		a.voids[n-1][1] = seq
		return
	}
	a.voids = append(a.voids, [2]uint64{seq, seq})
}

// commit puts a batch that counts into memory.
func (a *appender) commit(b *batch) {
	a.s.apply(b.records)
	a.s.view.advance(a.node(), b.seq, b.records, len(b.data))
	finish(b.requests, nil)
}

// errHanging is the cause when an earlier write still has no answer.
var errHanging = errors.New("an earlier write has still not been answered")

// write stores a file of this node. There is never more than one on its way, or an old head
// could come after a newer one.
func (a *appender) write(key string, value []byte) error {
	if a.hanging != nil {
		timer := time.NewTimer(a.s.opt.WriteTimeout)
		defer timer.Stop()
		select {
		case <-a.hanging:
			a.hanging = nil
		case <-timer.C:
			a.s.problems.report(writingFails, "the storage can't be written: "+errHanging.Error())
			return errHanging
		}
	}
	a.writing = time.Now()
	result, ctx, cancel := a.s.disk.start(context.WithoutCancel(a.s.ctx), func(ctx context.Context, storage certmagic.Storage) error {
		return storage.Store(ctx, key, value)
	})
	defer cancel()
	var err error
	select {
	case err = <-result:
	case <-ctx.Done():
		a.hanging, err = result, context.Cause(ctx)
	}
	if err != nil {
		err = fmt.Errorf("writing %s: %w", key, err)
		a.s.problems.report(writingFails, fmt.Sprintf("the storage can't be written, so changes are refused: %v", err))
		return err
	}
	a.s.problems.solved(writingFails)
	return nil
}

const writingFails = "storage: writing"
