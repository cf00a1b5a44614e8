package websocket

import (
	"context"
	"sync"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// Bounds of what one session has under way towards the broker.
const (
	maxPublishing      = 256
	maxPublishingBytes = 1 << 20
)

// pending is a message that waits to be published.
type pending struct {
	message *message.Message
	ref     string
}

// publishing is what is under way towards the broker.
//
// One goroutine publishes, so that the order stays, and only while there is something. It
// takes all that has come meanwhile in one call, so that a client that does not wait for
// answers pays for the broker's answer once per batch and not once per message.
type publishing struct {
	queue   []pending
	count   int // messages in the queue and with the broker
	bytes   int
	running bool
	// stopped: a raw client's message failed. What came behind it is dropped, or the
	// client could not know what was stored.
	stopped bool
	done    uint64 // messages answered
	wg      sync.WaitGroup
}

func (p *publishing) full() bool { return p.count >= maxPublishing || p.bytes >= maxPublishingBytes }

// enqueue passes a message to the publisher, which is started if need be.
func (s *session) enqueue(m *message.Message, ref string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.awaitRoom() {
		return
	}
	p := &s.publishing
	p.queue = append(p.queue, pending{message: m, ref: ref})
	p.count++
	p.bytes += m.Size()
	if !p.running && !p.stopped {
		p.running = true
		p.wg.Go(s.publish)
	}
}

// publishIdle says whether nothing is under way to the broker.
func (s *session) publishIdle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.publishing.running
}

// publish sends what is queued until nothing is.
func (s *session) publish() {
	var batch []pending
	var messages []*message.Message
	for {
		if batch = s.nextBatch(batch); len(batch) == 0 {
			return
		}
		messages = messages[:0]
		for i := range batch {
			messages = append(messages, batch[i].message)
		}
		results, err := s.gw.Publish(s.ctx, messages...)
		s.answer(batch, results, err)
	}
}

// nextBatch takes the queue, and leaves spent in its place for what comes next.
func (s *session) nextBatch(spent []pending) []pending {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.publishing
	clear(spent)
	if len(p.queue) == 0 || p.stopped {
		p.queue, p.running = nil, false
		s.rouse()
		return nil
	}
	batch := p.queue
	p.queue = spent[:0]
	return batch
}

// answer tells the client what became of a batch.
func (s *session) answer(batch []pending, results []message.Result, err error) {
	failed := s.tell(batch, func(i int) message.Result {
		switch {
		case err != nil:
			return message.Result{Status: message.Refused, Err: err}
		case i < len(results):
			return results[i]
		default:
			return message.Result{} // unknown, which is what silence means
		}
	})
	if failed != nil {
		s.end(failed)
	}
}

// tell writes the answers, or returns how a raw session must end.
func (s *session) tell(batch []pending, resultOf func(int) message.Result) (failed *ending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.publishing
	for i := range batch {
		result := resultOf(i)
		p.done++
		p.count--
		p.bytes -= batch[i].message.Size()
		switch {
		case s.envelope:
			s.frames = appendResult(s.frames, batch[i].ref, &result)
		case !result.Status.OK() && failed == nil:
			failed = publishEnd(p.done, &result)
			p.stopped = true
		}
	}
	s.room.Broadcast()
	s.rouse()
	return failed
}

// finishPublishing waits for publishes that are under way when the connection is closed:
// what was taken from a client that said goodbye is not thrown away. cancel ends the
// waiting when the broker does not answer.
func (s *session) finishPublishing(cancel context.CancelFunc) {
	patience := time.AfterFunc(s.e.limits.finish, cancel)
	defer patience.Stop()
	s.publishing.wg.Wait()
}
