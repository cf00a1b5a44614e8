//go:build cgo && (linux || darwin)

package history

import (
	"fmt"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/endpoints/solace/smftest"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

func init() { gateway.Tags = "solace" } // it is not in the default set

// TestSolace has a broker drop all connections twenty times, and the gateway killed in
// between. What was in hand at a cut comes again under the same number, or under a new one:
// the public facts do not tell which, so both are tried.
func TestSolace(t *testing.T) {
	if testing.Short() {
		t.Skip("NOT RUN with -short: it takes half a minute")
	}
	for name, renumber := range map[string]bool{"same numbers": false, "new numbers": true} {
		t.Run(name, func(t *testing.T) {
			broker, err := smftest.Listen("127.0.0.1:0", smftest.Options{AckEvery: 16, RenumberAfterRebind: renumber})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(broker.Close)
			c := course{messages: 100_000, unproven: true, endpoint: same(fmt.Sprintf(`solace {
				url %s
				producer {
					topics history
				}
				consumer {
					topics history
				}
			}`, broker.URL()))}
			if renumber {
				c.messages = 30_000
			}
			for i := range 20 {
				c.faults = append(c.faults, func(*gateway.Process, *ledger) { broker.Drop() })
				if i%7 == 6 {
					c.faults = append(c.faults, func(g *gateway.Process, _ *ledger) { g.Kill(); g.Restart() })
				}
			}
			wantNoneLostBut(t, c.run(t), false)
			for _, err := range broker.Malformed() {
				t.Errorf("the client library sent what the peer does not understand: %v", err)
			}
		})
	}
}
