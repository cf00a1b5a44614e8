package history

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/test/brokers"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

func TestMain(m *testing.M) { gateway.Main(m) }

// The readers, in the order of their accounts.
const (
	auto = iota
	atMostOnce
	atLeastOnce
	atLeastOnceGET
)

// course is one run: what is published to, how much, and what breaks meanwhile.
type course struct {
	// endpoint is that of an API, in a Caddyfile.
	endpoint func(api string) string
	messages int
	faults   []fault
	// unproven leaves out at_most_once, which the endpoint does not offer.
	unproven bool
}

// fault breaks something, and mends it.
type fault func(g *gateway.Process, l *ledger)

// same is the endpoint of all APIs.
func same(endpoint string) func(string) string { return func(string) string { return endpoint } }

// server is a broker that can be killed.
type server interface {
	Kill()
	Restart()
}

// killing cuts connections, lets the link swallow everything for a while, and kills gateway
// and broker, each so many times.
func killing(proxy *brokers.Proxy, broker server, kills int) []fault {
	cut := func(*gateway.Process, *ledger) { proxy.Cut() }
	faults := []fault{cut, func(*gateway.Process, *ledger) { // longer than both sides' patience
		proxy.Mute()
		time.Sleep(6 * time.Second)
		proxy.Restore()
	}}
	for range kills {
		faults = append(faults,
			func(g *gateway.Process, _ *ledger) { g.Kill(); g.Restart() },
			func(_ *gateway.Process, l *ledger) { l.killed(); broker.Kill(); broker.Restart() },
			cut,
		)
	}
	return faults
}

func TestRabbitMQ(t *testing.T) {
	for _, queue := range []string{"quorum", "classic"} {
		t.Run(queue, func(t *testing.T) {
			if queue == "classic" && os.Getenv("MESSAGE_API_SOAK") != "1" {
				t.Skip("part of `make soak`")
			}
			server := brokers.RabbitMQ(t)
			proxy := brokers.NewProxy(t, server.Addr())
			c := course{endpoint: same(fmt.Sprintf(`rabbitmq {
				server %s
				auth %s %s
				heartbeat 2s
				producer {
					exchange history fanout
				}
				consumer {
					exchange history fanout
					queue_type %s
				}
			}`, proxy.Addr(), server.User(), server.Password(), queue))}
			c.messages, c.faults = 200_000, killing(proxy, server, 5) // which takes a minute
			sums := c.run(t)
			if queue == "classic" {
				// It may confirm and acknowledge before its disk knows: that is reported.
				wantNoneLostBut(t, sums, true)
				return
			}
			wantNoneLostBut(t, sums, false)
			if n := sums[atMostOnce].repeated; n > 0 {
				t.Errorf("%d messages came twice at at_most_once", n)
			}
		})
	}
}

// Mosquitto answers before it has written to its disk, so that what it confirmed in the
// moment before it is killed can be gone.
func TestMQTT(t *testing.T) {
	server := brokers.Mosquitto(t)
	proxy := brokers.NewProxy(t, server.Addr())
	c := course{endpoint: same(fmt.Sprintf(`mqtt5 {
		server %s
		keep_alive 2s
		producer {
			topic history
		}
		consumer {
			topic history
		}
	}`, proxy.Addr()))}
	c.messages, c.faults = 15_000, killing(proxy, server, 2)
	if os.Getenv("MESSAGE_API_SOAK") == "1" {
		c.messages, c.faults = 200_000, killing(proxy, server, 5) // which takes eight minutes, because Mosquitto saves so slowly
	}
	sums := c.run(t)
	wantNoneLostBut(t, sums, true)
	if n := sums[atMostOnce].repeated; n > 0 {
		t.Errorf("%d messages came twice at at_most_once", n)
	}
}

