package subscriptions

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-message-api/caddy-message-api/plans"
)

func TestKeyText(t *testing.T) {
	seen := map[string]bool{}
	for range 10_000 {
		key := newSecret()
		if len(key) != 36 || !strings.HasPrefix(key, "cma_") || !WellFormed(key) || seen[key] {
			t.Fatalf("%q is no good key", key)
		}
		seen[key] = true
	}
	// The form is public: scanners know it. This is one, worked out elsewhere (zlib.crc32).
	const known, knownChecksum = "cma_abcdefghijklmnopqrstuvwxyz", "2jtk4f"
	if sum := checksum(known); string(sum[:]) != knownChecksum {
		t.Errorf("the checksum of %s is %s, not %s", known, sum, knownChecksum)
	}
	good := known + knownChecksum
	for i := range good { // every typing error of one character
		for _, c := range []byte("a7Z_") {
			bad := []byte(good)
			bad[i] = c
			if string(bad) == good {
				continue
			}
			if strings.HasPrefix(string(bad), keyPrefix) && WellFormed(string(bad)) {
				t.Errorf("%s counts as well formed", bad)
			}
		}
	}
	for text, want := range map[string]bool{
		"": false, "short": false, "0123456789abcdef": true, strings.Repeat("x", 128): true, strings.Repeat("x", 129): false,
		"0123456789abcde ": false, "0123456789abcdeé": false, "cma_": false, "A-Za-z0-9._~-ABCDEFGH": true, good + "a": false, strings.ToUpper(good): true,
	} {
		if WellFormed(text) != want {
			t.Errorf("WellFormed(%q) is not %v", text, want)
		}
	}
}

func TestKeysOfASubscription(t *testing.T) {
	w := newWorld(t)
	now := time.Now().Truncate(time.Second)
	w.at(now)
	w.application("app")
	sub, first := w.subscribe("app", "orders", "auto")
	if first.Hint != first.Secret[32:] || first.Subscription != sub.ID || first.Custom || first.Version == 0 || !first.Expires.IsZero() {
		t.Errorf("the first key is %#v, %+v", first, first.Key)
	}
	second := must[NewKey](t)(w.AddKey(t.Context(), "ann", sub.ID, KeyRequest{Expires: now.Add(time.Hour)}))
	w.at(now.Add(time.Minute))
	now = now.Add(time.Minute)
	third := must[NewKey](t)(w.RenewKey(t.Context(), "ann", first.ID))
	for _, key := range []string{first.Secret, second.Secret, third.Secret} {
		w.wantKey("orders", "auto", key, plans.Good)
	}
	keys := w.Keys(sub.ID)
	if len(keys) != 3 || keys[2].ID != third.ID {
		t.Fatalf("the keys are %+v", keys)
	}
	for _, k := range keys {
		want := map[string]time.Time{first.ID: now.Add(2 * time.Hour), second.ID: now.Add(59 * time.Minute)}[k.ID]
		if !k.Expires.Equal(want) {
			t.Errorf("%s expires %s; want %s", k.ID, k.Expires, want)
		}
	}
	w.at(now.Add(2 * time.Hour))
	w.wantKey("orders", "auto", first.Secret, plans.Expired)
	w.wantKey("orders", "auto", second.Secret, plans.Expired)
	w.wantKey("orders", "auto", third.Secret, plans.Good)

	if _, err := w.ExpireKey(t.Context(), "ann", first.ID, now.Add(9*time.Hour)); kindOf(err) != Conflict {
		t.Errorf("an expired key got a new end: %v", err)
	}
	if _, err := w.ExpireKey(t.Context(), "ann", third.ID, now); kindOf(err) != Invalid {
		t.Errorf("a key got an end in the past: %v", err)
	}
	fourth := must[NewKey](t)(w.RenewKey(t.Context(), "ann", second.ID)) // expired: that is what renewing is for
	must[Key](t)(w.RevokeKey(t.Context(), "bob", third.ID, "leaked"))
	w.wantKey("orders", "auto", third.Secret, plans.Revoked)
	w.wantKey("orders", "auto", fourth.Secret, plans.Good)
	revoked := must[Key](t)(w.RevokeKey(t.Context(), "cid", third.ID, "again"))
	if revoked.RevokedBy != "bob" || revoked.Reason != "leaked" {
		t.Errorf("revoked: %+v", revoked)
	}
	for what, err := range map[string]error{
		"renew":  failure(w.RenewKey(t.Context(), "ann", third.ID)),
		"expire": failure(w.ExpireKey(t.Context(), "ann", third.ID, now.Add(9*time.Hour))),
	} {
		if kindOf(err) != Conflict {
			t.Errorf("%s of a revoked key: %v", what, err)
		}
	}
	// An end is within the subscription's, and a key has one of its own only if it was said.
	ends := now.Add(5 * time.Hour)
	must[Subscription](t)(w.UpdateSubscription(t.Context(), "ann", sub.ID, 0, SubscriptionPatch{Ends: &ends}))
	if k := must[Key](t)(w.ExpireKey(t.Context(), "ann", fourth.ID, now.Add(50*time.Hour))); !k.Expires.Equal(ends) {
		t.Errorf("the key outlives its subscription: %s", k.Expires)
	}
	if k := must[Key](t)(w.ExpireKey(t.Context(), "ann", fourth.ID, time.Time{})); !k.Expires.IsZero() {
		t.Errorf("the key still has an end: %s", k.Expires)
	}
}

