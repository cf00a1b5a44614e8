package worker

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// busy notes how many calls are under way, in all and per key.
type busy struct {
	sync.Mutex
	now, most int
	keys      map[string]int
	twice     bool
}

func (b *busy) enter(key string) {
	b.Lock()
	defer b.Unlock()
	if b.keys == nil {
		b.keys = make(map[string]int)
	}
	b.now++
	b.most = max(b.most, b.now)
	b.keys[key]++
	b.twice = b.twice || b.keys[key] > 1
}

func (b *busy) leave(key string) {
	b.Lock()
	defer b.Unlock()
	b.now--
	b.keys[key]--
}

func TestOrders(t *testing.T) {
	for _, c := range []struct {
		name        string
		order       Order
		concurrency int
		keys        []string
		most        int
		scope       func(d *message.Delivery) string
	}{
		{"one", None, 1, []string{"a", "b", ""}, 1, nil},
		{"key", ByKey, 4, []string{"a", "b"}, 4, func(d *message.Delivery) string { return d.Lane + string(d.Key) }},
		{"no key", ByKey, 4, []string{""}, 2, func(d *message.Delivery) string { return d.Lane }},
		{"lane", ByLane, 4, []string{"a", "b", "c"}, 2, func(d *message.Delivery) string { return d.Lane }},
		{"none", None, 3, []string{"a"}, 3, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, newBroker(2, 100))
				for i := range 60 {
					r.publish(i%2, c.keys[i/2%len(c.keys)])
				}
				r.opt.Order, r.opt.Concurrency = c.order, c.concurrency
				var b busy
				r.opt.Send = r.client(func(d *message.Delivery, n int) Result {
					key := string(d.Payload)
					if c.scope != nil {
						key = c.scope(d)
					}
					b.enter(key)
					defer b.leave(key)
					time.Sleep(time.Second)
					return ok()
				})
				r.start()
				wait(2 * time.Minute)
				r.want("most at once", b.most, c.most)
				r.want("two at once in order", b.twice, false)
				r.want("unsettled", r.unsettled(), 0)
				r.want("result", r.stop(), nil)
			})
		})
	}
}

// poison lets all messages with a key fail.
func (r *rig) poison(key string, o entrypoints.Outcome) {
	r.opt.Send = r.client(func(d *message.Delivery, n int) Result {
		if string(d.Key) == key {
			return answer(o, 500)
		}
		return ok()
	})
}

func TestPoisonedLaneParksAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newBroker(1, 100))
		r.opt.Concurrency = 4
		r.poison("bad", entrypoints.ServerError)
		r.opt.Retry = Retry{Attempts: Unlimited, Delay: time.Minute, MaxDelay: time.Minute}
		r.start()
		for range 20 {
			r.publish(0, "bad")
			r.publish(0, "good")
			r.publish(0, "better")
		}
		wait(time.Second)
		r.want("bad", len(r.called("orders/0 0")), 1)
		r.want("unsettled", r.unsettled(), 20)
		wait(time.Hour)
		r.want("bad", len(r.called("orders/0 0")), 61)
		r.want("behind it", len(r.called("orders/0 3")), 0)
		r.want("result", r.stop(), nil)
		r.want("parked", len(r.last().Parked), 1)
		r.want("attempts", r.last().Parked[0].Attempts, 61)
	})
}

