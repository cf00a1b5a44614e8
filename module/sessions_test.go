package module

import (
	"errors"
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/plans"
)

// onEndChannel hears of a session's end.
func onEndChannel(s *session) <-chan entrypoints.End {
	c := make(chan entrypoints.End, 2)
	s.OnEnd(func(end entrypoints.End) { c <- end })
	return c
}

func TestEndBySelector(t *testing.T) {
	one, other := testUnit("one"), testUnit("other")
	base := plans.Principal{API: "one", Plan: "p", Application: "a", Subscription: "s", Credential: "c"}
	for name, tc := range map[string]struct {
		differ func(*plans.Principal)
		sel    Selector
	}{
		"api":          {func(p *plans.Principal) { p.API = "other" }, Selector{API: "one"}},
		"plan":         {func(p *plans.Principal) { p.Plan = "q" }, Selector{Plan: "p"}},
		"application":  {func(p *plans.Principal) { p.Application = "b" }, Selector{Application: "a"}},
		"subscription": {func(p *plans.Principal) { p.Subscription = "t" }, Selector{Subscription: "s"}},
		"credential":   {func(p *plans.Principal) { p.Credential = "d" }, Selector{Credential: "c"}},
		"all of them":  {func(p *plans.Principal) { p.Credential = "d" }, Selector{API: "one", Plan: "p", Application: "a", Subscription: "s", Credential: "c"}},
		"unit":         {func(*plans.Principal) {}, Selector{unit: one}},
	} {
		t.Run(name, func(t *testing.T) {
			different := base
			tc.differ(&different)
			meant := []*session{testSession(t, one, nil, base), testSession(t, one, nil, base)}
			spared := testSession(t, other, nil, different)
			want := entrypoints.End{Reason: entrypoints.EndRevoked, Detail: "withdrawn"}
			if n := End(tc.sel, want); n != 2 {
				t.Errorf("%d sessions were meant", n)
			}
			for _, s := range meant {
				if got, ok := s.endReason(); !ok || got != want {
					t.Errorf("one that was meant: %+v %v", got, ok)
				}
			}
			if got, ok := spared.endReason(); ok {
				t.Errorf("one that was not meant: %+v", got)
			}
		})
	}
}

func TestEndByID(t *testing.T) {
	u := testUnit("one")
	first, second := testSession(t, u, nil, plans.Principal{API: "one"}), testSession(t, u, nil, plans.Principal{API: "one"})
	if first.id == second.id || first.id == 0 {
		t.Fatalf("ids %d and %d", first.id, second.id)
	}
	operator := entrypoints.End{Reason: entrypoints.EndOperator}
	if n := End(Selector{ID: second.id}, operator); n != 1 {
		t.Errorf("%d were meant", n)
	}
	if _, ok := first.endReason(); ok {
		t.Error("the other one ended")
	}
	if n := End(Selector{ID: second.id + 1000}, operator); n != 0 {
		t.Errorf("%d have an id that nobody has", n)
	}
}

func TestEndHTTP3Alone(t *testing.T) {
	u := testUnit("one")
	three, two := testSession(t, u, nil, plans.Principal{}), testSession(t, u, nil, plans.Principal{})
	three.proto, two.proto = 3, 2
	if n := End(Selector{unit: u, h3: true}, entrypoints.End{Reason: entrypoints.EndChanged}); n != 1 {
		t.Errorf("%d were meant", n)
	}
	if _, ok := two.endReason(); ok {
		t.Error("HTTP/2 ended too")
	}
}

// Whoever may come back is told when, each something else; whoever may not is told nothing.
func TestEndSpreadsRetries(t *testing.T) {
	u := testUnit("one")
	var all []*session
	for range 20 {
		all = append(all, testSession(t, u, nil, plans.Principal{API: "one"}))
	}
	End(Selector{unit: u}, entrypoints.End{Reason: entrypoints.EndShutdown})
	different := make(map[time.Duration]bool)
	for _, s := range all {
		end, _ := s.endReason()
		if end.Retry < time.Second || end.Retry > time.Minute+time.Second {
			t.Errorf("come back after %s", end.Retry)
		}
		different[end.Retry] = true
	}
	if len(different) < 15 {
		t.Errorf("%d clients come back at %d times", len(all), len(different))
	}
	stopped, fixed := testSession(t, u, nil, plans.Principal{API: "two"}), testSession(t, u, nil, plans.Principal{API: "three"})
	End(Selector{API: "two"}, entrypoints.End{Reason: entrypoints.EndStopped})
	End(Selector{API: "three"}, entrypoints.End{Reason: entrypoints.EndShutdown, Retry: 3 * time.Second})
	if end, _ := stopped.endReason(); end.Retry != 0 {
		t.Errorf("come back to nothing after %s", end.Retry)
	}
	if end, _ := fixed.endReason(); end.Retry != 3*time.Second {
		t.Errorf("come back after %s and not after 3s", end.Retry)
	}
}

