package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

func TestRateThatCanNotBeKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newBroker(1, 20))
		r.publish(0, "")
		over := errors.New("no such limit")
		r.opt.Pace = func(context.Context) error { return over }
		r.start()
		if err := <-r.result; !errors.Is(err, over) {
			t.Errorf("returned %v", err)
		}
		r.want("calls", len(r.made()), 0)
		r.want("unsettled", r.unsettled(), 1)
	})
}

func TestRateAndRevocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newBroker(1, 20))
		r.publish(0, "")
		r.opt.Pace = func(context.Context) error { time.Sleep(time.Minute); return nil }
		r.start()
		r.revoke(0, time.Hour)
		wait(30 * time.Minute)
		r.want("calls", len(r.made()), 0)
		r.want("result", r.stop(), nil)
	})
}

// A broker may have as many lanes as messages; they are not remembered.
func TestManySources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 2000
		r := newRig(t, newBroker(n, 50))
		r.opt.Concurrency = 8
		for i := range n {
			r.publish(i, "")
		}
		r.opt.defaults()
		r.opt.Stream = r.open()
		ctx, cancel := context.WithCancel(context.Background())
		e := newEngine(ctx, r.opt)
		most := 0
		e.opt.Send = func(context.Context, *message.Delivery, string, int) Result {
			e.mu.Lock()
			defer e.mu.Unlock()
			most = max(most, len(e.sources))
			return ok()
		}
		e.start()
		wait(time.Minute)
		cancel()
		r.want("result", e.finish(), nil)
		r.want("unsettled", r.unsettled(), 0)
		if most > 2*manySources {
			t.Errorf("%d lanes were remembered", most)
		}
	})
}

// Where the broker is told only up to where all is settled, the notes that this takes are
// bounded.
func TestFarBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(1, 1000)
		b.batch = 500
		r := newRig(t, b)
		r.opt.Concurrency = 4
		r.opt.Retry = Retry{Attempts: Unlimited, Delay: time.Hour, MaxDelay: time.Hour}
		r.poison("bad", entrypoints.ServerError)
		r.publish(0, "bad")
		r.start()
		for i := range maxNotes - 1 {
			r.publish(0, fmt.Sprint(i%50))
		}
		wait(time.Second)
		r.want("calls", len(r.called("orders/0 0")), 1)
		r.publish(0, "last")
		f := r.failure()
		if !strings.Contains(f.Cause, "keeps others from being delivered; on_exhausted is stop") {
			t.Error(f.Cause)
		}
		r.want("calls", len(r.called("orders/0 0")), 1+maxHurries)
	})
}

// Where settling one settles all before it, giving one back gives back all after it.
func TestOrderedGivesBackAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(1, 20)
		b.ordered, b.hold = true, time.Minute
		r := newRig(t, b)
		r.opt.Concurrency = 2
		slow := true
		r.opt.Send = r.client(func(d *message.Delivery, n int) Result {
			if string(d.Key) == "slow" && slow {
				time.Sleep(9 * time.Second)
			}
			return ok()
		})
		for range 10 {
			r.publish(0, "slow")
		}
		r.publish(0, "fast")
		r.start()
		wait(59 * time.Second)
		r.want("unsettled", r.unsettled(), 5) // six were sent, and one of them after the rest had to go back
		wait(10 * time.Minute)
		r.want("unsettled", r.unsettled(), 0)
		r.want("result", r.stop(), nil)
	})
}

func TestOnceIsNotHeldUpByDeadLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newBroker(1, 20))
		r.publish(0, "")
		r.opt.QoS, r.opt.OnExhausted = message.AtMostOnce, DeadLetter
		r.opt.DeadLetter = func(context.Context, entrypoints.Letter) error { return message.Errorf(message.Unavailable, "away") }
		r.opt.Send = r.client(func(d *message.Delivery, n int) Result { return answer(entrypoints.TimedOut, 0) })
		r.start()
		wait(10 * time.Second)
		r.want("result", r.stop(), nil)
		r.want("dropped", r.last().Dropped, int64(1))
		r.want("unsettled", r.unsettled(), 0)
	})
}

