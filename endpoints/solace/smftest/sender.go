package smftest

import (
	"fmt"
	"time"
)

// sender is the flow by which a client publishes guaranteed messages. It outlives the
// connection: a client that comes back asks by its name how far it got.
type sender struct {
	name    string
	id      uint32
	c       *conn // nil while the client is away
	version byte
	last    uint64   // the last message that was taken, stored or refused
	refused []uint64 // the last messages that were refused
	pending int      // messages that are stored and not yet acknowledged
	timer   *time.Timer
}

// ackAfter is how long an acknowledgement waits for its group to be full.
const ackAfter = 3 * time.Millisecond

// senderWindow is how many messages a client may have unacknowledged.
const senderWindow = 255

// open opens a sender, or the one that the client had.
func (c *conn) open(m control, reply replier) error {
	c.s.mu.Lock()
	snd := c.s.senders[m.name]
	switch {
	case m.name == "":
		c.s.nextSender++
		snd = &sender{name: fmt.Sprintf("pubflow-%d", c.s.nextSender)}
		c.s.senders[snd.name] = snd
	case snd == nil: // of a broker that was here before
		c.s.mu.Unlock()
		c.write(reply(status{503, "Unknown Flow Name"}, nil))
		return nil
	}
	snd.pending = 0
	snd.rewind(m.lastAcked)
	snd.c, snd.id, snd.version = c, c.newID(), m.version
	c.senders[snd.id] = snd
	last := snd.last
	c.s.mu.Unlock()

	args := append32(nil, argFlow, snd.id)
	args = appendText(args, argFlowName, snd.name)
	args = append64(args, argLastAcked, last)
	args = append64(args, argLastSent, last)
	args = append(args, argWindow, 3, senderWindow)
	c.write(reply(statusOK, append32(args, argPublisher, snd.id)))
	return nil
}

// rewind has a client that came back send again what was refused, if it may not have
// heard of it: else "we have everything up to" would say that it is stored. What came
// after it and was stored is then stored twice.
func (snd *sender) rewind(lastAcked uint64) {
	for _, id := range snd.refused {
		if id > lastAcked {
			snd.last = id - 1
			break
		}
	}
	snd.refused = nil
}

// newID is an id for a flow of this connection.
func (c *conn) newID() uint32 {
	c.nextID++
	return c.nextID
}

func (s *Server) closeSender(c *conn, id uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if snd := c.senders[id]; snd != nil {
		delete(c.senders, id)
		if snd.c == c {
			snd.c = nil
			delete(s.senders, snd.name)
		}
	}
}

// publish takes in a message.
func (c *conn) publish(f frame) error {
	p, in, err := newPacket(f)
	if err != nil {
		return err
	}
	if p.guaranteed {
		return c.publishGuaranteed(p, in)
	}
	fault, err := c.fault(OpPublish, p.topic)
	if err != nil || fault.Silent || fault.Code != 0 {
		return err // nobody is told what becomes of a direct message
	}
	c.s.mu.Lock()
	c.s.route(p)
	c.s.mu.Unlock()
	if fault.Drop {
		return errCut
	}
	return nil
}

func (c *conn) publishGuaranteed(p *packet, in inbound) error {
	snd := c.senders[in.flow]
	if snd == nil {
		return fmt.Errorf("%w: a message of flow %d, which is not open", errMalformed, in.flow)
	}
	if next, err := snd.isNext(c, in); err != nil || !next {
		return err
	}
	fault, err := c.fault(OpPublish, p.topic)
	if err != nil || fault.Silent {
		return err
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if snd.c != c {
		return errCut
	}
	answer := fault.status()
	if answer.ok() {
		answer = c.s.route(p)
	}
	if answer.ok() || !fault.Drop { // else the client asks again
		snd.conclude(in, answer, !fault.Drop)
	}
	if fault.Drop {
		return errCut
	}
	return nil
}

// isNext says whether a message is the next of its flow. One that we have is acknowledged
// again; one whose predecessor is missing will come again.
func (snd *sender) isNext(c *conn, in inbound) (bool, error) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if snd.c != c {
		return false, errCut // the client came back by another connection
	}
	if in.id <= snd.last {
		snd.acknowledge()
		return false, nil
	}
	return in.previous == snd.last, nil
}

// conclude notes what became of a message, and tells it unless that is to be lost.
func (snd *sender) conclude(in inbound, answer status, tell bool) {
	if !answer.ok() && snd.pending > 0 {
		snd.acknowledge() // what came before is not refused
	}
	snd.last = in.id
	switch {
	case !tell:
	case answer.ok():
		snd.group(in.ackSoon, max(snd.c.s.options.AckEvery, 1))
	default:
		if len(snd.refused) >= senderWindow { // the client must have heard of the first
			snd.refused = snd.refused[1:]
		}
		snd.refused = append(snd.refused, in.id)
		snd.tell(answer)
	}
}

// group acknowledges when enough has come together, or in a moment.
func (snd *sender) group(soon bool, every int) {
	snd.pending++
	switch {
	case soon || snd.pending >= every:
		snd.acknowledge()
	case snd.timer == nil:
		s := snd.c.s
		snd.timer = time.AfterFunc(ackAfter, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if snd.timer = nil; snd.c != nil && snd.pending > 0 {
				snd.acknowledge()
			}
		})
	}
}

// acknowledge acknowledges everything up to the last message.
func (snd *sender) acknowledge() {
	snd.pending = 0
	snd.tell(statusOK)
}

// tell tells the client what became of the last message. Acknowledgements must say "OK",
// too: after a refusal, the client library takes those without it for refusals.
func (snd *sender) tell(answer status) {
	var fixed [24]byte
	args := append32(fixed[:0], argFlow, snd.id)
	args = append64(args, argLastAcked, snd.last)
	args = append(args, argWindow, 3, senderWindow)
	snd.c.write(func(b []byte) []byte { return appendAssured(b, snd.version, ctlAck, nil, answer, args) })
}
