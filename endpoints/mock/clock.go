package mock

import (
	"strconv"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// clock is a grid in time on which messages become due: tick n at start + (n+1) × interval.
// A clock without interval never ticks.
type clock struct {
	start    time.Time
	interval time.Duration
}

// due is how many ticks there were until now.
func (c *clock) due(now time.Time) int64 {
	if c.interval <= 0 {
		return 0
	}
	return max(int64(now.Sub(c.start)/c.interval), 0)
}

// at is when tick n is due.
func (c *clock) at(n int64) time.Time { return c.start.Add(time.Duration(n+1) * c.interval) }

// batchBytes is about how much one batch holds, so that readers at high rates get
// chunks that are worth a write and are soon written.
const batchBytes = 64 << 10

// template is what all generated messages have in common. The slices are shared by all
// of them.
type template struct {
	payload  []byte
	headers  []message.Header
	metadata []message.Field
	prefix   string // of the ids
}

// size is what one message with this id takes of a window.
func (t *template) size(id int64) int {
	m := message.Message{Payload: t.payload, Headers: t.headers, Metadata: t.metadata}
	return m.Size() + len(t.prefix) + digits(id)
}

// run is a row of messages with ids from first on, which became due one step after another.
type run struct {
	first   int64
	n       int
	due     time.Time
	step    time.Duration
	attempt int
	epoch   uint64
	lane    string
	channel string // of the marks; "" for none
}

// appendTo appends the messages of a run to a batch. A run costs three allocations,
// however long it is: one for the messages, one for their ids, one for the deliveries.
func (t *template) appendTo(batch []message.Delivery, r run) []message.Delivery {
	ids := make([]byte, 0, r.n*(len(t.prefix)+digits(r.first+int64(r.n))))
	for i := range r.n {
		ids = strconv.AppendInt(append(ids, t.prefix...), r.first+int64(i), 10)
	}
	text := string(ids)
	messages := make([]message.Message, r.n)
	if batch == nil {
		batch = make([]message.Delivery, 0, r.n)
	}
	for i := range messages {
		id := r.first + int64(i)
		end := len(t.prefix) + digits(id)
		m := &messages[i]
		*m = message.Message{
			ID: text[:end], Payload: t.payload, Headers: t.headers, Metadata: t.metadata,
			Time: r.due.Add(time.Duration(i) * r.step),
		}
		text = text[end:]
		d := message.Delivery{Message: m, Lane: r.lane, Attempt: r.attempt, Epoch: r.epoch}
		if r.channel != "" {
			d.Mark = message.Mark{Channel: r.channel, Next: id + 1, Time: m.Time.UnixMilli()}
		}
		batch = append(batch, d)
	}
	return batch
}

func digits(n int64) int {
	d := 1
	for ; n >= 10; n /= 10 {
		d++
	}
	return d
}
