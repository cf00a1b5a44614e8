package ledger

import (
	"encoding/json"
	"fmt"
)

// The fates that are written on messages.
const (
	// Poison is what the receiver refuses for ever, as the fault of the message.
	Poison = "poison"
	// Stubborn is what the receiver fails at for ever, as its own fault.
	Stubborn = "stubborn"
)

// Message is what is produced: number N of a run, and number Seq of its key, both from 0.
type Message struct {
	N    int    `json:"n"`
	Key  string `json:"key"`
	Seq  int    `json:"seq"`
	Fate string `json:"fate,omitempty"`
}

// Payload is the message as it goes over the wire.
func (m Message) Payload() []byte {
	if m.Fate != "" {
		return fmt.Appendf(nil, `{"n":%d,"key":%q,"seq":%d,"fate":%q}`, m.N, m.Key, m.Seq, m.Fate)
	}
	return fmt.Appendf(nil, `{"n":%d,"key":%q,"seq":%d}`, m.N, m.Key, m.Seq)
}

// Parse reads a payload.
func Parse(payload []byte) (m Message, err error) {
	if err := json.Unmarshal(payload, &m); err != nil {
		return m, fmt.Errorf("the payload %.100q: %w", payload, err)
	}
	return m, nil
}

// Plan makes the messages of a run: n over so many keys in turn, of which about so many are
// poison and stubborn, evenly spread.
func Plan(n, keys, poison, stubborn int) []Message {
	list := make([]Message, n)
	for i := range list {
		list[i] = Message{N: i, Key: fmt.Sprintf("k%d", i%keys), Seq: i / keys}
	}
	mark := func(count int, share float64, fate string) {
		for i := range count {
			list[int((float64(i)+share)*float64(n)/float64(count))].Fate = fate
		}
	}
	mark(poison, 0.3, Poison)
	mark(stubborn, 0.6, Stubborn)
	return list
}
