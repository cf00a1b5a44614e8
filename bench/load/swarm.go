//go:build linux

package load

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// readSize is what one read takes at most.
const readSize = 256 << 10

// together is how many handshakes are under way at a time.
const together = 200

// Swarm is a number of subscribers. It is for one goroutine.
type Swarm struct {
	target   Target
	poller   *poller
	conns    []member
	ready    int
	buf      []byte
	messages int64 // that all have received
	bytes    int64
}

type member struct {
	fd       int
	in       reader
	ready    bool
	messages int64
}

// Connect connects n subscribers and waits until the server streams to all of them.
func Connect(target Target, n int, patience time.Duration) (*Swarm, error) {
	p, err := newPoller()
	if err != nil {
		return nil, err
	}
	s := &Swarm{target: target, poller: p, conns: make([]member, 0, n), buf: make([]byte, readSize)}
	deadline := time.Now().Add(patience)
	for len(s.conns) < n && err == nil {
		if err = s.add(); err == nil && (len(s.conns)%together == 0 || len(s.conns) == n) {
			err = s.await(deadline)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("subscriber %d of %d: %w", len(s.conns), n, err), s.Close())
	}
	return s, nil
}

func (s *Swarm) add() error {
	hello, in, err := s.target.hello()
	if err != nil {
		return err
	}
	fd, err := dial(s.target.Addr)
	if err != nil {
		return err
	}
	s.conns = append(s.conns, member{fd: fd, in: in})
	if err := writeAll(fd, hello); err != nil {
		return err
	}
	if err := unblock(fd); err != nil {
		return err
	}
	return s.poller.add(fd, len(s.conns)-1)
}

func (s *Swarm) await(deadline time.Time) error {
	for s.ready < len(s.conns) {
		if time.Now().After(deadline) {
			return fmt.Errorf("%d do not stream after the patience was over", len(s.conns)-s.ready)
		}
		if _, err := s.turn(10 * time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// turn reads what is there, waiting for it at most for d, and returns how many messages
// that were.
func (s *Swarm) turn(d time.Duration) (messages int, err error) {
	events, err := s.poller.wait(d)
	if err != nil {
		return 0, err
	}
	for i := range events {
		n, err := s.read(&s.conns[events[i].Fd])
		if err != nil {
			return messages, fmt.Errorf("subscriber %d: %w", events[i].Fd, err)
		}
		messages += n
	}
	s.messages += int64(messages)
	return messages, nil
}

func (s *Swarm) read(m *member) (int, error) {
	n, err := read(m.fd, s.buf)
	if n == 0 || err != nil {
		return 0, err
	}
	s.bytes += int64(n)
	messages, ready, err := m.in.read(s.buf[:n])
	if err != nil {
		return 0, err
	}
	if ready && !m.ready {
		m.ready = true
		s.ready++
	}
	if reply := m.in.reply(); len(reply) > 0 {
		if err := writeAll(m.fd, reply); err != nil {
			return 0, err
		}
	}
	m.messages += int64(messages)
	return messages, nil
}

// Len is how many subscribers there are.
func (s *Swarm) Len() int { return len(s.conns) }

// Messages is how many messages all subscribers together have received, Bytes how many
// bytes, with all that stands around the messages.
func (s *Swarm) Messages() int64 { return s.messages }

// Bytes is documented at Messages.
func (s *Swarm) Bytes() int64 { return s.bytes }

// Idle reads what comes for a while.
func (s *Swarm) Idle(d time.Duration) error {
	for end := time.Now().Add(d); time.Now().Before(end); {
		if _, err := s.turn(time.Until(end)); err != nil {
			return err
		}
	}
	return nil
}

// Collect reads until n messages have come.
func (s *Swarm) Collect(n int64, patience time.Duration) error {
	for deadline := time.Now().Add(patience); s.messages < n; {
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d messages came in %s", s.messages, n, patience)
		}
		if _, err := s.turn(10 * time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// Each makes sure that every subscriber has received exactly n messages.
func (s *Swarm) Each(n int64) error {
	for i := range s.conns {
		if got := s.conns[i].messages; got != n {
			return fmt.Errorf("subscriber %d received %d messages, and %d were published", i, got, n)
		}
	}
	return nil
}

// Close cuts all connections.
func (s *Swarm) Close() error {
	var errs []error
	for i := range s.conns {
		errs = append(errs, unix.Close(s.conns[i].fd))
	}
	return errors.Join(append(errs, s.poller.close())...)
}
