package subscriptions

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/store"
	"github.com/caddy-message-api/caddy-message-api/store/storetest"
)

func withSecret(secret string) func(*Options) {
	return func(o *Options) { o.KeySecret = []byte(secret) }
}

// rewrite changes a subscription behind the registry's back.
func (w *world) rewrite(id string, f func(*Subscription)) {
	w.t.Helper()
	if err := w.store.Update(w.t.Context(), []store.Ref{subscriptionRef(id)}, func(tx *store.Tx) error {
		sub, err := find(tx, subscriptionRef(id), readSubscription)
		if err != nil {
			return err
		}
		f(&sub)
		return tx.Put(subscriptionRef(id), sub)
	}); err != nil {
		w.t.Fatal(err)
	}
}

// TestNothingInClear searches all of the storage for the secret, in every form that it may have
// there, with a key secret of the operator and with one of the store.
func TestNothingInClear(t *testing.T) {
	for name, change := range map[string]func(*Options){"configured": withSecret(string(testSecret)), "stored": func(*Options) {}} {
		t.Run(name, func(t *testing.T) {
			storage := storetest.NewMemory()
			w := newWorldOn(t, openStore(t, storage), change)
			sub := w.pushed("app", Accepted, hook("a"))
			proposed := must[Subscription](t)(w.edit(sub.ID, hook("b")))
			if bytes.Equal(proposed.Sealed.Data, sub.Proposed.sealedData()) || bytes.Equal(proposed.Sealed.Data, proposed.Proposed.Sealed.Data) {
				t.Error("sealing twice gives the same")
			}
			if c := w.consumer(sub.ID); c["secret"] != secretText {
				t.Fatalf("kept is %v", c)
			}
			var backup bytes.Buffer
			if err := w.store.Export(t.Context(), &backup); err != nil {
				t.Fatal(err)
			}
			texts := map[string][]byte{"the backup": backup.Bytes()}
			keys, err := storage.List(t.Context(), store.DefaultPrefix, true)
			if err != nil || len(keys) == 0 {
				t.Fatal(keys, err)
			}
			for _, key := range keys {
				if texts[key], err = storage.Load(context.Background(), key); err != nil {
					t.Fatal(err)
				}
			}
			rec, _ := w.store.Get(subscriptionRef(sub.ID))
			texts["the record"] = rec.Data
			forms := []string{secretText, "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
			for i := range 3 { // base64 of it, wherever it stands
				coded := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", i) + secretText))
				forms = append(forms, coded[4:len(coded)-4])
			}
			seen := 0
			for where, text := range texts {
				if bytes.Contains(text, []byte("https://example.com/b")) {
					seen++
				}
				for _, form := range forms {
					if bytes.Contains(text, []byte(form)) {
						t.Errorf("the secret is in %s as %s", where, form)
					}
				}
			}
			if seen < 3 { // the backup, the record, and a file
				t.Errorf("what may be seen is in %d of %d texts", seen, len(texts))
			}
		})
	}
}

func (p *Proposal) sealedData() []byte {
	if p == nil {
		return nil
	}
	return p.Sealed.Data
}

// sealedLongAgo is a small configuration of the subscription "sub", sealed under testSecret.
const sealedLongAgo = "N9iNYrBdR9KWA3kGRUtV/d4fbv9PNikVAc3W8I3GJd8WoCl4fpnsiwsewGW6Nm3/Qc+ZTYmg4bqXn59+Hek="

// TestSealedLongAgo opens what an earlier version sealed: the form is stored, and stays.
func TestSealedLongAgo(t *testing.T) {
	m := &memory{records: map[store.Ref]store.Record{}}
	data, err := base64.StdEncoding.DecodeString(sealedLongAgo)
	if err != nil {
		t.Fatal(err)
	}
	m.set(subscriptionRef("sub"), Subscription{
		API: "orders", Plan: "hooks", Application: "app", Status: Accepted, Consumer: json.RawMessage(`{}`),
		Sealed: &Sealed{Key: newHasher(testSecret).name, Data: data},
	})
	r, err := New(m, Options{KeySecret: testSecret, Plan: noPlan})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if whole, err := r.ConsumerOf("sub"); err != nil || string(whole) != `{"callback":"https://example.com"}` {
		t.Errorf("opened is %s, %v", whole, err)
	}
}

// TestWrongKeySecret: what was sealed under another secret is out of use by itself, and says
// under which. A whole new configuration repairs it.
func TestWrongKeySecret(t *testing.T) {
	s := openStore(t, storetest.NewMemory())
	a := newWorldOn(t, s, withSecret("the first secret, of enough bytes"))
	sub := a.pushed("app", Accepted, hook("a"))
	must[Subscription](t)(a.edit(sub.ID, hook("b")))
	pending := a.pushed("waits", Pending, hook("a"))
	b := newWorldOn(t, s, withSecret("the second secret, of enough bytes"))
	own := b.pushed("own", Accepted, hook("a"))

	_, err := b.ConsumerOf(sub.ID)
	wantKind(t, err, Conflict)
	first, second := a.hasher.Load().name, b.hasher.Load().name
	if err != nil && (!strings.Contains(err.Error(), first) || !strings.Contains(err.Error(), second) || strings.Contains(err.Error(), "whsec")) {
		t.Errorf("%v: it does not tell %s and %s", err, first, second)
	}
	if b.consumer(own.ID)["secret"] != secretText {
		t.Error("the other one can't be opened either")
	}
	b.wantPushed("reviewed", inOrder(b, []string{sub.ID, own.ID})...)
	wantProblems(t, b.Problems(), first, "subscription/"+sub.ID, "subscription/"+sub.ID, "subscription/"+pending.ID)
	wantProblems(t, a.Problems(), second, "subscription/"+own.ID)

	// Nothing is decided on blindly.
	_, _, err = b.Accept(t.Context(), "bob", pending.ID, AcceptRequest{})
	wantKind(t, err, Conflict)
	_, _, err = b.Accept(t.Context(), "bob", sub.ID, AcceptRequest{})
	wantKind(t, err, Conflict)
	_, err = b.edit(sub.ID, config{"retry": "often"}) // the rest of it is not known
	wantKind(t, err, Invalid)
	must[Subscription](t)(b.Reject(t.Context(), "bob", sub.ID, ""))
	repaired := must[Subscription](t)(b.edit(sub.ID, config{"callback": "https://example.com/c"}))
	secret := parsed(t, repaired.NewConsumer)["secret"]
	if secret == "" || secret == secretText {
		t.Errorf("the secret that was made is %q", secret)
	}
	if _, _, err := b.Accept(t.Context(), "bob", sub.ID, AcceptRequest{}); err != nil {
		t.Fatal(err)
	}
	if c := b.consumer(sub.ID); c["secret"] != secret || c["callback"] != "https://example.com/c" {
		t.Errorf("repaired: %v", c)
	}
	must[Subscription](t)(b.Reject(t.Context(), "bob", pending.ID, ""))
	wantProblems(t, b.Problems(), "")
}

func wantProblems(t *testing.T, got []Problem, says string, paths ...string) {
	t.Helper()
	var have []string
	for _, p := range got {
		have = append(have, p.Path)
		if !strings.Contains(p.Detail, says) {
			t.Errorf("%v does not tell %s", p, says)
		}
	}
	slices.Sort(paths)
	if slices.Sort(have); !slices.Equal(have, paths) {
		t.Errorf("problems: %+v; want those of %v", got, paths)
	}
}

// TestTamperedRecords: whoever can write to the storage can't make a configuration, nor give
// one to somebody else.
func TestTamperedRecords(t *testing.T) {
	for name, tamper := range map[string]func(sub *Subscription, other *Sealed){
		"a bit":         func(sub *Subscription, _ *Sealed) { sub.Sealed.Data[20] ^= 1 },
		"the nonce":     func(sub *Subscription, _ *Sealed) { sub.Sealed.Data[0] ^= 1 },
		"cut":           func(sub *Subscription, _ *Sealed) { sub.Sealed.Data = sub.Sealed.Data[:len(sub.Sealed.Data)-1] },
		"next to empty": func(sub *Subscription, _ *Sealed) { sub.Sealed.Data = []byte{1} },
		"empty":         func(sub *Subscription, _ *Sealed) { sub.Sealed.Data = nil },
		"longer":        func(sub *Subscription, _ *Sealed) { sub.Sealed.Data = append(sub.Sealed.Data, 0) },
		"another key":   func(sub *Subscription, _ *Sealed) { sub.Sealed.Key = "0123456789abcdef" },
		"no key":        func(sub *Subscription, _ *Sealed) { sub.Sealed.Key = "" },
		"in clear":      func(sub *Subscription, _ *Sealed) { sub.Sealed.Data = hook("evil").json() },
		"taken out":     func(sub *Subscription, _ *Sealed) { sub.Sealed = nil },
		"moved":         func(sub *Subscription, other *Sealed) { sub.Sealed = other },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, withSecret(string(testSecret)))
			w.application("app")
			sub, other := w.push("app", "hooks", hook("a")), w.push("app", "hooks", hook("b"))
			w.rewrite(sub.ID, func(s *Subscription) { tamper(s, other.Sealed) })
			whole, err := w.ConsumerOf(sub.ID)
			if wantKind(t, err, Conflict); whole != nil {
				t.Errorf("opened is %s", whole)
			}
			wantProblems(t, w.Problems(), sub.ID, "subscription/"+sub.ID)
			if w.consumer(other.ID)["callback"] != "https://example.com/b" {
				t.Error("the other one is concerned too")
			}
			must[Subscription](t)(w.edit(sub.ID, hook("c")))
			if w.consumer(sub.ID)["callback"] != "https://example.com/c" {
				t.Error("it could not be repaired")
			}
			wantProblems(t, w.Problems(), "")
		})
	}
}