func TestSpreadStaysInItsRange(t *testing.T) {
	for n, most := range map[int]time.Duration{
		0: 3 * time.Second, 1: 3 * time.Second, 2000: 3 * time.Second, 10_000: 11 * time.Second,
		60_000: 61 * time.Second, 10_000_000: 61 * time.Second,
	} {
		var least, greatest time.Duration = time.Hour, 0
		for range 2000 {
			d := spread(n)
			least, greatest = min(least, d), max(greatest, d)
		}
		if least < time.Second || greatest >= most {
			t.Errorf("%d clients: %s to %s, want 1s to %s", n, least, greatest, most)
		}
		if width := most - time.Second; greatest-least < width*9/10 {
			t.Errorf("%d clients come within %s of %s", n, greatest-least, width)
		}
	}
}

func TestSessionsPerPrincipalAreBounded(t *testing.T) {
	u := testUnit("one")
	two := &plans.Limits{MaxSessions: 2}
	limited := plans.Principal{API: "one", Plan: "p", Subscription: "s", Limits: two}
	first := testSession(t, u, nil, limited)
	testSession(t, u, nil, limited)
	_, err := openTestSession(t, u, nil, limited)
	var busy *message.Error
	if !errors.As(err, &busy) || busy.Kind != message.Busy || busy.RetryAfter <= 0 {
		t.Fatalf("one over the bound: %v", err)
	}
	for name, other := range map[string]plans.Principal{
		"subscription": {API: "one", Plan: "p", Subscription: "t", Limits: two},
		"plan":         {API: "one", Plan: "q", Subscription: "s", Limits: two},
		"api":          {API: "two", Plan: "p", Subscription: "s", Limits: two},
		"client":       {API: "one", Plan: "p", Limits: two}, // keyless: counted by address
	} {
		s, err := openTestSession(t, u, nil, other)
		if err != nil {
			t.Errorf("another %s: %v", name, err)
			continue
		}
		s.close(nil)
	}
	first.close(nil)
	again, err := openTestSession(t, u, nil, limited)
	if err != nil {
		t.Fatalf("after one has left: %v", err)
	}
	again.close(nil)
}

