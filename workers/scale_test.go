package workers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-message-api/caddy-message-api/store"
	"github.com/caddy-message-api/caddy-message-api/store/storetest"
)

// Thousands of works are claimed within seconds, fifty at a time, and cost nothing later.
func TestManyWorks(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		works := 5000
		if testing.Short() || raceEnabled {
			works = 1000
		}
		a, b := r.node(), r.node()
		a.reg.Want(a.works(works, "1"))
		b.reg.Want(b.works(works, "1"))
		took := r.within(2*ttl, "all run", func() bool { return r.each(works) })
		counts, batches := a.disk.counted(), 0
		for op, n := range b.disk.counted() {
			counts[op] += n
		}
		t.Logf("%d works run after %v (a call of the storage takes 1ms), with %v", works, took, counts)
		batches = works / maxRefs
		if counts["store"] > 5*batches || counts["lock"] > works*5/2 || counts["load"] > 12*batches {
			t.Errorf("that is too much for %d changes", batches)
		}
		r.settle()
		a.disk.counted()
		time.Sleep(20 * ttl)
		quiet := a.disk.counted()
		t.Logf("and in 20 TTL afterwards %v", quiet)
		if quiet["lock"] > 0 || quiet["store"] > 4*20 {
			t.Error("that is too much for nothing")
		}
		began := time.Now()
		a.close()
		t.Logf("a node with half of them closes in %v", time.Since(began))
		took = r.within(ttl+slack, "the other has them all", func() bool { return r.each(works) })
		t.Logf("and the other has them %v later", took)
		r.noOverlap()
	})
}

// BenchmarkStep is one look at 5,000 works that run, several of which there are in a second.
func BenchmarkStep(b *testing.B) {
	s, err := store.Open(b.Context(), store.Options{Storage: storetest.NewMemory()})
	if err != nil {
		b.Fatal(err)
	}
	r := New(Options{Store: s})
	works := make([]Work, 5000)
	for i := range works {
		works[i] = Work{ID: fmt.Sprint(i), Version: "1", Run: func(ctx context.Context, _ Keeper) error { <-ctx.Done(); return nil }}
	}
	r.Want(works)
	for running := 0; running < len(works); time.Sleep(50 * time.Millisecond) {
		running = 0
		for _, one := range r.List() {
			if one.Here {
				running++
			}
		}
	}
	for b.Loop() {
		r.step()
	}
	b.StopTimer()
	if err := errors.Join(r.Close(context.Background()), s.Close(context.Background())); err != nil {
		b.Fatal(err)
	}
}

// chaos does things to nodes at random.
type chaos struct {
	*rig
	rnd   *rand.Rand
	works int
	up    map[*node]func() // and how to repair its storage, if it is broken
}

// step does one of them.
func (c *chaos) step() {
	var nodes []*node
	for _, n := range c.nodes {
		if _, ok := c.up[n]; ok {
			nodes = append(nodes, n)
		}
	}
	n := nodes[c.rnd.IntN(len(nodes))]
	switch what := c.rnd.IntN(9); {
	case what == 0 && len(nodes) > 1 && c.up[n] == nil:
		n.kill()
		delete(c.up, n)
	case what == 1 && len(nodes) > 1 && c.up[n] == nil:
		delete(c.up, n)
		n.close()
	case what == 2 && c.up[n] == nil:
		c.up[n] = n.disk.stall()
	case what == 3 && c.up[n] == nil:
		n.disk.fail(errDisk)
		c.up[n] = func() { n.disk.fail(nil) }
	case what <= 5 && c.up[n] != nil:
		c.up[n]()
		c.up[n] = nil
	case what == 6 && len(nodes) < 5:
		c.join()
	case what == 7:
		n.reg.Want(n.works(c.works, fmt.Sprint(c.rnd.IntN(3))))
	case what == 8:
		n.reg.Want(n.works(c.rnd.IntN(c.works+1), "1"))
	}
}

func (c *chaos) join() {
	n := c.node()
	n.drain = time.Duration(c.rnd.IntN(3000)) * time.Millisecond
	n.keep = func(k Keeper) { k.Keep([]byte(`{"by":"` + n.name + `"}`)) }
	c.up[n] = nil
	n.reg.Want(n.works(c.works, "1"))
}

// Nodes come, go, die, lose their storage and change their minds, at any time: never do two
// do the same for longer than a TTL, and in the end everything is done once.
func TestChaos(t *testing.T) {
	rounds := 6
	if testing.Short() || raceEnabled {
		rounds = 2
	}
	for round := range rounds {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				seed := rand.Uint64()
				t.Logf("seed %d", seed)
				c := &chaos{rig: r, rnd: rand.New(rand.NewPCG(seed, 1)), works: 25, up: make(map[*node]func())}
				c.join()
				c.join()
				for range 150 {
					c.step()
					time.Sleep(time.Duration(c.rnd.IntN(4000)) * time.Millisecond)
				}
				for n, repair := range c.up {
					if repair != nil {
						repair()
						c.up[n] = nil
					}
					n.reg.Want(n.works(c.works, "1"))
				}
				r.within(10*ttl, "all run once", func() bool { return r.each(c.works) })
				r.settle()
				if !r.each(c.works) {
					t.Error("not all run once")
				}
				overlap, gap := r.overlap()
				t.Logf("%d nodes, %d Runs; the longest overlap was %v, the longest gap %v", len(r.nodes), r.count(), overlap, gap)
				if overlap > ttl {
					t.Errorf("two nodes did the same for %v", overlap)
				}
				for n := range c.up {
					for _, p := range n.store.Problems() {
						if has(p.Key, Kind+"/") {
							t.Errorf("%s: two have written the same record: %+v", n.name, p)
						}
					}
				}
			})
		})
	}
}

// A registry can be closed at any moment, also before it has begun, and twice.
func TestCloseAtAnyMoment(t *testing.T) {
	for i := range 40 {
		inBubble(t, func(t *testing.T, r *rig) {
			a := r.node()
			a.drain = 30 * time.Millisecond
			a.keep = func(k Keeper) { k.Keep([]byte("1")) }
			a.reg.Want(a.works(200, "1"))
			time.Sleep(time.Duration(i) * 20 * time.Millisecond)
			a.reg.Want(a.works(150, "2"))
			go func() { _ = a.reg.Retry(context.Background(), "work-0001", "me") }()
			go func() { _ = a.reg.Forget(context.Background(), "work-0002") }()
			time.Sleep(time.Duration(i%3) * time.Millisecond)
			a.close()
			a.close()
			a.reg.Want(a.works(10, "3"))
			synctest.Wait()
			if works, _ := r.owners(); len(works) > 0 {
				t.Errorf("%d run", len(works))
			}
			for _, s := range a.reg.List() {
				if s.State == Running {
					t.Errorf("got %+v", s)
				}
			}
		})
	}
}
