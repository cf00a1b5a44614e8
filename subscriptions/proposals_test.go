package subscriptions

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"
)

// TestEveryTransitionWithProposals does every action to a push subscription of every status,
// without and with a proposal, under a plan of each validation.
func TestEveryTransitionWithProposals(t *testing.T) {
	w := newWorld(t)
	const kept, proposed, edited = "kept", "proposed", "edited" // the callbacks
	actions := map[string]func(id string) (Subscription, error){
		"accept": func(id string) (Subscription, error) {
			sub, key, err := w.Accept(t.Context(), "cid", id, AcceptRequest{Reason: "fine"})
			if key != nil {
				t.Errorf("it made the key %v", key)
			}
			return sub, err
		},
		"reject": func(id string) (Subscription, error) { return w.Reject(t.Context(), "cid", id, "fine") },
		"pause":  func(id string) (Subscription, error) { return w.Pause(t.Context(), "cid", id, "fine") },
		"resume": func(id string) (Subscription, error) { return w.Resume(t.Context(), "cid", id, "fine") },
		"close":  func(id string) (Subscription, error) { return w.CloseSubscription(t.Context(), "cid", id, "fine") },
		"edit":   func(id string) (Subscription, error) { return w.edit(id, config{"callback": edited}) },
	}
	type state struct {
		status          Status
		force, proposal string
	}
	// What becomes of each; what is not named is refused and changes nothing.
	pending, accepted, paused := state{Pending, kept, ""}, state{Accepted, kept, ""}, state{Paused, kept, ""}
	accepted2, paused2 := state{Accepted, kept, proposed}, state{Paused, kept, proposed}
	closed, rejected := state{Closed, "", ""}, state{Rejected, "", ""}
	want := map[string]map[state]state{
		"accept": {pending: accepted, accepted2: {Accepted, proposed, ""}, paused2: {Paused, proposed, ""}},
		"reject": {pending: rejected, accepted2: accepted, paused2: paused},
		"pause":  {accepted: paused, accepted2: paused2},
		"resume": {paused: accepted, paused2: accepted2},
		"close":  {accepted: closed, paused: closed, accepted2: closed, paused2: closed},
		"edit": {
			pending: {Pending, edited, ""}, accepted: {Accepted, kept, edited}, paused: {Paused, kept, edited},
			accepted2: {Accepted, kept, edited}, paused2: {Paused, kept, edited},
		},
	}
	auto := maps.Clone(want)
	auto["edit"] = map[state]state{
		pending: {Pending, edited, ""}, accepted: {Accepted, edited, ""}, paused: {Paused, edited, ""},
		accepted2: {Accepted, edited, ""}, paused2: {Paused, edited, ""},
	}
	n := 0
	for validation, table := range map[string]map[string]map[state]state{"manual": want, "auto": auto} {
		for name, act := range actions {
			for _, from := range []state{pending, accepted, paused, accepted2, paused2, closed, rejected} {
				t.Run(fmt.Sprint(validation, " ", name, " ", from), func(t *testing.T) {
					info := somePlans[planName{"orders", "reviewed"}]
					w.setPlan("orders", "reviewed", info)
					n++
					before := w.pushed(fmt.Sprint("app-", n), from.status, config{"callback": kept, "secret": secretText})
					if from.proposal != "" {
						before = must[Subscription](t)(w.edit(before.ID, config{"callback": from.proposal}))
					}
					info.Validation = validation
					w.setPlan("orders", "reviewed", info)
					after, err := act(before.ID)
					stored, _ := w.Subscription(before.ID)
					to, legal := table[name][from]
					if !legal {
						to = from
						wantKind(t, err, Conflict)
						if stored.Version != before.Version {
							t.Error("a refused action has changed the record")
						}
					} else if err != nil || after.Version != stored.Version || after.NewConsumer != nil {
						t.Fatalf("got %v, %v; stored %v", after, err, stored)
					}
					got := state{status: stored.Status}
					if stored.Status.Live() {
						got.force = w.consumer(stored.ID)["callback"]
						if shown := parsed(t, stored.Consumer)["callback"]; shown != got.force {
							t.Errorf("shown is %s", shown)
						}
					}
					if p := stored.Proposed; p != nil {
						got.proposal = parsed(t, p.Consumer)["callback"]
						whole, err := w.open(stored.ID, p.Sealed)
						if err != nil || parsed(t, whole)["callback"] != got.proposal || parsed(t, whole)["secret"] != secretText || p.By != "eve" || p.At.IsZero() {
							t.Errorf("proposed is %s by %s at %s, %v", whole, p.By, p.At, err)
						}
					}
					if got != to {
						t.Errorf("it became %v; want %v", got, to)
					}
				})
			}
		}
	}
}

