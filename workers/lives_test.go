package workers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A changed Version ends the old Run and then begins the new one, on the same node, and
// nothing else is touched.
func TestChangedVersion(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		a := r.node()
		a.drain = 2 * time.Second
		a.reg.Want(a.works(3, "1"))
		r.within(slack, "they run", func() bool { return r.each(3) })
		list := a.works(3, "1")
		list[1] = a.works(2, "2")[1]
		a.reg.Want(list)
		a.reg.Want(list)
		time.Sleep(time.Second)
		if r.count() != 3 {
			t.Error("the new one runs before the old one has ended")
		}
		r.within(2*time.Second, "the new one runs", func() bool { return r.count() == 4 && r.each(3) })
		if last := r.span(3); last.id != "work-0001" || last.version != "2" || r.span(1).fenced {
			t.Errorf("got %+v", last)
		}
		a.reg.Want(list[:2])
		r.within(4*time.Second, "one is released", func() bool { return r.each(2) && a.status("work-0002").Owner == "" })
		if s := a.status("work-0002"); s.State != Waiting || s.Here {
			t.Errorf("got %+v", s)
		}
		a.reg.Want(list)
		r.within(slack, "and runs again", func() bool { return r.each(3) })
		r.noOverlap()
	})
}

// What has failed stays so over restarts and changes of the configuration elsewhere, until
// somebody has it retried, from whatever node.
func TestFailureStays(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		a, b := r.node(), r.node()
		broken := func(n *node, version string) []Work {
			return []Work{{ID: "w", Version: version, Run: func(_ context.Context, k Keeper) error {
				r.begin(&span{node: n, id: "w", begin: time.Now(), end: time.Now()})
				k.Keep([]byte(`{"version":"` + version + `"}`))
				return fmt.Errorf("wrapped: %w", failing("HTTP 404 from "+version))
			}}}
		}
		a.reg.Want(broken(a, "1"))
		r.within(slack, "it has failed", func() bool { return a.status("w").State == Failed })
		b.reg.Want(broken(b, "1"))
		time.Sleep(10 * ttl)
		for _, n := range r.nodes {
			s := n.status("w")
			if s.State != Failed || s.Cause != "HTTP 404 from 1" || s.Owner != "" || s.Here || string(s.Kept) != `{"version":"1"}` || time.Since(s.Since) < 9*ttl {
				t.Errorf("%s: %+v", n.name, s)
			}
		}
		if r.count() != 1 {
			t.Errorf("it was begun %d times", r.count())
		}
		// It outlives the nodes.
		a.close()
		b.close()
		c, d := r.node(), r.node()
		c.reg.Want(broken(c, "1"))
		d.reg.Want(broken(d, "1"))
		time.Sleep(10 * ttl)
		if s := c.status("w"); s.State != Failed || r.count() != 1 {
			t.Errorf("got %+v after %d", s, r.count())
		}
		if err := d.reg.Retry(t.Context(), "nothing", "me"); !errors.Is(err, ErrNotFailed) {
			t.Errorf("got %v", err)
		}
		if err := d.reg.Retry(t.Context(), "w", "me"); err != nil {
			t.Fatal(err)
		}
		r.within(2*ttl+slack, "it was tried once more", func() bool { return r.count() == 2 && d.status("w").State == Failed })
		// Another version is tried once, on whatever node has it; the nodes with the old one
		// are not woken by its failure.
		c.reg.Want(broken(c, "2"))
		r.within(2*ttl+slack, "the new version was tried", func() bool { return r.count() == 3 && d.status("w").Cause == "HTTP 404 from 2" })
		time.Sleep(20 * ttl)
		if r.count() != 3 {
			t.Errorf("two versions have woken up each other %d times", r.count()-3)
		}
		d.reg.Want(broken(d, "2"))
		d.reg.Want(broken(d, "1")) // somebody has gone back
		r.within(2*ttl+slack, "the old version was tried again", func() bool { return r.count() >= 4 && d.status("w").State == Failed })
		c.reg.Want(c.works(0, ""))
		d.reg.Want([]Work{{ID: "w", Version: "3", Run: d.run("w", "3")}})
		r.within(2*ttl+slack, "one that is well runs", func() bool { return d.status("w").State == Running && r.each(1) })
		if err := c.reg.Retry(t.Context(), "w", "me"); !errors.Is(err, ErrNotFailed) {
			t.Errorf("got %v", err)
		}
	})
}

// A failure that can't be stored stays one, and is stored later.
func TestFailureDuringAnOutage(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		a := r.node()
		now := make(chan struct{})
		a.reg.Want([]Work{{ID: "w", Version: "1", Run: func(context.Context, Keeper) error {
			r.begin(&span{node: a, id: "w", begin: time.Now(), end: time.Now()})
			<-now
			return failing("enough")
		}}})
		r.within(slack, "it runs", func() bool { return r.count() == 1 })
		a.disk.fail(errDisk)
		close(now)
		synctest.Wait()
		time.Sleep(3 * ttl)
		if s := a.status("w"); s.State != Failed || s.Cause != "enough" {
			t.Errorf("got %+v", s)
		}
		a.disk.fail(nil)
		b := r.node()
		b.reg.Want(b.works(0, ""))
		r.within(2*ttl, "it is stored", func() bool { s, ok := b.reg.Status("w"); return ok && s.State == Failed })
		if r.count() != 1 {
			t.Errorf("begun %d times", r.count())
		}
	})
}

