package workers

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/store"
)

// One node does everything, at once.
func TestOneNode(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		a := r.node()
		a.reg.Want(a.works(10, "1"))
		took := r.within(slack, "all run", func() bool { return r.each(10) })
		t.Logf("10 works run after %v", took)
		time.Sleep(20 * ttl)
		if r.count() != 10 {
			t.Errorf("%d Runs", r.count())
		}
		s := a.status("work-0003")
		if s.State != Running || !s.Here || s.Owner != a.store.Node() || s.Cause != "" || s.Since.IsZero() || a.changes["work-0003"] != 1 {
			t.Errorf("got %+v, told %d times", s, a.changes["work-0003"])
		}
		if list := a.reg.List(); len(list) != 10 || list[9].ID != "work-0009" {
			t.Errorf("got %+v", list)
		}
		if _, ok := a.reg.Status("nothing"); ok {
			t.Error("nothing has a status")
		}
	})
}

// Three nodes have one owner for each work, and about the same share.
func TestShares(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		const works = 300
		for range 3 {
			r.node()
		}
		for _, n := range r.nodes {
			n.reg.Want(n.works(works, "1"))
		}
		r.within(ttl+slack, "all run", func() bool { return r.each(works) })
		r.within(30*ttl, "shared out", func() bool { return balanced(r, works) })
		r.settle()
		_, nodes := r.owners()
		for _, n := range r.nodes {
			if nodes[n] < 65 || nodes[n] > 135 { // four standard deviations
				t.Errorf("%s has %d of %d", n.name, nodes[n], works)
			}
		}
		begun := r.count()
		for range 200 {
			time.Sleep(500 * time.Millisecond)
			if !r.each(works) {
				t.Fatal("it is not steady")
			}
		}
		if r.count() != begun {
			t.Errorf("%d works changed owner for nothing", r.count()-begun)
		}
		r.noOverlap()
		for _, n := range r.nodes {
			if s := n.status("work-0000"); s.State != Running || s.Here != (s.Owner == n.store.Node()) {
				t.Errorf("%s: %+v", n.name, s)
			}
		}
	})
}

// balanced says that every node has a share. Which it is, hashes decide: that of few works
// may be half of what is fair, or twice as much.
func balanced(r *rig, works int) bool {
	_, nodes := r.owners()
	fair := works / len(r.nodes)
	for _, n := range r.nodes {
		if nodes[n] < fair/3 || nodes[n] > 2*fair {
			return false
		}
	}
	return r.each(works)
}

// A killed node loses its work to the others within three TTL, and to nobody before it would
// have stopped by itself.
func TestTakeOverAfterKill(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		const works = 120
		for range 3 {
			n := r.node()
			n.reg.Want(n.works(works, "1"))
		}
		r.within(30*ttl, "shared out", func() bool { return balanced(r, works) })
		time.Sleep(777 * time.Millisecond)
		r.nodes[1].kill()
		took := r.within(3*ttl, "others have taken over", func() bool { return r.each(works) })
		t.Logf("taken over after %v", took)
		if took < ttl {
			t.Errorf("taken over after %v: it could still have been at work", took)
		}
		r.noOverlap()
	})
}

// The same where the process lives on, but its storage hangs, or fails: it stops in time.
func TestTakeOverAfterOutage(t *testing.T) {
	for name, fault := range map[string]func(*disk) (repair func()){
		"hangs": (*disk).stall,
		"fails": func(d *disk) func() { d.fail(errDisk); return func() { d.fail(nil) } },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				const works = 60
				a, b := r.node(), r.node()
				a.drain = time.Second
				a.reg.Want(a.works(works, "1"))
				b.reg.Want(b.works(works, "1"))
				r.within(30*ttl, "shared out", func() bool { return balanced(r, works) })
				repair := fault(a.disk)
				r.within(ttl+slack/10, "the node has stopped", func() bool { _, nodes := r.owners(); return nodes[a] == 0 })
				for i := range r.count() {
					s := r.span(i)
					if s.node == a && s.end.After(time.Now().Add(-slack)) && !s.fenced {
						t.Error("it was not told why")
					}
				}
				r.within(2*ttl+slack/10, "the other has taken over", func() bool { return r.each(works) })
				mine := ""
				for _, s := range a.reg.List() {
					if s.Owner == a.store.Node() {
						mine = s.ID
					}
				}
				if s := a.status(mine); s.State != Waiting || s.Here || s.Cause != notHeld {
					t.Errorf("got %+v", s)
				}
				repair()
				r.within(60*ttl, "shared out again", func() bool { return balanced(r, works) })
				r.noOverlap()
			})
		})
	}
}

// A node that is closed leaves nothing to wait for: the next has it at its next look.
func TestCloseHandsOver(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		const works = 80
		a, b := r.node(), r.node()
		a.drain = 700 * time.Millisecond
		a.reg.Want(a.works(works, "1"))
		b.reg.Want(b.works(works, "1"))
		r.within(30*ttl, "shared out", func() bool { return balanced(r, works) })
		a.close()
		took := r.within(store.DefaultInterval, "the other has it all", func() bool { return r.each(works) })
		t.Logf("taken over %v after the node had ended", took)
		b.close()
		c := r.node()
		c.reg.Want(c.works(works, "1"))
		took = r.within(slack, "the next process has it all", func() bool { return r.each(works) })
		t.Logf("and by the next process after %v", took)
		r.noOverlap()
	})
}