// wantNoneLostBut checks at_least_once. What the broker has lost in being killed is its own.
func wantNoneLostBut(t *testing.T, sums []tally, atKills bool) {
	t.Helper()
	for _, reader := range []int{atLeastOnce, atLeastOnceGET} {
		lost := sums[reader].lost
		if atKills {
			lost -= sums[reader].atKill
		}
		if lost > 0 {
			t.Errorf("reader %d lost %d messages at at_least_once", reader, lost)
		}
	}
}

// site has an API that is published to, and one for each reader.
func (c *course) site() string {
	apis := []struct{ name, entrypoints string }{
		{"in", "entrypoint http_post"},
		{"auto", "entrypoint websocket"},
		{"least", "entrypoint websocket {\nqos at_least_once\n}"},
		{"poll", "entrypoint http_get {\nqos at_least_once\nmessages_limit 1000\nduration_limit 500ms\nack_wait 5s\n}"},
		{"most", "entrypoint websocket {\nqos at_most_once\n}"},
	}
	if c.unproven {
		apis = apis[:len(apis)-1]
	}
	var b strings.Builder
	for _, a := range apis {
		fmt.Fprintf(&b, "message_api /%s {\n%s\nendpoint %s\nplan keyless\n}\n", a.name, a.entrypoints, c.endpoint(a.name))
	}
	return "http://localhost:PORT {\n" + b.String() + "}\n"
}

// run publishes, breaks things and reads, and returns the sums of the readers.
func (c *course) run(t *testing.T) []tally {
	g := gateway.Run(t, "", c.site())
	l := newLedger("websocket auto", "websocket at_most_once", "websocket at_least_once", "http_get at_least_once")
	sockets := []*socket{
		{reader: auto, url: g.URL("/auto"), raw: true},
		{reader: atLeastOnce, url: g.URL("/least"), acks: true},
	}
	if c.unproven {
		l.readers[atMostOnce].name = "" // nobody
	} else {
		sockets = append(sockets, &socket{reader: atMostOnce, url: g.URL("/most")})
	}
	for _, s := range sockets {
		s.l, s.ready, s.done = l, make(chan struct{}), make(chan struct{})
		go s.run()
		defer s.stop()
		await(t, s.ready, "a WebSocket")
	}
	poll := &poller{l: l, reader: atLeastOnceGET, url: g.URL("/poll"), ready: make(chan struct{}), done: make(chan struct{})}
	go poll.run()
	defer poll.stop()
	await(t, poll.ready, "the first GET")

	began := time.Now()
	p := &publisher{l: l, url: g.URL("/in")}
	p.target.Store(int64(c.messages))
	published := make(chan struct{})
	go func() {
		defer close(published)
		p.run(8)
	}()
	c.breakThings(t, g, l)
	select {
	case <-published:
	case <-time.After(5 * time.Minute):
		t.Errorf("only %d of %d messages were confirmed", l.confirmations(), c.messages)
		p.target.Store(0)
		<-published
	}
	t.Logf("published in %s", time.Since(began).Round(time.Millisecond))
	l.settle(atLeastOnce, 20*time.Second)
	l.settle(atLeastOnceGET, 20*time.Second)
	if !c.unproven {
		l.settle(atMostOnce, 3*time.Second)
	}
	t.Logf("read in %s", time.Since(began).Round(time.Millisecond))
	return l.report(t)
}

func await(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(30 * time.Second):
		t.Fatalf("%s: not within 30 s", what)
	}
}

// breakThings spreads the faults over the run, each somewhere in a stretch of its own.
func (c *course) breakThings(t *testing.T, g *gateway.Process, l *ledger) {
	stretch := c.messages / (len(c.faults) + 1)
	for i, f := range c.faults {
		mark := stretch*(i+1) - rand.N(stretch/2)
		for deadline := time.Now().Add(2 * time.Minute); l.confirmations() < mark; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Errorf("fault %d: after %d of %d messages nothing goes on", i, l.confirmations(), c.messages)
				return
			}
		}
		f(g, l)
	}
}