// Any other end has the work begun again, after pauses that grow; a panic ends nobody else.
func TestBackOff(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		a := r.node()
		var mu sync.Mutex
		var begun []time.Time
		a.reg.Want([]Work{{ID: "w", Version: "1", Run: func(ctx context.Context, _ Keeper) error {
			mu.Lock()
			begun = append(begun, time.Now())
			n := len(begun)
			mu.Unlock()
			switch {
			case n == 1:
				panic("oops")
			case n == 2:
				return nil
			case n == 12:
				time.Sleep(2 * time.Minute)
			case n == 14:
				<-ctx.Done()
				return nil
			}
			return errors.New("connection refused")
		}}})
		r.within(slack, "it runs", func() bool { mu.Lock(); defer mu.Unlock(); return len(begun) == 1 })
		time.Sleep(300 * time.Millisecond)
		if s := a.status("w"); s.State != Running || !s.Here || !has(s.Cause, "oops") {
			t.Errorf("got %+v", s)
		}
		r.within(15*time.Minute, "it runs again and again", func() bool { mu.Lock(); defer mu.Unlock(); return len(begun) == 14 })
		for i := range 10 {
			pause, want := begun[i+1].Sub(begun[i]), min(time.Second<<i, time.Minute)
			if pause < want || pause > want*5/4+slack {
				t.Errorf("pause %d is %v", i, pause)
			}
		}
		if pause := begun[12].Sub(begun[11]) - 2*time.Minute; pause > 4*time.Second {
			t.Errorf("the pause after a long run is %v", pause)
		}
		time.Sleep(2 * time.Minute)
		if s := a.status("w"); s.State != Running || s.Cause != "" {
			t.Errorf("got %+v: it goes well again", s)
		}
	})
}

// What is kept outlives restarts and changes of the owner; of a killed node all but the last
// second.
func TestKeep(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		a := r.node()
		var k box[Keeper]
		a.keep = k.set
		a.reg.Want(a.works(1, "1"))
		r.within(slack, "it runs", func() bool { return r.each(1) })
		a.disk.counted()
		if k.get().Load() != nil {
			t.Errorf("got %s", k.get().Load())
		}
		for i := range 2000 { // for ten seconds
			k.get().Keep(fmt.Appendf(nil, `{"n":%d}`, i))
			if i%500 == 3 && string(k.get().Load()) != fmt.Sprintf(`{"n":%d}`, i) {
				t.Errorf("got %s", k.get().Load())
			}
			time.Sleep(5 * time.Millisecond)
		}
		if locks := a.disk.counted()["lock"]; locks < 8 || locks > 11 {
			t.Errorf("2000 changes in 10s took %d locks", locks)
		}
		k.get().Keep([]byte("{not JSON"))
		time.Sleep(1500 * time.Millisecond)
		k.get().Keep([]byte(`"` + strings.Repeat("x", MaxKept) + `"`))
		if got := string(a.status("work-0000").Kept); got != `{"n":1999}` {
			t.Errorf("got %.100s", got)
		}
		k.get().Keep([]byte(`"before the end"`))
		a.close()
		k.get().Keep([]byte(`"too late"`))
		b := r.node()
		var loaded box[string]
		b.load = func(_, kept string) { loaded.set(kept) }
		b.keep = k.set
		b.reg.Want(b.works(1, "1"))
		r.within(slack, "the next process runs it", func() bool { return r.each(1) })
		if loaded.get() != `"before the end"` {
			t.Errorf("got %s", loaded.get())
		}
		// And with a new version.
		k.get().Keep([]byte(`"a new version"`))
		b.reg.Want(b.works(1, "2"))
		r.within(slack, "the new one runs", func() bool { return r.each(1) && loaded.get() == `"a new version"` })
		k.get().Keep([]byte(`"killed"`))
		time.Sleep(1200 * time.Millisecond)
		k.get().Keep([]byte(`"lost"`))
		b.kill()
		c := r.node()
		c.load = func(_, kept string) { loaded.set(kept) }
		c.reg.Want(c.works(1, "2"))
		r.within(3*ttl, "it is taken over", func() bool { return r.each(1) })
		if loaded.get() != `"killed"` {
			t.Errorf("got %s", loaded.get())
		}
	})
}

