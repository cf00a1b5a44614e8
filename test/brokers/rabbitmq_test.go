package brokers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/caddy-message-api/caddy-message-api/test/brokers/rabbitmq"
	"github.com/caddy-message-api/caddy-message-api/test/brokers/server"
)

// dialRabbitMQ connects with a plain client and opens a channel.
func dialRabbitMQ(t *testing.T, broker RabbitMQBroker, vhost string) *amqp.Channel {
	t.Helper()
	conn, err := amqp.DialConfig("amqp://"+broker.Addr(), amqp.Config{
		Vhost: vhost, SASL: []amqp.Authentication{&amqp.PlainAuth{Username: broker.User(), Password: broker.Password()}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // some tests cut it
	channel, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return channel
}

// publish returns when the broker has confirmed.
func publish(t *testing.T, channel *amqp.Channel, queue string, body string) {
	t.Helper()
	if err := channel.Confirm(false); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	confirmation, err := channel.PublishWithDeferredConfirmWithContext(ctx, "", queue, true, false,
		amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(body)})
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := confirmation.WaitContext(ctx); err != nil || !ok {
		t.Fatalf("the broker confirms %t: %v", ok, err)
	}
}

func declare(t *testing.T, channel *amqp.Channel, queue, kind string) {
	t.Helper()
	if _, err := channel.QueueDeclare(queue, true, false, false, false, amqp.Table{"x-queue-type": kind}); err != nil {
		t.Fatal(err)
	}
}

// awaitQueue returns a channel when the queue is there: after a crash a stream comes up a
// moment later than the server, and is declared missing until then.
func awaitQueue(t *testing.T, broker RabbitMQBroker, vhost, queue, kind string) *amqp.Channel {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		channel := dialRabbitMQ(t, broker, vhost)
		_, err := channel.QueueDeclare(queue, true, false, false, false, amqp.Table{"x-queue-type": kind})
		if err == nil {
			return channel
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestRabbitMQKeepsWhatItConfirmedThroughKill(t *testing.T) {
	broker := RabbitMQ(t)
	vhost := broker.Vhost(t)
	kinds := []string{"classic", "quorum", "stream"}
	first := dialRabbitMQ(t, broker.RabbitMQBroker, vhost)
	for _, kind := range kinds {
		declare(t, first, kind, kind)
	}
	broker.AwaitRegistered(vhost, "quorum")
	for round := range 2 {
		for _, kind := range kinds {
			channel := awaitQueue(t, broker.RabbitMQBroker, vhost, kind, kind)
			publish(t, channel, kind, fmt.Sprintf("before kill %d", round))
		}
		broker.Kill()
		if left := processesOf(t, broker.node.Log()); len(left) > 0 {
			t.Errorf("after Kill these are left: %v", left)
		}
		began := time.Now()
		broker.Restart()
		t.Logf("ready %v after kill -9", time.Since(began).Round(time.Millisecond))
	}
	channel := dialRabbitMQ(t, broker.RabbitMQBroker, vhost)
	for _, kind := range kinds {
		broker.AwaitQueue(t, vhost, kind, "two messages", func(q rabbitmq.QueueState) bool { return q.Messages == 2 })
	}
	for _, kind := range kinds[:2] {
		for round := range 2 {
			m, ok, err := channel.Get(kind, true)
			if want := fmt.Sprintf("before kill %d", round); err != nil || !ok || string(m.Body) != want {
				t.Errorf("%s gives %q, %t, %v, want %q", kind, m.Body, ok, err, want)
			}
		}
	}
	// Not "Server startup complete": what was logged last before a kill may be lost with it.
	if starts := strings.Count(broker.Log(), "Starting RabbitMQ "); starts != 3 {
		t.Errorf("its log tells of %d starts, want 3", starts)
	}
}

func TestRabbitMQStopsInOrder(t *testing.T) {
	broker := RabbitMQ(t)
	broker.Stop()
	if !strings.Contains(broker.Log(), "SIGTERM received") {
		t.Error("its log tells of no orderly end")
	}
	if left := processesOf(t, broker.node.Log()); len(left) > 0 {
		t.Errorf("after Stop these are left: %v", left)
	}
}

func TestRabbitMQQueueState(t *testing.T) {
	broker := SharedRabbitMQ(t)
	vhost := broker.Vhost(t)
	if q := broker.Queue(t, vhost, "q"); q.Name != "" {
		t.Errorf("before it is declared the queue is %+v", q)
	}
	channel := dialRabbitMQ(t, broker, vhost)
	declare(t, channel, "q", "quorum")
	for range 3 {
		publish(t, channel, "q", "x")
	}
	broker.AwaitQueue(t, vhost, "q", "three ready", func(q rabbitmq.QueueState) bool { return q.Ready == 3 && q.Type == "quorum" })
	if err := channel.Qos(1, 0, false); err != nil {
		t.Fatal(err)
	}
	deliveries, err := channel.Consume("q", "", false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	first := <-deliveries
	broker.AwaitQueue(t, vhost, "q", "one unacked", func(q rabbitmq.QueueState) bool {
		return q.Ready == 2 && q.Unacked == 1 && q.Consumers == 1
	})
	if err := first.Nack(false, true); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		d := <-deliveries
		if err := d.Ack(false); err != nil {
			t.Fatal(err)
		}
	}
	q := broker.AwaitQueue(t, vhost, "q", "empty, one redelivered", func(q rabbitmq.QueueState) bool {
		return q.Messages == 0 && q.Counts.Redelivered == 1 && q.Counts.Acked == 3
	})
	if q.Counts.Published != 3 || q.Counts.Delivered != 4 {
		t.Errorf("its counts are %+v", q.Counts)
	}
}

func TestRabbitMQCloseConnections(t *testing.T) {
	broker := SharedRabbitMQ(t)
	vhost, other := broker.Vhost(t), broker.Vhost(t)
	bystander := dialRabbitMQ(t, broker, other)
	closed := dialRabbitMQ(t, broker, vhost).NotifyClose(make(chan *amqp.Error, 1))
	if n := broker.CloseConnections(t, vhost); n != 1 {
		t.Errorf("it closed %d connections, want 1", n)
	}
	select {
	case err := <-closed:
		if err == nil || err.Code != amqp.ConnectionForced {
			t.Errorf("the connection was closed with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the connection stays open")
	}
	if bystander.IsClosed() {
		t.Error("the connection to another virtual host was closed too")
	}
}

func TestRabbitMQVhostIsDeleted(t *testing.T) {
	broker := SharedRabbitMQ(t)
	var vhost string
	t.Run("uses it", func(t *testing.T) {
		vhost = broker.Vhost(t)
		declare(t, dialRabbitMQ(t, broker, vhost), "q", "classic")
	})
	_, err := broker.Management().Queues(t.Context(), vhost)
	if !rabbitmq.IsNotFound(err) {
		t.Errorf("after its test the virtual host is there: %v", err)
	}
}

func TestSharedRabbitMQTakesCertificates(t *testing.T) {
	broker := SharedRabbitMQ(t)
	config, err := server.ClientTLS(broker.Certificates())
	if err != nil {
		t.Fatal(err)
	}
	dial := func(addr string, auth amqp.Authentication) error {
		conn, err := amqp.DialConfig(addr, amqp.Config{
			TLSClientConfig: config, SASL: []amqp.Authentication{auth}, Vhost: "/",
		})
		if err != nil {
			return err
		}
		return conn.Close()
	}
	if err := dial("amqps://"+broker.TLSAddr(), &amqp.ExternalAuth{}); err != nil {
		t.Errorf("EXTERNAL with a client certificate: %v", err)
	}
	user := &amqp.PlainAuth{Username: server.User, Password: server.Password}
	if err := dial("amqps://"+broker.TLSAddr(), user); err != nil {
		t.Errorf("PLAIN in TLS: %v", err)
	}
	wrong := &amqp.PlainAuth{Username: server.User, Password: "guess"}
	if err := dial("amqp://"+broker.Addr(), wrong); !errors.Is(err, amqp.ErrCredentials) && !isRefused(err) {
		t.Errorf("a wrong password gets %v, want to be refused", err)
	}
}

func isRefused(err error) bool {
	var e *amqp.Error
	return errors.As(err, &e) && e.Code == amqp.AccessRefused
}
