package webhook

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

func readLetters(t testing.TB, e *Entrypoint, p *push, fate entrypoints.LetterFate) (letters []entrypoints.Letter) {
	t.Helper()
	err := e.Letters(t.Context(), p, func(l entrypoints.Letter) (entrypoints.LetterFate, error) {
		letters = append(letters, l)
		return fate, nil
	})
	if err != nil {
		t.Error(err)
	}
	return letters
}

// What comes back from the dead letters is what went there, whatever it holds.
func TestLetterRoundTrip(t *testing.T) {
	for name, payload := range map[string][]byte{
		"text": []byte("hello"), "JSON": []byte(`{"n":1}`), "not UTF-8": {0xff, 0, 0xfe}, "empty": {}, "none": nil,
		"large": []byte(strings.Repeat("x", 1<<20)),
	} {
		in := entrypoints.Letter{
			ID: "msg_7", Attempts: 5, Subscription: "sub-1", Reason: "exhausted:timeout", Status: 503, Error: "no answer", Position: "orders/3@17",
			Time: time.Date(2026, 11, 21, 5, 6, 7, 800, time.UTC),
			Message: &message.Message{
				ID: "broker-id", Key: []byte("key\x00"), Payload: payload, Time: time.Unix(1, 0),
				Headers: []message.Header{{Name: "a", Value: "1"}, {Name: "a", Value: "2"}, {Name: "bin", Value: "\xff\r\n"}},
			},
		}
		was := *in.Message
		was.Headers = slices.Clone(was.Headers)
		dead := deadMessage("api", &in)
		if !reflect.DeepEqual(*in.Message, was) {
			t.Errorf("%s: the message was changed, which others may read", name)
		}
		out, ok := letterOf("api", "sub-1", dead)
		if !ok {
			t.Fatalf("%s: is no letter", name)
		}
		undead := *out.Message
		undead.ID, undead.Time = was.ID, was.Time // are the endpoint's
		out.Message, in.Message = nil, nil
		if !reflect.DeepEqual(out, in) {
			t.Errorf("%s: got %+v, want %+v", name, out, in)
		}
		if string(undead.Payload) != string(was.Payload) || !reflect.DeepEqual(undead.Headers, was.Headers) || string(undead.Key) != string(was.Key) {
			t.Errorf("%s: got %+v, want %+v", name, undead, was)
		}
	}
}

func TestLetterOfItsKind(t *testing.T) {
	l := entrypoints.Letter{ID: "msg_1", Subscription: "s", Message: &message.Message{Metadata: []message.Field{
		message.Flag(message.TombstoneField, true), message.Text("content_type", "text/csv"), message.Text("topic", "orders"),
	}}, Error: strings.Repeat("ü\n", 400)}
	dead := deadMessage("api", &l)
	if f, ok := dead.Field(message.TombstoneField); !ok || f.Value() != true || len(dead.Metadata) != 1 {
		t.Errorf("a tombstone is no tombstone any more: %+v", dead.Metadata)
	}
	if text, _ := dead.Header("content-type"); text != "text/csv" {
		t.Errorf("the content type is lost: %v", dead.Headers)
	}
	text, _ := dead.Header(headerError)
	if len(text) > 512 || !utf8.ValidString(text) || strings.Contains(text, "\n") || len(text) < 500 {
		t.Errorf("%d bytes: %q", len(text), text)
	}
	if at, _ := dead.Header(headerTime); at == "" {
		t.Error("no time")
	}
	for name, m := range map[string]*message.Message{
		"another subscription": deadMessage("api", &entrypoints.Letter{Subscription: "t", Message: new(message.Message)}),
		"another API":          deadMessage("other", &l),
		"no letter":            {Payload: []byte("x")},
	} {
		if _, ok := letterOf("api", "s", m); ok {
			t.Errorf("%s is taken for a letter of this one", name)
		}
	}
	mangled := &message.Message{Headers: []message.Header{
		{Name: headerSubscription, Value: "s"}, {Name: headerAttempts, Value: "many"}, {Name: headerStatus, Value: "-"}, {Name: headerTime, Value: "soon"}, {Name: "Dead-Letter-ID", Value: "x"},
	}}
	if got, ok := letterOf("api", "s", mangled); !ok || got.Attempts != 0 || got.Status != 0 || !got.Time.IsZero() || len(got.Message.Headers) != 0 {
		t.Errorf("%+v, %t", got, ok)
	}
}

