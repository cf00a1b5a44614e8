package module

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// The kinds of endpoints that there are, as their capabilities describe them.
var (
	// partitions: Kafka.
	partitioned = message.Capabilities{
		Publish: true, Confirm: true, Subscribe: true, Copy: true, Exclusive: true, ManualSettle: true, OrderedSettle: true,
		Positions: true, Fenced: true,
	}
	// topics with sessions: MQTT.
	sessioned = message.Capabilities{
		Publish: true, Confirm: true, Subscribe: true, Copy: true, Exclusive: true, ManualSettle: true, OrderedSettle: true,
	}
	// a queue that several drain together.
	sharedQueue = message.Capabilities{Publish: true, Confirm: true, Subscribe: true, Shared: true, ManualSettle: true, Fenced: true}
	// a subscription for each identity, and nothing for those without one.
	exclusiveOnly = message.Capabilities{Subscribe: true, Exclusive: true, ManualSettle: true, Fenced: true}
	// a queue whose messages are lent with a lock.
	locked = message.Capabilities{
		Publish: true, Confirm: true, Subscribe: true, Shared: true, ManualSettle: true, Fenced: true, MaxHold: 10 * time.Second,
	}
	// a stream for each session: the mock.
	perSession = message.Capabilities{Publish: true, Confirm: true, Subscribe: true, Copy: true, PerSession: true, Positions: true}
)

// Each cell is a mode: B(roadcast), A(ssigned), M(ember), S(hared); I is identity-required,
// and . is refused when the configuration is loaded. The four columns are a named client,
// an anonymous one, and both again with a cursor.
func TestModes(t *testing.T) {
	type row struct{ none, auto, atMostOnce, atLeastOnce string }
	const resuming, acking = true, false
	for _, tc := range []struct {
		name   string
		caps   message.Capabilities
		resume bool
		want   row
	}{
		{"sse on partitions", partitioned, resuming, row{"BBAA", "MBAA", "MIAA", "AAAA"}},
		{"websocket on partitions", partitioned, acking, row{"BBAA", "MBAA", "MIAA", "MIAA"}},
		{"sse on sessions", sessioned, resuming, row{"BBBB", "MBMB", "....", "...."}},
		{"websocket on sessions", sessioned, acking, row{"BBBB", "MBMB", "....", "MIMI"}},
		{"sse on a shared queue", sharedQueue, resuming, row{"SSSS", "SSSS", "SSSS", "...."}},
		{"websocket on a shared queue", sharedQueue, acking, row{"SSSS", "SSSS", "SSSS", "SSSS"}},
		{"websocket on a queue that lends for a time", locked, acking, row{"SSSS", "SSSS", "SSSS", "SSSS"}},
		{"websocket on exclusive queues", exclusiveOnly, acking, row{"....", "M.M.", "MIMI", "MIMI"}},
		{"sse on the mock", perSession, resuming, row{"BBAA", "AAAA", "....", "AAAA"}},
		{"websocket on the mock", perSession, acking, row{"BBAA", "AAAA", "....", "...."}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for qos, want := range map[message.QoS]string{
				message.None: tc.want.none, message.Auto: tc.want.auto,
				message.AtMostOnce: tc.want.atMostOnce, message.AtLeastOnce: tc.want.atLeastOnce,
			} {
				w := &way{needs: entrypoints.Needs{Type: "e", QoS: qos, Subscribe: true, Resume: tc.resume, Acks: !tc.resume}}
				var got strings.Builder
				for _, cell := range []struct{ anonymous, cursor bool }{{false, false}, {true, false}, {false, true}, {true, true}} {
					got.WriteString(cellOf(t, w, &tc.caps, cell.anonymous, cell.cursor))
				}
				if got.String() != want {
					t.Errorf("qos %s: %s, want %s", qos, &got, want)
				}
			}
		})
	}
}

func cellOf(t *testing.T, w *way, caps *message.Capabilities, anonymous, cursor bool) string {
	t.Helper()
	if canSubscribe(&w.needs, caps, anonymous) != nil {
		return "."
	}
	mode, err := w.mode(caps, anonymous, cursor)
	switch {
	case err == nil:
		return string("BAMS"[mode])
	case message.KindOf(err) == message.IdentityRequired && strings.Contains(err.Error(), w.needs.QoS.String()):
		return "I"
	}
	t.Errorf("%v", err)
	return "?"
}

// scriptedEntry is an entrypoint that only has needs.
type scriptedEntry struct{ needs entrypoints.Needs }

func (s scriptedEntry) Match(*http.Request) int  { return 1 }
func (s scriptedEntry) Methods() []string        { return []string{http.MethodGet} }
func (s scriptedEntry) Needs() entrypoints.Needs { return s.needs }
func (s scriptedEntry) Serve(http.ResponseWriter, *http.Request, entrypoints.Session) error {
	return nil
}

func socketNeeds() entrypoints.Needs {
	return entrypoints.Needs{Type: "websocket", Publish: true, Subscribe: true, Levels: message.Levels[:], Acks: true}
}

func endpointWith(name string, caps message.Capabilities) *endpoint {
	return &endpoint{name: name, kind: "fake", caps: caps}
}