// TestSecretComesLate: a node may see what was sealed before it sees the secret of the store.
func TestSecretComesLate(t *testing.T) {
	w := newWorld(t)
	w.application("app")
	sub := w.push("app", "hooks", hook("a"))
	secret, _ := w.store.Get(secretRef)
	rec, _ := w.store.Get(subscriptionRef(sub.ID))
	m := &memory{records: map[store.Ref]store.Record{rec.Ref: rec}}
	told := 0
	r, err := New(m, Options{Plan: noPlan, OnPush: func() { told++ }})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, err = r.ConsumerOf(sub.ID)
	if wantKind(t, err, Conflict); told != 0 || err != nil && !strings.Contains(err.Error(), "there is no key secret here") {
		t.Errorf("told %d times: %v", told, err)
	}
	m.put(secretRef, secret.Data)
	if whole, err := r.ConsumerOf(sub.ID); err != nil || parsed(t, whole)["secret"] != secretText || told != 1 {
		t.Errorf("told %d times: %s, %v", told, whole, err)
	}
}

// TestImportOfPush brings backups of push subscriptions.
func TestImportOfPush(t *testing.T) {
	a := newWorld(t)
	a.application("app")
	sub, gone := a.push("app", "hooks", hook("a")), a.push("app", "hooks", hook("b"))
	reviewed := a.pushed("other", Accepted, hook("a"))
	must[Subscription](t)(a.edit(reviewed.ID, hook("b")))
	var backup bytes.Buffer
	if err := a.store.Export(t.Context(), &backup); err != nil {
		t.Fatal(err)
	}
	text := backup.String()
	load := func(w *world, text string) {
		t.Helper()
		if _, err := w.store.ImportWith(t.Context(), strings.NewReader(text), Merge); err != nil {
			t.Fatal(err)
		}
	}
	empty := newWorld(t)
	load(empty, text)
	if empty.consumer(sub.ID)["secret"] != secretText || empty.pushes.Load() == 0 {
		t.Error("it was not brought back")
	}
	if _, _, err := empty.Accept(t.Context(), "bob", reviewed.ID, AcceptRequest{}); err != nil || empty.consumer(reviewed.ID)["callback"] != "https://example.com/b" {
		t.Errorf("the proposal was not brought back: %v", err)
	}
	wantProblems(t, empty.Problems(), "")

	must[Subscription](t)(a.CloseSubscription(t.Context(), "ann", gone.ID, ""))
	must[Subscription](t)(a.CloseSubscription(t.Context(), "ann", reviewed.ID, ""))
	load(a, text)
	for _, id := range []string{gone.ID, reviewed.ID} {
		if s, _ := a.Subscription(id); s.Status != Closed || s.Sealed != nil || s.Proposed != nil {
			t.Errorf("a closed one is %s with %v, %v", s.Status, s.Sealed, s.Proposed)
		}
	}
	a.wantPushed("hooks", sub.ID)

	foreign := newWorld(t, withSecret(string(testSecret)))
	load(foreign, text)
	if _, err := foreign.ConsumerOf(sub.ID); kindOf(err) != Conflict {
		t.Error(err)
	}
	if list := foreign.Problems(); len(list) != 4 {
		t.Errorf("problems: %+v", list)
	}
	dead, err := Merge(nil, store.Record{Ref: subscriptionRef("x"), Data: []byte(
		`{"api":"a","plan":"p","application":"x","status":"closed","consumer":{"a":"b"},"sealed":{"key":"k","data":"AAAA"},"proposed":{"consumer":{},"sealed":{"key":"k","data":"AAAA"}}}`)})
	if err != nil || bytes.Contains(dead.Data, []byte("sealed")) || !bytes.Contains(dead.Data, []byte(`"consumer":{"a":"b"}`)) {
		t.Errorf("merged: %s, %v", dead.Data, err)
	}
}

// TestRecordsOfBefore: subscriptions that were stored before there was anything to push are
// read and written as they were.
func TestRecordsOfBefore(t *testing.T) {
	w := newWorld(t)
	w.application("app")
	const before = `{"id":"old","api":"orders","plan":"keys","application":"app","status":"accepted","created_at":"2026-01-01T00:00:00Z","processed_by":"ann"}`
	if err := w.store.Update(t.Context(), []store.Ref{subscriptionRef("old")}, func(tx *store.Tx) error {
		return tx.Put(subscriptionRef("old"), json.RawMessage(before))
	}); err != nil {
		t.Fatal(err)
	}
	if w.pushes.Load() != 0 {
		t.Error("that is told as something to push")
	}
	must[Subscription](t)(w.Pause(t.Context(), "bob", "old", ""))
	rec, _ := w.store.Get(subscriptionRef("old"))
	for _, member := range []string{"consumer", "sealed", "proposed"} {
		if bytes.Contains(rec.Data, []byte(member)) {
			t.Errorf("%s is in %s", member, rec.Data)
		}
	}
	if list := w.Problems(); len(list) > 0 {
		t.Errorf("problems: %v", fmt.Sprint(list))
	}
}
