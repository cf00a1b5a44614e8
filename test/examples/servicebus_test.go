package examples

import (
	"testing"

	"github.com/Azure/go-amqp"

	"github.com/caddy-message-api/caddy-message-api/endpoints/servicebus/servicebustest"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// The Service Bus example on a peer that behaves as a namespace, as its README says.
func TestServiceBus(t *testing.T) {
	bus, err := servicebustest.Listen("127.0.0.1:0", servicebustest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bus.Close)
	bus.Queue("jobs", servicebustest.Entity{})
	bus.Topic("news", servicebustest.Entity{})
	bus.Subscription("news", "web", servicebustest.Entity{})
	t.Setenv("SERVICE_BUS_CONNECTION_STRING", bus.ConnectionString())
	g := serve(t, "azure-service-bus", ":8080 {", ":PORT {")
	d := read(t, g, "examples/azure-service-bus/README.md", "")
	t.Run("a queue", func(t *testing.T) { busJobs(t, g, d, bus) })
	t.Run("a topic", func(t *testing.T) { busNews(t, d, bus) })
	healthy(t, d.run("curl http://localhost:8080/healthz"), "jobs", "news", "azure_service_bus")
}

func busJobs(t *testing.T, g *gateway.Gateway, d *doc, bus *servicebustest.Server) {
	for _, command := range []string{
		`curl -i -H 'Content-Type: application/json' -d '{"job":1}' http://localhost:8080/jobs`,
		`curl -i -H 'X-Priority: high' -d 'job two' http://localhost:8080/jobs`,
	} {
		if a := d.answer(command); a.Status != 202 {
			t.Fatalf("posting: %+v", a)
		}
	}
	first := one(t, d, "curl 'http://localhost:8080/jobs?limit=1'", `{"job":1}`)
	d.env = append(d.env, "receipt="+first.Pagination.NextCursor)
	one(t, d, `curl "http://localhost:8080/jobs?limit=1&cursor=$receipt"`, "job two")
	gateway.Eventually(t, commandTimeout, "the first job is completed", func() bool {
		c := bus.Counts("jobs")
		return c.Completed == 1 && c.Active == 1
	})
	ws := gateway.OpenSocket(t, g, g.URL("/jobs"), []string{"message-api.v1+json"})
	if err := bus.Put("jobs", amqp.NewMessage([]byte("job three"))); err != nil {
		t.Fatal(err)
	}
	m := frame(t, ws)
	if m.Content != "job three" {
		t.Errorf("the WebSocket received %+v", m)
	}
	acknowledge(t, ws, m)
}

func busNews(t *testing.T, d *doc, bus *servicebustest.Server) {
	watch := d.start("curl -N -H 'Accept: text/event-stream' http://localhost:8080/news")
	watch.expect(commandTimeout, "retry: ")
	if a := d.answer("curl -i -H 'X-Subject: sports' -d 'three to one' http://localhost:8080/news"); a.Status != 202 {
		t.Fatalf("posting: %+v", a)
	}
	watch.expect(commandTimeout, "data: three to one\n")
	gateway.Eventually(t, commandTimeout, "the message is completed", func() bool {
		return bus.Counts("news/Subscriptions/web").Completed == 1
	})
}
