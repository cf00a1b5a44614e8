package module

import (
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/plans"
)

// metricValue scrapes one series of caddy_message_api_<name>; -1 when there is none.
func metricValue(t *testing.T, name string, labels map[string]string) float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	if err := theMetrics.register(reg); err != nil {
		t.Fatal(err)
	}
	return scrape(t, reg, name, labels)
}

func scrape(t *testing.T, reg prometheus.Gatherer, name string, labels map[string]string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "caddy_message_api_"+name {
			continue
		}
		for _, m := range family.GetMetric() {
			same := len(m.GetLabel()) == len(labels)
			for _, l := range m.GetLabel() {
				same = same && labels[l.GetName()] == l.GetValue()
			}
			if same && m.GetGauge() != nil {
				return m.GetGauge().GetValue()
			}
			if same {
				return m.GetCounter().GetValue()
			}
		}
	}
	return -1
}

// Every configuration has a registry; one may be given twice, and then nothing breaks.
func TestMetricsRegisterTwice(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	first, err := newMetrics(reg)
	if err != nil {
		t.Fatal(err)
	}
	second, err := newMetrics(reg)
	if err != nil {
		t.Fatalf("the second time: %v", err)
	}
	api := unique("registered-twice")
	labels := map[string]string{"api": api, "entrypoint": "sse"}
	first.forWay(api, "sse").sent.Add(2)
	second.forWay(api, "sse").sent.Add(3)
	if got := scrape(t, reg, "messages_sent_total", labels); got != 5 {
		t.Errorf("2 and 3 are %v", got)
	}
}

// What a session counts that began before a reload is seen after it.
func TestMetricsOutliveTheirRegistry(t *testing.T) {
	before, after := prometheus.NewPedanticRegistry(), prometheus.NewPedanticRegistry()
	old, err := newMetrics(before)
	if err != nil {
		t.Fatal(err)
	}
	api := unique("reloaded")
	c := old.forWay(api, "sse")
	c.open.Inc()
	if _, err := newMetrics(after); err != nil {
		t.Fatal(err)
	}
	c.sent.Add(7)
	labels := map[string]string{"api": api, "entrypoint": "sse"}
	if sent, open := scrape(t, after, "messages_sent_total", labels), scrape(t, after, "sessions", labels); sent != 7 || open != 1 {
		t.Errorf("after a reload %v sent and %v open", sent, open)
	}
	c.open.Dec()
}

// A registry that is otherwise used refuses with an error and not with a panic.
func TestMetricsRegisterFails(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "caddy_message_api_messages_sent_total", Help: "Somebody else's."}))
	if _, err := newMetrics(reg); err == nil || !strings.Contains(err.Error(), "messages_sent_total") {
		t.Errorf("got %v", err)
	}
}

func TestMetricsForWay(t *testing.T) {
	m, api := testApp(t).metrics, unique("looked-up")
	var wg sync.WaitGroup
	found := make([]*wayCounters, 20)
	for i := range found {
		wg.Go(func() { found[i] = m.forWay(api, "sse") })
	}
	wg.Wait()
	for _, c := range found {
		if c != found[0] {
			t.Fatal("one entrypoint has several sets of counters")
		}
	}
	if m.forWay(api, "websocket") == found[0] || m.forWay("other", "sse") == found[0] {
		t.Error("two entrypoints share their counters")
	}
	for _, status := range []message.Status{message.Unknown, message.Stored, message.Handed, message.Refused} {
		found[0].published[status].Add(float64(status) + 1)
		labels := map[string]string{"api": api, "entrypoint": "sse", "outcome": status.String()}
		if got := metricValue(t, "messages_published_total", labels); got != float64(status)+1 {
			t.Errorf("%s: %v", status, got)
		}
	}
}

// The number of series does not depend on the number of clients.
func TestMetricsDoNotGrowWithClients(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	if err := theMetrics.register(reg); err != nil {
		t.Fatal(err)
	}
	series := func() (n int) {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			n += len(f.GetMetric())
		}
		return n
	}
	u := testUnit("crowd")
	use := func(subscription string) {
		s := testSession(t, u, nil, plans.Principal{API: "crowd", Subscription: subscription})
		s.Sent(1, 1)
		s.Received(1, 1)
	}
	use("first")
	before := series()
	for range 100 {
		use(newID())
	}
	if after := series(); after != before {
		t.Errorf("%d series after 1 client, %d after 101", before, after)
	}
}
