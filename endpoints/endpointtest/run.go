package endpointtest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// Run checks every promise that applies to the harness's endpoint, each as a subtest
// with an endpoint of its own, and logs which ones do not apply.
func Run(t *testing.T, h Harness) {
	h = h.withDefaults()
	var f facts
	if !t.Run("capabilities", func(t *testing.T) { f = h.learn(t) }) {
		return // nothing can be said about an endpoint that does not know itself
	}
	var checked, absent []string
	for _, p := range promises {
		missing := p.missing(&f)
		if missing != "" {
			absent = append(absent, fmt.Sprintf("%s (%s)", p.name, missing))
			continue
		}
		checked = append(checked, p.name)
		p.run(t, h, &f)
	}
	t.Logf("%d promises checked: %s. %d do not apply: %s.",
		len(checked), strings.Join(checked, ", "), len(absent), strings.Join(absent, ", "))
}

// promise is one row of the contract.
type promise struct {
	name string
	// needs must all hold for the promise to apply.
	needs []need
	// modes are the ways to subscribe for which it is checked, each in turn, as far as
	// the endpoint has them. A promise about publishing has none.
	modes []message.Mode
	check func(*subject)
}

// missing says why the promise does not apply; "" means that it does.
func (p *promise) missing(f *facts) string {
	for _, n := range p.needs {
		if !n.holds(f) {
			return "no " + n.name
		}
	}
	if len(p.modes) > 0 && len(p.modesOf(f)) == 0 {
		return "no such way to subscribe"
	}
	return ""
}

func (p *promise) modesOf(f *facts) []message.Mode {
	var modes []message.Mode
	for _, m := range p.modes {
		if slices.Contains(f.modes, m) {
			modes = append(modes, m)
		}
	}
	return modes
}

func (p *promise) run(t *testing.T, h Harness, f *facts) {
	if len(p.modes) == 0 {
		t.Run(p.name, func(t *testing.T) { p.check(newSubject(t, h, f, 0)) })
		return
	}
	for _, mode := range p.modesOf(f) {
		t.Run(p.name+"/"+mode.String(), func(t *testing.T) { p.check(newSubject(t, h, f, mode)) })
	}
}

// facts are what decides which promises apply.
type facts struct {
	caps      message.Capabilities
	modes     []message.Mode
	bookmarks bool
	harness   Harness
	rig       *Rig
}

// need is a fact that a promise depends on, with its name for the summary.
type need struct {
	name  string
	holds func(*facts) bool
}

var (
	publishing   = need{"Publish", func(f *facts) bool { return f.caps.Publish }}
	confirming   = need{"Confirm", func(f *facts) bool { return f.caps.Publish && f.caps.Confirm }}
	bounded      = need{"MaxPayload", func(f *facts) bool { return f.caps.MaxPayload > 0 && f.caps.MaxPayload <= 16<<20 }}
	subscribing  = need{"Subscribe", func(f *facts) bool { return f.caps.Subscribe }}
	manualSettle = need{"ManualSettle", func(f *facts) bool { return f.caps.ManualSettle }}
	ordered      = need{"OrderedSettle", func(f *facts) bool { return f.caps.OrderedSettle }}
	deadLetter   = need{"DeadLetter", func(f *facts) bool { return f.caps.DeadLetter }}
	fenced       = need{"Fenced", func(f *facts) bool { return f.caps.Fenced }}
	positions    = need{"Positions", func(f *facts) bool { return f.caps.Positions }}
	bookmarks    = need{"Bookmarker", func(f *facts) bool { return f.bookmarks }}
	holding      = need{"MaxHold of at most 5s", func(f *facts) bool { return f.caps.MaxHold > 0 && f.caps.MaxHold <= 5*time.Second }}

	feeding     = need{"hook Produce", func(f *facts) bool { return f.rig.Produce != nil || f.rig.Generates }}
	producing   = need{"hook Produce", func(f *facts) bool { return f.rig.Produce != nil }}
	consuming   = need{"hook Consume", func(f *facts) bool { return f.rig.Consume != nil }}
	lettersHook = need{"hook DeadLetters", func(f *facts) bool { return f.rig.DeadLetters != nil }}
	cutting     = need{"hooks Cut and Restore", func(f *facts) bool { return f.rig.Cut != nil && f.rig.Restore != nil }}
	cutAfter    = need{"hook CutAfterWrite", func(f *facts) bool { return f.rig.CutAfterWrite != nil }}
	refusing    = need{"hook Refuse", func(f *facts) bool { return f.rig.Refuse != nil }}
	restarting  = need{"hook Restart", func(f *facts) bool { return f.rig.Restart != nil }}
	truncating  = need{"hook Truncate", func(f *facts) bool { return f.rig.Truncate != nil }}
	recreating  = need{"hook Recreate", func(f *facts) bool { return f.rig.Recreate != nil }}
	missingHook = need{"hook Missing", func(f *facts) bool { return f.rig.Missing != nil }}
	unreachable = need{"hook Unreachable", func(f *facts) bool { return f.rig.Unreachable != nil }}

	keys    = need{"keys", func(f *facts) bool { return f.harness.Keys }}
	headers = need{"headers", func(f *facts) bool { return f.harness.Headers }}
)

// learn sets up an endpoint, checks that its capabilities make sense, and finds out what
// it can do.
func (h Harness) learn(t *testing.T) facts {
	s := newSubject(t, h, &facts{}, message.Assigned)
	f := facts{caps: s.Endpoint.Capabilities(), harness: h, rig: s.Rig}
	checkCapabilities(t, s.Endpoint, f.caps)
	s.caps = f.caps
	for _, mode := range everyMode {
		if f.caps.Subscribe && s.has(mode) {
			f.modes = append(f.modes, mode)
		}
	}
	if f.caps.Subscribe && f.caps.Positions {
		r := s.open(message.Subscription{Mode: message.Assigned, QoS: message.AtLeastOnce, Name: s.name("bookmarks")})
		_, f.bookmarks = r.stream.(message.Bookmarker)
	}
	return f
}

func checkCapabilities(t *testing.T, e endpoints.Endpoint, caps message.Capabilities) {
	t.Helper()
	if again := e.Capabilities(); again != caps {
		t.Errorf("capabilities changed from %+v to %+v", caps, again)
	}
	if _, can := e.(endpoints.Publishing); caps.Publish && !can {
		t.Errorf("Publish is declared, but %T is not endpoints.Publishing", e)
	}
	if _, can := e.(endpoints.Subscribing); caps.Subscribe && !can {
		t.Errorf("Subscribe is declared, but %T is not endpoints.Subscribing", e)
	}
	if !caps.Publish && !caps.Subscribe {
		t.Error("the endpoint can neither publish nor subscribe")
	}
	if caps.Confirm && !caps.Publish {
		t.Error("Confirm makes no sense without Publish")
	}
	if !caps.Subscribe && (caps.Copy || caps.PerSession || caps.Exclusive || caps.Shared || caps.Positions || caps.ManualSettle) {
		t.Error("capabilities of a consumer are declared without Subscribe")
	}
	if caps.Earliest && !caps.Positions {
		t.Error("Earliest makes no sense without Positions")
	}
}

// noLeak fails the test if goroutines run that did not run before. It waits for those
// that are about to end.
func noLeak(t *testing.T, patience time.Duration, options []goleak.Option) {
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if err = goleak.Find(options...); err == nil {
			return
		}
	}
	t.Errorf("goroutines are left over: %v", err)
}
