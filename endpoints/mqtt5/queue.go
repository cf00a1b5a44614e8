package mqtt5

import "github.com/caddy-message-api/caddy-message-api/message"

// queue is what waits to be received, with gaps in between.
type queue struct {
	items []item
	head  int
}

// item is a message or a gap.
type item struct {
	in  *incoming
	gap *message.Gap
}

func (q *queue) len() int { return len(q.items) - q.head }

func (q *queue) push(in *incoming) { q.items = append(q.items, item{in: in}) }

// unshift puts in before everything else.
func (q *queue) unshift(in *incoming) {
	if q.head > 0 {
		q.head--
		q.items[q.head] = item{in: in}
		return
	}
	q.items = append(q.items, item{})
	copy(q.items[1:], q.items)
	q.items[0] = item{in: in}
}

// mark puts a gap behind everything else. One gap says as much as two.
func (q *queue) mark(gap *message.Gap) {
	if n := len(q.items); n > q.head && q.items[n-1].gap != nil {
		return
	}
	q.items = append(q.items, item{gap: gap})
}

func (q *queue) peek() (*incoming, *message.Gap) {
	if q.head == len(q.items) {
		return nil, nil
	}
	return q.items[q.head].in, q.items[q.head].gap
}

func (q *queue) pop() {
	q.items[q.head] = item{}
	q.head++
	switch {
	case q.head == len(q.items):
		q.items, q.head = q.items[:0], 0
	case q.head >= 64 && q.head*2 >= len(q.items):
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
}

// drop takes out the messages for which gone is true.
func (q *queue) drop(gone func(*incoming) bool) {
	kept := q.items[:0]
	for _, it := range q.items[q.head:] {
		if it.in == nil || !gone(it.in) {
			kept = append(kept, it)
		}
	}
	clear(q.items[len(kept):])
	q.items, q.head = kept, 0
}