func TestSessionTableForgetsEverything(t *testing.T) {
	table := newSessionTable()
	var all []*session
	for range 100 {
		s := &session{key: principalKey{"api", "plan", "who"}}
		if err := table.add(s); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	if table.len() != 100 || len(table.selected(Selector{}, 0)) != 100 || len(table.selected(Selector{}, 7)) != 7 {
		t.Errorf("%d sessions, %d selected of them, %d of at most 7",
			table.len(), len(table.selected(Selector{}, 0)), len(table.selected(Selector{}, 7)))
	}
	for _, s := range all {
		table.remove(s)
	}
	if table.len() != 0 || len(table.counts) != 0 {
		t.Errorf("left behind: %d sessions, %v", table.len(), table.counts)
	}
}

func TestOnEnd(t *testing.T) {
	s := testSession(t, testUnit("one"), nil, plans.Principal{API: "one"})
	before := onEndChannel(s)
	forget := s.OnEnd(func(entrypoints.End) { t.Error("called, though forgotten") })
	twice := onEndChannel(s)
	forget()
	forget()
	first := entrypoints.End{Reason: entrypoints.EndExpired, Detail: "first"}
	s.finish(first)
	s.finish(entrypoints.End{Reason: entrypoints.EndRevoked, Detail: "second"})
	for _, c := range []<-chan entrypoints.End{before, twice, onEndChannel(s)} {
		if got := receive(t, c, "the end"); got != first {
			t.Errorf("told of %+v", got)
		}
		select {
		case again := <-c:
			t.Errorf("told twice: %+v", again)
		default:
		}
	}
	s.OnEnd(func(entrypoints.End) {})() // forgetting what was called is nothing
}

// OnEnd, forget and the end come at the same moment from everywhere: each f is called
// once or, where it was forgotten, at most once.
func TestOnEndRaces(t *testing.T) {
	for range 200 {
		s := &session{
			unit: testUnit("one"), way: &way{needs: entrypoints.Needs{Type: "sse"}}, app: &App{metrics: theMetrics},
		}
		calls := make(chan entrypoints.End, 10)
		done := make(chan struct{}, 3)
		go func() { s.OnEnd(func(e entrypoints.End) { calls <- e }); done <- struct{}{} }()
		go func() { s.OnEnd(func(entrypoints.End) {})(); done <- struct{}{} }()
		go func() { s.finish(entrypoints.End{Reason: entrypoints.EndShutdown}); done <- struct{}{} }()
		for range 3 {
			<-done
		}
		receive(t, calls, "the call")
	}
}

func TestSessionEndsWhenItsCredentialExpires(t *testing.T) {
	u := testUnit("one")
	s := testSession(t, u, nil, plans.Principal{API: "one", Expires: time.Now().Add(20 * time.Millisecond)})
	if got := receive(t, onEndChannel(s), "expiry"); got.Reason != entrypoints.EndExpired {
		t.Errorf("ended with %+v", got)
	}
	late := testSession(t, u, nil, plans.Principal{API: "one", Expires: time.Now().Add(-time.Hour)})
	if got := receive(t, onEndChannel(late), "expiry"); got.Reason != entrypoints.EndExpired {
		t.Errorf("ended with %+v", got)
	}
}

// A session that is over leaves one line, with the reason and the counts.
func TestSessionEndIsLogged(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	open := func(api string, needs entrypoints.Needs) *session {
		w := &way{needs: needs, log: zap.New(core).With(zap.String("api", api))}
		s := testSession(t, testUnit(api), w, plans.Principal{API: api, Plan: "p"})
		s.Sent(3, 300)
		s.Received(2, 20)
		return s
	}
	api := unique("logged-stream")
	stream := open(api, entrypoints.Needs{Type: "sse", Subscribe: true})
	labels := map[string]string{"api": api, "entrypoint": "sse"}
	if n := metricValue(t, "sessions", labels); n != 1 {
		t.Errorf("%v sessions are open", n)
	}
	if begun := stream.close(&entrypoints.Ended{End: entrypoints.End{Reason: entrypoints.EndSlow, Detail: "slow"}}); !begun {
		t.Error("an exchange that had begun is taken for one that had not")
	}
	lines := logs.TakeAll()
	if len(lines) != 1 {
		t.Fatalf("%d lines", len(lines))
	}
	fields := lines[0].ContextMap()
	for name, want := range map[string]any{
		"reason": "slow_client", "sent": int64(3), "sent_bytes": int64(300), "received": int64(2), "received_bytes": int64(20),
		"plan": "p", "client": "client", "request_id": "request", "session": stream.id,
	} {
		if fields[name] != want {
			t.Errorf("%s is %v, want %v", name, fields[name], want)
		}
	}
	if n := metricValue(t, "sessions", labels); n != 0 {
		t.Errorf("%v sessions are open after the end", n)
	}
	labels["reason"] = "slow_client"
	if n := metricValue(t, "sessions_ended_total", labels); n != 1 {
		t.Errorf("%v ends are counted", n)
	}
	open("logged-post", entrypoints.Needs{Type: "http_post", Publish: true}).close(nil)
	if lines := logs.TakeAll(); len(lines) != 0 {
		t.Errorf("every POST leaves a line: %v", lines)
	}
}

func TestCloseTellsWhetherTheExchangeHadBegun(t *testing.T) {
	u := testUnit("one")
	for name, tc := range map[string]struct {
		err    error
		begun  bool
		reason entrypoints.EndReason
	}{
		"done":      {nil, false, ""},
		"refused":   {message.Errorf(message.BadInput, "limit"), false, ""},
		"gone":      {errors.Join(entrypoints.ErrClientGone, errors.New("reset")), true, entrypoints.EndClient},
		"slow":      {entrypoints.ErrSlowClient, true, entrypoints.EndSlow},
		"by an end": {&entrypoints.Ended{End: entrypoints.End{Reason: entrypoints.EndProtocol}}, true, entrypoints.EndProtocol},
	} {
		s, err := openTestSession(t, u, nil, plans.Principal{API: "one"})
		if err != nil {
			t.Fatal(err)
		}
		if begun := s.close(tc.err); begun != tc.begun {
			t.Errorf("%s: begun is %v", name, begun)
		}
		if end, _ := s.endReason(); end.Reason != tc.reason {
			t.Errorf("%s: ended with %q", name, end.Reason)
		}
		if slices.Contains(sessions.selected(Selector{}, 0), s) {
			t.Errorf("%s: still in the table", name)
		}
	}
}
