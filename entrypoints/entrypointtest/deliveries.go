package entrypointtest

import (
	"strconv"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// Delivery is message number n (from 0) of the channel "orders": its id is n, its time
// is n seconds after the start of 2026, and the position after it is n+1.
func Delivery(n int, payload string) message.Delivery {
	t := time.Date(2026, 1, 1, 0, 0, n, 0, time.UTC)
	return message.Delivery{
		Message: &message.Message{ID: strconv.Itoa(n), Payload: []byte(payload), Time: t},
		Mark:    message.Mark{Channel: "orders", Next: int64(n) + 1, Time: t.UnixMilli()},
		Lane:    "orders/0",
	}
}

// Deliveries are the messages from first to last, with their number as payload.
func Deliveries(first, last int) []message.Delivery {
	var all []message.Delivery
	for n := first; n <= last; n++ {
		all = append(all, Delivery(n, strconv.Itoa(n)))
	}
	return all
}

// Cursor is the cursor after message number n of Delivery.
func Cursor(n int) string {
	p := message.Position{Origin: Origin, Marks: []message.Mark{Delivery(n, "").Mark}}
	return p.Cursor()
}
