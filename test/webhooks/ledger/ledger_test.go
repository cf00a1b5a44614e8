package ledger

import (
	"maps"
	"strings"
	"testing"
	"time"
)

// run is a run of twelve messages over two keys, of which one is poison and one stubborn.
type run struct {
	*Ledger
	ids map[int]string
}

func begin() *run {
	r := &run{New(Plan(12, 2, 1, 1)), make(map[int]string)}
	for _, m := range r.Plan() {
		r.Producing(m)
	}
	return r
}

func id(n int) string { return "msg_" + string(rune('a'+n)) }

func (r *run) try(n, attempt int) bool {
	_, _, ok := r.Tried(Request{Payload: r.Plan()[n].Payload(), ID: id(n), Attempt: attempt})
	return ok
}

func (r *run) deliver(n int) {
	r.try(n, 1)
	r.Taken(r.Plan()[n])
}

// letter is the dead letter of a message that is right, with headers to change.
func (r *run) letter(n int, change map[string]string) Letter {
	m := r.Plan()[n]
	h := map[string]string{
		"dead-letter-id": id(n), "dead-letter-subscription": "api.audit", "dead-letter-api": "api", "dead-letter-attempts": "1",
		"dead-letter-reason": "client_error", "dead-letter-status": "400", "dead-letter-position": "0/17",
		"dead-letter-time": time.Now().UTC().Format(time.RFC3339), "x-history": "kept",
	}
	if m.Fate == Stubborn {
		h["dead-letter-reason"], h["dead-letter-status"], h["dead-letter-attempts"] = "exhausted:server_error", "500", "3"
	}
	maps.Copy(h, change)
	return Letter{Key: m.Key, Payload: m.Payload(), Headers: h}
}

// deal brings every message to its end but those that are left out.
func (r *run) deal(without ...int) {
	for n, m := range r.Plan() {
		switch {
		case len(without) > 0 && n == without[0]:
		case m.Fate == "":
			r.deliver(n)
		default:
			r.try(n, 1)
			r.Died(r.letter(n, nil))
		}
	}
}

var rules = Rules{
	Subscription: "api.audit", API: "api", Ordered: true, Attempts: 3,
	Kept: map[string]func(Message) string{"x-history": func(Message) string { return "kept" }},
}

func (r *run) wants(t *testing.T, what string, sums Sums) {
	t.Helper()
	words, _ := r.Flaws()
	if what == "" {
		if len(words) > 0 {
			t.Errorf("there is nothing wrong, and it says %q", words)
		}
		return
	}
	if !strings.Contains(strings.Join(words, "\n"), what) {
		t.Errorf("it says %q and not %q: %s", words, what, sums)
	}
}

func TestPlan(t *testing.T) {
	fates := make(map[string]int)
	for i, m := range Plan(10_000, 200, 20, 5) {
		fates[m.Fate]++
		if m.N != i {
			t.Fatalf("message %d is %+v", i, m)
		}
		if back, err := Parse(m.Payload()); err != nil || back != m {
			t.Fatalf("%+v came back as %+v, %v", m, back, err)
		}
	}
	if fates[Poison] != 20 || fates[Stubborn] != 5 {
		t.Errorf("the fates are %v", fates)
	}
}

func TestAllIsWell(t *testing.T) {
	r := begin()
	r.deal()
	r.deliver(0) // once more, long after what follows it
	r.try(3, 2)  // and an attempt that came to nothing
	sums := r.Check(rules)
	r.wants(t, "", sums)
	if sums.Produced != 12 || sums.Delivered != 10 || sums.Dead != 2 || sums.Repeated != 1 || sums.Taken != 11 || sums.Attempts != 14 ||
		sums.Lost+sums.Disordered+sums.Wrong+sums.Spoilt+sums.Both != 0 || sums.Poison != 1 || sums.Stubborn != 1 || sums.Most != 2 {
		t.Errorf("%s", sums)
	}
	if n, _ := r.Accounted(); n != 12 || r.Ahead() != 0 || r.Repeated() != 1 || r.Came().IsZero() {
		t.Errorf("%d accounted for, %d ahead, %d repeated", n, r.Ahead(), r.Repeated())
	}
}

