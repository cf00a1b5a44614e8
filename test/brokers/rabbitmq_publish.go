package brokers

import (
	"context"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// RabbitMQPublishLines publishes each line as a persistent message, with its line end, and
// returns when the broker has confirmed them all. amqp-publish knows no confirms, and of
// what it sends to a quorum queue before it leaves some may be lost.
func RabbitMQPublishLines(t testing.TB, b RabbitMQBroker, vhost, exchange, key, lines string) {
	t.Helper()
	conn, err := amqp.DialConfig("amqp://"+b.Addr(), amqp.Config{
		Vhost: vhost, SASL: []amqp.Authentication{&amqp.PlainAuth{Username: b.User(), Password: b.Password()}},
	})
	if err != nil {
		t.Fatalf("connecting to RabbitMQ: %v", err)
	}
	defer conn.Close()
	channel, err := conn.Channel()
	if err == nil {
		err = channel.Confirm(false)
	}
	if err != nil {
		t.Fatalf("a channel with confirms: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var confirmations []*amqp.DeferredConfirmation
	for line := range strings.Lines(lines) {
		c, err := channel.PublishWithDeferredConfirmWithContext(ctx, exchange, key, false, false,
			amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(line)})
		if err != nil {
			t.Fatalf("publishing to RabbitMQ: %v", err)
		}
		confirmations = append(confirmations, c)
	}
	for i, c := range confirmations {
		if ok, err := c.WaitContext(ctx); err != nil || !ok {
			t.Fatalf("message %d of %d: confirmed %t, %v", i+1, len(confirmations), ok, err)
		}
	}
}
