package smftest

import (
	"fmt"
	"strings"
)

// Kinds of subscription requests, and their flags.
const (
	subAdd         = 0
	subRemove      = 1
	subQueueAdd    = 2
	subQueueRemove = 3
	subKind        = 0x7f
	subAnswer      = 0x08
	subHead        = 6
)

// subscribe carries out a request to add or remove a subscription.
func (c *conn) subscribe(f frame) error {
	tag, err := tagOf(f.params)
	if err != nil {
		return err
	}
	kind, flags, queue, topic, err := subscription(f.body)
	if err != nil {
		return err
	}
	fault := Fault{}
	if kind == subAdd || kind == subQueueAdd {
		if fault, err = c.fault(OpSubscribe, topic); err != nil || fault.Silent {
			return err
		}
	}
	answer := fault.status()
	if answer.ok() {
		answer = c.s.subscribe(c, kind, queue, topic)
	}
	if flags&subAnswer == 0 && !fault.Drop {
		return nil
	}
	return c.answer(fault, func(b []byte) []byte { return appendControl(b, protoSubscribe, tag, answer, nil) })
}

func subscription(b []byte) (kind, flags byte, queue, topic string, err error) {
	if len(b) < subHead || number(b[1:5]) != uint64(len(b)) {
		return 0, 0, "", "", fmt.Errorf("%w: subscription of %d bytes", errMalformed, len(b))
	}
	kind, flags, b = b[0]&subKind, b[5], b[subHead:]
	if kind == subAdd || kind == subRemove {
		return kind, flags, "", text(b), nil
	}
	var names [2]string
	for i := range names {
		if len(b) == 0 || int(b[0]) > len(b)-1 {
			return 0, 0, "", "", fmt.Errorf("%w: subscription of a queue is cut short", errMalformed)
		}
		n := 1 + int(b[0])
		names[i], b = text(b[1:n]), b[n:]
	}
	return kind, flags, names[0], names[1], nil
}

// share are the clients that divide the messages of one shared subscription.
type share struct {
	once
	members []*conn
	turn    int
}

// subscribe adds or removes a subscription of a client or of a queue.
func (s *Server) subscribe(c *conn, kind byte, queue, filter string) status {
	s.mu.Lock()
	defer s.mu.Unlock()
	filter = strings.TrimPrefix(filter, "#noexport/")
	switch kind {
	case subAdd:
		c.topics[filter] = s.join(c, filter)
		return statusOK
	case subRemove:
		s.leave(c, filter)
		return statusOK
	case subQueueAdd, subQueueRemove:
		q := s.queues[queue]
		if q == nil {
			return status{503, "Unknown Queue"}
		}
		if kind == subQueueAdd {
			q.topics[filter] = true
			s.topics.add(filter, q)
		} else {
			delete(q.topics, filter)
			s.topics.remove(filter, q)
		}
		return statusOK
	default:
		return status{400, "Not Supported"}
	}
}

// join subscribes a client, by itself or in its group.
func (s *Server) join(c *conn, filter string) target {
	inner, isShared := strings.CutPrefix(filter, "#share/")
	_, plain, hasGroup := strings.Cut(inner, "/")
	if !isShared || !hasGroup {
		s.topics.add(filter, c)
		return c
	}
	group := s.shares[filter]
	if group == nil {
		group = new(share)
		s.shares[filter] = group
		s.topics.add(plain, group)
	}
	group.remove(c)
	group.members = append(group.members, c)
	return group
}

// leave undoes join.
func (s *Server) leave(c *conn, filter string) {
	to := c.topics[filter]
	delete(c.topics, filter)
	group, isShared := to.(*share)
	if !isShared {
		s.topics.remove(filter, c)
		return
	}
	if group.remove(c); len(group.members) == 0 {
		_, plain, _ := strings.Cut(strings.TrimPrefix(filter, "#share/"), "/")
		delete(s.shares, filter)
		s.topics.remove(plain, group)
	}
}

func (g *share) remove(c *conn) {
	for i, m := range g.members {
		if m == c {
			g.members = append(g.members[:i], g.members[i+1:]...)
			return
		}
	}
}

// next is the client whose turn it is.
func (g *share) next() *conn {
	g.turn++
	return g.members[g.turn%len(g.members)]
}

var (
	_ target = (*share)(nil)
	_ target = (*conn)(nil)
)