func TestLost(t *testing.T) {
	r := begin()
	r.deal(4)
	r.try(4, 1) // that it was sent does not help
	sums := r.Check(rules)
	r.wants(t, "message 4 (k0 2) is lost after 1 attempts", sums)
	if sums.Lost != 1 || sums.Wrong != 0 {
		t.Errorf("%s", sums)
	}
	if n, _ := r.Accounted(); n != 11 || r.Ahead() != 1 {
		t.Errorf("%d accounted for, %d ahead", n, r.Ahead())
	}
}

// disordered has two messages of a key swapped, or sent side by side.
func TestDisordered(t *testing.T) {
	for name, swap := range map[string]func(r *run){
		"swapped": func(r *run) { r.deliver(2); r.deliver(0) },
		"overlapping": func(r *run) {
			r.try(0, 1)
			r.try(2, 1)
			r.Taken(r.Plan()[0])
			r.Taken(r.Plan()[2])
		},
		"overtaken while the first was to be tried again": func(r *run) { r.try(0, 1); r.deliver(2); r.deliver(0) },
	} {
		t.Run(name, func(t *testing.T) {
			r := begin()
			swap(r)
			for n := range r.Plan() {
				if n != 0 && n != 2 && r.Plan()[n].Fate == "" {
					r.deliver(n)
				} else if r.Plan()[n].Fate != "" {
					r.try(n, 1)
					r.Died(r.letter(n, nil))
				}
			}
			sums := r.Check(rules)
			r.wants(t, "message 2 (k0 1) was sent before message 0 was done with", sums)
			if sums.Disordered != 1 || sums.Wrong != 0 || sums.Lost != 0 {
				t.Errorf("%s", sums)
			}
			loose := rules
			loose.Ordered = false
			if sums := r.Check(loose); sums.Disordered != 0 {
				t.Errorf("without order: %s", sums)
			}
		})
	}
}

// Keys do not wait for each other, and nobody waits for a dead message but to be sent after it.
func TestOrderIsPerKey(t *testing.T) {
	r := begin()
	for n := range r.Plan() { // the odd ones are the other key
		if n%2 == 1 {
			r.deliverOrDie(n)
		}
	}
	for n := range r.Plan() {
		if n%2 == 0 {
			r.deliverOrDie(n)
		}
	}
	r.wants(t, "", r.Check(rules))
}

func (r *run) deliverOrDie(n int) {
	if r.Plan()[n].Fate == "" {
		r.deliver(n)
		return
	}
	r.try(n, 1)
	r.Died(r.letter(n, nil))
}

func TestInvented(t *testing.T) {
	r := begin()
	r.deal()
	for _, payload := range []string{`{"n":12,"key":"k0","seq":6}`, `{"n":-1}`, `{"n":1,"key":"k0","seq":0}`, `{"n":1, "key":"k1","seq":0}`, "what?"} {
		if _, _, ok := r.Tried(Request{Payload: []byte(payload), ID: "x", Attempt: 1}); ok {
			t.Errorf("%s is taken for a message", payload)
		}
	}
	r.Died(Letter{Payload: []byte(`{"n":99}`)})
	sums := r.Check(rules)
	r.wants(t, "a request is invented", sums)
	r.wants(t, "a dead letter is invented", sums)
	r.wants(t, `the payload "what?"`, sums)
	if sums.Wrong != 6 {
		t.Errorf("%s", sums)
	}

	early := New(Plan(2, 1, 0, 0))
	early.Producing(early.Plan()[0])
	if _, _, ok := early.Tried(Request{Payload: early.Plan()[1].Payload(), ID: "x", Attempt: 1}); ok {
		t.Error("what nobody has produced yet is taken for a message")
	}
}

