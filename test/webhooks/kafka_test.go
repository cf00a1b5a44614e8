package webhooks

import (
	"fmt"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/test/brokers"
	"github.com/caddy-message-api/caddy-message-api/test/webhooks/ledger"
	"github.com/caddy-message-api/caddy-message-api/test/webhooks/receiver"
)

// webhook is the entrypoint of all flows.
func webhook(concurrency int, order string) string {
	return fmt.Sprintf(`entrypoint webhook {
		timeout %s
		connect_timeout 500ms
		concurrency %d
		order %s
		retry exponential {
			attempts %d
			delay 50ms
			max_delay 1s
		}
		on_client_error dead_letter
		on_exhausted dead_letter
		dead_letter dead
		message_headers %s
		allow_http
		allow_networks loopback
	}`, timeout, concurrency, order, attempts, keptHeader)
}

// static is the subscription of a flow in the Caddyfile.
func (f *flow) static() string {
	return fmt.Sprintf(`subscription audit {
		callback %s
		secret %s
		header %s %d
	}`, f.receiver.URL(), hookSecret, receiver.RevisionHeader, f.revision)
}

// sites are APIs by their path, with something that changes when nothing of them does.
func (c *course) sites(apis string) string {
	return fmt.Sprintf("http://localhost:PORT {\n%s\nrespond /unrelated \"%d\"\n}\n", apis, c.unrelated)
}

// TestKafka has many keys in several partitions, whose messages come in the order of their keys.
func TestKafka(t *testing.T) {
	if testing.Short() {
		t.Skip("NOT RUN with -short: it takes most of a minute")
	}
	server := brokers.Kafka(t)
	source := &kafkaTopic{addr: server.Addr(), topic: "history"}
	dead := &kafkaTopic{addr: server.Addr(), topic: "history-dead"}
	brokers.CreateTopic(t, server.Addr(), source.topic, 6)
	brokers.CreateTopic(t, server.Addr(), dead.topic, 1)
	f := &flow{
		name: "kafka by key", api: "kafka", subscription: "kafka.audit", ordered: true, rates: receiver.Everything, concurrency: 32,
		plan: ledger.Plan(10_000, 240, 20, 5), source: source, dead: dead, position: source.at,
		// One message that waits keeps all behind it in its partition from being settled.
		again: 1 << 15,
		left:  func(t *testing.T) int64 { return source.left(t, "audit") },
	}
	if soak {
		f.plan = ledger.Plan(100_000, 600, 100, 20)
	}
	f.open(t)
	c := &course{T: t, flows: []*flow{f}, broker: server, faults: schedule()}
	c.site = func() string {
		return c.sites(fmt.Sprintf(`message_api /kafka {
			%s
			endpoint kafka {
				brokers %[2]s
				consumer {
					topics %s
					auto_offset_reset earliest
				}
			}
			endpoint kafka dead {
				brokers %[2]s
				producer {
					topics %[4]s
				}
			}
			%[5]s
		}`, webhook(f.concurrency, "key"), server.Addr(), source.topic, dead.topic, f.static()))
	}
	c.run(nil)
}
