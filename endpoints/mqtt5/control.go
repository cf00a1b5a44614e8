package mqtt5

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// What is said on a connection now and then: subscriptions, barriers, and the farewell.

// request sends a packet that has an identifier, and returns where its answer will come.
func (c *conn) request(packet func(id uint16) packets.Packet) (<-chan []byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, c.err
	}
	if c.waiting == nil {
		c.waiting = make(map[uint16]chan []byte)
	}
	c.nextID++
	if c.nextID == 0 {
		c.nextID = 1
	}
	var text bytes.Buffer
	if _, err := packet(c.nextID).WriteTo(&text); err != nil {
		return nil, err
	}
	answer := make(chan []byte, 1)
	c.waiting[c.nextID] = answer
	c.sendLocked(func(dst []byte) []byte { return append(dst, text.Bytes()...) })
	return answer, nil
}

// confirm hands a SUBACK or UNSUBACK to who waits for it.
func (c *conn) confirm(body []byte) {
	id := binary.BigEndian.Uint16(body)
	c.mu.Lock()
	answer := c.waiting[id]
	delete(c.waiting, id)
	c.mu.Unlock()
	if answer != nil {
		answer <- body
	}
}

// subscribe asks for subscriptions. granted returns when the server has granted them, or
// has sent so much for them that the window is full, with the answer behind it. With a QoS
// of less than least they are as good as none.
func (c *conn) subscribe(subscriptions []packets.SubOptions, least byte) (granted func(ctx context.Context) error, err error) {
	for i := range subscriptions {
		if filter := subscriptions[i].Topic; !c.limits.shared && strings.HasPrefix(filter, "$share/") {
			return nil, notSubscribed(filter, &reasonError{code: reasonNoShared})
		} else if !c.limits.wildcards && strings.ContainsAny(filter, "+#") {
			return nil, notSubscribed(filter, &reasonError{code: reasonNoWildcards})
		}
	}
	answer, err := c.request(func(id uint16) packets.Packet {
		return &packets.Subscribe{PacketID: id, Properties: &packets.Properties{}, Subscriptions: subscriptions}
	})
	return func(ctx context.Context) error { return c.await(ctx, answer, subscriptions, least) }, err
}

func (c *conn) await(ctx context.Context, answer <-chan []byte, subscriptions []packets.SubOptions, least byte) error {
	select {
	case body := <-answer:
		return refusal(body, subscriptions, least)
	case <-c.full:
		go func() { // a refusal must not be missed, however late it comes
			select {
			case body := <-answer:
				if err := refusal(body, subscriptions, least); err != nil {
					c.fail(err)
				}
			case <-c.done:
			}
		}()
		return nil
	case <-c.done:
		return c.reason()
	case <-ctx.Done():
		return fmt.Errorf("the server does not answer the subscription: %w", context.Cause(ctx))
	}
}

// refusal is the server's no to one of the subscriptions, if it said so.
func refusal(body []byte, subscriptions []packets.SubOptions, least byte) error {
	ack := &packets.Suback{Properties: &packets.Properties{}}
	if err := ack.Unpack(bytes.NewBuffer(body)); err != nil {
		return fmt.Errorf("%w: SUBACK: %w", errMalformed, err)
	}
	for i, code := range ack.Reasons {
		switch {
		case i >= len(subscriptions):
		case code >= reasonUnspecified:
			return notSubscribed(subscriptions[i].Topic, &reasonError{code: code, text: ack.Properties.ReasonString})
		case code < least:
			return message.Errorf(message.Mismatch,
				"the MQTT server grants QoS %d to the subscription to %s, which keeps nothing for a client", code, subscriptions[i].Topic)
		}
	}
	return nil
}

// unsubscribe has the server send nothing more for the filters. What it says to that is
// of no interest: what is not subscribed need not be ended.
func (c *conn) unsubscribe(filters []string) error {
	_, err := c.request(func(id uint16) packets.Packet {
		return &packets.Unsubscribe{PacketID: id, Properties: &packets.Properties{}, Topics: filters}
	})
	return err
}

// barrier returns when the server has answered all that was sent before.
func (c *conn) barrier(ctx context.Context) error {
	c.mu.Lock()
	c.pingLocked()
	target := c.pings
	for c.err == nil && c.pongs < target {
		if c.ponged == nil {
			c.ponged = make(chan struct{})
		}
		ponged := c.ponged
		c.mu.Unlock()
		select {
		case <-ponged:
		case <-c.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		c.mu.Lock()
	}
	defer c.mu.Unlock()
	return c.err
}

// reason is why the connection is over, nil while it is not.
func (c *conn) reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// isFull tells who waits for a subscription that the window is full.
func (c *conn) isFull() { c.fullOnce.Do(func() { close(c.full) }) }

// leave says goodbye and waits for the server to close the connection: then it has seen
// all that we sent. Whatever still comes is up to the handler to throw away. With an expiry
// the session lives on for so many seconds, 0 ends it.
func (c *conn) leave(expiry *uint32) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	if c.leaving {
		c.mu.Unlock()
		<-c.over
		return
	}
	c.leaving = true
	d := &packets.Disconnect{Properties: &packets.Properties{SessionExpiryInterval: expiry}}
	var text bytes.Buffer
	_, _ = d.WriteTo(&text) // a buffer takes everything
	c.sendLocked(func(dst []byte) []byte { return append(dst, text.Bytes()...) })
	c.mu.Unlock()
	timer := time.NewTimer(farewell)
	defer timer.Stop()
	select {
	case <-c.over:
	case <-timer.C:
	}
	c.fail(errLeft)
}

// close ends a connection that is of no use any more. It is what a link calls.
func (c *conn) close() {
	c.leave(nil)
	c.fail(errLeft)
	<-c.over
}