func TestWebhookIDs(t *testing.T) {
	r := begin()
	r.Tried(Request{Payload: r.Plan()[0].Payload(), ID: "other", Attempt: 1})
	r.deal()
	r.wants(t, `message 0 came with the webhook-ids "other" and "msg_a"`, r.Check(rules))

	r = begin()
	r.Tried(Request{Payload: r.Plan()[1].Payload(), ID: id(0), Attempt: 1})
	r.try(0, 1)
	r.wants(t, "messages 1 and 0 have both the webhook-id", r.Check(rules))

	r = begin()
	r.deal()
	r.try(0, 4)
	r.try(1, 0)
	sums := r.Check(rules)
	r.wants(t, "message 0 was tried 4 times, and 3 are allowed", sums)
	r.wants(t, "message 1: webhook-attempt is 0", sums)

	r = begin()
	r.deal()
	r.try(0, 4)
	loose := rules
	loose.Most = 4
	r.wants(t, "", r.Check(loose))
}

func TestDeadLetters(t *testing.T) {
	plan := begin().Plan()
	poison, stubborn := -1, -1
	for n, m := range plan {
		switch m.Fate {
		case Poison:
			poison = n
		case Stubborn:
			stubborn = n
		}
	}
	for name, tc := range map[string]struct {
		n          int
		header, is string
		want       string
	}{
		"another subscription":     {poison, "dead-letter-subscription", "api.other", `dead-letter-subscription is "api.other"`},
		"another api":              {poison, "dead-letter-api", "", `dead-letter-api is ""`},
		"another id":               {poison, "dead-letter-id", "msg_x", `dead-letter-id is "msg_x"`},
		"no time":                  {poison, "dead-letter-time", "yesterday", `dead-letter-time is "yesterday"`},
		"no attempts":              {poison, "dead-letter-attempts", "", `dead-letter-attempts is ""`},
		"too many attempts":        {stubborn, "dead-letter-attempts", "4", `dead-letter-attempts is "4"`},
		"exhausted too early":      {stubborn, "dead-letter-attempts", "2", "it is exhausted:server_error after 2 of 3 attempts"},
		"another reason":           {poison, "dead-letter-reason", "exhausted:server_error", `dead-letter-reason is "exhausted:server_error"`},
		"another status":           {poison, "dead-letter-status", "500", `dead-letter-status is "500"`},
		"no reason of a stubborn":  {stubborn, "dead-letter-reason", "server_error", `dead-letter-reason is "server_error"`},
		"no position":              {poison, "dead-letter-position", "", "it has no dead-letter-position"},
		"a header that is missing": {poison, "x-history", "", `the header x-history is ""`},
	} {
		t.Run(name, func(t *testing.T) {
			r := begin()
			r.deal(tc.n)
			r.try(tc.n, 1)
			r.Died(r.letter(tc.n, map[string]string{tc.header: tc.is}))
			r.wants(t, tc.want, r.Check(rules))
		})
	}
	r := begin()
	r.deal(11)
	r.try(11, 1)
	r.Died(r.letter(11, nil)) // neither poison nor stubborn
	sums := r.Check(rules)
	r.wants(t, `dead-letter-reason is "client_error"`, sums)
	if sums.Spoilt != 1 {
		t.Errorf("%s", sums)
	}
	wrong := r.letter(poison, nil)
	wrong.Key = "k9"
	r.Died(wrong)
	r.wants(t, `has the key "k9"`, sums)

	r = begin()
	r.deal()
	r.Taken(r.Plan()[poison])
	sums = r.Check(rules)
	r.wants(t, "was taken, although it is poison", sums)
	if sums.Both != 1 {
		t.Errorf("%s", sums)
	}
}

// What was never produced is told, so that a run that ended too early is no good run.
func TestNeverProduced(t *testing.T) {
	l := New(Plan(2, 1, 0, 0))
	l.Producing(l.Plan()[0])
	l.Producing(l.Plan()[0])
	l.Taken(l.Plan()[0])
	sums := l.Check(rules)
	words, _ := l.Flaws()
	if sums.Produced != 1 || !strings.Contains(strings.Join(words, " "), "message 1 was never produced") {
		t.Errorf("%s: %q", sums, words)
	}
}