// A node that comes gets its share, a tenth at a time, without overlap, and nothing more
// changes afterwards.
func TestJoin(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		const works = 100
		a := r.node()
		a.drain = 300 * time.Millisecond
		a.reg.Want(a.works(works, "1"))
		r.within(slack, "all run", func() bool { return r.each(works) })
		b := r.node()
		b.reg.Want(b.works(works, "1"))
		fewest := works
		took := r.within(30*ttl, "shared out", func() bool {
			running, _ := r.owners()
			fewest = min(fewest, len(running))
			return balanced(r, works)
		})
		t.Logf("shared out after %v", took)
		if fewest < works*8/10 {
			t.Errorf("only %d of %d ran meanwhile", fewest, works)
		}
		r.settle()
		begun := r.count()
		time.Sleep(200 * ttl)
		if r.count() != begun || begun > 2*works {
			t.Errorf("%d Runs, and %d later", begun, r.count())
		}
		r.noOverlap()
	})
}

// A node that takes part, but can't do this work, is not given it again and again.
func TestJoinWithoutTheWork(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		const works = 40
		a, b := r.node(), r.node()
		a.reg.Want(a.works(works, "1"))
		r.within(slack, "all run", func() bool { return r.each(works) })
		b.reg.Want([]Work{{ID: "another", Version: "1", Run: b.run("another", "1")}})
		time.Sleep(90 * ttl)
		r.within(3*ttl, "all run", func() bool { return r.each(works + 1) })
		moved := r.count() - works - 1
		t.Logf("%d works were offered in vain in 90 TTL", moved)
		if moved > works {
			t.Errorf("%d works stopped for nothing", moved)
		}
		if running, _ := r.owners(); len(running) < works {
			t.Errorf("%d run", len(running))
		}
		r.noOverlap()
	})
}

// What only one node wants it has at once, or after a TTL if it is another's turn.
func TestDifferentWishes(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		a, b := r.node(), r.node()
		all := a.works(60, "1")
		a.reg.Want(all[:40])
		b.reg.Want(b.works(60, "1")[30:])
		took := r.within(2*ttl+slack, "all run", func() bool { return r.each(60) })
		t.Logf("all run after %v", took)
		r.settle()
		more := b.works(100, "1")
		b.reg.Want(more[30:])
		took = r.within(ttl+slack, "what is the turn of a node that does not want it runs", func() bool { return r.each(100) })
		t.Logf("all run after %v", took)
		if took < ttl/2 {
			t.Error("nothing was the other's turn")
		}
		r.noOverlap()
	})
}

// Wall clocks that are hours apart make no difference.
func TestWrongClocks(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		const works = 60
		for _, wrong := range []time.Duration{-time.Hour, 0, time.Hour} {
			n := r.node(func(o *store.Options, _ *Options) { o.Now = func() time.Time { return time.Now().Add(wrong) } })
			n.reg.Want(n.works(works, "1"))
		}
		r.within(30*ttl, "shared out", func() bool { return balanced(r, works) })
		r.settle()
		begun := r.count()
		time.Sleep(20 * ttl)
		if r.count() != begun {
			t.Errorf("%d changes of owner for nothing", r.count()-begun)
		}
		r.nodes[2].kill()
		r.within(3*ttl, "taken over", func() bool { return r.each(works) })
		r.nodes[0].kill()
		r.within(3*ttl, "taken over", func() bool { return r.each(works) })
		r.noOverlap()
	})
}

// A storage that is away for all stops everything after a TTL, and it goes on by itself with
// what was kept meanwhile.
func TestOutageOfOneNodeAlone(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		a := r.node()
		var k box[Keeper]
		var kept box[string]
		a.keep, a.load = k.set, func(_, what string) { kept.set(what) }
		a.reg.Want(a.works(1, "1"))
		r.within(slack, "it runs", func() bool { return r.each(1) })
		a.disk.fail(errDisk)
		k.get().Keep([]byte(`"meanwhile"`))
		time.Sleep(ttl / 3)
		if !r.each(1) {
			t.Fatal("it goes on while the lease holds")
		}
		r.within(ttl, "it stops", func() bool { return r.each(0) })
		time.Sleep(5 * ttl)
		if s := a.status("work-0000"); s.State != Waiting || s.Cause != notHeld || s.Here || string(s.Kept) != `"meanwhile"` {
			t.Errorf("got %+v", s)
		}
		a.disk.fail(nil)
		took := r.within(ttl, "it goes on", func() bool { return r.each(1) })
		t.Logf("it goes on %v after the storage", took)
		if kept.get() != `"meanwhile"` {
			t.Errorf("it goes on with %q", kept.get())
		}
		if s := a.status("work-0000"); s.State != Running || s.Cause != "" {
			t.Errorf("got %+v", s)
		}
	})
}

// Closing while nothing can be written ends in time, and says what is left.
func TestCloseDuringAnOutage(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		a := r.node()
		a.drain = 10 * time.Millisecond
		a.keep = func(k Keeper) { k.Keep([]byte("1")) }
		a.reg.Want(a.works(20, "1"))
		r.within(slack, "they run", func() bool { return r.each(20) })
		free := a.disk.stall()
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		began := time.Now()
		err := a.reg.Close(ctx)
		if err == nil || !errors.Is(err, context.DeadlineExceeded) || !has(err.Error(), "what 20 have kept") || time.Since(began) > 4*time.Second {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
		r.within(time.Second, "they have ended", func() bool { return r.each(0) })
		free()
		b := r.node()
		b.reg.Want(b.works(20, "1"))
		r.within(3*ttl, "others take it", func() bool { return r.each(20) })
		r.noOverlap()
	})
}
