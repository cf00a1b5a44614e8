package subscriptions

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

const secretText = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func hook(path string) config {
	return config{"callback": "https://example.com/" + path, "secret": secretText}
}

func TestWhoMaySubscribeWithAConsumer(t *testing.T) {
	w := newWorld(t)
	w.application("app")
	big := config{"callback": strings.Repeat("x", maxConsumer)}.json()
	good := hook("a").json()
	for name, c := range map[string]struct {
		plan  string
		asked json.RawMessage
		kind  Kind
		says  string
	}{
		"good":             {"hooks", good, 0, ""},
		"good, manual":     {"reviewed", good, 0, ""},
		"white space":      {"hooks", json.RawMessage(" \n" + string(good)), 0, ""},
		"nothing":          {"hooks", nil, Invalid, "consumer: it is missing"},
		"to another kind":  {"auto", good, Invalid, "of kind api_key, which has no consumer"},
		"empty":            {"hooks", json.RawMessage{}, Invalid, "no JSON object"},
		"null":             {"hooks", json.RawMessage("null"), Invalid, "no JSON object"},
		"an array":         {"hooks", json.RawMessage("[]"), Invalid, "no JSON object"},
		"half an object":   {"hooks", good[:10], Invalid, "no JSON object"},
		"not UTF-8":        {"hooks", json.RawMessage("{\"callback\":\"\xff\"}"), Invalid, "UTF-8"},
		"too big":          {"hooks", big, Invalid, "bytes; at most 16384"},
		"big with the old": {"hooks", config{"callback": "x", "grow": "y"}.json(), Invalid, "by default or from before; at most 16384"},
		"flaws": {"hooks", config{"retry": "never"}.json(), Invalid,
			"consumer.callback: it is missing; consumer.retry.attempts: at least 1"},
		"a flaw of all":   {"hooks", json.RawMessage(`{"callback":1}`), Invalid, "consumer: it is not made of strings"},
		"cannot be asked": {"hooks", config{"callback": "x", "busy": "y"}.json(), Conflict, "the broker is away"},
		"not running":     {"away", good, Conflict, "start the API"},
	} {
		t.Run(name, func(t *testing.T) {
			sub, _, err := w.Subscribe(t.Context(), "ann", SubscribeRequest{API: "orders", Plan: c.plan, Application: "app", Consumer: c.asked})
			if c.kind == 0 {
				if err != nil || sub.ID == "" {
					t.Fatalf("got %v, %v", sub, err)
				}
				return
			}
			wantKind(t, err, c.kind)
			if err != nil && (!strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), secretText)) {
				t.Errorf("%v: want %q in it, and no secret", err, c.says)
			}
		})
	}
}

// TestSeveralCallbacks: an application has any number of push subscriptions to a plan, each
// with a life of its own, and they are nobody's problem.
func TestSeveralCallbacks(t *testing.T) {
	w := newWorld(t)
	w.application("app")
	var ids []string
	for i := range 5 {
		sub := w.push("app", "hooks", hook(fmt.Sprint(i)))
		ids = append(ids, sub.ID)
	}
	w.wantPushed("hooks", inOrder(w, ids)...)
	for i, id := range ids {
		if got := w.consumer(id)["callback"]; got != fmt.Sprint("https://example.com/", i) {
			t.Errorf("%d calls %s", i, got)
		}
	}
	if n := w.LiveSubscriptions("orders", "hooks"); n != 5 {
		t.Errorf("%d are live", n)
	}
	if list := w.Problems(); len(list) > 0 {
		t.Errorf("problems: %+v", list)
	}
	must[Subscription](t)(w.Pause(t.Context(), "ann", ids[1], ""))
	must[Subscription](t)(w.CloseSubscription(t.Context(), "ann", ids[3], ""))
	w.wantPushed("hooks", inOrder(w, []string{ids[0], ids[2], ids[4]})...)
	must[Subscription](t)(w.Resume(t.Context(), "ann", ids[1], ""))
	w.wantPushed("hooks", inOrder(w, []string{ids[0], ids[1], ids[2], ids[4]})...)
	w.wantPushed("reviewed")
	if got := w.Pushed("nobody", "knows"); got != nil {
		t.Errorf("got %v", got)
	}
	must[Application](t)(w.ArchiveApplication(t.Context(), "ann", "app", 0))
	w.wantPushed("hooks")
	for _, id := range ids {
		if sub, _ := w.Subscription(id); sub.Status != Closed || sub.Sealed != nil {
			t.Errorf("after archiving: %s, sealed %v", sub.Status, sub.Sealed != nil)
		}
	}
}

