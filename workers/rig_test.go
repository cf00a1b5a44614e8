package workers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/store"
	"github.com/caddy-message-api/caddy-message-api/store/storetest"
)

// lockKeeper is certmagic's goroutine for a lock file: it ends some seconds after the lock.
const lockKeeper = "github.com/caddyserver/certmagic.keepLockfileFresh"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(lockKeeper)) }

// ttl is that of a real gateway: the tests run by a clock that jumps.
const ttl = 5 * time.Second

// slack is what the storage takes, and what the registry needs between its looks.
const slack = 2 * time.Second

// rig is some nodes, and a record of who did what when.
type rig struct {
	t      *testing.T
	shared *shared
	nodes  []*node

	mu    sync.Mutex
	spans []*span
	last  map[place]*span
}

// place is a work on a node.
type place struct {
	node *node
	id   string
}

// span is one Run, from begin to end. end is zero while it goes on.
type span struct {
	node           *node
	id, version    string
	begin, end     time.Time
	fenced, killed bool
}

type node struct {
	rig   *rig
	name  string
	disk  *disk
	store *store.Store
	reg   *Registry
	// dead is closed when the process is killed: what ran is no more.
	dead    chan struct{}
	mu      sync.Mutex
	changes map[string]int
	// drain is how long a Run takes to end, and end what it returns.
	drain time.Duration
	end   error
	load  func(id, kept string)
	keep  func(k Keeper)
}

// inBubble runs f by a clock that jumps.
func inBubble(t *testing.T, f func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { time.Sleep(time.Minute) }) // for calls of the storage that nobody waits for
		f(t, &rig{t: t, shared: &shared{Memory: storetest.NewMemory(), locks: make(map[string]*disk)}})
	})
}

// node starts one. Whatever still is there at the end of the test is closed.
func (r *rig) node(options ...func(*store.Options, *Options)) *node {
	r.t.Helper()
	d := &disk{shared: r.shared, counts: make(map[string]int)}
	n := &node{rig: r, name: fmt.Sprint("node ", len(r.nodes)), disk: d, dead: make(chan struct{}), changes: make(map[string]int)}
	logger := zap.NewNop()
	sopt := store.Options{Storage: d, Logger: logger}
	opt := Options{Logger: logger, OnChange: func(id string) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.changes[id]++
	}}
	for _, one := range options {
		one(&sopt, &opt)
	}
	var err error
	if n.store, err = store.Open(r.t.Context(), sopt); err != nil {
		r.t.Fatal(err)
	}
	opt.Store = n.store
	n.reg = New(opt)
	r.nodes = append(r.nodes, n)
	r.t.Cleanup(n.close)
	return n
}

// close ends a node in order.
func (n *node) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := n.reg.Close(ctx); err != nil && n.alive() {
		n.rig.t.Errorf("%s: %v", n.name, err)
	}
	if err := n.store.Close(ctx); err != nil && n.alive() {
		n.rig.t.Errorf("%s: %v", n.name, err)
	}
}

func (n *node) alive() bool {
	select {
	case <-n.dead:
		return false
	default:
		return true
	}
}

// kill is kill -9: the storage sees nothing more, what runs is gone, and locks end later.
func (n *node) kill() {
	free := n.disk.stall()
	close(n.dead)
	n.rig.t.Cleanup(func() { n.disk.fail(errDisk); free() })
	synctest.Wait()
}

// run is what a work does: nothing, until it is to end.
func (n *node) run(id, version string) func(context.Context, Keeper) error {
	return func(ctx context.Context, k Keeper) error {
		if !n.alive() {
			<-ctx.Done()
			return nil
		}
		if n.load != nil {
			n.load(id, string(k.Load()))
		}
		s := &span{node: n, id: id, version: version, begin: time.Now()}
		n.rig.begin(s)
		if n.keep != nil {
			n.keep(k)
		}
		select {
		case <-ctx.Done():
			if !errors.Is(context.Cause(ctx), ErrFenced) {
				select {
				case <-time.After(n.drain):
				case <-LeaseContext(ctx).Done():
				}
			}
		case <-n.dead:
			s.killed = true
		}
		n.rig.mu.Lock()
		s.end, s.fenced = time.Now(), errors.Is(context.Cause(LeaseContext(ctx)), ErrFenced)
		n.rig.mu.Unlock()
		if s.killed {
			<-ctx.Done()
		}
		return n.end
	}
}

