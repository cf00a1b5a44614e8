package link_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/link"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// broker is what the links of these tests connect to.
type broker struct {
	mu      sync.Mutex
	down    map[string]error // by address
	slow    time.Duration
	dialled []string
	closed  int
	conns   []chan error
}

var errRefused = errors.New("connection refused")

func (b *broker) link(t *testing.T, idle time.Duration, addresses ...string) *link.Link[int] {
	l := link.New(link.Options[int]{
		Name: "Broker", Addresses: addresses, Idle: idle,
		Dial: func(ctx context.Context, address string) (int, <-chan error, error) {
			b.mu.Lock()
			b.dialled = append(b.dialled, address)
			err, slow := b.down[address], b.slow
			b.mu.Unlock()
			if slow > 0 {
				select {
				case <-time.After(slow):
				case <-ctx.Done():
					return 0, nil, ctx.Err()
				}
			}
			if err != nil {
				return 0, nil, err
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			lost := make(chan error, 1)
			b.conns = append(b.conns, lost)
			return len(b.conns), lost, nil
		},
		Close: func(int) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.closed++
		},
	})
	t.Cleanup(l.Close)
	return l
}

func (b *broker) set(address string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down == nil {
		b.down = make(map[string]error)
	}
	b.down[address] = err
}

func (b *broker) cut(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conns[n-1] <- errors.New("reset by peer")
}

func (b *broker) counts() (dialled, closed int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.dialled), b.closed
}

func get(t *testing.T, l *link.Link[int]) link.Conn[int] {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	c, err := l.Get(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestConnectsOnFirstUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &broker{}
		l := b.link(t, 0, "a:1")
		synctest.Wait()
		if n, _ := b.counts(); n != 0 || l.Status().State != endpoints.Idle {
			t.Fatalf("%d connections before the first use, status %+v", n, l.Status())
		}
		for range 3 {
			if c := get(t, l); c.C != 1 || c.Epoch != 1 {
				t.Errorf("got %+v", c)
			}
		}
		if s := l.Status(); s.State != endpoints.Up || s.Error != "" || s.Address != "a:1" {
			t.Errorf("status %+v", s)
		}
		l.Close()
		if _, closed := b.counts(); closed != 1 {
			t.Errorf("%d connections were closed", closed)
		}
		if _, err := l.Get(t.Context()); message.KindOf(err) != message.Unavailable {
			t.Errorf("after Close: %v", err)
		}
	})
}

func TestARefusalComesAtOnceAndNamesTheCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &broker{}
		b.set("a:1", errRefused)
		l := b.link(t, 0, "a:1")
		for range 2 { // also while the back-off of the first would still last
			began := time.Now()
			_, err := l.Get(t.Context())
			if message.KindOf(err) != message.Unavailable || !errors.Is(err, errRefused) || !strings.Contains(err.Error(), "a:1") {
				t.Errorf("got %v", err)
			}
			if took := time.Since(began); took > 300*time.Millisecond {
				t.Errorf("it took %v", took)
			}
			if s := l.Status(); s.State != endpoints.Down || !strings.Contains(s.Error, "refused") {
				t.Errorf("status %+v", s)
			}
			time.Sleep(3 * time.Second)
		}
		b.set("a:1", nil)
		if c := get(t, l); c.Epoch != 1 {
			t.Errorf("got %+v", c)
		}
	})
}

func TestABlackHoleIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &broker{slow: time.Hour}
		l := b.link(t, 0, "a:1")
		began := time.Now()
		_, err := l.Get(t.Context())
		if message.KindOf(err) != message.Unavailable || time.Since(began) > 5*time.Second {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := l.Get(ctx); message.KindOf(err) != message.Unavailable {
			t.Errorf("got %v", err)
		}
	})
}

func TestAwaitOutlastsFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &broker{}
		b.set("a:1", errRefused)
		l := b.link(t, 0, "a:1")
		go func() {
			time.Sleep(time.Minute)
			b.set("a:1", nil)
		}()
		began := time.Now()
		if _, err := l.Await(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 66*time.Second {
			t.Errorf("the connection came %v after the broker", took-time.Minute)
		}
		if n, _ := b.counts(); n > 40 {
			t.Errorf("%d attempts in a minute", n)
		}
	})
}

func TestALostConnectionIsMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &broker{}
		l := b.link(t, time.Minute, "a:1")
		defer l.Hold()()
		first := get(t, l)
		b.cut(1)
		<-first.Gone
		second := get(t, l)
		if second.Epoch != 2 || second.C != 2 {
			t.Errorf("got %+v", second)
		}
		l.Drop(first.Epoch, errors.New("an old complaint"))
		synctest.Wait()
		if c, ok := l.Up(); !ok || c.Epoch != 2 {
			t.Errorf("an old complaint ended %+v", c)
		}
		// Old ones that nobody has read yet do not stand in the way of one that counts.
		for range 3 {
			l.Drop(first.Epoch, errors.New("an old complaint"))
		}
		l.Drop(second.Epoch, errors.New("of no use"))
		<-second.Gone
		if c := get(t, l); c.Epoch != 3 {
			t.Errorf("got %+v", c)
		}
	})
}

// Whoever waited for the end of a connection finds its cause in the status, and it stays
// there until somebody asks for the next or its time has come.
func TestTheCauseIsKnownWhenAConnectionIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := new(broker)
		l := b.link(t, time.Minute, "a:1")
		var callers sync.WaitGroup
		for range 8 { // more than one asks for the first
			callers.Go(func() {
				if _, err := l.Get(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		callers.Wait()
		conn, _ := l.Up()
		time.Sleep(time.Second)
		b.cut(1)
		<-conn.Gone
		if status := l.Status(); status.State != endpoints.Down || !strings.Contains(status.Error, "reset by peer") {
			t.Errorf("%+v", status)
		}
		if _, ok := l.Up(); ok {
			t.Error("the connection is still handed out")
		}
		l.Close()
	})
}

func TestAddressesAreTriedInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &broker{}
		b.set("a:1", errRefused)
		l := b.link(t, 0, "a:1", "b:1")
		get(t, l)
		b.cut(1)
		synctest.Wait()
		get(t, l)
		b.mu.Lock()
		defer b.mu.Unlock()
		if got := strings.Join(b.dialled, " "); got != "a:1 b:1 b:1" {
			t.Errorf("dialled %s", got)
		}
	})
}

func TestUnusedConnectionsAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &broker{}
		l := b.link(t, time.Minute, "a:1")
		get(t, l)
		release := l.Hold()
		time.Sleep(10 * time.Minute)
		if s := l.Status(); s.State != endpoints.Up {
			t.Fatalf("%+v, though somebody holds it", s)
		}
		release()
		release() // twice is once
		time.Sleep(2 * time.Minute)
		if s := l.Status(); s.State != endpoints.Idle {
			t.Fatalf("%+v after two minutes without use", s)
		}
		if _, closed := b.counts(); closed != 1 {
			t.Errorf("%d connections were closed", closed)
		}
		for range 8 { // use keeps it
			get(t, l)
			time.Sleep(30 * time.Second)
		}
		if c := get(t, l); c.Epoch != 2 {
			t.Errorf("got %+v, want the second connection still", c)
		}
	})
}

// A broker that nobody asks for is not called for ever.
func TestAttemptsEndWhenNobodyWantsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &broker{}
		b.set("a:1", errRefused)
		l := b.link(t, time.Minute, "a:1")
		_, err := l.Get(t.Context())
		if err == nil {
			t.Fatal("no error")
		}
		time.Sleep(3 * time.Minute)
		before, _ := b.counts()
		time.Sleep(time.Hour)
		if after, _ := b.counts(); after != before {
			t.Errorf("%d attempts in an hour in which nobody asked", after-before)
		}
	})
}

func TestManyCallersShareOneAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &broker{slow: time.Second}
		l := b.link(t, 0, "a:1")
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { get(t, l) })
		}
		wg.Wait()
		if n, _ := b.counts(); n != 1 {
			t.Errorf("%d attempts", n)
		}
	})
}

func TestClosingEndsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &broker{slow: time.Hour}
		l := b.link(t, 0, "a:1")
		done := make(chan error)
		go func() {
			_, err := l.Await(context.Background())
			done <- err
		}()
		synctest.Wait()
		l.Close()
		if err := <-done; message.KindOf(err) != message.Unavailable {
			t.Errorf("got %v", err)
		}
	})
}

func BenchmarkGet(b *testing.B) {
	l := link.New(link.Options[int]{
		Addresses: []string{"a:1"}, Idle: time.Minute, Close: func(int) {},
		Dial: func(context.Context, string) (int, <-chan error, error) { return 1, nil, nil },
	})
	defer l.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.Get(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}
