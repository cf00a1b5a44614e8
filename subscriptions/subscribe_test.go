package subscriptions

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/plans"
)

func TestWhoMaySubscribe(t *testing.T) {
	w := newWorld(t)
	w.application("app")
	anonymous := must[Application](t)(w.CreateApplication(t.Context(), "ann", Application{Name: "no client id"}))
	w.application("gone")
	must[Application](t)(w.ArchiveApplication(t.Context(), "ann", "gone", 0))
	w.subscribe("app", "bills", "auto")
	now := time.Now()
	long := strings.Repeat("x", 5000)
	for name, c := range map[string]struct {
		request SubscribeRequest
		kind    Kind
		says    string
	}{
		"published":         {SubscribeRequest{Plan: "auto"}, 0, ""},
		"staging":           {SubscribeRequest{Plan: "staging"}, Conflict, "publish it first"},
		"deprecated":        {SubscribeRequest{Plan: "deprecated"}, Conflict, "deprecated"},
		"closed":            {SubscribeRequest{Plan: "closed"}, Conflict, "closed"},
		"deprecated API":    {SubscribeRequest{API: "old", Plan: "auto"}, Conflict, "the API"},
		"keyless":           {SubscribeRequest{Plan: "free"}, Conflict, "needs no subscription"},
		"no such plan":      {SubscribeRequest{Plan: "nix"}, Invalid, "there is no plan"},
		"twice":             {SubscribeRequest{API: "bills", Plan: "auto"}, Conflict, "already"},
		"conditions":        {SubscribeRequest{Plan: "terms"}, Invalid, `"r2"`},
		"old conditions":    {SubscribeRequest{Plan: "terms", ConditionsAccepted: "r1"}, Invalid, `"r2"`},
		"conditions agreed": {SubscribeRequest{Plan: "terms", ConditionsAccepted: "r2"}, 0, ""},
		"no application":    {SubscribeRequest{Plan: "keys", Application: "nobody"}, Invalid, "no application"},
		"archived":          {SubscribeRequest{Plan: "keys", Application: "gone"}, Conflict, "archived"},
		"no client id":      {SubscribeRequest{Plan: "tokens", Application: anonymous.ID}, Conflict, "client id"},
		"client id":         {SubscribeRequest{Plan: "tokens"}, 0, ""},
		"dates reversed":    {SubscribeRequest{Plan: "keys", Starts: now.Add(2 * time.Hour), Ends: now.Add(time.Hour)}, Invalid, "after starts"},
		"over already":      {SubscribeRequest{Plan: "keys", Ends: now.Add(-time.Hour)}, Invalid, "past"},
		"year 10000":        {SubscribeRequest{Plan: "keys", Ends: now.AddDate(9000, 0, 0)}, Invalid, "year"},
		"limits":            {SubscribeRequest{Plan: "keys", Limits: &plans.Limits{MaxSessions: -1}}, Invalid, "max_sessions"},
		"metadata":          {SubscribeRequest{Plan: "keys", Metadata: map[string]string{"a b": ""}}, Invalid, "metadata.a b"},
		"message":           {SubscribeRequest{Plan: "keys", Message: long}, Invalid, "at most 4096"},
		"not UTF-8":         {SubscribeRequest{Plan: "keys", Message: "\xff"}, Invalid, "UTF-8"},
		"custom key":        {SubscribeRequest{Plan: "auto", Key: "0123456789abcdef"}, Invalid, "not allowed"},
		"several": {SubscribeRequest{Plan: "keys", Message: long, Limits: &plans.Limits{MaxSessions: -1}}, Invalid,
			"the subscription cannot be taken: message: it has 5000 bytes; at most 4096; limits: max_sessions -1 is less than 0"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.request.API == "" {
				c.request.API = "orders"
			}
			if c.request.Application == "" {
				c.request.Application = "app"
			}
			sub, _, err := w.Subscribe(t.Context(), "ann", c.request)
			if c.kind == 0 {
				if err != nil || sub.ID == "" {
					t.Fatalf("got %+v, %v", sub, err)
				}
				return
			}
			wantKind(t, err, c.kind)
			if err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v: want %q in it", err, c.says)
			}
		})
	}
}

