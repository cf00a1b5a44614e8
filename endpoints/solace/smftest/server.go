package smftest

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Server is a broker.
type Server struct {
	options Options
	addr    string
	mute    gate
	faults  atomic.Pointer[func(op Op, name string) *Fault]
	wg      sync.WaitGroup

	mu         sync.Mutex
	listener   net.Listener // nil: nobody can connect
	closed     bool
	conns      map[*conn]bool
	clients    map[string]*conn
	topics     topics
	matched    []target // of the last message, to be used again
	routed     uint64   // messages so far
	shares     map[string]*share
	queues     map[string]*queue
	order      uint64
	senders    map[string]*sender
	nextSender int
	blamed     []error
}

// Listen starts a broker on an address like "127.0.0.1:0".
func Listen(address string, options Options) (*Server, error) {
	s := &Server{
		options: options, conns: make(map[*conn]bool), clients: make(map[string]*conn),
		shares: make(map[string]*share), queues: make(map[string]*queue), senders: make(map[string]*sender), addr: address,
	}
	if err := s.Resume(); err != nil {
		return nil, err
	}
	return s, nil
}

// Addr is host and port.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// URL is the address as the client library wants it, tcp:// or tcps://.
func (s *Server) URL() string {
	if s.options.TLS != nil {
		return "tcps://" + s.Addr()
	}
	return "tcp://" + s.Addr()
}

func (s *Server) vpn() string {
	if s.options.VPN == "" {
		return "default"
	}
	return s.options.VPN
}

// Close ends the broker and all connections to it.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	for _, q := range s.queues {
		if q.expiry != nil {
			q.expiry.Stop()
		}
	}
	s.mu.Unlock()
	s.Pause()
	s.wg.Wait()
}

// Resume listens again on the same address.
func (s *Server) Resume() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.New("the broker is closed")
	}
	if s.listener != nil {
		return nil
	}
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", s.addr, err)
	}
	s.listener, s.addr = l, l.Addr().String()
	s.wg.Go(func() { s.accept(l) })
	return nil
}

func (s *Server) accept(l net.Listener) {
	for {
		n, err := l.Accept()
		if err != nil {
			return
		}
		c := newConn(s, n)
		s.mu.Lock()
		if s.listener != l { // paused in this moment
			s.mu.Unlock()
			n.Close()
			continue
		}
		s.conns[c] = true
		s.wg.Go(c.serve)
		s.wg.Go(c.writing)
		s.mu.Unlock()
	}
}

// Pause makes the broker unreachable and cuts all connections. Nothing of what it has is
// lost, but direct subscriptions end with their connections.
func (s *Server) Pause() {
	s.mu.Lock()
	l := s.listener
	s.listener = nil
	s.mu.Unlock()
	if l != nil {
		l.Close()
	}
	s.Drop()
}

// Drop cuts all connections, and tells how many there were. Clients may come back.
func (s *Server) Drop() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.cut()
		s.detach(c)
	}
	n := len(s.conns)
	clear(s.conns)
	return n
}

// Mute makes the broker fall silent: it neither reads nor writes, but connections stand.
func (s *Server) Mute(on bool) { s.mute.set(on) }

// OnFault has f asked about every operation; nil is no fault. f must not call the Server.
// It is called from several goroutines.
func (s *Server) OnFault(f func(op Op, name string) *Fault) {
	if f == nil {
		s.faults.Store(nil)
		return
	}
	s.faults.Store(&f)
}

func (s *Server) fault(op Op, name string) Fault {
	if f := s.faults.Load(); f != nil {
		if fault := (*f)(op, name); fault != nil {
			return *fault
		}
	}
	return Fault{}
}

// Malformed are the things that clients sent and that we could not make sense of. Their
// connections were cut.
func (s *Server) Malformed() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.blamed)
}

func (s *Server) blame(c *conn, err error) {
	if errors.Is(err, errCut) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blamed = append(s.blamed, fmt.Errorf("client %q: %w", c.name, err))
}

// welcome notes a client that has logged in. One that had its name before must go.
func (s *Server) welcome(c *conn, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.clients[name]; old != nil {
		old.cut()
		s.detach(old)
	}
	c.name = name
	s.clients[name] = c
}

// forget forgets a connection that has ended.
func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.detach(c)
}

// detach undoes what a connection did for its own sake. It may be called twice.
func (s *Server) detach(c *conn) {
	if s.clients[c.name] == c {
		delete(s.clients, c.name)
	}
	for filter := range c.topics {
		s.leave(c, filter)
	}
	for _, f := range c.flows {
		q := f.q
		q.leave(f)
		if q.owner != "" && len(q.flows) == 0 && !s.closed {
			q.expiry = time.AfterFunc(temporaryLife, func() { s.expire(q) })
		}
	}
	for _, snd := range c.senders {
		if snd.c == c {
			snd.c = nil
		}
	}
}

// expire deletes a temporary queue whose client has not come back.
func (s *Server) expire(q *queue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.queues[q.name] == q && len(q.flows) == 0 {
		s.dropQueue(q)
	}
}

// route brings a message to all who are subscribed to it. If one of the queues refuses
// it, none gets it.
func (s *Server) route(p *packet) status {
	s.routed++
	s.matched = s.topics.match(s.matched[:0], p.topic)
	if name, isQueue := strings.CutPrefix(p.topic, queuePrefix); isQueue {
		if q := s.queues[name]; q != nil {
			s.matched = append(s.matched, q)
		}
	}
	if p.guaranteed {
		for _, to := range s.matched {
			if q, isQueue := to.(*queue); isQueue {
				if answer := q.refuses(); !answer.ok() {
					return answer
				}
			}
		}
		if len(s.matched) == 0 && s.options.RejectNoMatch {
			return status{503, "No Subscription Match"}
		}
	}
	for _, to := range s.matched {
		if to.fresh(s.routed) {
			s.hand(to, p)
		}
	}
	return statusOK
}

// queuePrefix begins the topics that lead to a queue.
const queuePrefix = "#P2P/QUE/"

func (s *Server) hand(to target, p *packet) {
	switch to := to.(type) {
	case *conn:
		to.direct(p, s.fault(OpDeliver, p.topic))
	case *share:
		to.next().direct(p, s.fault(OpDeliver, p.topic))
	case *queue:
		if to.refuses().ok() {
			to.put(p)
		}
	case *Recorder:
		to.put(p)
	}
}

// newQueue makes a queue, which must not exist.
func (s *Server) newQueue(name string, settings Queue) *queue {
	q := &queue{
		s: s, name: name, topics: make(map[string]bool), unacked: make(map[uint64]*stored),
	}
	s.queues[name] = q
	q.set(settings)
	return q
}

// dropQueue deletes a queue with what is in it.
func (s *Server) dropQueue(q *queue) {
	delete(s.queues, q.name)
	for filter := range q.topics {
		s.topics.remove(filter, q)
	}
	if q.expiry != nil {
		q.expiry.Stop()
	}
	q.end(status{503, "Endpoint Deleted"})
	if q.news != nil {
		close(q.news)
		q.news = nil
	}
}

// errNoQueue: somebody behind the broker's back wants a queue that is not there.
func errNoQueue(name string) error { return fmt.Errorf("there is no queue %q", name) }
