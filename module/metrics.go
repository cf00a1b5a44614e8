package module

import (
	"errors"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// metrics are the gateway's. There is one set for the process, which every configuration
// puts into its own registry: a session that outlives a reload goes on counting where
// somebody looks. No label grows with the number of clients.
type metrics struct {
	open      *prometheus.GaugeVec
	ended     *prometheus.CounterVec
	sent      *prometheus.CounterVec
	sentBytes *prometheus.CounterVec
	received  *prometheus.CounterVec
	recvBytes *prometheus.CounterVec
	published *prometheus.CounterVec
	gaps      *prometheus.CounterVec
	dropped   *prometheus.CounterVec
	refused   *prometheus.CounterVec
	limited   *prometheus.CounterVec
	// undelivered counts what workers could not deliver at once, or at all.
	undelivered *prometheus.CounterVec
	// deliveries are the subscriptions that are pushed to, by state.
	deliveries *prometheus.GaugeVec

	mu   sync.Mutex
	ways map[[2]string]*wayCounters
}

// wayCounters are the counters of one API's entrypoint, looked up once per session.
type wayCounters struct {
	open                    prometheus.Gauge
	sent, sentBytes         prometheus.Counter
	received, receivedBytes prometheus.Counter
	published               [4]prometheus.Counter // by message.Status
}

var wayLabels = []string{"api", "entrypoint"}

var theMetrics = makeMetrics()

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	return theMetrics, theMetrics.register(reg)
}

func makeMetrics() *metrics {
	m := &metrics{ways: make(map[[2]string]*wayCounters)}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "caddy", Subsystem: "message_api", Name: name, Help: help,
		}, append(wayLabels[:2:2], labels...))
	}
	m.open = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: "caddy", Subsystem: "message_api", Name: "sessions", Help: "Open sessions.",
	}, wayLabels)
	m.ended = counter("sessions_ended_total", "Sessions that ended before they were done, by reason.", "reason")
	m.sent = counter("messages_sent_total", "Messages written to clients.")
	m.sentBytes = counter("sent_bytes_total", "Bytes of messages written to clients.")
	m.received = counter("messages_received_total", "Messages that clients sent.")
	m.recvBytes = counter("received_bytes_total", "Bytes of messages that clients sent.")
	m.published = counter("messages_published_total", "Messages given to brokers, by outcome.", "outcome")
	m.gaps = counter("gaps_total", "Gaps that clients were told of, by reason.", "reason")
	m.dropped = counter("messages_dropped_total", "Messages dropped at at_most_once because they could not be settled first.")
	m.deliveries = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: "caddy", Subsystem: "message_api", Name: "deliveries",
		Help: "Subscriptions that this node could deliver to, by state.",
	}, []string{"api", "state"})
	m.undelivered = counter("undelivered_total",
		"What entrypoints that go to their clients could not deliver: attempts that failed, messages that became dead letters or were skipped.", "what")
	perPlan := func(name, help string, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "caddy", Subsystem: "message_api", Name: name, Help: help,
		}, []string{"api", "plan", label})
	}
	m.refused = perPlan("refused_total", "Requests that no plan let in, by the plan that refused them and the status.", "status")
	m.limited = perPlan("limited_total", "What was refused because a limit was reached: requests by rate_limit and quota, messages by publish_rate.", "limit")
	return m
}

// register puts the collectors into the registry of a configuration, unless they are there.
func (m *metrics) register(reg prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{
		m.open, m.ended, m.sent, m.sentBytes, m.received, m.recvBytes, m.published, m.gaps, m.dropped,
		m.refused, m.limited, m.undelivered, m.deliveries,
	} {
		err := reg.Register(c)
		if _, there := errors.AsType[prometheus.AlreadyRegisteredError](err); err != nil && !there {
			return err
		}
	}
	return nil
}

// forWay returns the counters of an API's entrypoint.
func (m *metrics) forWay(api, entrypoint string) *wayCounters {
	key := [2]string{api, entrypoint}
	m.mu.Lock()
	defer m.mu.Unlock()
	if c, ok := m.ways[key]; ok {
		return c
	}
	c := &wayCounters{
		open:      m.open.WithLabelValues(api, entrypoint),
		sent:      m.sent.WithLabelValues(api, entrypoint),
		sentBytes: m.sentBytes.WithLabelValues(api, entrypoint),
		received:  m.received.WithLabelValues(api, entrypoint), receivedBytes: m.recvBytes.WithLabelValues(api, entrypoint),
	}
	for status := range c.published {
		c.published[status] = m.published.WithLabelValues(api, entrypoint, message.Status(status).String())
	}
	m.ways[key] = c
	return c
}
