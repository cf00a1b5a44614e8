package history

import (
	"fmt"
	"os"
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

// course is one run: what is published to, what breaks, and how often.
type course struct {
	endpoint string // of all APIs, in a Caddyfile
	broker   interface {
		Kill()
		Restart()
	}
	proxy    *brokers.Proxy
	messages int
	kills    int // of gateway and broker, each
}

func TestRabbitMQ(t *testing.T) {
	for _, queue := range []string{"quorum", "classic"} {
		t.Run(queue, func(t *testing.T) {
			if queue == "classic" && os.Getenv("MESSAGE_API_SOAK") != "1" {
				t.Skip("part of `make soak`")
			}
			server := brokers.RabbitMQ(t)
			proxy := brokers.NewProxy(t, server.Addr())
			c := course{broker: server, proxy: proxy, endpoint: fmt.Sprintf(`rabbitmq {
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
			}`, proxy.Addr(), server.User(), server.Password(), queue)}
			c.messages, c.kills = 200_000, 5 // which takes a minute
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
	c := course{broker: server, proxy: proxy, endpoint: fmt.Sprintf(`mqtt5 {
		server %s
		keep_alive 2s
		producer {
			topic history
		}
		consumer {
			topic history
		}
	}`, proxy.Addr())}
	c.messages, c.kills = 15_000, 2
	if os.Getenv("MESSAGE_API_SOAK") == "1" {
		c.messages, c.kills = 200_000, 5 // which takes eight minutes, because Mosquitto saves so slowly
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

func (c *course) site() string {
	return fmt.Sprintf(`http://localhost:PORT {
	message_api /in {
		entrypoint http_post
		endpoint %[1]s
		plan keyless
	}
	message_api /auto {
		entrypoint websocket
		endpoint %[1]s
		plan keyless
	}
	message_api /most {
		entrypoint websocket {
			qos at_most_once
		}
		endpoint %[1]s
		plan keyless
	}
	message_api /least {
		entrypoint websocket {
			qos at_least_once
		}
		entrypoint http_get {
			qos at_least_once
		}
		endpoint %[1]s
		plan keyless
	}
	message_api /poll {
		entrypoint http_get {
			qos at_least_once
			messages_limit 1000
			duration_limit 500ms
			ack_wait 5s
		}
		endpoint %[1]s
		plan keyless
	}
}`, c.endpoint)
}

// run publishes, breaks things and reads, and returns the sums of the readers.
func (c *course) run(t *testing.T) []tally {
	g := gateway.Run(t, "", c.site())
	l := newLedger("websocket auto", "websocket at_most_once", "websocket at_least_once", "http_get at_least_once")
	sockets := []*socket{
		{reader: auto, url: g.URL("/auto"), raw: true},
		{reader: atMostOnce, url: g.URL("/most")},
		{reader: atLeastOnce, url: g.URL("/least"), acks: true},
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
	l.settle(atMostOnce, 3*time.Second)
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

// breakThings spreads the faults over the run.
func (c *course) breakThings(t *testing.T, g *gateway.Process, l *ledger) {
	faults := []func(){
		c.proxy.Cut,
		func() { // longer than both sides' patience
			c.proxy.Mute()
			time.Sleep(6 * time.Second)
			c.proxy.Restore()
		},
	}
	for range c.kills {
		faults = append(faults,
			func() { g.Kill(); g.Restart() },
			func() { l.killed(); c.broker.Kill(); c.broker.Restart() },
			c.proxy.Cut,
		)
	}
	for i, fault := range faults {
		mark := c.messages * (i + 1) / (len(faults) + 1)
		for deadline := time.Now().Add(2 * time.Minute); l.confirmations() < mark; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Errorf("fault %d: after %d of %d messages nothing goes on", i, l.confirmations(), c.messages)
				return
			}
		}
		fault()
	}
}