func TestPoisonedLaneThatFillsTheWindowGivesWay(t *testing.T) {
	for _, mode := range []string{"queued", "ordered", "all", "only"} {
		t.Run(mode, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, newBroker(2, 40))
				r.ordered = mode == "ordered"
				r.opt.Capabilities.OrderedSettle, r.opt.HoldsAll = r.ordered, mode == "all"
				r.opt.Concurrency = 4
				r.poison("bad", entrypoints.ServerError)
				r.opt.Retry = Retry{Attempts: Unlimited, Delay: time.Hour, MaxDelay: time.Hour}
				r.opt.OnExhausted, r.opt.DeadLetter = DeadLetter, r.bury
				r.publish(1, "good") // so that it is known that there are others
				r.publish(0, "bad")
				r.start()
				for i := range 200 {
					switch mode {
					case "only": // and the others can't even be seen
						r.publish(0, "bad")
					case "queued":
						r.publish(0, "bad")
						r.publish(1, "good")
					default:
						r.publish(0, "good"+string(rune('a'+i%20)))
					}
					wait(time.Millisecond)
				}
				last := r.publish(1, "last")
				wait(time.Second)
				r.want("last", len(r.called(string(last.Payload))), 1)
				if len(r.buried()) == 0 {
					t.Fatal("nothing gave way")
				}
				for _, l := range r.buried() {
					r.want("reason", l.Reason, "window_full:server_error")
					r.want("attempts", l.Attempts, 1+maxHurries)
				}
				if mode == "ordered" || mode == "all" {
					r.want("dead", len(r.buried()), 1)
					r.want("unsettled", r.unsettled(), 0)
				} else if held := r.lent(); held > 21 {
					t.Errorf("%d are held, of a window of 40", held)
				}
				r.want("result", r.stop(), nil)
			})
		})
	}
}

func TestOnlyLaneWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newBroker(1, 20))
		r.opt.Concurrency = 4
		r.opt.OnExhausted, r.opt.DeadLetter = DeadLetter, r.bury
		r.opt.Send = r.client(func(d *message.Delivery, n int) Result {
			if n < 5 {
				return answer(entrypoints.Unreachable, 0)
			}
			return ok()
		})
		r.start()
		for range 30 {
			r.publish(0, "")
		}
		wait(14 * time.Second)
		r.want("calls", len(r.made()), 4)
		r.want("lent", r.lent(), 20)
		r.want("trouble", strings.Contains(r.last().Trouble, "msg orders/0 0 failed with unreachable at attempt 4"), true)
		wait(time.Hour)
		r.want("unsettled", r.unsettled(), 0)
		r.want("letters", len(r.buried()), 0)
		r.want("result", r.stop(), nil)
	})
}

func TestIdleWorkersEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(1, 100)
		r := newRig(t, b)
		r.opt.Concurrency, r.opt.Order = 20, None
		r.opt.Send = r.client(func(d *message.Delivery, n int) Result { time.Sleep(time.Second); return ok() })
		for range 20 {
			r.publish(0, "")
		}
		before := runtime.NumGoroutine()
		r.start()
		wait(2 * time.Second)
		if n := runtime.NumGoroutine() - before; n < 20 {
			t.Errorf("%d goroutines", n)
		}
		wait(time.Minute)
		if n := runtime.NumGoroutine() - before; n > 8 {
			t.Errorf("%d goroutines are left after a minute of nothing", n)
		}
		for range 20 {
			r.publish(0, "")
		}
		wait(1500 * time.Millisecond)
		r.want("unsettled", r.unsettled(), 0)
		r.want("result", r.stop(), nil)
	})
}

func TestOutageDeadLettersNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newBroker(2, 40))
		r.opt.Concurrency, r.opt.Order = 4, None
		down := true
		var lock sync.Mutex
		r.opt.Send = r.client(func(d *message.Delivery, n int) Result {
			lock.Lock()
			defer lock.Unlock()
			if down {
				return answer(entrypoints.Unreachable, 0)
			}
			return ok()
		})
		r.opt.Retry = Retry{Attempts: 20, Delay: time.Second, MaxDelay: time.Minute}
		r.opt.OnExhausted, r.opt.DeadLetter = DeadLetter, r.bury
		r.start()
		for i := range 300 {
			r.publish(i%2, "")
		}
		wait(5 * time.Minute)
		r.want("letters", len(r.buried()), 0)
		r.want("lent", r.lent(), 40)
		r.want("trouble", strings.Contains(r.last().Trouble, "39 others wait as well"), true)
		lock.Lock()
		down = false
		lock.Unlock()
		wait(2 * time.Minute)
		r.want("letters", len(r.buried()), 0)
		r.want("unsettled", r.unsettled(), 0)
		r.want("result", r.stop(), nil)
		r.want("trouble", r.last().Trouble, "")
	})
}