// At most MaxParked are remembered, and at most MaxRecent told.
func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newBroker(1, 3000))
		r.opt.Concurrency, r.opt.Order = 64, None
		r.opt.Send = r.client(func(d *message.Delivery, n int) Result { return answer(entrypoints.Unreachable, 0) })
		r.opt.Retry = Retry{Attempts: 3, Delay: time.Hour}
		for range 1500 {
			r.publish(0, "")
		}
		r.start()
		wait(time.Second)
		r.want("parked", len(r.last().Parked), entrypoints.MaxParked)
		r.want("recent", len(r.last().Recent), entrypoints.MaxRecent-1)
		r.want("result", r.stop(), nil)
	})
}

func TestEndsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, cause := range []error{nil, entrypoints.ErrFenced} {
			r := newRig(t, newBroker(1, 20))
			r.publish(0, "")
			r.opt.Stream = r.open()
			ctx, cancel := context.WithCancelCause(context.Background())
			cancel(cause)
			r.want("result", Run(ctx, r.opt), nil)
			r.want("closed", r.current.closed, true)
		}
	})
}

// A lane that comes back does not wait for a message that was delivered elsewhere.
func TestRevokedHeadDeliveredElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newBroker(1, 20))
		r.opt.Concurrency = 2
		r.opt.Retry = Retry{Attempts: 5, Delay: time.Hour}
		r.poison("bad", entrypoints.ServerError)
		r.publish(0, "bad")
		r.start()
		r.revoke(0, time.Minute)
		r.elsewhere(0, 0)
		wait(2 * time.Minute)
		m := r.publish(0, "bad")
		wait(time.Second)
		r.want("calls", len(r.called(string(m.Payload))), 1)
		r.want("result", r.stop(), nil)
	})
}

func TestOneLaneReceivesNoMoreWhileItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(1, 50)
		b.batch = 1
		r := newRig(t, b)
		r.opt.Retry = Retry{Attempts: 3, Delay: time.Minute}
		r.opt.Send = r.client(func(d *message.Delivery, n int) Result {
			if n == 1 {
				return answer(entrypoints.ServerError, 500)
			}
			return ok()
		})
		r.start()
		for range 10 {
			r.publish(0, "")
			wait(time.Second)
		}
		r.want("lent", r.lent(), 2) // one came by the call that was under way
		wait(time.Hour)
		r.want("unsettled", r.unsettled(), 0)
		r.want("result", r.stop(), nil)
	})
}

// What was received and not delivered goes back when the stream is closed, all at once: brokers keep
// the order of that, and not of what is given back piece by piece.
func TestGivesBackAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newBroker(1, 50))
		r.opt.Concurrency = 2
		r.opt.Send = r.client(func(d *message.Delivery, n int) Result { return answer(entrypoints.ServerError, 500) })
		r.opt.Retry = Retry{Attempts: 3, Delay: time.Hour, Jitter: 0.9}
		for i := range 20 {
			r.publish(0, fmt.Sprint(i%6))
		}
		r.start()
		r.want("result", r.stop(), nil)
		r.want("released", len(r.released), 0)
		r.want("lent", r.lent(), 0)
		r.want("unsettled", r.unsettled(), 20)
	})
}

// Once something is delivered, what fills the window is tried at once.
func TestRecoveryIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newBroker(1, 40))
		r.opt.Concurrency = 4
		r.opt.Retry = Retry{Attempts: 3, Delay: time.Hour}
		down := true
		r.opt.Send = r.client(func(d *message.Delivery, n int) Result {
			if down {
				return answer(entrypoints.Unreachable, 0)
			}
			return ok()
		})
		r.start()
		for i := range 30 {
			r.publish(0, fmt.Sprint(i%3))
			wait(time.Millisecond)
		}
		r.want("unsettled", r.unsettled(), 30)
		down = false
		r.publish(0, "new")
		wait(time.Second)
		if n := r.unsettled(); n > 20 {
			t.Errorf("%d still wait for their hour", n)
		}
		r.want("result", r.stop(), nil)
	})
}

// What fails while its lane goes away is judged when it comes again.
func TestStaleIsNotJudged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newBroker(1, 40))
		r.publish(0, "")
		r.opt.Send = r.client(func(d *message.Delivery, n int) Result {
			time.Sleep(time.Second)
			return answer(entrypoints.ClientError, 404)
		})
		r.start()
		r.revoke(0, time.Hour)
		wait(time.Minute)
		r.want("result", r.stop(), nil)
		r.want("failed", r.last().Failed, int64(1))
	})
}
