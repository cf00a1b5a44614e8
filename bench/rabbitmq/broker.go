package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/caddy-message-api/caddy-message-api/bench/plain"
	"github.com/caddy-message-api/caddy-message-api/test/brokers/rabbitmq"
	"github.com/caddy-message-api/caddy-message-api/test/brokers/server"
)

const adminTimeout = 30 * time.Second

// Place is a virtual host of a RabbitMQ.
type Place struct{ Addr, Vhost string }

// Broker is the RabbitMQ that everything in one run talks to.
type Broker struct {
	Place
	// What says what it is.
	What string

	management rabbitmq.Management
	own        *plain.Own // nil for one that was there already
}

// Open uses the RabbitMQ at RABBITMQ_ADDR and RABBITMQ_API, or else starts one. It works in
// a virtual host that Close deletes.
func Open() (*Broker, error) {
	b := &Broker{Place: Place{Addr: os.Getenv("RABBITMQ_ADDR"), Vhost: fmt.Sprintf("bench-%08x", rand.Uint32())}}
	b.management = rabbitmq.Management{
		URL: os.Getenv("RABBITMQ_API"), User: rabbitmq.Admin, Password: rabbitmq.AdminPassword,
	}
	where := "at RABBITMQ_ADDR=" + b.Addr
	if b.Addr == "" || b.management.URL == "" {
		if err := b.start(); err != nil {
			return nil, err
		}
		where = "started for this run"
	}
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	var overview struct {
		Version string `json:"rabbitmq_version"`
	}
	err := b.management.Call(ctx, http.MethodGet, rabbitmq.Path("overview"), nil, &overview)
	if err == nil {
		err = b.management.CreateVirtualHost(ctx, b.Vhost, rabbitmq.Admin)
	}
	b.What = "RabbitMQ " + overview.Version + " " + where
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", b.What, err), b.own.Close())
	}
	return b, nil
}

func (b *Broker) start() error {
	if _, err := rabbitmq.FindProgram(); err != nil {
		return plain.ErrMissing{Err: err}
	}
	var err error
	b.own, err = plain.StartOwn(rabbitmq.Ports, func(dir string, firstPort int) server.Node {
		node := rabbitmq.Node{Dir: dir, FirstPort: firstPort}
		b.Addr, b.management = node.Addr(), node.Management()
		return node
	})
	return err
}

// Queue declares a durable queue.
func (b *Broker) Queue(name, kind string) error {
	return b.administer(func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(name, true, false, false, false, amqp.Table{"x-queue-type": kind})
		return err
	})
}

// Purge drops what is in a queue.
func (b *Broker) Purge(name string) error {
	return b.administer(func(ch *amqp.Channel) error {
		_, err := ch.QueuePurge(name, false)
		return err
	})
}

// Exchange declares a fanout exchange.
func (b *Broker) Exchange(name string) error {
	return b.administer(func(ch *amqp.Channel) error {
		return ch.ExchangeDeclare(name, amqp.ExchangeFanout, true, false, false, false, nil)
	})
}

func (b *Broker) administer(do func(*amqp.Channel) error) error {
	conn, err := Dial(b.Place)
	if err != nil {
		return err
	}
	ch, err := conn.Channel()
	if err == nil {
		err = do(ch)
	}
	return errors.Join(err, conn.Close())
}

// Consumers is how many consumers there are in the whole virtual host.
func (b *Broker) Consumers() (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	var consumers []struct{}
	err := b.management.Call(ctx, http.MethodGet, rabbitmq.Path("consumers", b.Vhost), nil, &consumers)
	return len(consumers), err
}

// Close deletes the virtual host, and ends the broker if it is ours.
func (b *Broker) Close() error {
	if b.own != nil {
		return b.own.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	return b.management.DeleteVirtualHost(ctx, b.Vhost)
}

// Dial connects a plain client.
func Dial(p Place) (*amqp.Connection, error) {
	conn, err := amqp.DialConfig("amqp://"+p.Addr, amqp.Config{
		Vhost: p.Vhost, SASL: []amqp.Authentication{&amqp.PlainAuth{Username: rabbitmq.Admin, Password: rabbitmq.AdminPassword}},
	})
	if err != nil {
		return nil, fmt.Errorf("connecting to RabbitMQ at %s: %w", p.Addr, err)
	}
	return conn, nil
}