func TestTooManyKeys(t *testing.T) {
	w := newWorld(t)
	w.application("app")
	sub, key := w.subscribe("app", "orders", "auto")
	for range maxLiveKeys - 1 {
		must[NewKey](t)(w.AddKey(t.Context(), "ann", sub.ID, KeyRequest{}))
	}
	_, err := w.AddKey(t.Context(), "ann", sub.ID, KeyRequest{})
	wantKind(t, err, Conflict)
	_, err = w.RenewKey(t.Context(), "ann", key.ID)
	wantKind(t, err, Conflict)
	must[Key](t)(w.RevokeKey(t.Context(), "ann", key.ID, ""))
	must[NewKey](t)(w.AddKey(t.Context(), "ann", sub.ID, KeyRequest{}))
}

func TestCustomKeys(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.CustomKeys = true })
	w.application("app")
	const mine = "my-own.key~2026_10"
	sub, key, err := w.Subscribe(t.Context(), "ann", SubscribeRequest{API: "orders", Plan: "auto", Application: "app", Key: mine})
	if err != nil || key.Secret != mine || !key.Custom || key.Hint != "6_10" {
		t.Fatalf("got %#v, %v", key, err)
	}
	w.wantKey("orders", "auto", mine, plans.Good)
	must[Key](t)(w.RevokeKey(t.Context(), "ann", key.ID, ""))
	for _, bad := range []string{mine, "short", "cma_0123456789abcdef", "has a space in it", newSecret()} {
		_, err := w.AddKey(t.Context(), "ann", sub.ID, KeyRequest{Key: bad})
		if err == nil {
			t.Errorf("%q was taken", bad)
		} else if strings.Contains(err.Error(), bad) {
			t.Errorf("%v quotes the key", err)
		}
	}
	// Where somebody accepts, the key is given then.
	pending, _ := w.brought("other", Pending)
	_, _, err = w.Subscribe(t.Context(), "ann", SubscribeRequest{API: "orders", Plan: "keys", Application: "app", Key: mine})
	wantKind(t, err, Invalid)
	_, _, err = w.Subscribe(t.Context(), "ann", SubscribeRequest{API: "orders", Plan: "tokens", Application: "app", Key: mine})
	wantKind(t, err, Invalid)
	_, _, err = w.Accept(t.Context(), "ann", pending.ID, AcceptRequest{Key: mine})
	wantKind(t, err, Conflict)
	if _, _, err = w.Accept(t.Context(), "ann", pending.ID, AcceptRequest{Key: mine + "x"}); err != nil {
		t.Fatal(err)
	}
	w.wantKey("orders", "keys", mine+"x", plans.Good)
}

func TestPlansWithoutKeys(t *testing.T) {
	w := newWorld(t)
	w.application("app")
	sub, key := w.subscribe("app", "orders", "tokens")
	if key != nil {
		t.Error("a subscription by client id has a key")
	}
	_, err := w.AddKey(t.Context(), "ann", sub.ID, KeyRequest{})
	wantKind(t, err, Conflict)
}

