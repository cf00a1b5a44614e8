package admin

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddy-message-api/caddy-message-api/subscriptions"
)

// pushed stands in for the gateway's deliveries, with one subscription of the Caddyfile.
type pushed struct {
	mu         sync.Mutex
	deliveries []Delivery
	letters    []DeadLetter
	retried    []string
	tested     []TestMessage
	asked      []Redelivery
	// fails is an error that comes after so many letters.
	fails      error
	failsAfter int
	// pace is called before every letter but the first.
	pace func()
}

const audit = "orders.audit"

var died = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func newPushed() *pushed {
	backlog := int64(7)
	p := &pushed{deliveries: []Delivery{{
		Subscription: audit, API: "orders", Static: true, State: DeliveryFailed, Cause: "404 of https://example.com/hook", Since: died, Owner: "n1", Here: true,
		Callback: "https://example.com/hook", Backlog: &backlog, Delivered: 10, Failed: 3, Dead: 2,
		Parked: []Parked{{ID: "msg_p", Attempts: 2, Status: 500, First: died, Next: died.Add(time.Minute)}},
		Recent: []Attempt{{ID: "msg_p", At: died, Number: 2, Outcome: "server_error", Status: 500, Duration: Duration(1500 * time.Millisecond)}},
	}}}
	for i, id := range []string{"msg_a", "msg_b", "msg_c"} {
		p.letters = append(p.letters, DeadLetter{ID: id, Reason: "exhausted:timeout", Attempts: 5, Time: died.Add(time.Duration(i) * time.Hour), Size: 3})
	}
	return p
}

func (p *pushed) hooks() PushHooks {
	return PushHooks{
		Deliveries: func(api string) []Delivery {
			p.mu.Lock()
			defer p.mu.Unlock()
			return slices.DeleteFunc(slices.Clone(p.deliveries), func(d Delivery) bool { return api != "" && d.API != api })
		},
		Delivery:    func(_ context.Context, id string) (Delivery, error) { return p.find(id) },
		Retry:       p.retry,
		Test:        p.test,
		DeadLetters: p.deadLetters,
		Redeliver:   p.redeliver,
	}
}

func (p *pushed) find(id string) (Delivery, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range p.deliveries {
		if d.Subscription == id {
			return d, nil
		}
	}
	return Delivery{}, &subscriptions.Error{Kind: subscriptions.NotFound, Detail: "there is no such subscription"}
}

func (p *pushed) retry(_ context.Context, by, id string) error {
	d, err := p.find(id)
	if err != nil {
		return err
	}
	if d.State != DeliveryFailed {
		return &subscriptions.Error{Kind: subscriptions.Conflict, Detail: "the delivery has not failed: it is " + d.State}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.retried = append(p.retried, by+" "+id)
	p.deliveries[0].State, p.deliveries[0].Cause = DeliveryRunning, ""
	return nil
}

func (p *pushed) test(_ context.Context, id string, m TestMessage) (Attempt, error) {
	if _, err := p.find(id); err != nil {
		return Attempt{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tested = append(p.tested, m)
	return Attempt{ID: "msg_t", Number: 1, Outcome: "server_error", Status: 503, Duration: Duration(time.Second)}, p.fails
}

func (p *pushed) deadLetters(_ context.Context, id string, limit int) ([]DeadLetter, error) {
	if _, err := p.find(id); err != nil {
		return nil, err
	}
	if p.fails != nil {
		return nil, p.fails
	}
	return p.letters[:min(limit, len(p.letters))], nil
}

func (p *pushed) redeliver(ctx context.Context, id string, q Redelivery, each func(Redelivered) error) (report RedeliveryReport, err error) {
	if _, err := p.find(id); err != nil {
		return report, err
	}
	p.mu.Lock()
	p.asked = append(p.asked, q)
	p.mu.Unlock()
	sent := 0
	for _, l := range p.letters {
		report.Read++
		if !q.Selects(l.ID, l.Time) {
			continue
		}
		if sent > 0 && p.pace != nil {
			p.pace()
		}
		if p.fails != nil && sent == p.failsAfter {
			return report, p.fails
		}
		if err := ctx.Err(); err != nil {
			return report, err
		}
		one := Redelivered{Attempt: Attempt{ID: l.ID, Number: l.Attempts + 1, Outcome: OutcomeDelivered, Status: 204}, Removed: !q.Keep}
		if strings.HasSuffix(l.ID, "b") {
			one.Outcome, one.Status, one.Removed = "timeout", 0, false
		}
		sent++
		if err := each(one); err != nil {
			return report, err
		}
	}
	return report, nil
}
