//go:build cgo && (linux || darwin)

package smftest

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"solace.dev/go/messaging/pkg/solace"
	"solace.dev/go/messaging/pkg/solace/message"
	"solace.dev/go/messaging/pkg/solace/resource"
)

// What is stored and not acknowledged when the connection breaks is acknowledged by the
// next one, and not stored twice.
func TestDropUnacknowledgedPublish(t *testing.T) {
	s := listen(t, Options{})
	s.Queue("q", Queue{Topics: []string{"a"}})
	p := newPublisher(t, connect(t, s, nil))
	var count atomic.Int32
	s.OnFault(func(op Op, _ string) *Fault {
		if op != OpPublish {
			return nil
		}
		if n := count.Add(1); n%50 == 0 {
			return &Fault{Drop: true, Silent: n%100 == 0}
		}
		return nil
	})
	const n = 500
	for i := range n {
		p.send(t, "a", numbered(i))
	}
	for i := range n {
		if text, err := p.outcome(t); err != nil || text != numbered(i) {
			t.Fatalf("receipt of %s: %v", text, err)
		}
	}
	m, err := s.Take(within(t), "q", n)
	if err != nil {
		t.Fatal(err)
	}
	for i := range m {
		if string(m[i].Payload) != numbered(i) {
			t.Fatalf("message %d is %q", i, m[i].Payload)
		}
	}
	if c := s.Counts("q"); c.Ready != 0 {
		t.Errorf("%d were stored twice", c.Ready)
	}
}

// A refusal that is lost with its connection is not taken for a yes.
func TestLostRefusal(t *testing.T) {
	s := listen(t, Options{})
	s.Queue("q", Queue{Topics: []string{"a"}})
	p := newPublisher(t, connect(t, s, nil))
	p.send(t, "a", numbered(0))
	if _, err := p.outcome(t); err != nil {
		t.Fatal(err)
	}
	faulty(s, OpPublish, 1, Fault{Code: 503, Text: "Spool Over Quota", Drop: true})
	p.send(t, "a", numbered(1))
	if _, err := p.outcome(t); err != nil { // the next connection does not refuse it
		t.Error(err)
	}
	if m, err := s.Take(within(t), "q", 2); err != nil || string(m[1].Payload) != numbered(1) {
		t.Errorf("%v, %v", m, err)
	}
	snd := &sender{last: 9, refused: []uint64{4, 6, 8}}
	if snd.rewind(4); snd.last != 5 || len(snd.refused) != 0 {
		t.Errorf("rewound to %+v", snd)
	}
}

// Messages in hand when the connection breaks: with the same ids the client library keeps
// them, and acknowledges them on the new flow; with new ids they come again.
func TestDropInHand(t *testing.T) {
	for _, renumber := range []bool{false, true} {
		t.Run(fmt.Sprintf("renumber=%v", renumber), func(t *testing.T) {
			s := listen(t, Options{RenumberAfterRebind: renumber})
			s.Queue("q", Queue{})
			put(t, s, "q", 0, 10)
			r := newReceiver(t, connect(t, s, nil), resource.QueueDurableExclusive("q"), nil)
			var hand []message.InboundMessage
			for i := range 10 {
				hand = append(hand, r.want(t, numbered(i)))
			}
			s.Drop()
			eventually(t, "the client is back", func() bool { return s.Counts("q").Flows == 1 })
			put(t, s, "q", 10, 12)
			if renumber {
				for i := range 10 {
					if m := r.want(t, numbered(i)); !m.IsRedelivered() {
						t.Errorf("message %d is not marked as redelivered", i)
					}
				}
			}
			r.want(t, numbered(10))
			r.want(t, numbered(11))
			if c := s.Counts("q"); c.Unacked != 12 || c.Ready != 0 {
				t.Errorf("counts: %+v", c)
			}
			for _, m := range hand {
				r.ack(t, m)
			}
			if renumber {
				r.Terminate(0) // has the acknowledgements sent that wait
				eventually(t, "the receiver ends", func() bool { return s.Counts("q").Flows == 0 })
				if c := s.Counts("q"); c.Acked != 0 {
					t.Errorf("acknowledgements of the old ids count: %+v", c)
				}
				return
			}
			eventually(t, "all in hand are settled", func() bool { return s.Counts("q").Acked == 10 })
		})
	}
}

