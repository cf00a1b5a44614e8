package mqtt5

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/options"
	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/test/brokers"
	"github.com/eclipse/paho.golang/packets"

	node "github.com/caddy-message-api/caddy-message-api/test/brokers/server"
)

// roundTrip publishes some messages, large ones among them, and reads them again.
func roundTrip(t *testing.T, m *MQTT5) {
	t.Helper()
	topic := brokers.UniqueName(t)
	m.Producer, m.Consumer = &Producer{Topic: topic}, &Consumer{Topics: []string{topic}}
	provision(t, m)
	s := subscribe(t, m, message.Subscription{Mode: message.Broadcast})
	large := 300 << 10
	if strings.HasPrefix(m.Servers[0], "ws") {
		large = 10 << 10 // Mosquitto's WebSockets deliver 40 kB in a second
	}
	messages := []*message.Message{{Payload: []byte("small")}, {Payload: make([]byte, large)}, {Payload: make([]byte, large/5)}}
	for i, r := range publisherOf(t, m).Publish(context.Background(), message.Auto, messages...) {
		wantResult(t, fmt.Sprint("message ", i), r, message.Stored, 0)
	}
	for i, d := range receive(t, s, len(messages)) {
		if len(d.Payload) != len(messages[i].Payload) {
			t.Errorf("message %d came with %d bytes, want %d", i, len(d.Payload), len(messages[i].Payload))
		}
	}
	if status := m.Status(); status.State != endpoints.Up {
		t.Errorf("status %+v", status)
	}
	if err := m.Probe(context.Background()); err != nil {
		t.Errorf("probe: %v", err)
	}
}

func TestTransports(t *testing.T) {
	b := brokers.Mosquitto(t)
	l := b.Listeners()
	ca := &options.TLS{CAFile: l.Certificates.CA}
	mutual := &options.TLS{CAFile: l.Certificates.CA, Cert: l.Certificates.ClientCert, Key: l.Certificates.ClientKey}
	login := &options.Auth{User: node.User, Password: node.Password}
	for name, m := range map[string]*MQTT5{
		"plain":         {Servers: []string{l.Plain}},
		"mqtt":          {Servers: []string{"mqtt://" + l.Plain}},
		"tls":           {Servers: []string{l.TLS}, TLS: ca},
		"mqtts":         {Servers: []string{"mqtts://" + l.TLS}, TLS: ca},
		"mutual tls":    {Servers: []string{"mqtts://" + l.MutualTLS}, TLS: mutual},
		"ws":            {Servers: []string{"ws://" + l.WS}},
		"ws path":       {Servers: []string{"ws://" + l.WS + "/some/path?x=1"}},
		"wss":           {Servers: []string{"wss://" + l.WSS + "/mqtt"}, TLS: ca},
		"login":         {Servers: []string{l.Auth}, Auth: login},
		"second server": {Servers: []string{"127.0.0.1:1", l.Plain}},
		"third server":  {Servers: []string{"mqtt://127.0.0.1:1,ws://" + l.Plain, l.Plain}},
	} {
		t.Run(name, func(t *testing.T) { roundTrip(t, m) })
	}
}

// What is wrong with a connection is told, with the address and without a secret.
func TestWhatIsWrongIsTold(t *testing.T) {
	b := brokers.Mosquitto(t)
	l := b.Listeners()
	for name, c := range map[string]struct {
		m    *MQTT5
		want string
	}{
		"unknown authority":     {&MQTT5{Servers: []string{"mqtts://" + l.TLS}}, "certificate"},
		"no client certificate": {&MQTT5{Servers: []string{l.MutualTLS}, TLS: &options.TLS{CAFile: l.Certificates.CA}}, "can't be reached"},
		"plain to a TLS port":   {&MQTT5{Servers: []string{l.TLS}}, "CONNACK"},
		"TLS to a plain port":   {&MQTT5{Servers: []string{"mqtts://" + l.Plain}}, "TLS"},
		"no login":              {&MQTT5{Servers: []string{l.Auth}}, "not authorized (0x87)"},
		"wrong password":        {&MQTT5{Servers: []string{l.Auth}, Auth: &options.Auth{User: node.User, Password: "s3cret"}}, "not authorized (0x87)"},
		"no WebSocket":          {&MQTT5{Servers: []string{"ws://" + l.Plain}}, "WebSocket"},
	} {
		t.Run(name, func(t *testing.T) {
			c.m.Producer, c.m.Consumer = &Producer{Topic: "x"}, &Consumer{Topics: []string{"x"}}
			m := provision(t, c.m)
			check := func(err error) {
				t.Helper()
				if message.KindOf(err) != message.Unavailable || !strings.Contains(err.Error(), c.want) ||
					!strings.Contains(err.Error(), c.m.Servers[0]) || strings.Contains(err.Error(), "s3cret") {
					t.Errorf("the error is %v", err)
				}
			}
			check(publisherOf(t, m).Publish(context.Background(), message.Auto, &message.Message{})[0].Err)
			channel, _ := m.Channel(replace{})
			_, err := m.Subscribe(context.Background(), channel, message.Subscription{Mode: message.Broadcast})
			check(err)
		})
	}
}

