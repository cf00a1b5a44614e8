package brokers

import (
	"testing"

	"github.com/caddy-message-api/caddy-message-api/test/brokers/kafka"
	"github.com/caddy-message-api/caddy-message-api/test/brokers/server"
)

// KafkaServer is an Apache Kafka of one test's own. After Kill a Restart takes about four
// seconds: its old session must time out.
type KafkaServer struct {
	*Server
	node kafka.Node
}

// Kafka starts a private Apache Kafka, and stops it when the test ends.
func Kafka(t testing.TB) *KafkaServer {
	t.Helper()
	libs := jars(t)
	k := &KafkaServer{}
	k.Server = startServer(t, kafka.Ports, func(dir string, firstPort int) server.Node {
		k.node = kafka.Node{Dir: dir, Libs: libs, FirstPort: firstPort}
		return k.node
	})
	return k
}

// Listeners are all its addresses.
func (k *KafkaServer) Listeners() kafka.Listeners { return k.node.Listeners() }

// Proxied returns a fault proxy in front of the broker. Clients that are given the proxy's
// address are led to it by the broker's metadata too, so that nothing passes it by. A
// server has one.
func (k *KafkaServer) Proxied() *Proxy {
	k.t.Helper()
	listener, addr := k.node.Proxied()
	return NewProxyAt(k.t, addr, listener)
}
