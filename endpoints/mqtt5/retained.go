package mqtt5

import (
	"container/list"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// The bounds of what a broadcast keeps for those who join it later.
const (
	maxRetainedTopics = 10_000
	maxRetainedBytes  = 16 << 20
)

// retained is the newest retained message of each topic.
type retained struct {
	byTopic map[string]*list.Element
	order   *list.List // of *incoming, the oldest first
	bytes   int
}

func newRetained() *retained {
	return &retained{byTopic: make(map[string]*list.Element), order: list.New()}
}

// note takes notice of a message that was received. One without content deletes, as it
// does at the server.
func (r *retained) note(in *incoming) {
	if f, _ := in.Field("retain"); f.Value() != true {
		return
	}
	topic, _ := in.Metadata[0].Value().(string)
	if old := r.byTopic[topic]; old != nil {
		r.remove(topic, old)
	}
	if len(in.Payload) == 0 || in.size > maxRetainedBytes {
		return
	}
	r.byTopic[topic] = r.order.PushBack(in)
	r.bytes += in.size
	for len(r.byTopic) > maxRetainedTopics || r.bytes > maxRetainedBytes {
		oldest := r.order.Front()
		in, _ := oldest.Value.(*incoming)
		topic, _ := in.Metadata[0].Value().(string)
		r.remove(topic, oldest)
	}
}

func (r *retained) remove(topic string, e *list.Element) {
	in, _ := r.order.Remove(e).(*incoming)
	r.bytes -= in.size
	delete(r.byTopic, topic)
}

// forget is called when messages may have been missed: the server sends all anew.
func (r *retained) forget() {
	clear(r.byTopic)
	r.order.Init()
	r.bytes = 0
}

func (r *retained) deliveries() []message.Delivery {
	all := make([]message.Delivery, 0, r.order.Len())
	for e := r.order.Front(); e != nil; e = e.Next() {
		in, _ := e.Value.(*incoming)
		topic, _ := in.Metadata[0].Value().(string)
		all = append(all, message.Delivery{Message: &in.Message, Lane: topic, Attempt: in.attempt, Epoch: in.epoch, Handle: in})
	}
	return all
}
