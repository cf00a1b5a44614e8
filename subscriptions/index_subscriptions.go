package subscriptions

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/caddy-message-api/caddy-message-api/plans"
	"github.com/caddy-message-api/caddy-message-api/store"
)

func (x *index) applySubscription(rec store.Record, now time.Time) error {
	e := x.sub(rec.ID)
	was := e.state.Load()
	old := was // nil once it is taken out of the lists
	var next *subState
	var err error
	created := e.created
	if !rec.Deleted {
		next, created, err = x.readSubscription(rec)
	}
	if old != nil && (next == nil || !old.alike(next) || !created.Equal(e.created)) {
		x.take(e, old)
		old = nil
	}
	e.state.Store(next)
	if next != nil {
		if old == nil {
			e.created = created
			x.place(e, next)
		}
		if next.push == nil {
			next.plan.choose(next.app, e, next.status.Live())
		}
		next.plan.count(old, next)
	}
	x.judge(e, was, next, now)
	return err
}

func (x *index) readSubscription(rec store.Record) (*subState, time.Time, error) {
	var sub Subscription
	if err := decode(rec, &sub); err != nil {
		return nil, time.Time{}, err
	}
	switch sub.Status {
	case Pending, Accepted, Paused, Closed, Rejected:
	default:
		return nil, time.Time{}, fmt.Errorf("the status %q is none", clip(string(sub.Status)))
	}
	if sub.API == "" || sub.Plan == "" || sub.Application == "" {
		return nil, time.Time{}, errors.New("the record is damaged: it names no API, no plan or no application")
	}
	state := &subState{
		plan: x.plan(sub.API, sub.Plan), app: x.app(sub.Application), status: sub.Status,
		starts: sub.Starts, ends: sub.Ends, since: sub.Since(), limits: sub.Limits,
	}
	if sub.Consumer != nil || sub.Sealed != nil {
		sub.ID, sub.Version = rec.ID, rec.Version
		state.push = &sub
	}
	return state, sub.CreatedAt.Truncate(time.Millisecond), nil // what a Cursor says
}

// alike says that a subscription of either state is in the same lists.
func (s *subState) alike(next *subState) bool {
	return s.plan == next.plan && s.app == next.app && (s.push == nil) == (next.push == nil) && s.pushes() == next.pushes()
}

// lists are those that a subscription is in.
func (x *index) lists(s *subState) []*ordered {
	lists := []*ordered{&x.all, x.api(s.plan.api), &s.plan.subs, &s.app.subs}
	if s.pushes() {
		lists = append(lists, &s.plan.push)
	}
	return lists
}

// place puts a subscription into the lists.
func (x *index) place(e *subEntry, s *subState) {
	for _, list := range x.lists(s) {
		if x.loading {
			list.append(e)
		} else {
			list.insert(e)
		}
	}
}

// take takes it out again.
func (x *index) take(e *subEntry, s *subState) {
	for _, list := range x.lists(s) {
		if x.loading {
			list.sort()
		}
		list.remove(e)
	}
	if s.push == nil {
		s.plan.drop(s.app, e)
	}
	s.plan.count(s, nil)
}

// loaded sorts what was only appended.
func (x *index) loaded() {
	x.loading = false
	x.all.sort()
	for _, list := range x.apis {
		list.sort()
	}
	for _, p := range x.plans {
		p.subs.sort()
		p.push.sort()
	}
	for _, a := range x.apps {
		a.subs.sort()
	}
	slices.Sort(x.names)
	x.ended, x.pushed = nil, false // nothing runs yet
}

// judge ends a subscription that lets in no more, and notes when it will begin and end.
func (x *index) judge(e *subEntry, old, next *subState, now time.Time) {
	delete(x.due, e)
	if old != nil && old.push != nil || next != nil && next.push != nil {
		x.pushed = true
	}
	if next == nil {
		if old != nil {
			x.end(e, old, "the subscription was removed", false)
		}
		e.open = false
		return
	}
	standing := next.standing(now)
	switch standing {
	case plans.Good:
		e.open = true
	case plans.NotYet:
		if old != nil && old.standing(now) == plans.Good {
			x.end(e, next, "the subscription has not begun yet", false)
		}
		e.open = true
	case plans.Expired:
		x.end(e, next, "the subscription has expired", true)
	case plans.Paused:
		x.end(e, next, "the subscription is paused", false)
	default:
		x.end(e, next, closedDetail(next), false)
	}
	if !next.status.Live() {
		return
	}
	if standing == plans.Expired || next.app.archived() {
		x.mustClose(e)
	}
	if next.expires(now) && (old == nil || !old.expires(now) || !old.ends.Equal(next.ends)) {
		x.times = append(x.times, deadline{at: next.ends, id: e.id})
	}
	if next.begins(now) && (old == nil || !old.begins(now) || !old.starts.Equal(next.starts)) {
		x.times = append(x.times, deadline{at: next.starts, id: e.id, begin: true})
	}
}

func closedDetail(s *subState) string {
	if s.status.Live() {
		return reasonArchived
	}
	return "the subscription was closed"
}

// end tells that a subscription ended, once.
func (x *index) end(e *subEntry, s *subState, detail string, expired bool) {
	if !e.open {
		return
	}
	e.open = false
	x.ended = append(x.ended, Ended{
		API: s.plan.api, Plan: s.plan.plan, Application: s.app.id, Subscription: e.id,
		Expired: expired, Detail: detail,
	})
}
