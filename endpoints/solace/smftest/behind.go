package smftest

import (
	"container/heap"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// What a test does behind its clients' back.

// Queue makes a durable queue, or changes the settings of the one there is.
func (s *Server) Queue(name string, q Queue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.queues[name]; old != nil {
		old.set(q)
		return
	}
	s.newQueue(name, q)
}

// DeleteQueue deletes a queue with what is in it. Its flows end with "Endpoint Deleted".
func (s *Server) DeleteQueue(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q := s.queues[name]; q != nil {
		s.dropQueue(q)
	}
}

// Shutdown closes a queue for publishers and consumers, or opens it again. Its flows end
// with "Queue Shutdown".
func (s *Server) Shutdown(queue string, down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q := s.queues[queue]; q != nil {
		if q.down = down; down {
			q.end(status{503, "Queue Shutdown"})
		}
	}
}

// Unbind ends all flows of a queue with a reason, like "Replay Started", upon which
// clients bind again, or any other, upon which they don't.
func (s *Server) Unbind(queue, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q := s.queues[queue]; q != nil {
		q.end(status{503, text})
	}
}

// Publish publishes as a client would. A refusal, or a message that can't be encoded, is
// an error.
func (s *Server) Publish(topic string, persistent bool, m Message) error {
	m.Topic, m.Persistent = topic, persistent
	p, err := m.packet()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if answer := s.route(p); !answer.ok() {
		return fmt.Errorf("publish to %s: %d %s", topic, answer.code, answer.text)
	}
	return nil
}

// Put puts persistent messages into a queue, whatever it is subscribed to.
func (s *Server) Put(queue string, messages ...Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queues[queue]
	if q == nil {
		return errNoQueue(queue)
	}
	for _, m := range messages {
		if m.Persistent = true; m.Topic == "" {
			m.Topic = queuePrefix + queue
		}
		p, err := m.packet()
		if err != nil {
			return err
		}
		q.put(p)
	}
	return nil
}

// Take takes n messages out of a queue, as a consumer that acknowledges at once. If they
// are not there in time it returns those that were, and an error.
func (s *Server) Take(ctx context.Context, queue string, n int) ([]Message, error) {
	var taken []Message
	for len(taken) < n {
		m, news, err := s.takeOne(queue)
		switch {
		case err != nil:
			return taken, err
		case m != nil:
			taken = append(taken, *m)
			continue
		}
		select {
		case <-news:
		case <-ctx.Done():
			return taken, fmt.Errorf("%d of %d messages are in queue %q: %w", len(taken), n, queue, ctx.Err())
		}
	}
	return taken, nil
}

// takeOne takes a message, or tells when to look again.
func (s *Server) takeOne(queue string) (*Message, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queues[queue]
	if q == nil {
		return nil, nil, errNoQueue(queue)
	}
	if q.next() == nil {
		if q.news == nil {
			q.news = make(chan struct{})
		}
		return nil, q.news, nil
	}
	one := heap.Pop(&q.ready).(*stored)
	q.counts.Delivered++
	q.counts.Acked++
	m, err := one.p.message()
	m.Redelivered = one.times > 0
	return &m, nil, err
}

// Recorder keeps what was published to a topic since Record, direct or persistent.
type Recorder struct {
	once
	s      *Server
	filter string

	mu   sync.Mutex
	all  []*packet
	news chan struct{} // holds one
}

// Record begins to record what is published to topics that match a filter.
func (s *Server) Record(filter string) *Recorder {
	r := &Recorder{s: s, filter: filter, news: make(chan struct{}, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.topics.add(filter, r)
	return r
}

func (r *Recorder) put(p *packet) {
	r.mu.Lock()
	r.all = append(r.all, p)
	r.mu.Unlock()
	select {
	case r.news <- struct{}{}:
	default:
	}
}

// Take takes the next n messages, and waits for them. If they are not there in time it
// takes none. Only one goroutine may call it.
func (r *Recorder) Take(ctx context.Context, n int) ([]Message, error) {
	for r.Len() < n {
		select {
		case <-r.news:
		case <-ctx.Done():
			return nil, fmt.Errorf("%d of %d messages were published to %q: %w", r.Len(), n, r.filter, ctx.Err())
		}
	}
	r.mu.Lock()
	taken := r.all[:n]
	r.all = r.all[n:]
	r.mu.Unlock()
	messages := make([]Message, n)
	for i, p := range taken {
		var err error
		if messages[i], err = p.message(); err != nil {
			return nil, err
		}
	}
	return messages, nil
}

// Len is how many messages wait to be taken.
func (r *Recorder) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.all)
}

// Close ends the recording.
func (r *Recorder) Close() {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.s.topics.remove(r.filter, r)
}

// Queues are the names of all queues, sorted, temporary ones too.
func (s *Server) Queues() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.queues))
}

// Counts tells what happened in a queue; of one that does not exist it is zero.
func (s *Server) Counts(queue string) Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q := s.queues[queue]; q != nil {
		return q.count()
	}
	return Counts{}
}

// Clients is how many are logged in.
func (s *Server) Clients() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.clients)
}

// Subscriptions are the topics that clients are subscribed to directly, sorted, without
// those of their inboxes.
func (s *Server) Subscriptions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, c := range s.clients {
		for filter := range c.topics {
			if !strings.HasPrefix(filter, inboxPrefix) {
				all = append(all, filter)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

var _ target = (*Recorder)(nil)
