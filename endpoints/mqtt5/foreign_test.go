package mqtt5

import (
	"context"
	"encoding/base64"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/eclipse/paho.golang/paho"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// foreign is plain paho: code that is not ours, on the other side of the broker.
type foreign struct {
	*paho.Client
	gone chan struct{}
}

func connectForeign(t testing.TB, addr, id string, keep bool, on func(*paho.Publish)) *foreign {
	t.Helper()
	tcp, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	f := &foreign{gone: make(chan struct{})}
	once := sync.OnceFunc(func() { close(f.gone) })
	f.Client = paho.NewClient(paho.ClientConfig{
		Conn: tcp, OnClientError: func(error) { once() }, OnServerDisconnect: func(*paho.Disconnect) { once() },
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			if on != nil {
				on(p.Packet)
			}
			return true, nil
		}},
	})
	connect := &paho.Connect{ClientID: id, CleanStart: !keep, KeepAlive: 30, Properties: &paho.ConnectProperties{RequestProblemInfo: true}}
	if keep {
		expiry := uint32(600)
		connect.Properties.SessionExpiryInterval = &expiry
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := f.Connect(ctx, connect); err != nil {
		t.Fatalf("the foreign client can't connect: %v", err)
	}
	t.Cleanup(func() { _ = f.Disconnect(&paho.Disconnect{}) }) // it may be gone already
	return f
}

// produce publishes with QoS 1 and returns when the broker has it all.
func (f *foreign) produce(t testing.TB, topic string, messages ...*message.Message) {
	t.Helper()
	for _, m := range messages {
		p := &paho.Publish{Topic: topic, QoS: 1, Payload: m.Payload, Properties: &paho.PublishProperties{}}
		for _, h := range m.Headers {
			name, value := h.Name, h.Value
			if !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
				name, value = name+";base64", base64.StdEncoding.EncodeToString([]byte(value))
			}
			p.Properties.User.Add(name, value)
		}
		if _, err := f.Publish(context.Background(), p); err != nil {
			t.Fatalf("the foreign client can't publish: %v", err)
		}
	}
}

// inbox is a foreign subscriber that keeps all it gets.
type inbox struct {
	mu   sync.Mutex
	all  []*paho.Publish
	addr string
	id   string
	f    *foreign
}

func newInbox(t testing.TB, addr, topic string) *inbox {
	b := &inbox{addr: addr, id: "inbox-" + strings.ReplaceAll(topic, "/", "-")}
	b.f = connectForeign(t, addr, b.id, true, b.put)
	if _, err := b.f.Subscribe(context.Background(), &paho.Subscribe{
		Subscriptions: []paho.SubscribeOptions{{Topic: topic, QoS: 2}},
	}); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *inbox) put(p *paho.Publish) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all = append(b.all, p)
}

// take returns the next n messages that were not taken before.
func (b *inbox) take(t testing.TB, n int) []*paho.Publish {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		select {
		case <-b.f.gone:
			b.f = connectForeign(t, b.addr, b.id, true, b.put)
		default:
		}
		b.mu.Lock()
		if len(b.all) >= n {
			defer b.mu.Unlock()
			taken := b.all[:n:n]
			b.all = b.all[n:]
			return taken
		}
		have := len(b.all)
		b.mu.Unlock()
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d messages came", have, n)
		}
	}
}

func fromForeign(all []*paho.Publish) []*message.Message {
	messages := make([]*message.Message, len(all))
	for i, p := range all {
		m := &message.Message{Payload: p.Payload}
		for _, u := range p.Properties.User {
			h := message.Header{Name: u.Key, Value: u.Value}
			if name, binary := strings.CutSuffix(u.Key, ";base64"); binary {
				raw, _ := base64.StdEncoding.DecodeString(u.Value)
				h = message.Header{Name: name, Value: string(raw)}
			}
			m.Headers = append(m.Headers, h)
		}
		messages[i] = m
	}
	return messages
}
