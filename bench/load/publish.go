//go:build linux

package load

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Publisher sends messages over one WebSocket, the cheapest way in for either side, and
// reads nothing.
type Publisher struct {
	fd    int
	frame []byte
	burst []byte
	sent  int64
}

// NewPublisher connects a publisher.
func NewPublisher(addr, path string, patience time.Duration) (*Publisher, error) {
	swarm, err := Connect(Target{Addr: addr, Path: path, Kind: WS}, 1, patience)
	if err != nil {
		return nil, fmt.Errorf("publisher: %w", err)
	}
	p := &Publisher{fd: swarm.conns[0].fd, frame: Frame(Content())}
	return p, swarm.poller.close()
}

// Publish sends n messages in one write.
func (p *Publisher) Publish(n int) error {
	p.burst = slices.Grow(p.burst[:0], n*len(p.frame))
	for range n {
		p.burst = append(p.burst, p.frame...)
	}
	if err := writeAll(p.fd, p.burst); err != nil {
		return fmt.Errorf("publisher: %w", err)
	}
	p.sent += int64(n)
	return nil
}

// Sent is how many messages were published.
func (p *Publisher) Sent() int64 { return p.sent }

// Close cuts the connection.
func (p *Publisher) Close() error { return unix.Close(p.fd) }

// Feeder is where the messages come from.
type Feeder interface {
	// Publish sends n messages, and does not wait until they have arrived.
	Publish(n int) error
	// Sent is how many messages were published.
	Sent() int64
	Close() error
}

// FanOut is a publisher with its subscribers.
type FanOut struct {
	Pub      Feeder
	Subs     *Swarm
	Patience time.Duration
}

// Closed publishes for a while so that about inFlight messages are always under way, and
// then waits until everybody has everything.
func (f *FanOut) Closed(d time.Duration, inFlight int) error {
	n := int64(f.Subs.Len())
	for end := time.Now().Add(d); time.Now().Before(end); {
		room := int64(inFlight) - (f.Pub.Sent() - f.Subs.messages/n)
		if room > 0 {
			if err := f.Pub.Publish(int(room)); err != nil {
				return err
			}
		}
		if _, err := f.Subs.turn(10 * time.Millisecond); err != nil {
			return err
		}
	}
	return f.Settle()
}

// Open publishes a message every interval for a while, whatever becomes of them, and
// returns how long each delivery took.
func (f *FanOut) Open(d, interval time.Duration) ([]time.Duration, error) {
	start := time.Now()
	took := make([]time.Duration, 0, int(d/interval+1)*f.Subs.Len())
	for next := start; next.Sub(start) < d; next = next.Add(interval) {
		published := time.Now()
		if err := f.Pub.Publish(1); err != nil {
			return nil, err
		}
		for until := next.Add(interval); time.Now().Before(until); {
			n, err := f.Subs.turn(time.Until(until))
			if err != nil {
				return nil, err
			}
			now := time.Since(published)
			for range n {
				took = append(took, now)
			}
		}
	}
	return took, f.Settle()
}

// Settle waits until every subscriber has received what was published, once.
func (f *FanOut) Settle() error {
	if err := f.Subs.Collect(f.Pub.Sent()*int64(f.Subs.Len()), f.Patience); err != nil {
		return fmt.Errorf("messages are lost: %w", err)
	}
	return f.Subs.Each(f.Pub.Sent())
}
