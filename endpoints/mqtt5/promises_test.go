package mqtt5

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/eclipse/paho.golang/packets"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/endpointtest"
	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/test/brokers"
)

func provision(t testing.TB, m *MQTT5) *MQTT5 {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	if err := m.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Cleanup(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func TestPromises(t *testing.T) {
	t.Run("mosquitto", func(t *testing.T) {
		addr := brokers.SharedMosquitto(t).Plain
		promises(t, func(t *testing.T) *endpointtest.Rig { return newRig(t, addr, nil) })
	})
	for _, offline := range []bool{false, true} {
		if testing.Short() && !offline {
			continue
		}
		t.Run(fmt.Sprintf("peer/offline %v", offline), func(t *testing.T) {
			promises(t, func(t *testing.T) *endpointtest.Rig {
				p := newPeer(t)
				p.offline = offline
				rig := newRig(t, p.addr(), nil)
				rig.Refuse = func(*testing.T) {
					once := true
					p.with(func() {
						p.puback = func(*packets.Publish) (byte, bool) {
							if once {
								once = false
								return reasonQuota, true
							}
							return 0, true
						}
					})
				}
				return rig
			})
		})
	}
	t.Run("qos 2", func(t *testing.T) {
		if testing.Short() {
			t.Skip("NOT RUN with -short: it takes five seconds more")
		}
		promises(t, func(t *testing.T) *endpointtest.Rig {
			two := 2
			return newRig(t, newPeer(t).addr(), func(m *MQTT5) {
				m.Producer.QoS, m.Consumer.QoS = &two, &two
			})
		})
	})
	t.Run("qos 0", func(t *testing.T) {
		promises(t, func(t *testing.T) *endpointtest.Rig {
			zero := 0
			return newRig(t, newPeer(t).addr(), func(m *MQTT5) {
				m.Producer.QoS, m.Consumer.QoS = &zero, &zero
			})
		})
	})
	t.Run("private", func(t *testing.T) { // which can be killed
		if brokers.WithoutMosquitto() {
			t.Skip("NOT RUN on Mosquitto: MESSAGE_API_NO_MOSQUITTO=1")
		}
		promises(t, func(t *testing.T) *endpointtest.Rig {
			server := brokers.Mosquitto(t)
			rig := newRig(t, server.Addr(), nil)
			rig.Restart = func(t *testing.T) {
				server.Kill()
				server.Restart()
			}
			return rig
		})
	})
}

func promises(t *testing.T, rig func(t *testing.T) *endpointtest.Rig) {
	endpointtest.Run(t, endpointtest.Harness{New: rig, Headers: true, HeaderOrder: true, BinaryHeaders: true})
}

// newRig is an endpoint that writes to one topic and reads another.
func newRig(t *testing.T, addr string, change func(*MQTT5)) *endpointtest.Rig {
	l := &line{}
	name := brokers.UniqueName(t)
	in, out := name+"/in", name+"/out"
	make := func(t *testing.T, address string) *MQTT5 {
		m := &MQTT5{
			Servers: []string{address}, dial: l.dial, SessionExpiry: caddy.Duration(time.Minute),
			Producer: &Producer{Topic: out}, Consumer: &Consumer{Topics: []string{in}},
		}
		if change != nil {
			change(m)
		}
		return provision(t, m)
	}
	producer := connectForeign(t, addr, name+"-producer", false, nil)
	consumer := newInbox(t, addr, out)
	rig := &endpointtest.Rig{
		Endpoint: make(t, addr),
		Produce: func(t *testing.T, messages ...*message.Message) {
			select {
			case <-producer.gone:
				producer = connectForeign(t, addr, name+"-producer", false, nil)
			default:
			}
			producer.produce(t, in, messages...)
		},
		Consume: func(t *testing.T, n int) []*message.Message { return fromForeign(consumer.take(t, n)) },
		Again:   func(t *testing.T) endpoints.Endpoint { return make(t, addr) },
		Unreachable: func(t *testing.T) endpoints.Endpoint {
			return provision(t, &MQTT5{
				Servers: []string{"127.0.0.1:1"}, Producer: &Producer{Topic: out}, Consumer: &Consumer{Topics: []string{in}},
			})
		},
		Cut:           func(*testing.T) { l.cut() },
		Restore:       func(*testing.T) { l.restore() },
		CutAfterWrite: func(*testing.T) { l.swallow.Store(true) },
	}
	return rig
}
