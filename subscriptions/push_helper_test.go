package subscriptions

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
)

// config is a consumer configuration, as the plans of these tests know it.
type config map[string]string

func (c config) json() json.RawMessage {
	data, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	return data
}

// someConsumer is PlanInfo.Consumer of these tests: a secret that is not given is kept, or made.
func someConsumer(old, asked json.RawMessage) (whole, shown json.RawMessage, problems []Problem, err error) {
	all := config{}
	if old != nil {
		if err := json.Unmarshal(old, &all); err != nil {
			return nil, nil, nil, err
		}
	}
	var want config
	if err := json.Unmarshal(asked, &want); err != nil {
		return nil, nil, []Problem{{Detail: "it is not made of strings"}}, nil
	}
	maps.Copy(all, want)
	if all["busy"] != "" {
		return nil, nil, nil, errors.New("the broker is away")
	}
	if all["callback"] == "" {
		problems = append(problems, Problem{Path: "callback", Detail: "it is missing"})
	}
	if all["retry"] == "never" {
		problems = append(problems, Problem{Path: "retry.attempts", Detail: "at least 1"})
	}
	if all["secret"] == "" {
		all["secret"] = "whsec_" + newSecret()
	}
	seen := maps.Clone(all)
	seen["secret"] = "…" + all["secret"][len(all["secret"])-4:]
	if all["grow"] != "" {
		all["grown"] = strings.Repeat("x", maxConsumer)
	}
	return all.json(), seen.json(), problems, nil
}

// push subscribes to a plan that pushes.
func (w *world) push(application, plan string, c config) Subscription {
	w.t.Helper()
	sub, key, err := w.Subscribe(w.t.Context(), "ann", SubscribeRequest{API: "orders", Plan: plan, Application: application, Consumer: c.json()})
	if err != nil || key != nil {
		w.t.Fatalf("the key %v, and %v", key, err)
	}
	return sub
}

// pushed brings a subscription to the plan that is validated by somebody to a status.
func (w *world) pushed(name string, to Status, c config) Subscription {
	w.t.Helper()
	w.application(name)
	sub := w.push(name, "reviewed", c)
	var err error
	if to == Accepted || to == Paused || to == Closed {
		sub, _, err = w.Accept(w.t.Context(), "bob", sub.ID, AcceptRequest{})
	}
	switch {
	case err != nil:
	case to == Paused:
		sub, err = w.Pause(w.t.Context(), "bob", sub.ID, "")
	case to == Closed:
		sub, err = w.CloseSubscription(w.t.Context(), "bob", sub.ID, "")
	case to == Rejected:
		sub, err = w.Reject(w.t.Context(), "bob", sub.ID, "")
	}
	if err != nil || sub.Status != to {
		w.t.Fatalf("got %s, %v; want %s", sub.Status, err, to)
	}
	return sub
}

// edit asks for another configuration.
func (w *world) edit(id string, c config) (Subscription, error) {
	return w.UpdateSubscription(w.t.Context(), "eve", id, 0, SubscriptionPatch{Consumer: c.json()})
}

// consumer is the whole configuration of a subscription.
func (w *world) consumer(id string) config {
	w.t.Helper()
	return parsed(w.t, must[json.RawMessage](w.t)(w.ConsumerOf(id)))
}

func parsed(t *testing.T, data json.RawMessage) (c config) {
	t.Helper()
	if err := json.Unmarshal(data, &c); err != nil {
		t.Fatalf("%v: %q", err, data)
	}
	return c
}

// wantPushed compares the subscriptions that are pushed for.
func (w *world) wantPushed(plan string, want ...string) {
	w.t.Helper()
	if got := w.pushedIDs(plan); !slices.Equal(got, want) {
		w.t.Errorf("pushed for %s: %v; want %v", plan, got, want)
	}
}

func (w *world) pushedIDs(plan string) (ids []string) {
	for _, s := range w.Pushed("orders", plan) {
		ids = append(ids, s.ID)
	}
	return ids
}
