//go:build cgo && (linux || darwin)

package examples

import (
	"fmt"
	"testing"

	_ "github.com/caddy-message-api/caddy-message-api/endpoints/solace" // it is not in the default set
	"github.com/caddy-message-api/caddy-message-api/endpoints/solace/smftest"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// The Solace example on a peer that speaks Solace's protocol, as its README says.
func TestSolace(t *testing.T) {
	broker, err := smftest.Listen("127.0.0.1:0", smftest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	broker.Queue("jobs", smftest.Queue{NonExclusive: true, Topics: []string{"jobs"}})
	t.Setenv("SOLACE_URL", broker.URL())
	g := serve(t, "solace", ":8080 {", ":PORT {")
	d := read(t, g, "examples/solace/README.md", "")
	t.Run("topics", func(t *testing.T) { solaceOrders(t, g, d) })
	t.Run("a queue", func(t *testing.T) { solaceJobs(t, d) })
	healthy(t, d.run("curl http://localhost:8080/healthz"), "orders", "jobs", "solace")
}

func solaceOrders(t *testing.T, g *gateway.Gateway, d *doc) {
	watch := d.start("curl -N -H 'Accept: text/event-stream' http://localhost:8080/orders")
	watch.expect(commandTimeout, "retry: ")
	posted := func(command string) {
		t.Helper()
		if a := d.answer(command); a.Status != 202 {
			t.Fatalf("posting: %+v", a)
		}
	}
	posted(`curl -i -H 'X-Region: eu' -d '{"n":1}' http://localhost:8080/orders`)
	watch.expect(commandTimeout, `data: {"n":1}`)
	d.run("curl -H 'X-Gravitee-Client-Identifier: shop-1' 'http://localhost:8080/orders?limit=10'")
	posted(`curl -i -H 'X-Region: us' -d '{"n":2}' http://localhost:8080/orders`)
	one(t, d, "curl -H 'X-Gravitee-Client-Identifier: shop-1' 'http://localhost:8080/orders?limit=1'", `{"n":2}`)
	ws := gateway.OpenSocket(t, g, g.URL("/orders"), []string{"message-api.v1+json"}, "X-Gravitee-Client-Identifier", "shop-2")
	gateway.Do(t, g.Client(0), "POST", g.URL("/orders"), `{"n":3}`, "X-Region", "eu")
	m := frame(t, ws)
	if m.Content != `{"n":3}` || fmt.Sprint(m.Metadata["destination"]) != "orders/eu" {
		t.Errorf("the WebSocket received %+v", m)
	}
	acknowledge(t, ws, m)
}

func solaceJobs(t *testing.T, d *doc) {
	for _, job := range []string{"one", "two"} {
		if a := d.answer("curl -i -d 'job " + job + "' http://localhost:8080/jobs"); a.Status != 202 {
			t.Fatalf("posting: %+v", a)
		}
	}
	first := one(t, d, "curl 'http://localhost:8080/jobs?limit=1'", "job one")
	d.env = append(d.env, "receipt="+first.Pagination.NextCursor)
	one(t, d, `curl "http://localhost:8080/jobs?limit=1&cursor=$receipt"`, "job two")
}