// inOrder sorts ids as lists do: those of the same millisecond by id.
func inOrder(w *world, ids []string) (sorted []string) {
	for _, sub := range w.list(Filter{API: "orders"}) {
		for _, id := range ids {
			if id == sub.ID {
				sorted = append(sorted, id)
			}
		}
	}
	return sorted
}

// TestNewSecretIsShownOnce: what the plan made is in the answer to the making, and nowhere
// else.
func TestNewSecretIsShownOnce(t *testing.T) {
	w := newWorld(t)
	w.application("app")
	sub := w.push("app", "hooks", config{"callback": "https://example.com/a"})
	whole := parsed(t, sub.NewConsumer)
	secret := whole["secret"]
	if !strings.HasPrefix(secret, "whsec_") || w.consumer(sub.ID)["secret"] != secret {
		t.Fatalf("made with %q, kept is %q", secret, w.consumer(sub.ID)["secret"])
	}
	stored, _ := w.Subscription(sub.ID)
	again := must[Subscription](t)(w.edit(sub.ID, config{"callback": "https://example.com/b"}))
	for what, s := range map[string]Subscription{"stored": stored, "edited": again, "listed": w.list(Filter{})[0], "pushed": w.Pushed("orders", "hooks")[0]} {
		if s.NewConsumer != nil {
			t.Errorf("%s has the new configuration", what)
		}
		if got := parsed(t, s.Consumer)["secret"]; got != "…"+secret[len(secret)-4:] {
			t.Errorf("%s shows the secret as %q", what, got)
		}
	}
	if w.consumer(sub.ID)["secret"] != secret {
		t.Error("editing the callback changed the secret")
	}
	data, err := json.Marshal(sub)
	if err != nil {
		t.Fatal(err)
	}
	bytesOf := fmt.Sprintf("%v", []byte(secret))
	for _, text := range []string{string(data), fmt.Sprint(sub), fmt.Sprintf("%+v %#v %s", sub, &sub, sub)} {
		if strings.Contains(text, secret) || strings.Contains(text, strings.Trim(bytesOf, "[]")) {
			t.Errorf("the secret is in %s", text)
		}
	}
	if !strings.Contains(fmt.Sprintf("%+v", sub), "Plan:hooks") {
		t.Errorf("nothing is left of it: %+v", sub)
	}
}

func TestConsumerOf(t *testing.T) {
	w := newWorld(t)
	for _, status := range []Status{Pending, Accepted, Paused} {
		sub := w.pushed(string(status), status, hook(string(status)))
		if got := w.consumer(sub.ID); got["secret"] != secretText || got["callback"] != "https://example.com/"+string(status) {
			t.Errorf("%s: %v", status, got)
		}
	}
	for _, status := range []Status{Closed, Rejected} {
		sub := w.pushed(string(status), status, hook(string(status)))
		_, err := w.ConsumerOf(sub.ID)
		wantKind(t, err, Conflict)
		if stored, _ := w.Subscription(sub.ID); stored.Sealed != nil || parsed(t, stored.Consumer)["callback"] == "" {
			t.Errorf("%s: %v", status, stored)
		}
	}
	_, err := w.ConsumerOf("nobody")
	wantKind(t, err, NotFound)
	w.application("app")
	sub, _ := w.subscribe("app", "orders", "auto")
	_, err = w.ConsumerOf(sub.ID)
	wantKind(t, err, Conflict)
	_, err = w.edit(sub.ID, hook("x"))
	wantKind(t, err, Invalid)
}