func TestNegotiate(t *testing.T) {
	publishOnly := message.Capabilities{Publish: true, Confirm: true}
	readOnly := partitioned
	readOnly.Publish = false
	eps := []*endpoint{endpointWith("out", publishOnly), endpointWith("in", readOnly), endpointWith("both", partitioned)}
	for name, tc := range map[string]struct {
		change                             func(*entrypoints.Needs)
		pub, sub, pubFallback, subFallback string
	}{
		"the first that can": {func(*entrypoints.Needs) {}, "out", "in", "", ""},
		"by name":            {func(n *entrypoints.Needs) { n.Via = "both" }, "both", "both", "", ""},
		"publishing only":    {func(n *entrypoints.Needs) { n.Subscribe = false }, "out", "", "", ""},
		"with a fallback":    {func(n *entrypoints.Needs) { n.Fallback = "both" }, "out", "in", "both", "both"},
		"fallback for one":   {func(n *entrypoints.Needs) { n.Publish, n.Fallback = false, "both" }, "", "in", "", "both"},
		"from positions":     {func(n *entrypoints.Needs) { n.From = "earliest" }, "out", "in", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			needs := socketNeeds()
			tc.change(&needs)
			w, err := negotiate(scriptedEntry{needs}, eps, true)
			if err != nil {
				t.Fatal(err)
			}
			nameOf := func(e *endpoint) string {
				if e == nil {
					return ""
				}
				return e.name
			}
			got := []string{nameOf(w.pub), nameOf(w.sub), nameOf(w.pubFallback), nameOf(w.subFallback)}
			if want := []string{tc.pub, tc.sub, tc.pubFallback, tc.subFallback}; fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("publishes, subscribes and falls back on %q, want %q", got, want)
			}
		})
	}
}

// Every refusal names both sides, and the levels that would work.
func TestNegotiateRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		eps    []*endpoint
		change func(*entrypoints.Needs)
		want   []string
	}{
		"level that the entrypoint has not": {
			[]*endpoint{endpointWith("e", partitioned)},
			func(n *entrypoints.Needs) { n.Levels, n.QoS = message.Levels[:2], message.AtLeastOnce },
			[]string{"websocket has no qos at_least_once: use none, auto"}},
		"endpoint that is not there": {
			[]*endpoint{endpointWith("orders", partitioned)},
			func(n *entrypoints.Needs) { n.Via = "order" },
			[]string{`no endpoint "order"`, "use orders"}},
		"no producer": {
			[]*endpoint{endpointWith("e", exclusiveOnly)}, func(*entrypoints.Needs) {},
			[]string{"endpoint e (fake) has no producer"}},
		"no consumer": {
			[]*endpoint{endpointWith("e", message.Capabilities{Publish: true, Confirm: true})}, func(*entrypoints.Needs) {},
			[]string{"has no consumer"}},
		"no confirmation": {
			[]*endpoint{endpointWith("e", message.Capabilities{Publish: true})},
			func(n *entrypoints.Needs) { n.Subscribe = false },
			[]string{"can't tell when the broker has a message", "use qos none"}},
		"no proof": {
			[]*endpoint{endpointWith("e", sessioned)}, func(n *entrypoints.Needs) { n.QoS = message.AtMostOnce },
			[]string{"qos at_most_once", "can't prove", "use qos none, auto, at_least_once"}},
		"lent for less than the client may take": {
			[]*endpoint{endpointWith("e", locked)},
			func(n *entrypoints.Needs) {
				n.QoS, n.Hold, n.HoldFrom = message.AtLeastOnce, 35*time.Second, "duration_limit and ack_wait"
			},
			[]string{"lends a message for 10s at most", "may take 35s", "ack_wait", "use qos none, auto, at_most_once"}},
		"no positions for from": {
			[]*endpoint{endpointWith("e", sessioned)}, func(n *entrypoints.Needs) { n.From = "client" }, []string{"`from`"}},
		"anonymous and exclusive": {
			[]*endpoint{endpointWith("e", exclusiveOnly)},
			func(n *entrypoints.Needs) { n.Publish = false },
			[]string{"anonymous", "shared", "use qos at_most_once, at_least_once"}},
		"all that can't": {
			[]*endpoint{endpointWith("a", message.Capabilities{}), endpointWith("b", message.Capabilities{})}, func(*entrypoints.Needs) {},
			[]string{"endpoint a", "endpoint b"}},
		"fallback on itself": {
			[]*endpoint{endpointWith("e", partitioned)}, func(n *entrypoints.Needs) { n.Fallback = "e" }, []string{"fallback e"}},
		"fallback that can't": {
			[]*endpoint{endpointWith("e", partitioned), endpointWith("f", message.Capabilities{Publish: true, Confirm: true})},
			func(n *entrypoints.Needs) { n.Fallback = "f" }, []string{"endpoint f (fake) has no consumer"}},
	} {
		t.Run(name, func(t *testing.T) {
			needs := socketNeeds()
			tc.change(&needs)
			_, err := negotiate(scriptedEntry{needs}, tc.eps, true)
			if err == nil {
				t.Fatal("was accepted")
			}
			for _, want := range append(tc.want, "websocket") {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}
