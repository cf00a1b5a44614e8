package mqtt5

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// A server may come to a CONNECT after it has let the next one in. The session is not taken
// for another process's then, and what is in it is not left there.
func TestAConnectThatComesLate(t *testing.T) {
	for _, slot := range []int{0, 1} {
		for _, inTime := range []bool{true, false} {
			t.Run(fmt.Sprintf("session %d/in time %v", slot, inTime), func(t *testing.T) {
				t.Parallel()
				connectLate(t, slot, inTime)
			})
		}
	}
}

func connectLate(t *testing.T, slot int, inTime bool) {
	p := newPeer(t)
	gateway := newProcess(t, p.addr(), "topic")
	streams := []message.Stream{gateway.member(t, 100)}
	for range slot {
		streams = append(streams, gateway.member(t, 100))
	}
	connectForeign(t, p.addr(), "feed", false, nil).produce(t, "topic", numbered(0, 20)...)
	for _, s := range streams {
		receive(t, s, 20/len(streams))
	}

	// The first stream dials: its own session that it has lost, or the one that it inherits.
	first, _ := streams[0].(*stream)
	id := gateway.client.sessionID(first.group.key, slot)
	release := make(chan struct{})
	let := sync.OnceFunc(func() { close(release) })
	t.Cleanup(let)
	p.with(func() { p.hold[id] = release })
	if slot == 0 {
		p.kick(id, 0x8B)
	} else {
		closeStream(t, streams[1])
	}
	waiting := func() (is bool) {
		p.with(func() { is = p.held[id] })
		return is
	}
	waitFor(t, "the CONNECT arrives", waiting)
	if inTime {
		time.AfterFunc(parting/5, let)
	}
	began := time.Now()
	closeStream(t, first)
	if inTime {
		// The server has come to it, unless this machine was too slow.
		if waiting() && time.Since(began) < parting {
			t.Error("Close left a CONNECT behind that was still to be answered")
		}
		receive(t, gateway.member(t, 100), 20)
		return
	}

	next, _ := gateway.member(t, 100).(*stream)
	again := make(map[string]int)
	for _, d := range receive(t, next, 20) {
		if d.Handle.(*incoming).session.id == id {
			again[string(d.Payload)]++
		}
	}
	takeOvers := func() (n int) {
		p.with(func() { n = p.takeOvers[id] })
		return n
	}
	before := takeOvers() // of a connection that had just ended
	let()
	waitFor(t, "the late CONNECT takes the session", func() bool { return takeOvers() > before })
	gather(t, next, again)
	next.mu.Lock()
	defer next.mu.Unlock()
	if next.home.slot != 0 || next.group.foreign {
		t.Errorf("the stream reads from session %d; it believes in another process: %v", next.home.slot, next.group.foreign)
	}
}