// What a node kept while others took over is not put over what they kept.
func TestKeepOfFencedNode(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		a, b := r.node(), r.node()
		var k box[Keeper]
		var loaded box[string]
		a.keep = k.set
		a.load = func(_, kept string) { loaded.set(kept) }
		b.keep = func(one Keeper) { one.Keep([]byte(`"b"`)) }
		a.reg.Want(a.works(1, "1"))
		r.within(slack, "a runs it", func() bool { return r.each(1) })
		free := a.disk.stall()
		k.get().Keep([]byte(`"a, who did not know"`))
		b.reg.Want(b.works(1, "1"))
		r.within(3*ttl+slack, "b has taken over", func() bool { _, nodes := r.owners(); return nodes[b] == 1 })
		free()
		time.Sleep(2 * ttl)
		b.close()
		r.within(2*ttl, "a has it again", func() bool { _, nodes := r.owners(); return nodes[a] == 1 })
		if loaded.get() != `"b"` {
			t.Errorf("got %s", loaded.get())
		}
		r.noOverlap()
	})
}

// Forget ends a work everywhere, and leaves nothing behind.
func TestForget(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		a, b := r.node(), r.node()
		a.reg.Want(a.works(2, "1"))
		r.within(slack, "a runs them", func() bool { return r.each(2) })
		b.reg.Want(b.works(2, "1"))
		if err := b.reg.Forget(t.Context(), "work-0000"); err != nil {
			t.Fatal(err)
		}
		r.within(ttl, "it has ended", func() bool { return r.each(1) })
		time.Sleep(10 * ttl)
		if !r.each(1) {
			t.Error("it was begun again")
		}
		for _, n := range r.nodes {
			n.reg.Want(n.works(2, "1")[1:])
			r.within(slack, "nothing is known of it", func() bool { _, ok := n.reg.Status("work-0000"); return !ok })
		}
		if err := a.reg.Forget(t.Context(), "work-0000"); err != nil {
			t.Error(err)
		}
		b.reg.Want(b.works(2, "1"))
		r.within(2*ttl, "it is wanted anew", func() bool { return r.each(2) })
	})
}

// What can't be done is said, and keeps up nothing else.
func TestUnusableWorks(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		a := r.node()
		list := a.works(2, "1")
		long := strings.Repeat("x", 600)
		list = append(list, list[0], Work{ID: long, Run: a.run(long, "")}, Work{ID: "", Run: a.run("", "")}, Work{ID: "none"})
		a.reg.Want(list)
		r.within(slack, "the others run", func() bool { return r.each(2) })
		for _, id := range []string{long, "", "none"} {
			if s := a.status(id); s.State != Failed || s.Cause == "" {
				t.Errorf("%.10s: %+v", id, s)
			}
		}
	})
}

// A record that can't be read is no reason to do nothing.
func TestDamagedRecord(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		a := r.node()
		err := a.store.Update(t.Context(), nil, txPut("work-0000", []int{1}))
		if err != nil {
			t.Fatal(err)
		}
		a.reg.Want(a.works(1, "1"))
		r.within(slack, "it runs", func() bool { return r.each(1) })
	})
}

// A node whose files somebody removes, or whose record somebody else has, lets go; under
// another id it goes on.
func TestOtherOwnerOfTheRecord(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		a, b := r.node(), r.node()
		a.reg.Want(a.works(1, "1"))
		r.within(slack, "it runs", func() bool { return r.each(1) })
		b.reg.Want(b.works(0, ""))
		ref := refOf("work-0000")
		err := b.store.Update(t.Context(), refs(ref), txPut(ref.ID, record{Owner: b.store.Node()}))
		if err != nil {
			t.Fatal(err)
		}
		// b keeps no lease, so that it is free again as soon as a has let go.
		r.within(ttl, "it was let go", func() bool { return !r.span(0).end.IsZero() })
		if !r.span(0).fenced {
			t.Error("not fenced")
		}
		r.within(2*ttl, "it runs again", func() bool { return r.each(1) })
		old := a.store.Node()
		a.disk.fail(errDisk)
		if err := r.shared.Memory.Delete(t.Context(), "message_api/v1/nodes/"+old); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * ttl)
		a.disk.fail(nil)
		r.within(2*ttl, "it runs under another id", func() bool {
			s := a.status("work-0000")
			return r.each(1) && s.Here && s.Owner == a.store.Node() && s.Owner != old
		})
	})
}

// Records are what is documented.
func TestRecord(t *testing.T) {
	rec := record{Owner: "a", From: "b", Kept: json.RawMessage(`1`)}
	for i := range 20 {
		rec.fail(strings.Repeat("é", maxCause), fmt.Sprint(i), time.Unix(1, 0).UTC())
	}
	if len(rec.Versions) != maxVersions || !rec.refuses("19") || rec.refuses("3") || rec.Owner != "" || len(rec.Cause) > maxCause+3 {
		t.Errorf("got %+v", rec)
	}
	rec.retry("me", time.Unix(2, 0).UTC())
	data, err := json.Marshal(rec)
	if err != nil || string(data) != `{"since":"1970-01-01T00:00:02Z","version":"19","by":"me","kept":1}` {
		t.Errorf("got %s %v", data, err)
	}
}
