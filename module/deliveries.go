package module

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/caddy-message-api/caddy-message-api/admin"
	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/subscriptions"
	"github.com/caddy-message-api/caddy-message-api/workers"
)

// hooks are what the admin API asks of deliveries.
func (p *pushing) hooks() admin.PushHooks {
	return admin.PushHooks{
		Deliveries: p.deliveries, Delivery: p.delivery, Retry: p.retry,
		Test: func(ctx context.Context, id string, m admin.TestMessage) (admin.Attempt, error) {
			a, err := p.test(ctx, id, m)
			return a, adminProblem(err)
		},
		DeadLetters: func(ctx context.Context, id string, limit int) ([]admin.DeadLetter, error) {
			list, err := p.deadLetters(ctx, id, limit)
			return list, adminProblem(err)
		},
		Redeliver: func(ctx context.Context, id string, q admin.Redelivery, each func(admin.Redelivered) error) (admin.RedeliveryReport, error) {
			report, err := p.redeliver(ctx, id, q, each)
			return report, adminProblem(err)
		},
	}
}

// adminProblem puts what a broker or an entrypoint says into the words of the admin API.
func adminProblem(err error) error {
	_, isMessage := errors.AsType[*message.Error](err)
	_, isProblem := errors.AsType[*entrypoints.Problem](err)
	if !isMessage && !isProblem {
		return err
	}
	p := entrypoints.AsProblem(err)
	return admin.NewProblem(p.Status, p.Slug, p.Detail)
}

// deliveries are all that the APIs of this node push to, whatever their state.
func (p *pushing) deliveries(api string) []admin.Delivery {
	rows := []admin.Delivery{}
	for _, one := range p.list() {
		if api != "" && api != one.principal.API {
			continue
		}
		rows = append(rows, p.row(one))
	}
	for _, one := range p.resting(api) {
		rows = append(rows, p.row(one))
	}
	return rows
}

// resting are the subscriptions to push plans that are live and not to be delivered to now.
func (p *pushing) resting(api string) []*pushed {
	app := currentApp()
	if app == nil {
		return nil
	}
	var list []*pushed
	for _, u := range app.units() {
		w := u.pushing()
		if w == nil || api != "" && api != u.def.ID {
			continue
		}
		for _, plan := range u.plans {
			if plan.kind != kindPush {
				continue
			}
			subs, err := p.f.subscriptions.Subscriptions(subscriptions.Filter{API: u.def.ID, Plan: plan.name})
			if err != nil { // only a bad cursor fails
				continue
			}
			for sub := range subs {
				if one := p.pushed(u, w, plan, &sub, true); !one.active && sub.Status.Live() {
					list = append(list, one)
				}
			}
		}
	}
	return list
}

// row is a delivery as this node knows it.
func (p *pushing) row(one *pushed) admin.Delivery {
	d := admin.Delivery{
		Subscription: one.id, API: one.principal.API, Plan: one.principal.Plan, Application: one.principal.Application,
		Static: one.static, State: admin.DeliveryWaiting, Callback: callbackOf(one.shown),
	}
	var progress entrypoints.Progress
	if st, ok := p.registry.Status(one.id); ok {
		d.Owner, d.Here, d.Cause, d.Since = st.Owner, st.Here, st.Cause, st.Since
		switch st.State {
		case workers.Running:
			d.State = admin.DeliveryRunning
		case workers.Failed:
			d.State = admin.DeliveryFailed
		}
		if len(st.Kept) > 0 && json.Unmarshal(st.Kept, &progress) != nil {
			d.Cause = "what was kept of it can't be read"
		}
	}
	if w, ok := p.here.Load(one.id); ok {
		progress = *w.(*worker).Progress()
	}
	if !one.active {
		d.State, d.Cause, d.Since = admin.DeliveryStopped, one.why, time.Time{}
	}
	if d.State == admin.DeliveryRunning && progress.Trouble != "" {
		d.State, d.Cause, d.Since = admin.DeliveryTrouble, progress.Trouble, progress.Since
	}
	d.Delivered, d.Failed, d.Dead, d.Skipped = progress.Delivered, progress.Failed, progress.Dead, progress.Skipped
	for _, m := range progress.Parked {
		d.Parked = append(d.Parked, admin.Parked{ID: m.ID, Lane: m.Lane, Attempts: m.Attempts, Status: m.Status, Error: m.Error, First: m.First, Next: m.Next})
	}
	for i := range progress.Recent {
		d.Recent = append(d.Recent, attemptRow(&progress.Recent[i]))
	}
	return d
}

// measure counts the states of what this node could deliver, for the metrics. An API that
// has gone since has none in any state.
func (p *pushing) measure(before map[string]bool) map[string]bool {
	counts := make(map[[2]string]int)
	apis := make(map[string]bool)
	for _, one := range p.list() {
		apis[one.principal.API] = true
		counts[[2]string{one.principal.API, p.row(one).State}]++
	}
	for api := range before {
		if !apis[api] {
			theMetrics.deliveries.DeletePartialMatch(map[string]string{"api": api})
		}
	}
	for api := range apis {
		for _, state := range []string{admin.DeliveryWaiting, admin.DeliveryRunning, admin.DeliveryTrouble, admin.DeliveryFailed, admin.DeliveryStopped} {
			theMetrics.deliveries.WithLabelValues(api, state).Set(float64(counts[[2]string{api, state}]))
		}
	}
	return apis
}

