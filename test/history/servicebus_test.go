package history

import (
	"fmt"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/endpoints/servicebus/servicebustest"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// TestServiceBus has a namespace drop all connections twenty times, and the gateway killed
// in between. Each reader has a subscription of its own.
func TestServiceBus(t *testing.T) {
	if testing.Short() {
		t.Skip("NOT RUN with -short: it takes half a minute")
	}
	bus, err := servicebustest.Listen("127.0.0.1:0", servicebustest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bus.Close)
	bus.Topic("history", servicebustest.Entity{})
	for _, reader := range []string{"auto", "most", "least", "poll"} {
		// A message that was held when a connection broke is locked for so long, and counted as
		// delivered: by chance one may be held at many of the cuts.
		bus.Subscription("history", reader, servicebustest.Entity{LockDuration: 5 * time.Second, MaxDeliveryCount: 100})
	}
	c := course{messages: 100_000, endpoint: func(api string) string {
		subscription := api
		if api == "in" {
			subscription = "auto" // it is never read
		}
		return fmt.Sprintf(`azure_service_bus {
			connection_string "%s"
			producer {
				topic history
			}
			consumer {
				topic history
				subscription %s
				shared
			}
		}`, bus.ConnectionString(), subscription)
	}}
	for i := range 20 {
		c.faults = append(c.faults, func(*gateway.Process, *ledger) { bus.Drop() })
		if i%7 == 6 {
			c.faults = append(c.faults, func(g *gateway.Process, _ *ledger) { g.Kill(); g.Restart() })
		}
	}
	sums := c.run(t)
	wantNoneLostBut(t, sums, false)
	if n := sums[atMostOnce].repeated; n > 0 {
		t.Errorf("%d messages came twice at at_most_once", n)
	}
	for _, reader := range []string{"auto", "least", "poll"} {
		if n := bus.Counts("history/Subscriptions/" + reader).DeadLetter; n > 0 {
			t.Errorf("%d messages of %s are dead letters", n, reader)
		}
	}
}
