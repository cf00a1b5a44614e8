package servicebustest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
)

// TestNothingIsLost sends and completes while connections are cut, locks end and answers fail: what the client was
// told is stored must be completed once, or still be there.
func TestNothingIsLost(t *testing.T) {
	const n = 1000
	s := start(t, Options{})
	s.Queue("q", Entity{LockDuration: 500 * time.Millisecond, MaxDeliveryCount: 1000})
	sender, receiver := newSender(t, connect(t, s), "q"), newReceiver(t, connect(t, s), "q", nil)
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	var count atomic.Int64
	s.OnFault(func(op Op, _ string) *Fault {
		if count.Add(1)%97 != 0 {
			return nil
		}
		if op == OpDeliver { // a link that is detached because of server-busy would stay dead at the client
			return &Fault{Condition: "amqp:link:detach-forced"}
		}
		return &[]Fault{{Drop: true}, {Delay: time.Millisecond}, {Condition: "com.microsoft:server-busy"}, {Detach: true, Condition: "amqp:link:detach-forced"}}[rand.IntN(4)]
	})
	var wg sync.WaitGroup
	seen := make([]atomic.Bool, n)
	var completed atomic.Int64
	wg.Go(func() {
		for i := 0; i < n; {
			if sender.SendMessage(ctx, &azservicebus.Message{Body: fmt.Append(nil, i)}, nil) == nil {
				i++
			} else if ctx.Err() != nil {
				return
			}
		}
	})
	wg.Go(func() {
		for completed.Load() < n && ctx.Err() == nil {
			messages, _ := receiver.ReceiveMessages(ctx, 50, nil)
			for _, m := range messages {
				settle, done := context.WithTimeout(ctx, 200*time.Millisecond)
				var i int
				_, _ = fmt.Sscan(string(m.Body), &i)
				err := receiver.CompleteMessage(settle, m, nil)
				done()
				if err != nil {
					break // the rest of the batch came by a connection that may be gone: each would wait in vain
				}
				if seen[i].CompareAndSwap(false, true) {
					completed.Add(1)
				}
			}
			if s.Counts("q").Completed >= s.Counts("q").Stored && s.Counts("q").Stored >= n {
				return // all are gone, though the client wasn't told of each
			}
		}
	})
	wg.Wait()
	s.OnFault(nil)
	if c := s.Counts("q"); c.Stored < n || c.Stored != c.Completed+int64(c.Active) || ctx.Err() != nil {
		t.Fatalf("%+v, %v", c, ctx.Err())
	}
}

// FuzzConnection has a connection, with a session and a link each way, handle any frames.
func FuzzConnection(f *testing.F) {
	frame := func(code byte, encode func(b []byte) ([]byte, int)) []byte {
		b, start, mark := openFrame(nil, frameAMQP, 0, code)
		b, count := encode(b)
		return closeFrame(b, start, mark, count, nil)
	}
	for code := byte(codeBegin); code <= codeClose; code++ {
		for handle := range uint32(5) {
			f.Add(frame(code, func(b []byte) ([]byte, int) {
				for range 8 {
					b = appendUint(b, handle)
				}
				return b, 8
			}))
		}
	}
	f.Add(frame(codeTransfer, func(b []byte) ([]byte, int) {
		return appendUint(appendBinary(appendUint(appendUint(b, 1), 0), []byte{1}), 0), 4
	}))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := start(t, Options{})
		s.Queue("s", Entity{Sessions: true})
		fill(t, s, "q", 3)
		ours, theirs := net.Pipe()
		defer theirs.Close()
		c := newConn(s, &wire{Conn: ours, muted: &s.muted})
		c.opened, c.peerMax = true, minMaxFrame
		s.mu.Lock()
		defer s.mu.Unlock()
		s.conns[c] = struct{}{}
		begin := decoder{buf: frame(codeBegin, func(b []byte) ([]byte, int) {
			return appendUint(appendUint(appendUint(appendNull(b), 0), 10), 10), 4
		})[8:]}
		_, fields := begin.composite()
		if err := c.begin(0, &fields); err != nil {
			t.Fatal(err)
		}
		for i, address := range []string{"q", "$cbs", "q/$management", "s"} {
			for _, receiver := range []bool{false, true} {
				a := attach{name: address, handle: uint32(2 * i), receiver: receiver, sourceAddress: address, targetAddress: address}
				if receiver {
					a.handle++
				}
				if err := c.sessions[0].attach(a, nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		fr := frameReader{r: bufio.NewReader(bytes.NewReader(data))}
		for {
			next, err := fr.next()
			if err != nil {
				break
			}
			if next.body != nil && c.handle(next) != nil {
				break
			}
		}
		c.cut()
	})
}
