package module

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const testTick = 100 * time.Millisecond

func (w *timingWheel) state() (entries int, running bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.entries, w.running
}

// rest lets the wheel's goroutine find out that nobody is there.
func (w *timingWheel) rest(t *testing.T) {
	t.Helper()
	time.Sleep(2 * w.tick)
	synctest.Wait()
	if n, running := w.state(); n != 0 || running {
		t.Errorf("%d entries are left, running is %v", n, running)
	}
}

// Intervals are kept to the tick, short ones and those over one or more turns.
func TestWheelKeepsIntervals(t *testing.T) {
	for _, ticks := range []int{1, 2, 7, wheelSlots - 1, wheelSlots, wheelSlots + 1, 2 * wheelSlots, 2*wheelSlots + 1, 5000} {
		t.Run(fmt.Sprint(ticks), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWheel(testTick)
				interval := time.Duration(ticks) * testTick
				start := time.Now()
				var at []time.Duration
				stop := w.every(interval, func(now time.Time) {
					at = append(at, now.Sub(start))
				})
				time.Sleep(3*interval + testTick/2)
				synctest.Wait()
				stop()
				if want := []time.Duration{interval, 2 * interval, 3 * interval}; !slices.Equal(at, want) {
					t.Errorf("called at %v, want %v", at, want)
				}
				time.Sleep(2 * interval)
				synctest.Wait()
				if len(at) != 3 {
					t.Errorf("called after stop: %v", at)
				}
				w.rest(t)
			})
		})
	}
}

// What is between two ticks is rounded up: nobody is called too often.
func TestWheelRoundsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWheel(testTick)
		for d, want := range map[time.Duration]time.Duration{
			0: testTick, -time.Second: testTick, 1: testTick, testTick + 1: 2 * testTick, 250 * time.Millisecond: 3 * testTick,
		} {
			start := time.Now()
			called := make(chan time.Duration, 1)
			stop := w.every(d, func(now time.Time) {
				select {
				case called <- now.Sub(start):
				default:
				}
			})
			if got := <-called; got != want {
				t.Errorf("%s: called after %s, want %s", d, got, want)
			}
			stop()
			w.rest(t) // so that the next one begins with a fresh tick
		}
	})
}

// Many entries come and go, several in one slot, and each is called when it should be.
func TestWheelWithManyEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWheel(testTick)
		r := rand.New(rand.NewPCG(7, 7))
		type entry struct {
			ticks, calls int
			start, end   time.Time
			stop         func()
		}
		var all, live []*entry
		for range 300 {
			e := &entry{ticks: 1 + r.IntN(40), start: time.Now()}
			e.stop = w.every(time.Duration(e.ticks)*testTick, func(time.Time) { e.calls++ })
			all, live = append(all, e), append(live, e)
			if len(live) > 100 {
				i := r.IntN(len(live))
				live[i].stop()
				live[i].stop() // twice is as good as once
				live[i].end = time.Now()
				live = slices.Delete(live, i, i+1)
			}
			if r.IntN(3) == 0 {
				time.Sleep(time.Duration(1+r.IntN(3)) * testTick)
				synctest.Wait()
			}
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		for _, e := range live {
			e.stop()
			e.end = time.Now()
		}
		for i, e := range all {
			want := int(e.end.Sub(e.start)/testTick) / e.ticks
			// An entry made in the moment of a tick may get this one or the next as its first.
			if e.calls < want-1 || e.calls > want+1 {
				t.Errorf("entry %d, every %d ticks for %s: %d calls, want %d", i, e.ticks, e.end.Sub(e.start), e.calls, want)
			}
		}
		for i, head := range w.slots {
			if head != nil {
				t.Errorf("slot %d is not empty", i)
			}
		}
		w.rest(t)
	})
}

// A wheel at rest has no goroutine, and begins again when somebody comes.
func TestWheelRestsAndBeginsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWheel(testTick)
		for range 3 {
			called := make(chan struct{}, 10)
			stop := w.every(testTick, func(time.Time) { called <- struct{}{} })
			<-called
			if _, running := w.state(); !running {
				t.Error("not running")
			}
			stop()
			w.rest(t)
		}
	})
}

// Stop is a promise: f does not run when stop has returned.
func TestWheelStopRacesWithCalls(t *testing.T) {
	w := newWheel(time.Millisecond)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				alive := true // unguarded on purpose: the race detector watches
				called := make(chan struct{}, 1)
				stop := w.every(time.Millisecond, func(time.Time) {
					if !alive {
						t.Error("called after stop")
					}
					select {
					case called <- struct{}{}:
					default:
					}
				})
				<-called
				stop()
				alive = false
			}
		})
	}
	wg.Wait()
	eventually(t, "the wheel to rest", func() bool { _, running := w.state(); return !running })
}

func BenchmarkWheel(b *testing.B) {
	w := newWheel(time.Hour)
	for range 100_000 {
		w.every(25*time.Hour, func(time.Time) {})
	}
	b.ReportAllocs()
	for b.Loop() {
		w.every(25*time.Hour, func(time.Time) {})()
	}
}
