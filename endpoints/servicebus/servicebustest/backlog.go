package servicebustest

import "container/heap"

// backlog holds the messages that are ready, in the order of their sequence numbers. New ones come at the end; those
// that come back go to their place. A message that is no longer ready stays in it until it would be next.
type backlog struct {
	fresh    []*message
	head     int
	returned bySequence
	ready    int // how many are ready
}

// add puts a message at its place.
func (b *backlog) add(m *message) {
	m.state = stateReady
	b.ready++
	if b.head == len(b.fresh) || b.fresh[len(b.fresh)-1].sequence < m.sequence {
		b.fresh = append(b.fresh, m)
		return
	}
	heap.Push(&b.returned, m)
}

// next takes the first ready message; nil if there is none.
func (b *backlog) next() *message {
	for b.ready > 0 {
		m := b.first()
		if m.state == stateReady {
			b.ready--
			return m
		}
	}
	b.fresh, b.head, b.returned = b.fresh[:0], 0, b.returned[:0]
	return nil
}

func (b *backlog) first() *message {
	if len(b.returned) > 0 && (b.head == len(b.fresh) || b.returned[0].sequence < b.fresh[b.head].sequence) {
		return heap.Pop(&b.returned).(*message)
	}
	m := b.fresh[b.head]
	b.fresh[b.head] = nil
	b.head++
	if b.head > 1024 && b.head > len(b.fresh)/2 {
		n := copy(b.fresh, b.fresh[b.head:])
		clear(b.fresh[n:])
		b.fresh, b.head = b.fresh[:n], 0
	}
	return m
}

// drop takes a ready message out, wherever it is.
func (b *backlog) drop(m *message) {
	m.state = stateGone
	b.ready--
}

type bySequence []*message

func (h bySequence) Len() int           { return len(h) }
func (h bySequence) Less(i, j int) bool { return h[i].sequence < h[j].sequence }
func (h bySequence) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *bySequence) Push(x any)        { *h = append(*h, x.(*message)) }
func (h *bySequence) Pop() any {
	old := *h
	m := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return m
}

// byDue is the messages that something happens to at a time of their own.
type byDue []*message

func (h byDue) Len() int           { return len(h) }
func (h byDue) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h byDue) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].dueIndex, h[j].dueIndex = i, j
}
func (h *byDue) Push(x any) {
	m := x.(*message)
	m.dueIndex = len(*h)
	*h = append(*h, m)
}
func (h *byDue) Pop() any {
	old := *h
	m := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	m.dueIndex = -1
	return m
}