// works are n of them, that do nothing.
func (n *node) works(count int, version string) []Work {
	list := make([]Work, count)
	for i := range list {
		id := fmt.Sprintf("work-%04d", i)
		list[i] = Work{ID: id, Version: version, Run: n.run(id, version)}
	}
	return list
}

// begin notes a Run, of which there is never more than one on a node.
func (r *rig) begin(s *span) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		r.last = make(map[place]*span)
	}
	at := place{s.node, s.id}
	if last := r.last[at]; last != nil && last.end.IsZero() {
		r.t.Errorf("%s runs twice on %s", s.id, s.node.name)
	}
	r.last[at] = s
	r.spans = append(r.spans, s)
}

// owners tells how many Runs of each work go on, and how many each node has.
func (r *rig) owners() (works map[string]int, nodes map[*node]int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	works, nodes = make(map[string]int), make(map[*node]int)
	for _, s := range r.spans {
		if s.end.IsZero() {
			works[s.id]++
			nodes[s.node]++
		}
	}
	return works, nodes
}

// each says whether each of count works runs once.
func (r *rig) each(count int) bool {
	works, _ := r.owners()
	for _, n := range works {
		if n != 1 {
			return false
		}
	}
	return len(works) == count
}

// overlap is the longest time for which two nodes did one work, and gap that for which
// nobody did one that ran before and runs after.
func (r *rig) overlap() (overlap, gap time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	byID := make(map[string][]*span)
	for _, s := range r.spans {
		byID[s.id] = append(byID[s.id], s)
	}
	for _, spans := range byID {
		slices.SortStableFunc(spans, func(a, b *span) int { return a.begin.Compare(b.begin) })
		var until time.Time
		for i, s := range spans {
			end := s.end
			if end.IsZero() {
				end = time.Now()
			}
			if i > 0 {
				overlap, gap = max(overlap, min(until.Sub(s.begin), end.Sub(s.begin))), max(gap, s.begin.Sub(until))
			}
			if end.After(until) {
				until = end
			}
		}
	}
	return overlap, gap
}

// count is how many Runs have begun.
func (r *rig) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.spans)
}

// span is a copy of one.
func (r *rig) span(i int) span {
	r.mu.Lock()
	defer r.mu.Unlock()
	return *r.spans[i]
}

// box is a value that goroutines share.
type box[T any] struct {
	mu sync.Mutex
	v  T
}

func (b *box[T]) set(v T) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.v = v
}

func (b *box[T]) get() T {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.v
}

// within waits until f is true, and returns how long that took.
func (r *rig) within(d time.Duration, what string, f func() bool) time.Duration {
	r.t.Helper()
	began := time.Now()
	for synctest.Wait(); !f(); synctest.Wait() {
		if time.Since(began) > d {
			works, nodes := r.owners()
			r.t.Fatalf("not within %v: %s (%d works run, on %d nodes)", d, what, len(works), len(nodes))
		}
		time.Sleep(50 * time.Millisecond)
	}
	return time.Since(began)
}

// settle waits until nothing changes owner any more.
func (r *rig) settle() {
	r.t.Helper()
	for range 100 {
		begun := r.count()
		time.Sleep(4 * ttl)
		if r.count() == begun {
			return
		}
	}
	r.t.Fatal("works go on changing their owners")
}

// noOverlap fails if two nodes did one work at the same time.
func (r *rig) noOverlap() {
	r.t.Helper()
	if overlap, _ := r.overlap(); overlap > 0 {
		r.t.Errorf("two nodes did the same for %v", overlap)
	}
}

func (n *node) status(id string) Status {
	n.rig.t.Helper()
	s, ok := n.reg.Status(id)
	if !ok {
		n.rig.t.Fatalf("%s does not know %s", n.name, id)
	}
	return s
}

func refs(list ...store.Ref) []store.Ref { return list }

// txPut writes a record as it should not be.
func txPut(id string, v any) func(*store.Tx) error {
	return func(tx *store.Tx) error { return tx.Put(refOf(id), v) }
}

// failing is a Failure.
type failing string

func (f failing) Error() string      { return "failed: " + string(f) }
func (f failing) WorkFailed() string { return string(f) }

func has(s, part string) bool { return strings.Contains(s, part) }

// Interface guard
var _ Failure = failing("")
