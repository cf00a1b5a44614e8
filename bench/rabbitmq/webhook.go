package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/caddy-message-api/caddy-message-api/bench/webhook"
)

// Backlog sees to it that a queue has at least so many messages.
func (b *Broker) Backlog(queue string, content []byte, n int) error {
	return b.administer(func(ch *amqp.Channel) error {
		state, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		if err != nil {
			return err
		}
		if err := ch.Confirm(false); err != nil {
			return err
		}
		var last *amqp.DeferredConfirmation
		for i := range max(0, n-state.Messages) {
			last, err = ch.PublishWithDeferredConfirm("", queue, false, false, amqp.Publishing{
				DeliveryMode: amqp.Persistent, ContentType: "text/plain", MessageId: strconv.Itoa(i), Body: content,
			})
			if err != nil {
				return err
			}
			if i%1000 == 999 && !last.Wait() { // or the client keeps a record of all of them
				return errors.New("the broker has not taken a message")
			}
		}
		if last != nil && !last.Wait() {
			return errors.New("the broker has not taken a message")
		}
		return nil
	})
}

// PushArgs say what a plain loop brings where.
type PushArgs struct {
	Place
	Queue, Receiver string
	Prefetch        int
}

// Push reads a queue until ctx ends, and acknowledges each message after its 2xx: what the
// documentation of amqp091-go shows, with as many goroutines as there are to be requests.
func Push(ctx context.Context, args PushArgs) error {
	conn, err := Dial(args.Place)
	if err != nil {
		return err
	}
	ch, err := conn.Channel()
	if err == nil {
		err = ch.Qos(args.Prefetch, 0, false)
	}
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	deliveries, err := ch.Consume(args.Queue, "plain", false, false, false, false, nil)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	poster := webhook.NewPoster(args.Receiver)
	defer poster.Close()
	var wg sync.WaitGroup
	errs := make([]error, webhook.InFlight)
	for i := range errs {
		wg.Go(func() {
			for d := range deliveries {
				if errs[i] = push(poster, &d); errs[i] != nil {
					return
				}
			}
		})
	}
	<-ctx.Done()
	canceled := ch.Cancel("plain", false) // which closes deliveries
	wg.Wait()
	return errors.Join(canceled, errors.Join(errs...), conn.Close())
}

func push(poster *webhook.Poster, d *amqp.Delivery) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := poster.Post(ctx, "msg_"+d.MessageId, d.Body); err != nil {
		return fmt.Errorf("message %s: %w", d.MessageId, err)
	}
	return d.Ack(false)
}