func TestSubscribeAgainAfterTheEnd(t *testing.T) {
	w := newWorld(t)
	w.application("app")
	first, old := w.subscribe("app", "orders", "auto")
	must[Subscription](t)(w.CloseSubscription(t.Context(), "ann", first.ID, ""))
	second, key := w.subscribe("app", "orders", "auto")
	if first.ID == second.ID {
		t.Error("it is the same one")
	}
	w.wantKey("orders", "auto", old.Secret, plans.Closed)
	w.wantKey("orders", "auto", key.Secret, plans.Good)
	if h, s := w.Directory("orders", "auto").Client("app-client"); s != plans.Good || h.Subscription != second.ID {
		t.Errorf("the client has %+v, %s", h, s)
	}
}

func TestAcceptWhenThingsChanged(t *testing.T) {
	w := newWorld(t)
	w.application("app")
	sub, _ := w.subscribe("app", "orders", "keys")
	info := somePlans[planName{"orders", "keys"}]
	reaccept := func() error {
		_, _, err := w.Accept(t.Context(), "bob", sub.ID, AcceptRequest{})
		return err
	}
	info.Stage = "closed"
	w.setPlan("orders", "keys", info)
	wantKind(t, reaccept(), Conflict)
	w.mu.Lock()
	delete(w.plans, planName{"orders", "keys"})
	w.mu.Unlock()
	wantKind(t, reaccept(), Conflict)
	info.Stage = "deprecated" // what was asked for before is still accepted
	w.setPlan("orders", "keys", info)
	_, _, err := w.Accept(t.Context(), "bob", sub.ID, AcceptRequest{Ends: time.Now().Add(-time.Second)})
	wantKind(t, err, Invalid)
	if err := reaccept(); err != nil {
		t.Error(err)
	}
}

func TestApplications(t *testing.T) {
	w := newWorld(t)
	app := w.application("app")
	text, none, taken := "new", "", "app-client"
	_, err := w.CreateApplication(t.Context(), "x", Application{ID: "app", Name: "x"})
	wantKind(t, err, Conflict)
	_, err = w.CreateApplication(t.Context(), "x", Application{ID: "other", Name: "x", ClientID: taken})
	wantKind(t, err, Conflict)
	_, err = w.CreateApplication(t.Context(), "x", Application{ID: "../etc", Name: "two\nlines", ClientID: "a b"})
	wantKind(t, err, Invalid)
	if own := err.(*Error); len(own.Problems) != 3 {
		t.Errorf("%d problems: %v", len(own.Problems), err)
	}
	_, err = w.CreateApplication(t.Context(), "x", Application{})
	wantKind(t, err, Invalid)

	changed := must[Application](t)(w.UpdateApplication(t.Context(), "bob", "app", app.Version, ApplicationPatch{Name: &text, Owner: &text}))
	if stored, _ := w.Application("app"); changed != stored || changed.Name != text || changed.ClientID != taken || changed.UpdatedBy != "bob" {
		t.Errorf("changed: %+v, stored: %+v", changed, stored)
	}
	same := must[Application](t)(w.UpdateApplication(t.Context(), "cid", "app", 0, ApplicationPatch{Name: &text}))
	if same.Version != changed.Version {
		t.Error("changing nothing made a new version")
	}
	w.subscribe("app", "orders", "tokens")
	_, err = w.UpdateApplication(t.Context(), "x", "app", 0, ApplicationPatch{ClientID: &none})
	wantKind(t, err, Conflict)
	_, err = w.UpdateApplication(t.Context(), "x", "app", 0, ApplicationPatch{Name: &none})
	wantKind(t, err, Invalid)

	// A client id that is changed ends its sessions, and is free again.
	w.ends()
	must[Application](t)(w.UpdateApplication(t.Context(), "x", "app", 0, ApplicationPatch{ClientID: &text}))
	if ended := w.ends(); len(ended) != 1 || ended[0].Credential != taken || ended[0].Plan != "tokens" {
		t.Errorf("ended: %+v", ended)
	}
	must[Application](t)(w.CreateApplication(t.Context(), "x", Application{ID: "other", Name: "x", ClientID: taken}))
	if _, s := w.Directory("orders", "tokens").Client(taken); s != plans.Elsewhere {
		t.Errorf("the old client id stands %q", s)
	}
	if _, s := w.Directory("orders", "tokens").Client(text); s != plans.Good {
		t.Errorf("the new client id stands %q", s)
	}
}

