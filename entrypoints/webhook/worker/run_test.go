package worker

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

func TestDeliversInOrderAndSettles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newBroker(1, 20))
		for range 3 {
			r.publish(0, "")
		}
		sentMessages, sentBytes := 0, 0
		r.opt.Sent = func(m, b int) { sentMessages += m; sentBytes += b }
		r.start()
		r.wantCalls("orders/0 0", "orders/0 1", "orders/0 2")
		wait(2 * time.Millisecond)
		r.want("unsettled", r.unsettled(), 0)
		r.want("result", r.stop(), nil)
		r.want("sent", sentMessages, 3)
		r.want("bytes", sentBytes, 30)
		r.want("delivered", r.last().Delivered, int64(3))
		r.want("newest", r.last().Recent[0].ID, "msg orders/0 2")
		r.want("closed", r.stream.closed, true)
	})
}

func TestRetriesBySchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newBroker(1, 20))
		r.publish(0, "")
		r.publish(0, "")
		r.opt.Send = r.client(func(d *message.Delivery, number int) Result {
			if number < 4 && string(d.Payload) == "orders/0 0" {
				return answer(entrypoints.ServerError, 500)
			}
			return ok()
		})
		begin := time.Now()
		r.start()
		wait(500 * time.Millisecond)
		p := r.last()
		r.want("trouble", strings.Contains(p.Trouble, "msg orders/0 0 failed with server_error at attempt 1"), true)
		r.want("parked", len(p.Parked), 1)
		r.want("attempts", p.Parked[0].Attempts, 1)
		wait(20 * time.Second)
		r.wantCalls("orders/0 0", "orders/0 0", "orders/0 0", "orders/0 0", "orders/0 1")
		for i, want := range []time.Duration{0, 1, 3, 7, 7} {
			r.want("time", r.made()[i].at.Sub(begin), want*time.Second)
		}
		p = r.last()
		r.want("trouble", p.Trouble, "")
		r.want("parked", len(p.Parked), 0)
		r.want("failed", p.Failed, int64(3))
		r.want("recent", len(p.Recent), 4)
		r.want("unsettled", r.unsettled(), 0)
		r.want("result", r.stop(), nil)
	})
}

func TestThrottledWaitsForAsLongAsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newBroker(1, 20))
		r.publish(0, "")
		r.opt.Send = r.client(func(d *message.Delivery, number int) Result {
			switch number {
			case 1:
				res := answer(entrypoints.Throttled, 429)
				res.RetryAfter = 30 * time.Second
				return res
			case 2:
				res := answer(entrypoints.Throttled, 503)
				res.RetryAfter = 100 * time.Hour
				return res
			}
			return ok()
		})
		r.start()
		wait(2 * time.Hour)
		r.want("second", r.made()[1].at.Sub(r.made()[0].at), 30*time.Second)
		r.want("third", r.made()[2].at.Sub(r.made()[1].at), longestRest)
		r.want("result", r.stop(), nil)
	})
}

func TestPolicies(t *testing.T) {
	for _, c := range []struct {
		name            string
		outcome         entrypoints.Outcome
		client, over    Action
		letters         bool
		cause           string // "" is no failure
		gone            bool
		dead, skipped   int64
		calls           int
		reason          string
		stays           int
		once, isDropped bool
	}{
		{name: "gone", outcome: entrypoints.Gone, gone: true, cause: "wants no more", calls: 1, stays: 2},
		{name: "blocked", outcome: entrypoints.Blocked, cause: "must not call", calls: 1, stays: 2},
		{name: "client error, stop", outcome: entrypoints.ClientError, client: Stop, cause: "on_client_error is stop", calls: 1, stays: 2},
		{name: "client error, skip", outcome: entrypoints.ClientError, client: Skip, skipped: 1, calls: 2},
		{name: "client error, letter", outcome: entrypoints.ClientError, client: DeadLetter, letters: true, dead: 1, calls: 2, reason: "client_error"},
		{name: "client error, no place", outcome: entrypoints.ClientError, client: DeadLetter, cause: "no place for dead letters", calls: 1, stays: 2},
		{name: "unsendable, letter", outcome: entrypoints.Unsendable, client: Stop, letters: true, dead: 1, calls: 2, reason: "unsendable"},
		{name: "unsendable, stop", outcome: entrypoints.Unsendable, client: Stop, cause: "on_client_error is stop", calls: 1, stays: 2},
		{name: "exhausted, stop", outcome: entrypoints.TimedOut, over: Stop, cause: "no attempt is left; on_exhausted is stop", calls: 5, stays: 2},
		{name: "exhausted, letter", outcome: entrypoints.AuthFailed, over: DeadLetter, letters: true, dead: 1, calls: 6, reason: "exhausted:auth_failed"},
		{name: "once, stop", outcome: entrypoints.Unreachable, over: Stop, once: true, skipped: 1, calls: 2},
		{name: "once, letter", outcome: entrypoints.Unreachable, over: DeadLetter, letters: true, once: true, dead: 1, calls: 2, reason: "exhausted:unreachable"},
		{name: "once, gone", outcome: entrypoints.Gone, once: true, gone: true, cause: "wants no more", calls: 1, stays: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, newBroker(1, 20))
				r.publish(0, "")
				r.publish(0, "")
				r.opt.OnClientError, r.opt.OnExhausted = c.client, c.over
				if c.once {
					r.opt.QoS = message.AtMostOnce
				}
				if c.letters {
					r.opt.DeadLetter = r.bury
				}
				r.opt.Send = r.client(func(d *message.Delivery, number int) Result {
					if string(d.Payload) == "orders/0 0" {
						return answer(c.outcome, 0)
					}
					return ok()
				})
				r.start()
				wait(time.Minute)
				if c.cause != "" {
					f := r.failure()
					r.want("gone", f.Gone, c.gone)
					if !strings.Contains(f.Cause, c.cause) || !strings.Contains(f.Cause, "msg orders/0 0 (orders/0@0)") {
						t.Errorf("cause %q does not tell %q and the message", f.Cause, c.cause)
					}
				} else {
					r.want("result", r.stop(), nil)
				}
				p := r.last()
				r.want("dead", p.Dead, c.dead)
				r.want("skipped", p.Skipped, c.skipped)
				r.want("calls", len(r.made()), c.calls)
				r.want("unsettled", r.unsettled(), c.stays)
				if c.reason != "" {
					l := r.buried()[0]
					r.want("reason", l.Reason, c.reason)
					r.want("position", l.Position, "orders/0@0")
					r.want("id", l.ID, "msg orders/0 0")
					r.want("message", string(l.Message.Payload), "orders/0 0")
					r.want("attempts", l.Attempts, c.calls-1)
				}
			})
		})
	}
}

func TestFailureStartsAFreshRoundButCountsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newBroker(1, 20))
		r.publish(0, "")
		r.opt.Retry.Attempts = 2
		r.opt.Send = r.client(func(d *message.Delivery, number int) Result {
			if number <= 3 {
				return answer(entrypoints.ServerError, 500)
			}
			return ok()
		})
		r.start()
		wait(10 * time.Second)
		r.failure()
		r.want("round", r.last().Parked[0].Round, 0)
		r.resume()
		wait(10 * time.Second)
		r.want("result", r.stop(), nil)
		for i, c := range r.made() {
			r.want("number", c.number, i+1)
		}
		r.want("calls", len(r.made()), 4)
		r.want("unsettled", r.unsettled(), 0)
		r.want("parked", len(r.last().Parked), 0)
	})
}

func TestAttemptsSurviveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newBroker(1, 20))
		r.publish(0, "")
		r.opt.DeadLetter, r.opt.OnExhausted = r.bury, DeadLetter
		r.opt.Retry = Retry{Strategy: Linear, Attempts: 3, Delay: 10 * time.Second}
		r.opt.Send = r.client(func(d *message.Delivery, number int) Result { return answer(entrypoints.ServerError, 500) })
		begin := time.Now()
		r.start()
		wait(5 * time.Second)
		r.want("result", r.stop(), nil)
		wait(time.Second)
		r.resume() // before the second attempt is due
		wait(5 * time.Second)
		r.want("second", r.made()[1].at.Sub(begin), 10*time.Second)
		r.cancel(entrypoints.ErrFenced)
		r.want("result", <-r.result, nil)
		r.resume()
		wait(time.Minute)
		r.want("calls", len(r.made()), 3)
		r.want("third", r.made()[2].at.Sub(begin), 30*time.Second)
		r.want("letters", len(r.buried()), 1)
		r.want("attempts", r.buried()[0].Attempts, 3)
		r.want("result", r.stop(), nil)
		r.want("unsettled", r.unsettled(), 0)
	})
}

func TestContentIsNoIdentityForFirstDeliveries(t *testing.T) {
	for attempt, known := range map[int]bool{0: false, 1: false, 2: true} {
		e := newEngine(t.Context(), Options{Concurrency: 1, Progress: &entrypoints.Progress{
			Parked: []entrypoints.Parked{{Fingerprint: "f", ID: "kept", Attempts: 2}}}})
		it := &item{d: message.Delivery{Message: new(message.Message), Attempt: attempt}, fingerprint: "f", from: new(source)}
		if got := e.resume(it); got != known {
			t.Errorf("delivery attempt %d: resumed %v", attempt, got)
		}
	}
}

func TestKeptMessagesThatDoNotComeAgainAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newBroker(1, 20))
		r.opt.Progress = &entrypoints.Progress{Delivered: 7, Parked: []entrypoints.Parked{{Fingerprint: "x"}}}
		r.start()
		wait(memory - time.Second)
		r.want("kept", len(r.keeps()), 0)
		wait(2 * time.Second)
		r.want("parked", len(r.last().Parked), 0)
		r.want("delivered", r.last().Delivered, int64(7))
		r.want("result", r.stop(), nil)
	})
}

func TestKeepIsCalledSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newBroker(1, 20))
		r.start()
		for range 350 { // 35 s of deliveries
			r.publish(0, "")
			wait(100 * time.Millisecond)
		}
		r.want("kept", len(r.keeps()), 3)
		wait(time.Minute)
		r.want("kept", len(r.keeps()), 4)
		wait(time.Hour)
		r.want("kept", len(r.keeps()), 4)
		r.want("result", r.stop(), nil)
		r.want("kept", len(r.keeps()), 5)
		r.want("delivered", r.last().Delivered, int64(350))
	})
}

func TestFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newBroker(1, 20))
		r.publish(0, "")
		cut := false
		r.opt.Send = func(ctx context.Context, d *message.Delivery, id string, n int) Result {
			<-ctx.Done()
			cut = true
			return ok()
		}
		r.start()
		begin := time.Now()
		r.cancel(entrypoints.ErrFenced)
		r.want("result", <-r.result, nil)
		r.want("cut", cut, true)
		r.want("time", time.Since(begin), time.Duration(0))
		r.want("unsettled", r.unsettled(), 1)
		r.want("kept", len(r.keeps()), 0)
	})
}

func TestDrainLetsSendsEndAndGivesBackTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newBroker(1, 20))
		for range 5 {
			r.publish(0, "")
		}
		r.opt.Send = r.client(func(d *message.Delivery, n int) Result { time.Sleep(5 * time.Second); return ok() })
		r.start()
		wait(6 * time.Second)
		begin := time.Now()
		r.want("result", r.stop(), nil)
		r.want("time", time.Since(begin), 4*time.Second)
		r.wantCalls("orders/0 0", "orders/0 1")
		r.want("unsettled", r.unsettled(), 3)
		r.want("attempt", r.lanes[0].back[2], 1)
	})
}

func TestDrainCutsSendsInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newBroker(1, 20))
		r.publish(0, "")
		r.opt.Send = func(ctx context.Context, d *message.Delivery, id string, n int) Result {
			<-ctx.Done()
			return answer(entrypoints.Unreachable, 0)
		}
		r.start()
		begin := time.Now()
		r.want("result", r.stop(), nil)
		r.want("time", time.Since(begin), defaultDrainTimeout)
		r.want("failed", r.last().Failed, int64(0))
		r.want("unsettled", r.unsettled(), 1)
	})
}

func TestStreamEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newBroker(1, 20))
		r.start()
		over := errors.New("over")
		r.mu.Lock()
		r.stream.fail = over
		r.changed()
		r.mu.Unlock()
		if err := <-r.result; !errors.Is(err, over) {
			t.Errorf("returned %v", err)
		}
	})
}

func TestSettlementsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newBroker(1, 20))
		r.publish(0, "")
		r.refusing(errors.New("no"))
		r.start()
		r.refusing(nil)
		wait(time.Second)
		r.reconnect()
		wait(time.Second)
		r.wantCalls("orders/0 0", "orders/0 0")
		r.want("unsettled", r.unsettled(), 0)
		r.want("result", r.stop(), nil)
	})
}

func TestOnceSettlesFirstOrDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newBroker(1, 20))
		r.opt.QoS = message.AtMostOnce
		r.opt.Send = r.client(func(d *message.Delivery, n int) Result {
			r.want("unsettled when sent", r.acked(0, int(d.Mark.Next)-1), true)
			return ok()
		})
		r.publish(0, "")
		r.start()
		r.refusing(errors.New("no"))
		r.publish(0, "")
		synctest.Wait()
		r.refusing(nil)
		r.publish(0, "")
		synctest.Wait()
		r.wantCalls("orders/0 0", "orders/0 2")
		r.want("result", r.stop(), nil)
		p := r.last()
		r.want("dropped", p.Dropped, int64(1))
		r.want("recent", p.Recent[0].Outcome, entrypoints.Unsettled)
		r.want("unsettled", r.unsettled(), 1)
	})
}

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newBroker(1, 20))
		for range 5 {
			r.publish(0, "")
		}
		r.opt.Pace = func(ctx context.Context) error {
			select {
			case <-time.After(time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		r.start()
		wait(3500 * time.Millisecond)
		r.want("calls", len(r.made()), 3)
		begin := time.Now()
		r.want("result", r.stop(), nil)
		r.want("time", time.Since(begin), time.Duration(0))
		r.want("unsettled", r.unsettled(), 2)
	})
}

func TestGapsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, newBroker(1, 20))
		r.start()
		r.mu.Lock()
		r.stream.gap = &message.Gap{Reason: message.GapRecreated}
		r.changed()
		r.mu.Unlock()
		synctest.Wait()
		r.want("result", r.stop(), nil)
		r.want("gaps", r.last().Gaps, int64(1))
	})
}
