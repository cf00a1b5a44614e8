package webhooks

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/test/brokers"
	"github.com/caddy-message-api/caddy-message-api/test/webhooks/ledger"
	"github.com/caddy-message-api/caddy-message-api/test/webhooks/receiver"
)

// TestRabbitMQ has two queues: one whose messages come one after the other, and one without
// order, whose subscription was made by the admin API.
func TestRabbitMQ(t *testing.T) {
	if testing.Short() {
		t.Skip("NOT RUN with -short: it takes most of a minute")
	}
	server := brokers.RabbitMQ(t)
	ordered := amqpFlow(t, server, "ordered", ledger.Plan(3_000, 1, 10, 2))
	ordered.ordered, ordered.concurrency, ordered.rates = true, 1, receiver.Everything.Times(0.1)
	ordered.subscription = "ordered.audit"
	free := amqpFlow(t, server, "free", ledger.Plan(7_000, 1, 20, 5))
	free.concurrency, free.rates = 16, receiver.Everything
	if soak {
		ordered.plan, free.plan = ledger.Plan(30_000, 1, 50, 5), ledger.Plan(70_000, 1, 70, 20)
	}
	c := &course{T: t, flows: []*flow{ordered, free}, broker: server, faults: schedule()}
	for _, f := range c.flows {
		f.open(t)
	}
	c.site = func() string {
		return c.sites(amqpAPI(server, ordered, "lane", ordered.static()) + amqpAPI(server, free, "none", "plan push {\nvalidation auto\n}"))
	}
	c.change = func(c *course, f *flow) {
		patch := map[string]any{"consumer": consumer(f)}
		c.await(takeOver, "another consumer", func() bool {
			for _, n := range c.nodes {
				if err := n.try(http.MethodPatch, "/subscriptions/"+f.subscription, patch, nil); err == nil {
					return true
				}
			}
			return false
		})
	}
	c.run(func() { subscribe(c, free) })
}

// amqpFlow is a flow from a queue of its own, with a queue of dead letters.
func amqpFlow(t *testing.T, server *brokers.RabbitMQServer, name string, plan []ledger.Message) *flow {
	t.Helper()
	source, dead := newQueue(t, server, name), newQueue(t, server, name+"-dead")
	return &flow{name: "rabbitmq " + name, api: name, plan: plan, source: source, dead: dead, left: source.left,
		again: 500} // what is under way, and what the producer sends again
}

func amqpAPI(server *brokers.RabbitMQServer, f *flow, order, rest string) string {
	endpoint := fmt.Sprintf("server %s\nauth %s %s", server.Addr(), server.User(), server.Password())
	return fmt.Sprintf(`message_api /%s {
		%s
		endpoint rabbitmq {
			%s
			consumer {
				queue %[1]s
				shared
			}
		}
		endpoint rabbitmq dead {
			%[3]s
			producer {
				routing_key %[1]s-dead
			}
		}
		%[4]s
	}
	`, f.api, webhook(f.concurrency, order), endpoint, rest)
}

// consumer is what the admin API is told.
func consumer(f *flow) map[string]any {
	return map[string]any{
		"callback": f.receiver.URL(), "secrets": []string{hookSecret},
		"headers": map[string][]string{receiver.RevisionHeader: {fmt.Sprint(f.revision)}},
	}
}

// subscribe makes the flow's subscription by the admin API.
func subscribe(c *course, f *flow) {
	c.Helper()
	var made struct{ ID string }
	c.await(takeOver, "an application", func() bool { // until then the store is not open
		return c.nodes[0].try(http.MethodPost, "/applications", map[string]string{"name": "history"}, &made) == nil
	})
	request := map[string]any{"api": f.api, "plan": "push", "application": made.ID, "consumer": consumer(f)}
	if err := c.nodes[0].try(http.MethodPost, "/subscriptions", request, &made); err != nil {
		c.Fatal(err)
	}
	f.subscription = made.ID
}