func TestThrottledIsNotHurried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newBroker(1, 20))
		r.opt.Concurrency = 4
		r.opt.OnExhausted, r.opt.DeadLetter = DeadLetter, r.bury
		r.opt.Send = r.client(func(d *message.Delivery, n int) Result {
			if string(d.Key) == "bad" && n < 3 {
				res := answer(entrypoints.Throttled, 429)
				res.RetryAfter = time.Minute
				return res
			}
			return ok()
		})
		r.start()
		for range 30 {
			r.publish(0, "bad")
			r.publish(0, "good")
		}
		wait(59 * time.Second)
		r.want("calls", len(r.called("orders/0 0")), 1)
		wait(2 * time.Hour)
		r.want("letters", len(r.buried()), 0)
		r.want("unsettled", r.unsettled(), 0)
		r.want("result", r.stop(), nil)
	})
}

func TestHeldTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(1, 20)
		b.hold = time.Minute
		r := newRig(t, b)
		r.opt.OnExhausted, r.opt.DeadLetter = DeadLetter, r.bury
		r.opt.Send = r.client(func(d *message.Delivery, n int) Result {
			if string(d.Payload) == "orders/0 0" {
				return answer(entrypoints.TimedOut, 0)
			}
			return ok()
		})
		r.opt.Retry = Retry{Attempts: Unlimited, Strategy: Linear, Delay: 15 * time.Second}
		r.publish(0, "")
		r.publish(0, "")
		r.start()
		wait(2 * time.Minute)
		r.wantCalls("orders/0 0", "orders/0 0", "orders/0 0", "orders/0 1")
		r.want("letters", len(r.buried()), 1)
		r.want("reason", r.buried()[0].Reason, "held_too_long:timeout")
		r.want("unsettled", r.unsettled(), 0)
		r.want("result", r.stop(), nil)
	})
}

func TestWhatGrewOldBehindOthersComesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(1, 20)
		b.hold = time.Minute
		r := newRig(t, b)
		r.opt.Send = r.client(func(d *message.Delivery, n int) Result { time.Sleep(9 * time.Second); return ok() })
		for range 20 {
			r.publish(0, "")
		}
		r.start()
		wait(10 * time.Minute)
		r.want("calls", len(r.made()), 20) // none was in vain
		r.want("unsettled", r.unsettled(), 0)
		r.want("result", r.stop(), nil)
	})
}

func TestRevokedLanesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newBroker(2, 40))
		r.opt.Concurrency = 4
		r.opt.Retry = Retry{Attempts: 10, Strategy: Linear, Delay: time.Minute}
		bad := true
		var lock sync.Mutex
		r.opt.Send = r.client(func(d *message.Delivery, n int) Result {
			lock.Lock()
			defer lock.Unlock()
			if bad && d.Lane == "orders/0" {
				return answer(entrypoints.ServerError, 500)
			}
			return ok()
		})
		for range 5 {
			r.publish(0, "")
			r.publish(1, "")
		}
		r.start()
		wait(time.Second)
		r.revoke(0, 10*time.Minute)
		wait(9 * time.Minute)
		r.want("calls", len(r.called("orders/0 0")), 1)
		lock.Lock()
		bad = false
		lock.Unlock()
		r.publish(1, "")
		wait(2 * time.Minute)
		r.want("calls", len(r.called("orders/0 0")), 2)
		r.want("number", r.called("orders/0 0")[1].number, 2)
		r.want("unsettled", r.unsettled(), 0)
		r.want("result", r.stop(), nil)
	})
}

func TestNewEpochReplacesWhatIsStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newBroker(1, 40))
		r.opt.Retry = Retry{Attempts: 10, Strategy: Linear, Delay: time.Minute}
		r.opt.Concurrency = 2
		r.opt.Send = r.client(func(d *message.Delivery, n int) Result {
			if n < 3 {
				return answer(entrypoints.ServerError, 500)
			}
			return ok()
		})
		r.publish(0, "")
		r.start()
		begin := time.Now()
		wait(time.Second)
		r.reconnect()
		wait(10 * time.Minute)
		r.want("calls", len(r.made()), 3) // in spite of two deliveries
		r.want("second", r.made()[1].at.Sub(begin), time.Minute)
		r.want("unsettled", r.unsettled(), 0)
		r.want("result", r.stop(), nil)
	})
}

func TestDeadLettersWhoseBrokerIsAway(t *testing.T) {
	for _, c := range []struct {
		name  string
		err   error
		times int
		cause bool
		calls int
	}{
		{"for a while", message.Errorf(message.Unavailable, "gone fishing"), 5, false, 6},
		{"for good", message.Errorf(message.Unavailable, "gone fishing"), 1000, true, 9},
		{"unknown", message.Errorf(message.OutcomeUnknown, "gone fishing"), 1, false, 2},
		{"refused", errors.New("gone fishing"), 1000, true, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, newBroker(1, 20))
				r.publish(0, "")
				r.opt.OnClientError = DeadLetter
				calls := 0
				r.opt.DeadLetter = func(ctx context.Context, l entrypoints.Letter) error {
					if calls++; calls <= c.times {
						return c.err
					}
					return r.bury(ctx, l)
				}
				r.opt.Send = r.client(func(d *message.Delivery, n int) Result { return answer(entrypoints.ClientError, 404) })
				begin := time.Now()
				r.start()
				if c.cause {
					f := r.failure()
					if !strings.Contains(f.Cause, "gone fishing") || !strings.Contains(f.Cause, "HTTP status 404") || time.Since(begin) > burialTimeout {
						t.Errorf("after %v: %s", time.Since(begin), f.Cause)
					}
					r.want("unsettled", r.unsettled(), 1)
				} else {
					wait(time.Minute)
					r.want("result", r.stop(), nil)
					r.want("unsettled", r.unsettled(), 0)
				}
				r.want("calls", calls, c.calls)
			})
		})
	}
}

func TestDrainInterruptsDeadLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newBroker(1, 20))
		r.publish(0, "")
		r.opt.OnExhausted, r.opt.Retry = DeadLetter, Retry{Attempts: 1}
		r.opt.DeadLetter = func(context.Context, entrypoints.Letter) error {
			return message.Errorf(message.Unavailable, "away")
		}
		r.opt.Send = r.client(func(d *message.Delivery, n int) Result { return answer(entrypoints.ServerError, 500) })
		r.start()
		wait(10 * time.Second)
		r.want("result", r.stop(), nil)
		r.want("unsettled", r.unsettled(), 1)
		r.opt.DeadLetter = r.bury
		r.resume()
		wait(time.Second)
		r.want("result", r.stop(), nil)
		r.want("letters", len(r.buried()), 1)
		r.want("attempts", r.buried()[0].Attempts, 2)
		r.want("unsettled", r.unsettled(), 0)
	})
}

func TestWithoutAccountTheWindowIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newBroker(1, 1000))
		r.opt.Settles = false
		r.opt.Window.Messages = 20
		for range 300 {
			r.publish(0, "")
		}
		r.opt.Send = r.client(func(d *message.Delivery, n int) Result { time.Sleep(time.Second); return ok() })
		r.start()
		wait(100500 * time.Millisecond)
		r.want("calls", len(r.made()), 101)
		if lent := r.lent(); lent > 101+30 {
			t.Errorf("%d were received while 101 were sent", lent)
		}
		r.want("result", r.stop(), nil)
		r.want("acknowledged", 300-r.unsettled(), 0)
	})
}