// TestProposalsAreNoted: who decided, and why; when the subscription began stays.
func TestProposalsAreNoted(t *testing.T) {
	w := newWorld(t)
	sub := w.pushed("app", Accepted, hook("a"))
	since := sub.Since()
	w.at(time.Now().Add(time.Hour))
	first := must[Subscription](t)(w.edit(sub.ID, config{"callback": "https://example.com/b"}))
	if first.Status != Accepted || first.UpdatedBy != "eve" || first.Proposed.By != "eve" {
		t.Errorf("proposed: %v", first)
	}
	// A later proposal takes the place of the earlier one, and is made of what is in force.
	second := must[Subscription](t)(w.edit(sub.ID, config{"retry": "often"}))
	if c := parsed(t, second.Proposed.Consumer); c["callback"] != "https://example.com/a" || c["retry"] != "often" {
		t.Errorf("proposed: %v", c)
	}
	_, _, err := w.Accept(t.Context(), "bob", sub.ID, AcceptRequest{}, IfVersion(first.Version))
	wantKind(t, err, Precondition)
	_, err = w.Reject(t.Context(), "bob", sub.ID, "", IfVersion(first.Version))
	wantKind(t, err, Precondition)
	_, _, err = w.Accept(t.Context(), "bob", sub.ID, AcceptRequest{Starts: time.Now(), Ends: time.Now(), Key: "0123456789abcdef", Reason: strings.Repeat("x", maxReason+1)})
	wantKind(t, err, Invalid)
	if own, ok := err.(*Error); ok && len(own.Problems) != 4 {
		t.Errorf("%d problems: %v", len(own.Problems), err)
	}
	_, err = w.Reject(t.Context(), "bob", sub.ID, strings.Repeat("x", maxReason+1))
	wantKind(t, err, Invalid)
	done, _, err := w.Accept(t.Context(), "bob", sub.ID, AcceptRequest{Reason: "checked"}, IfVersion(second.Version))
	if err != nil || done.UpdatedBy != "bob" || done.Reason != "checked" || !done.Since().Equal(since) || done.ProcessedBy != sub.ProcessedBy {
		t.Errorf("accepted: %v, %v", done, err)
	}
	if c := w.consumer(sub.ID); c["retry"] != "often" || c["secret"] != secretText {
		t.Errorf("in force: %v", c)
	}
	// What is wrong is not proposed, and all of a patch or nothing is done.
	later := time.Now().Add(100 * time.Hour)
	_, err = w.UpdateSubscription(t.Context(), "eve", sub.ID, 0, SubscriptionPatch{Ends: &later, Consumer: config{"retry": "never"}.json()})
	wantKind(t, err, Invalid)
	_, err = w.UpdateSubscription(t.Context(), "eve", sub.ID, done.Version+1, SubscriptionPatch{Consumer: hook("c").json()})
	wantKind(t, err, Precondition)
	if stored, _ := w.Subscription(sub.ID); stored.Version != done.Version {
		t.Errorf("changed: %v", stored)
	}
	_, err = w.edit("nobody", hook("c"))
	wantKind(t, err, NotFound)
	w.setPlan("orders", "reviewed", PlanInfo{Kind: "push", Stage: "published"})
	_, err = w.edit(sub.ID, hook("c"))
	wantKind(t, err, Conflict)
}

// TestPlanBecomesPush: what subscribed while the plan had keys is pushed once it says where to.
func TestPlanBecomesPush(t *testing.T) {
	w := newWorld(t)
	w.application("app")
	old, _ := w.subscribe("app", "orders", "auto")
	w.subscribe("app", "bills", "auto")
	w.application("other")
	waiting, _ := w.subscribe("other", "orders", "keys")
	w.setPlan("orders", "auto", somePlans[planName{"orders", "hooks"}])
	w.setPlan("orders", "keys", somePlans[planName{"orders", "reviewed"}])
	w.wantPushed("auto")
	w.setPlan("bills", "auto", somePlans[planName{"orders", "hooks"}])
	if _, _, err := w.Subscribe(t.Context(), "ann", SubscribeRequest{API: "bills", Plan: "auto", Application: "app", Consumer: hook("a").json()}); err != nil {
		t.Errorf("beside the one of before: %v", err)
	}
	_, _, err := w.Accept(t.Context(), "bob", waiting.ID, AcceptRequest{})
	wantKind(t, err, Conflict)
	if err != nil && !strings.Contains(err.Error(), "give it one") {
		t.Error(err)
	}
	for plan, id := range map[string]string{"auto": old.ID, "keys": waiting.ID} {
		sub := must[Subscription](t)(w.edit(id, config{"callback": "https://example.com"}))
		if parsed(t, sub.NewConsumer)["secret"] == "" {
			t.Error("the new secret is not shown")
		}
		if plan == "keys" {
			if _, _, err := w.Accept(t.Context(), "bob", id, AcceptRequest{}); err != nil {
				t.Error(err)
			}
		}
		w.wantPushed(plan, id)
		if w.consumer(id)["secret"] != parsed(t, sub.NewConsumer)["secret"] {
			t.Error("another secret was kept")
		}
	}
}