// An acknowledgement that was lost with the connection is given again: the broker sends
// the message again, with its old id, and the client library knows that it is settled.
func TestLostAcknowledgement(t *testing.T) {
	s := listen(t, Options{})
	s.Queue("q", Queue{})
	put(t, s, "q", 0, 10)
	r := newReceiver(t, connect(t, s, nil), resource.QueueDurableExclusive("q"), nil)
	faulty(s, OpAck, 1, Fault{Silent: true, Drop: true})
	var hand []message.InboundMessage
	for i := range 10 {
		m := r.want(t, numbered(i))
		if i < 5 {
			r.ack(t, m)
		} else {
			hand = append(hand, m)
		}
	}
	eventually(t, "what was lost is told again", func() bool { return s.Counts("q").Acked == 5 })
	for _, m := range hand {
		r.ack(t, m)
	}
	eventually(t, "the rest is told", func() bool { return s.Counts("q").Acked == 10 })
	put(t, s, "q", 10, 11)
	r.want(t, numbered(10)) // and nothing came twice
}

// Nothing is lost and everything is settled, whatever breaks.
func TestManyDrops(t *testing.T) {
	for _, renumber := range []bool{false, true} {
		t.Run(fmt.Sprintf("renumber=%v", renumber), func(t *testing.T) {
			s := listen(t, Options{RenumberAfterRebind: renumber, AckEvery: 10})
			s.Queue("q", Queue{Topics: []string{"a"}})
			service := connect(t, s, nil)
			p := newPublisher(t, service)
			r := newReceiver(t, service, resource.QueueDurableExclusive("q"), nil)
			n, drops := 5000, 10
			if os.Getenv("MESSAGE_API_SOAK") == "1" {
				n, drops = 100_000, 20
			}
			go func() {
				for i := range n {
					m, err := service.MessageBuilder().BuildWithByteArrayPayload([]byte(numbered(i)))
					if err == nil {
						err = p.Publish(m, resource.TopicOf("a"), nil, nil)
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			}()
			seen := make(map[string]bool)
			for len(seen) < n {
				m, text := r.next(t)
				isNew := !seen[text]
				if seen[text] = true; isNew && len(seen)%(n/drops) == 0 {
					s.Drop()
				}
				r.ack(t, m)
			}
			for range n {
				if err := p.receipt(t).GetError(); err != nil {
					t.Fatal(err)
				}
			}
			settled(t, s, service, r, n)
		})
	}
}

// settled has what came twice acknowledged, until the queue is empty. With old ids, the
// client library forgets now and then an acknowledgement that it was given just when the
// connection broke, and drops the message when it comes again; then the queue has it
// until the flow ends.
func settled(t *testing.T, s *Server, service solace.MessagingService, r receiver, n int) {
	t.Helper()
	ackRest := func() {
		for {
			m, err := r.ReceiveMessage(10 * time.Millisecond)
			if err != nil {
				return
			}
			r.ack(t, m)
		}
	}
	idle, last := time.Now(), 0
	eventually(t, "acknowledgements come to an end", func() bool {
		ackRest()
		if now := s.Counts("q").Acked; now != last {
			idle, last = time.Now(), now
		}
		return last == n || time.Since(idle) > 2*time.Second // the client library waits one
	})
	r.Terminate(0)
	r = newReceiver(t, service, resource.QueueDurableExclusive("q"), nil)
	eventually(t, "all are settled", func() bool {
		ackRest()
		c := s.Counts("q")
		return c.Acked == n && c.Ready+c.Unacked == 0
	})
}