// Who may log in and nothing else is told so.
func TestRightsThatAreMissing(t *testing.T) {
	b := brokers.Mosquitto(t)
	m := provision(t, &MQTT5{
		Servers: []string{b.AuthAddr()}, Auth: &options.Auth{User: node.Stranger, Password: node.Password},
		Producer: &Producer{Topic: "x"}, Consumer: &Consumer{Topics: []string{"x"}},
	})
	r := publisherOf(t, m).Publish(context.Background(), message.Auto, &message.Message{})[0]
	wantResult(t, "publish", r, message.Refused, message.Denied)

	p := newPeer(t)
	for code, kind := range map[byte]message.Kind{
		0x80: message.Unavailable, 0x87: message.Denied, 0x8F: message.BadInput, 0x97: message.Unavailable,
		0x9E: message.Mismatch, 0xA2: message.Mismatch,
	} {
		p.with(func() { p.suback = func(string) byte { return code } })
		gateway := newProcess(t, p.addr(), "topic")
		channel, _ := gateway.Channel(replace{})
		for _, sub := range []message.Subscription{
			{Mode: message.Broadcast}, {Mode: message.Member, QoS: message.Auto, Name: "n"}, {Mode: message.Member, QoS: message.AtMostOnce, Name: "n"},
		} {
			_, err := gateway.Subscribe(context.Background(), channel, sub)
			if message.KindOf(err) != kind || !strings.Contains(err.Error(), "topic") {
				t.Errorf("0x%02X: %v, want %s", code, err, kind)
			}
		}
	}
}

// What the server does not have is told when it is needed.
func TestWhatTheServerDoesNotHave(t *testing.T) {
	p := newPeer(t)
	no := byte(0)
	p.connack = packets.Properties{MaximumQOS: &no, SharedSubAvailable: &no, WildcardSubAvailable: &no}
	member := message.Subscription{Mode: message.Member, QoS: message.AtLeastOnce, Name: "api.client"}
	fails := func(gateway *process, sub message.Subscription, want string) {
		t.Helper()
		channel, _ := gateway.Channel(replace{})
		_, err := gateway.Subscribe(context.Background(), channel, sub)
		if message.KindOf(err) != message.Mismatch || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	fails(newProcess(t, p.addr(), "topic"), member, "QoS 0")
	fails(newProcess(t, p.addr(), "topic/#"), message.Subscription{Mode: message.Broadcast}, "wildcard")
	p.with(func() { p.connack.MaximumQOS = nil })
	gateway := newProcess(t, p.addr(), "topic")
	first := gateway.member(t, 10) // one needs no sharing
	fails(gateway, member, "shared")
	connectForeign(t, p.addr(), "feed", false, nil).produce(t, "topic", numbered(0, 3)...)
	receive(t, first, 3)
}

// A server that accepts connections and says nothing is unavailable, in time.
func TestAServerThatSaysNothing(t *testing.T) {
	for _, scheme := range []string{"mqtt://", "mqtts://", "ws://", "wss://"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			m := provision(t, &MQTT5{Servers: []string{scheme + listener.Addr().String()}, Consumer: &Consumer{Topics: []string{"x"}}})
			channel, _ := m.Channel(replace{})
			begun := time.Now()
			_, err = m.Subscribe(context.Background(), channel, message.Subscription{Mode: message.Broadcast})
			if took := time.Since(begun); message.KindOf(err) != message.Unavailable || took > 5*time.Second {
				t.Errorf("after %v: %v", took, err)
			}
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

// An unused publishing connection is closed, and made again when it is needed.
func TestIdle(t *testing.T) {
	p := newPeer(t)
	m := provision(t, &MQTT5{Servers: []string{p.addr()}, Producer: &Producer{Topic: "x"}, Idle: 50_000_000})
	publisher := publisherOf(t, m)
	for range 2 {
		wantResult(t, "publish", publisher.Publish(context.Background(), message.Auto, &message.Message{})[0], message.Stored, 0)
		waitFor(t, "the connection is closed", func() bool { return m.Status().State == endpoints.Idle })
		waitFor(t, "the server has no session", func() bool { return len(p.ids()) == 0 })
	}
}
