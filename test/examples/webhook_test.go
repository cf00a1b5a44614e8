package examples

import (
	"fmt"
	"strings"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/test/brokers"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// RabbitMQ to a webhook: a message is delivered, another is refused and becomes a dead letter,
// and a consumer subscribes by himself.
func TestWebhookExample(t *testing.T) {
	broker := brokers.SharedRabbitMQ(t)
	t.Setenv("RABBITMQ_SERVER", broker.Addr())
	t.Setenv("RABBITMQ_VHOST", broker.Vhost(t))
	port := fmt.Sprint(gateway.FreePort(t))
	g := serve(t, "webhook", ":8080 {", ":PORT {", "localhost:9000", "localhost:"+port)
	d := operated(t, g, "webhook", "")
	delivery := func() string {
		return d.run("bin/caddy message-api subscriptions delivery orders.audit")
	}
	gateway.Eventually(t, commandTimeout, "a worker", func() bool { return strings.Contains(delivery(), "running") })
	gateway.Eventually(t, commandTimeout, "the worker's queue", func() bool {
		return d.answer(`curl -i -H 'X-Region: eu' -d '{"n":1}' http://localhost:8080/orders`).Status == 202
	})
	gateway.Eventually(t, commandTimeout, "a delivery", func() bool { return strings.Contains(g.Log(), "Webhook-Signature") })
	if !strings.Contains(g.Log(), "X-Region") {
		t.Error("the receiver did not get the message's header")
	}
	if out := d.run("bin/caddy message-api subscriptions test orders.audit"); !strings.Contains(out, "200") {
		t.Errorf("a test event: %s", out)
	}
	if a := d.answer(`curl -i -H 'X-Poison: yes' -d '{"n":2}' http://localhost:8080/orders`); a.Status != 202 {
		t.Fatalf("posting: %+v", a)
	}
	gateway.Eventually(t, commandTimeout, "a dead letter", func() bool {
		return strings.Contains(d.run("bin/caddy message-api dead-letters list orders.audit"), "422")
	})
	d.start("bin/caddy message-api dead-letters redeliver orders.audit --all").expect(commandTimeout, "422")
	d.run(`bin/caddy message-api applications create --id shop "The shop"`)
	out := d.with("bin/caddy message-api subscriptions create --api orders --plan push --application shop --callback http://localhost:9000/shop",
		"localhost:9000", "localhost:"+port)
	if !strings.Contains(out, "whsec_") {
		t.Errorf("no secret is shown: %s", out)
	}
	gateway.Eventually(t, commandTimeout, "two deliveries", func() bool {
		return strings.Count(d.run("bin/caddy message-api deliveries"), "running") == 2
	})
}
