package subscriptions

import (
	"time"

	"github.com/caddy-message-api/caddy-message-api/store"
)

func (x *index) applyApplication(rec store.Record, now time.Time) error {
	var app Application
	var next *appState // nil: deleted, or not here yet
	if !rec.Deleted {
		if err := decode(rec, &app); err != nil {
			return err // what was known of it holds: its subscriptions are not to blame
		}
		next = &appState{clientID: app.ClientID, archived: app.Archived}
	}
	e := x.app(rec.ID)
	old := e.state.Load()
	e.state.Store(next)
	if rec.Deleted {
		x.forgetName(e.id)
	} else if old == nil || !x.loading {
		x.addName(e.id)
	}
	x.moveClient(e, old, next)
	x.judgeApplication(e, old, next, now)
	return nil
}

// moveClient lets the client id lead to the application. A live one has it before an archived
// one.
func (x *index) moveClient(e *appEntry, old, next *appState) {
	if old != nil && old.clientID != "" && (next == nil || old.clientID != next.clientID) {
		if holder, _ := x.clients.get(old.clientID); holder == e {
			x.clients.delete(old.clientID)
		}
	}
	if next == nil || next.clientID == "" {
		return
	}
	holder, _ := x.clients.get(next.clientID)
	if holder == nil || holder == e || holder.archived() && !next.archived {
		x.clients.set(next.clientID, e)
	}
}

// judgeApplication ends what an application may no longer do.
func (x *index) judgeApplication(e *appEntry, old, next *appState, now time.Time) {
	was, is := appState{}, appState{}
	if old != nil {
		was = *old
	}
	if next != nil {
		is = *next
	}
	if was == is {
		return
	}
	for _, sub := range e.subs.items {
		state := sub.state.Load()
		if was.clientID != "" && was.clientID != is.clientID && sub.open && !is.archived {
			x.ended = append(x.ended, Ended{
				API: state.plan.api, Plan: state.plan.plan, Application: e.id, Subscription: sub.id,
				Credential: was.clientID, Detail: "the application has another client id",
			})
		}
		if was.archived != is.archived {
			x.judge(sub, state, state, now)
		}
	}
}
