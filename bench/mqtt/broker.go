package mqtt

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/caddy-message-api/caddy-message-api/bench/plain"
	"github.com/caddy-message-api/caddy-message-api/test/brokers/mosquitto"
	"github.com/caddy-message-api/caddy-message-api/test/brokers/server"
)

const adminTimeout = 30 * time.Second

// Broker is the MQTT broker that everything in one run talks to.
type Broker struct {
	// Addr is where it is, What says what it is.
	Addr, What string

	own    *plain.Own // nil for one that was there already
	system *system
}

// Open uses the broker at MQTT_ADDR, or else starts a Mosquitto, one that saves nothing.
func Open() (*Broker, error) {
	b := &Broker{Addr: os.Getenv("MQTT_ADDR")}
	b.What = "the MQTT broker at MQTT_ADDR=" + b.Addr
	if b.Addr == "" {
		if _, err := mosquitto.FindProgram(); err != nil {
			return nil, plain.ErrMissing{Err: err}
		}
		var err error
		b.own, err = plain.StartOwn(mosquitto.Ports, func(dir string, firstPort int) server.Node {
			node := mosquitto.Node{Dir: dir, FirstPort: firstPort, Volatile: true}
			b.Addr = node.Addr()
			return node
		})
		if err != nil {
			return nil, err
		}
		b.What = "a Mosquitto without persistence, started for this run"
	}
	var err error
	if b.system, err = watchSystem(b.Addr); err != nil {
		return nil, errors.Join(err, b.own.Close())
	}
	return b, nil
}

// Topic is a topic that nobody else uses.
func (b *Broker) Topic(name string) string { return fmt.Sprintf("bench/%s/%08x", name, rand.Uint32()) }

// Counts is what the broker has of others: connections and subscriptions.
type Counts struct{ Connections, Subscriptions int }

// Counts returns what the broker tells of itself after this call has begun. It tells it
// every second.
func (b *Broker) Counts() (Counts, error) { return b.system.next() }

// Close ends the broker if it is ours.
func (b *Broker) Close() error {
	return errors.Join(b.system.client.Disconnect(&paho.Disconnect{}), b.own.Close())
}

// connect connects a plain client whose session ends with the connection.
func connect(addr, id string, on func(*paho.Publish)) (*paho.Client, error) {
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connecting to the MQTT broker: %w", err)
	}
	config := paho.ClientConfig{Conn: conn, ClientID: fmt.Sprintf("bench-%s-%08x", id, rand.Uint32())}
	if on != nil {
		config.OnPublishReceived = []func(paho.PublishReceived) (bool, error){func(r paho.PublishReceived) (bool, error) {
			on(r.Packet)
			return true, nil
		}}
	}
	c := paho.NewClient(config)
	if _, err := c.Connect(ctx, &paho.Connect{ClientID: config.ClientID, KeepAlive: 30, CleanStart: true}); err != nil {
		return nil, errors.Join(fmt.Errorf("connecting to the MQTT broker at %s: %w", addr, err), conn.Close())
	}
	return c, nil
}

func subscribe(c *paho.Client, filter string, qos byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	_, err := c.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: qos}}})
	return err
}

// The topics by which Mosquitto tells of itself. A number is told again only when it has
// changed, but for the uptime, which is the last of a round.
const (
	connections   = "$SYS/broker/clients/connected"
	subscriptions = "$SYS/broker/subscriptions/count"
	uptime        = "$SYS/broker/uptime"
)

// system watches those topics.
type system struct {
	client *paho.Client
	rounds chan Counts

	mu  sync.Mutex
	now Counts
}

func watchSystem(addr string) (*system, error) {
	s := &system{rounds: make(chan Counts, 1)}
	var err error
	if s.client, err = connect(addr, "system", s.receive); err != nil {
		return nil, err
	}
	for _, topic := range []string{connections, subscriptions, uptime} {
		if err := subscribe(s.client, topic, 0); err != nil {
			return nil, errors.Join(err, s.client.Disconnect(&paho.Disconnect{}))
		}
	}
	return s, nil
}

func (s *system) receive(p *paho.Publish) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, _ := strconv.Atoi(string(p.Payload)) // the uptime is a text
	switch p.Topic {
	case connections:
		s.now.Connections = n
	case subscriptions:
		s.now.Subscriptions = n
	case uptime:
		select {
		case <-s.rounds: // nobody has asked
		default:
		}
		s.rounds <- s.now
	}
}

// next waits for two rounds: the first may have begun before now.
func (s *system) next() (Counts, error) {
	select {
	case <-s.rounds: // an old one
	default:
	}
	late := time.After(adminTimeout)
	var c Counts
	for range 3 {
		select {
		case c = <-s.rounds:
		case <-late:
			return c, fmt.Errorf("the broker tells nothing of itself at %s: it needs to be a Mosquitto with sys_interval 1", uptime)
		}
	}
	return c, nil
}