// TestSecretsStaySecret looks for keys wherever they might have got to.
func TestSecretsStaySecret(t *testing.T) {
	dir := t.TempDir()
	const custom = "custom-key-that-nobody-may-see"
	w := newWorldOn(t, openStore(t, &certmagic.FileStorage{Path: dir}), func(o *Options) { o.CustomKeys = true })
	w.application("app")
	sub, key := w.subscribe("app", "orders", "auto")
	must[NewKey](t)(w.AddKey(t.Context(), "ann", sub.ID, KeyRequest{Key: custom}))
	renewed := must[NewKey](t)(w.RenewKey(t.Context(), "ann", key.ID))
	secrets := []string{custom, key.Secret, renewed.Secret}

	var texts []string
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		texts = append(texts, fmt.Sprintf(format, renewed), fmt.Sprintf(format, key))
	}
	_, err := w.AddKey(t.Context(), "ann", sub.ID, KeyRequest{Key: custom})
	texts = append(texts, err.Error())
	_, err = w.AddKey(t.Context(), "ann", sub.ID, KeyRequest{Key: custom + "!"})
	texts = append(texts, err.Error())
	for _, e := range w.ends() {
		texts = append(texts, fmt.Sprintf("%+v", e))
	}
	for _, s := range secrets {
		h, standing := w.Directory("bills", "auto").Key(s)
		texts = append(texts, fmt.Sprintf("%+v %s", h, standing))
	}
	files := 0
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if errors.Is(err, fs.ErrNotExist) { // a lock that was released
				return nil
			}
			return err
		}
		data, err := os.ReadFile(path)
		if err == nil {
			texts = append(texts, string(data))
			files++
		}
		return nil
	})
	if err != nil || files == 0 {
		t.Fatalf("%d files, %v", files, err)
	}
	for _, text := range texts {
		for _, s := range secrets {
			if strings.Contains(text, s) {
				t.Errorf("a key is in %.200s", text)
			}
		}
	}
}

func TestKeySecret(t *testing.T) {
	if _, err := New(&memory{}, Options{KeySecret: []byte("short"), Plan: noPlan}); err == nil {
		t.Error("a short secret was taken")
	}
	w := newWorld(t)
	w.application("app")
	_, key := w.subscribe("app", "orders", "auto")
	// Another secret: the keys are of no use, and that is said.
	other := newWorldOn(t, w.store, func(o *Options) { o.KeySecret = testSecret })
	other.wantKey("orders", "auto", key.Secret, plans.Unknown)
	if list := other.Problems(); len(list) != 1 || !strings.Contains(list[0].Detail, "1 keys were made under another key secret") {
		t.Errorf("problems: %+v", list)
	}
	if list := w.Problems(); len(list) != 0 {
		t.Errorf("problems: %+v", list)
	}
}

func FuzzKey(f *testing.F) {
	m, secrets := crowd(20)
	r, err := New(m, Options{KeySecret: testSecret, Plan: noPlan})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(r.Close)
	known := map[string]bool{}
	for _, s := range secrets {
		f.Add(s)
		known[s] = true
	}
	for _, s := range []string{"", "cma_", "cma_\x00", strings.Repeat("a", 300), "cma_abcdefghijklmnopqrstuvwxyzaaaaaa", "é"} {
		f.Add(s)
	}
	d := r.Directory("api-1", "plan-1")
	f.Fuzz(func(t *testing.T, text string) {
		_, standing := d.Key(text)
		if (standing != plans.Unknown) != known[text] {
			t.Errorf("%q stands %q", text, standing)
		}
		if WellFormed(text) && (len(text) < minCustomKey || len(text) > maxCustomKey) {
			t.Errorf("%q counts as well formed", text)
		}
		if customProblem(text) == "" && !WellFormed(text) {
			t.Errorf("%q can be given out and never be used", text)
		}
	})
}

func FuzzCursor(f *testing.F) {
	f.Add("")
	f.Add("abc.def")
	f.Add("-zz.")
	r, err := New(&memory{}, Options{Plan: noPlan})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(r.Close)
	f.Fuzz(func(t *testing.T, text string) {
		seq, err := r.Subscriptions(Filter{After: text})
		if err != nil {
			return
		}
		for range seq {
			t.Error("there is something in nothing")
		}
	})
}