func TestArchive(t *testing.T) {
	w := newWorld(t)
	w.application("app")
	_, key := w.subscribe("app", "orders", "auto")
	pending, _ := w.subscribe("app", "orders", "keys")
	w.ends()
	app := must[Application](t)(w.ArchiveApplication(t.Context(), "bob", "app", 0))
	if !app.Archived {
		t.Error("it is not archived")
	}
	w.wantKey("orders", "auto", key.Secret, plans.Closed)
	if ended := w.ends(); len(ended) != 1 || ended[0].Plan != "auto" || ended[0].Credential != "" {
		t.Errorf("ended: %+v", ended)
	}
	if sub, _ := w.Subscription(pending.ID); sub.Status != Rejected || sub.Reason != reasonArchived {
		t.Errorf("the pending one is %+v", sub)
	}
	again := must[Application](t)(w.ArchiveApplication(t.Context(), "bob", "app", 0))
	if again.Version != app.Version {
		t.Error("archiving again made a new version")
	}
	text := "x"
	_, err := w.UpdateApplication(t.Context(), "x", "app", 0, ApplicationPatch{Name: &text})
	wantKind(t, err, Conflict)
	// Its client id is free.
	must[Application](t)(w.CreateApplication(t.Context(), "x", Application{Name: "heir", ClientID: "app-client"}))
}

func TestUpdateSubscription(t *testing.T) {
	w := newWorld(t)
	w.application("app")
	sub, key := w.subscribe("app", "orders", "auto")
	soon := time.Now().Add(time.Hour).UTC()
	metadata := map[string]string{"team": "blue"}
	changed := must[Subscription](t)(w.UpdateSubscription(t.Context(), "bob", sub.ID, sub.Version, SubscriptionPatch{
		Ends: &soon, Limits: &plans.Limits{MaxSessions: 2}, Metadata: metadata,
	}))
	if !changed.Ends.Equal(soon) || changed.Limits.MaxSessions != 2 || !maps.Equal(changed.Metadata, metadata) {
		t.Errorf("changed: %+v", changed)
	}
	holder, _ := w.Directory("orders", "auto").Key(key.Secret)
	if !holder.Expires.Equal(soon) || holder.Limits.MaxSessions != 2 {
		t.Errorf("the holder is %+v", holder)
	}
	var never time.Time
	changed = must[Subscription](t)(w.UpdateSubscription(t.Context(), "bob", sub.ID, 0, SubscriptionPatch{
		Ends: &never, Limits: &plans.Limits{}, Metadata: map[string]string{},
	}))
	if !changed.Ends.IsZero() || changed.Limits != nil || len(changed.Metadata) != 0 {
		t.Errorf("changed: %+v", changed)
	}
	if holder, s := w.Directory("orders", "auto").Key(key.Secret); !holder.Expires.IsZero() || holder.Limits != nil || s != plans.Good {
		t.Errorf("the key, which has no end of its own, has one: %+v", holder)
	}
	late := soon.Add(time.Hour)
	_, err := w.UpdateSubscription(t.Context(), "bob", sub.ID, 0, SubscriptionPatch{Starts: &late, Ends: &soon})
	wantKind(t, err, Invalid)
	w.ends()
	must[Subscription](t)(w.UpdateSubscription(t.Context(), "bob", sub.ID, 0, SubscriptionPatch{Starts: &late}))
	w.wantKey("orders", "auto", key.Secret, plans.NotYet)
	if ended := w.ends(); len(ended) != 1 {
		t.Errorf("moving the start away ended %+v", ended)
	}
}