func attemptRow(a *entrypoints.Attempt) admin.Attempt {
	return admin.Attempt{ID: a.ID, At: a.At, Number: a.Number, Outcome: string(a.Outcome), Status: a.Status, Error: a.Error, Duration: admin.Duration(a.Duration)}
}

// callbackOf is where a consumer is called, without what may be a secret of it.
func callbackOf(shown json.RawMessage) string {
	var consumer struct {
		Callback string `json:"callback"`
	}
	if json.Unmarshal(shown, &consumer) != nil {
		return ""
	}
	u, err := url.Parse(consumer.Callback)
	if err != nil {
		return ""
	}
	u.RawQuery, u.User = "", nil
	return u.String()
}

func (p *pushing) delivery(ctx context.Context, id string) (admin.Delivery, error) {
	one, err := p.find(id)
	if err != nil {
		return admin.Delivery{}, err
	}
	d := p.row(one)
	if w, ok := p.here.Load(id); ok {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		if n, known := w.(*worker).backlog(ctx); known {
			d.Backlog = &n
		}
	}
	return d, nil
}

func (p *pushing) retry(ctx context.Context, by, id string) error {
	if _, err := p.find(id); err != nil {
		return err
	}
	err := p.registry.Retry(ctx, id, by)
	if errors.Is(err, workers.ErrNotFailed) {
		return &subscriptions.Error{Kind: subscriptions.Conflict, Detail: "this subscription has not failed, so there is nothing to be retried"}
	}
	return err
}

// idle makes what the entrypoint needs to act for a subscription beside its worker.
func (p *pushing) idle(id string) (*worker, error) {
	one, err := p.find(id)
	if err != nil {
		return nil, err
	}
	app := currentApp()
	if app == nil {
		return nil, notOpen()
	}
	return one.newWorker(app, nil)
}

func (p *pushing) test(ctx context.Context, id string, m admin.TestMessage) (admin.Attempt, error) {
	w, err := p.idle(id)
	if err != nil {
		return admin.Attempt{}, err
	}
	a, err := w.way.push.Try(ctx, w, entrypoints.Letter{ID: testID(), Subscription: id, Message: &message.Message{
		Payload: m.Payload, Time: time.Now(), Headers: []message.Header{{Name: "content-type", Value: m.ContentType}},
	}})
	return attemptRow(&a), err
}

// testID is the webhook-id of a test event: another one each time.
func testID() string { return "msg_test_" + strings.ReplaceAll(newID(), "-", "") }

// enough ends the reading of dead letters.
var errEnough = errors.New("enough letters were read")

func (p *pushing) deadLetters(ctx context.Context, id string, limit int) ([]admin.DeadLetter, error) {
	w, err := p.idle(id)
	if err != nil {
		return nil, err
	}
	if w.way.dead == nil {
		return nil, noDeadLetters()
	}
	list := []admin.DeadLetter{}
	err = w.way.push.Letters(ctx, w, func(l entrypoints.Letter) (entrypoints.LetterFate, error) {
		row := admin.DeadLetter{
			ID: l.ID, Reason: l.Reason, Attempts: l.Attempts, Status: l.Status, Error: l.Error, Position: l.Position, Time: l.Time,
			Key: strings.ToValidUTF8(string(l.Message.Key), "\uFFFD"), Size: len(l.Message.Payload),
		}
		for _, h := range l.Message.Headers {
			if strings.EqualFold(h.Name, "content-type") {
				row.ContentType = h.Value
			}
		}
		if list = append(list, row); len(list) >= limit {
			return entrypoints.LetterStays, errEnough
		}
		return entrypoints.LetterStays, nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return list, err
}

func noDeadLetters() error {
	return &subscriptions.Error{Kind: subscriptions.Conflict, Detail: "this API keeps no dead letters: its entrypoint has no dead_letter"}
}

// redeliver sends dead letters again, no faster than is asked.
func (p *pushing) redeliver(ctx context.Context, id string, q admin.Redelivery, each func(admin.Redelivered) error) (report admin.RedeliveryReport, err error) {
	w, err := p.idle(id)
	if err != nil {
		return report, err
	}
	if w.way.dead == nil {
		return report, noDeadLetters()
	}
	tick := time.NewTicker(q.Rate.Per / time.Duration(q.Rate.N))
	defer tick.Stop()
	err = w.way.push.Letters(ctx, w, func(l entrypoints.Letter) (entrypoints.LetterFate, error) {
		report.Read++
		if !q.Selects(l.ID, l.Time) {
			return entrypoints.LetterStays, nil
		}
		a, err := w.way.push.Try(ctx, w, l)
		if err != nil {
			return entrypoints.LetterStays, err
		}
		row := admin.Redelivered{Attempt: attemptRow(&a)}
		fate := entrypoints.LetterStays
		if a.Outcome == entrypoints.Delivered && !q.Keep {
			fate, row.Removed = entrypoints.LetterRemoved, !w.way.dead.caps.Positions
		}
		if err := each(row); err != nil {
			return fate, err
		}
		select {
		case <-tick.C:
			return fate, nil
		case <-ctx.Done():
			return fate, ctx.Err()
		}
	})
	return report, err
}