// graveyard has n letters of this subscription, each behind one of another.
func graveyard(p *push, n int) {
	p.dead = &grave{queue: newQueue()}
	for i := range n {
		for _, of := range []string{"sub-2", p.Subscription()} {
			m := deadMessage(p.API(), &entrypoints.Letter{ID: "msg_" + string(rune('a'+i)), Subscription: of, Message: &message.Message{Payload: []byte(of)}})
			p.dead.add(message.Delivery{Message: m})
		}
	}
}

func TestLettersOfOthersStay(t *testing.T) {
	e := localEntrypoint(t)
	p := newPush(t, e, `{"callback":"https://127.0.0.1/"}`, newQueue())
	graveyard(p, 3)
	letters := readLetters(t, e, p, entrypoints.LetterRemoved)
	if len(letters) != 3 || p.dead.left() != 3 || len(p.dead.settled()) != 3 {
		t.Errorf("%d letters, %d left, %d taken", len(letters), p.dead.left(), len(p.dead.settled()))
	}
	for _, d := range p.dead.settled() {
		if string(d.Payload) != "sub-1" {
			t.Errorf("a letter of %s was taken away", d.Payload)
		}
	}
}

// Who stops in the middle keeps what was done, and nothing else.
func TestLettersStop(t *testing.T) {
	e := localEntrypoint(t)
	p := newPush(t, e, `{"callback":"https://127.0.0.1/"}`, newQueue())
	graveyard(p, 3)
	enough := errors.New("enough")
	n := 0
	err := e.Letters(t.Context(), p, func(entrypoints.Letter) (entrypoints.LetterFate, error) {
		if n++; n == 2 {
			return entrypoints.LetterStays, enough
		}
		return entrypoints.LetterRemoved, nil
	})
	if !errors.Is(err, enough) || n != 2 || p.dead.left() != 5 || len(p.dead.settled()) != 1 {
		t.Errorf("%v after %d, %d left, %d taken", err, n, p.dead.left(), len(p.dead.settled()))
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = e.Letters(ctx, p, func(entrypoints.Letter) (entrypoints.LetterFate, error) {
		cancel() // who asked hangs up, after this one was delivered
		return entrypoints.LetterRemoved, context.Cause(ctx)
	})
	if !errors.Is(err, context.Canceled) || p.dead.left() != 4 || len(p.dead.settled()) != 2 {
		t.Errorf("%v, %d left, %d taken", err, p.dead.left(), len(p.dead.settled()))
	}
}

func TestLettersInALog(t *testing.T) {
	e := localEntrypoint(t)
	p := newPush(t, e, `{"callback":"https://127.0.0.1/"}`, newQueue())
	graveyard(p, 3)
	p.dead.logs = true
	for range 2 {
		if letters := readLetters(t, e, p, entrypoints.LetterRemoved); len(letters) != 3 || p.dead.left() != 6 {
			t.Errorf("%d letters, %d left", len(letters), p.dead.left())
		}
	}
}

func TestLettersBeyondTheWindow(t *testing.T) {
	before := letterWindow
	defer func() { letterWindow = before }()
	letterWindow.Messages = 4
	e := localEntrypoint(t)
	p := newPush(t, e, `{"callback":"https://127.0.0.1/"}`, newQueue())
	graveyard(p, 4)
	err := e.Letters(t.Context(), p, func(entrypoints.Letter) (entrypoints.LetterFate, error) { return entrypoints.LetterStays, nil })
	if err == nil || !strings.Contains(err.Error(), "only the first") || p.dead.left() != 8 {
		t.Errorf("%v, %d left", err, p.dead.left())
	}
}

func TestLettersCantBeRead(t *testing.T) {
	e := localEntrypoint(t)
	p := newPush(t, e, `{"callback":"https://127.0.0.1/"}`, newQueue())
	never := func(entrypoints.Letter) (entrypoints.LetterFate, error) {
		t.Error("a letter")
		return entrypoints.LetterStays, nil
	}
	if err := e.Letters(t.Context(), p, never); message.KindOf(err) != message.NotFound {
		t.Errorf("no place: %v", err)
	}
	graveyard(p, 0)
	p.dead.refuse = []error{message.Errorf(message.Unavailable, "broker:5672 is down")}
	if err := e.Letters(t.Context(), p, never); message.KindOf(err) != message.Unavailable || !strings.Contains(err.Error(), "at dead") {
		t.Errorf("no broker: %v", err)
	}
	p.dead.fail = []error{message.Errorf(message.Denied, "no rights")}
	if err := e.Letters(t.Context(), p, never); message.KindOf(err) != message.Denied {
		t.Errorf("broken off: %v", err)
	}
	if letters := readLetters(t, e, p, entrypoints.LetterRemoved); letters != nil {
		t.Errorf("%v", letters)
	}
}

// A message whose subscription is tested or delivered again by hand is sent as it was.
func TestTry(t *testing.T) {
	e := localEntrypoint(t)
	in := &inbox{t: t}
	p := newPush(t, e, receiver(t, in.ServeHTTP, `"secrets":["`+secretA+`"]`), newQueue())
	m := &message.Message{Payload: []byte("x"), Headers: []message.Header{{Name: headerReason, Value: "r"}, {Name: "content-type", Value: "text/plain"}}}
	a, err := e.Try(t.Context(), p, entrypoints.Letter{Message: m})
	if err != nil || a.Number != 1 || !strings.HasPrefix(a.ID, "msg_") || a.Status != 200 {
		t.Errorf("%+v, %v", a, err)
	}
	b, err := e.Try(t.Context(), p, entrypoints.Letter{ID: "msg_old", Attempts: 4, Message: m})
	if err != nil || b.Number != 5 || b.ID != "msg_old" {
		t.Errorf("%+v, %v", b, err)
	}
	calls := in.got()
	signed(t, calls[0], secretA)
	signed(t, calls[1], secretA)
	if calls[1].header.Get("webhook-attempt") != "5" || calls[0].header.Get("content-type") != "text/plain" || len(m.Headers) != 2 {
		t.Errorf("%v", calls)
	}
	if bad, err := e.Try(t.Context(), p, entrypoints.Letter{ID: "not an id", Message: m}); err != nil || bad.Outcome != entrypoints.Unsendable {
		t.Errorf("%+v, %v", bad, err)
	}
	if _, err := e.Try(t.Context(), p, entrypoints.Letter{}); err == nil {
		t.Error("nothing is sent")
	}
}

// Couriers are made once for each configuration, and not kept for ever.
func TestCouriers(t *testing.T) {
	e := localEntrypoint(t)
	lend := func(path string) *lent {
		l, err := e.couriers.lend("api", []byte(`{"callback":"https://127.0.0.1/`+path+`","secrets":[]}`))
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	a, b := lend("a"), lend("a")
	if a != b {
		t.Error("two couriers for one configuration")
	}
	e.couriers.giveBack(a)
	if lend("a") != b {
		t.Error("one that is in use was dropped")
	}
	e.couriers.giveBack(b)
	e.couriers.giveBack(b)
	if lend("a") != b {
		t.Error("an idle one was dropped at once")
	}
	for i := range 3 * maxIdleCouriers {
		e.couriers.giveBack(lend(strings.Repeat("x", i+1)))
	}
	if n := len(e.couriers.made); n != maxIdleCouriers+1 || len(e.couriers.idle) != maxIdleCouriers {
		t.Errorf("%d are kept, %d idle", n, len(e.couriers.idle))
	}
	e.couriers.giveBack(b)
	if _, err := e.couriers.lend("api", []byte(`{"callback":"https://127.0.0.1/","odd":1}`)); err == nil {
		t.Error("a configuration that is not understood")
	}
}
