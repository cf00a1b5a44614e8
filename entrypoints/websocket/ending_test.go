package websocket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/entrypoints/entrypointtest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// wantEnded waits for Serve to return, and checks why it says the session ended.
func (srv *server) wantEnded(t *testing.T, reason entrypoints.EndReason) {
	t.Helper()
	srv.waitOver(t)
	if got := srv.ended.Load(); got == nil || got.Reason != reason {
		t.Errorf("ended: %+v, want %s", got, reason)
	}
}

func TestEndsByGateway(t *testing.T) {
	for _, reason := range entrypoints.EndReasons() {
		t.Run(string(reason), func(t *testing.T) {
			end := entrypoints.End{Reason: reason, Detail: "so it is", Retry: 1500 * time.Millisecond}
			srv := serve(t, provisioned(t, nil))
			conn := srv.dial(t, "")
			srv.s.End(end)
			wantClose(t, conn, reason.CloseCode(), string(reason)+": so it is")
			srv.wantEnded(t, reason)

			srv = serve(t, provisioned(t, nil))
			conn = srv.dial(t, "", Protocol)
			srv.s.End(end)
			wantObject(t, conn, fmt.Sprintf(`{"type":"goaway","reason":"%s","detail":"so it is","reconnect":%t,"retry_ms":1500}`,
				reason, reason.Reconnect()))
			wantClose(t, conn, reason.CloseCode(), string(reason))
			srv.wantEnded(t, reason)
		})
	}
}

func TestEndedBeforeItBegan(t *testing.T) {
	srv := serve(t, provisioned(t, nil))
	srv.s.End(entrypoints.End{Reason: entrypoints.EndShutdown})
	wantClose(t, srv.dial(t, ""), 1001, "shutdown")
	srv.wantEnded(t, entrypoints.EndShutdown)
}

func TestFeedFails(t *testing.T) {
	for _, c := range []struct {
		err  error
		text string
	}{{message.Errorf(message.NotFound, "topic orders is gone"), "topic orders is gone"}, {errors.New("secret"), "its log says why"}} {
		srv := serve(t, provisioned(t, nil))
		conn := srv.dial(t, "", Protocol)
		srv.s.Feed.Deliver(entrypointtest.Delivery(0, "last"))
		srv.s.Feed.Fail(c.err)
		if o := object(t, conn); o["content"] != "last" {
			t.Errorf("%v", o)
		}
		if o := object(t, conn); o["type"] != "goaway" || o["reason"] != "broker_error" || !strings.Contains(o["detail"].(string), c.text) {
			t.Errorf("%v", o)
		}
		wantClose(t, conn, 1011, c.text)
		srv.wantEnded(t, entrypoints.EndBroker)
	}
}

// A client that does not answer our close frame is not waited for longer than a moment.
func TestPeerIgnoresClose(t *testing.T) {
	e := provisioned(t, nil)
	e.limits.closing = 50 * time.Millisecond
	srv := serve(t, e)
	c := srv.raw(t, "")
	srv.s.End(entrypoints.End{Reason: entrypoints.EndRotate})
	c.wantCloseFrame(1012, "rotate")
	c.write(masked(textFrame, "too late"), masked(pingFrame, "x"))
	srv.wantEnded(t, entrypoints.EndRotate)
	c.wantEOF()
	if len(srv.s.Published()) != 0 {
		t.Error("what came after the close frame was published")
	}
}

func TestProtocolBreaches(t *testing.T) {
	unmasked := append(appendHeader(nil, textFrame, 2), "hi"...)
	long := masked(pingFrame, strings.Repeat("p", 126))
	for _, c := range []struct {
		name   string
		frames [][]byte
		offer  string
		code   int
		text   string
	}{
		{"unmasked", [][]byte{unmasked}, "", 1002, "MASK"},
		{"RSV1", [][]byte{masked(textFrame|0x40, "x")}, "", 1002, "RSV1"},
		{"RSV2", [][]byte{masked(textFrame|0x20, "x")}, "", 1002, "RSV2"},
		{"RSV3", [][]byte{masked(textFrame|0x10, "x")}, "", 1002, "RSV3"},
		{"reserved opcode", [][]byte{masked(0x83, "x")}, "", 1002, "opcode"},
		{"reserved control opcode", [][]byte{masked(0x8B, "x")}, "", 1002, "opcode"},
		{"long ping", [][]byte{long}, "", 1002, "125"},
		{"fragmented ping", [][]byte{masked(0x09, "x")}, "", 1002, "FIN"},
		{"continuation of nothing", [][]byte{masked(0x80, "x")}, "", 1002, "continuation"},
		{"text inside fragments", [][]byte{masked(0x01, "x"), masked(textFrame, "y")}, "", 1002, "FIN"},
		{"invalid UTF-8", [][]byte{masked(textFrame, "a\xff")}, "", 1007, "UTF-8"},
		{"invalid UTF-8 over fragments", [][]byte{masked(0x01, "\xc3"), masked(0x80, "x")}, "", 1007, "UTF-8"},
		{"close code 1005", [][]byte{masked(closeFrame, "\x03\xed")}, "", 1002, "1005"},
		{"close code 999", [][]byte{masked(closeFrame, "\x03\xe7")}, "", 1002, "999"},
		{"close reason not UTF-8", [][]byte{masked(closeFrame, "\x03\xe8\xff")}, "", 1002, "utf8"},
		{"binary in the protocol", [][]byte{masked(binaryFrame, "{}")}, Protocol, 1003, "text frames only"},
		{"garbage in the protocol", [][]byte{masked(textFrame, "{")}, Protocol, 1007, "not a JSON object"},
		{"trailing data", [][]byte{masked(textFrame, `{"type":"ack","seq":1} x`)}, Protocol, 1007, "the end expected"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := provisioned(t, nil)
			e.limits.closing = 200 * time.Millisecond
			srv := serve(t, e)
			conn := srv.raw(t, c.offer)
			conn.write(c.frames...)
			conn.write(masked(textFrame, strings.Repeat("more", 10_000))) // must not turn the close into a reset
			conn.wantCloseFrame(c.code, c.text)
			srv.wantEnded(t, entrypoints.EndProtocol)
			conn.wantEOF()
			if n := len(srv.s.Published()); n != 0 {
				t.Errorf("%d published", n)
			}
		})
	}
}

func TestOversize(t *testing.T) {
	for name, frames := range map[string][][]byte{
		"in one":       {masked(textFrame, strings.Repeat("x", 1001))},
		"in fragments": {masked(0x01, strings.Repeat("x", 900)), masked(0x80, strings.Repeat("x", 101))},
		"announced":    {{textFrame, 0x80 | 127, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1, 2, 3, 4}},
		"negative":     {{textFrame, 0x80 | 127, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1, 2, 3, 4}},
	} {
		t.Run(name, func(t *testing.T) {
			e := provisioned(t, func(e *Entrypoint) { e.MaxMessage = 1000 })
			e.limits.closing = 200 * time.Millisecond
			srv := serve(t, e)
			c := srv.raw(t, "")
			c.write(masked(textFrame, strings.Repeat("x", 1000)))
			c.write(frames...)
			c.wantCloseFrame(1009, "larger than 1000 bytes")
			srv.wantEnded(t, entrypoints.EndTooLarge)
			if n := len(srv.s.Published()); n != 1 {
				t.Errorf("%d published, want the one that fits", n)
			}
		})
	}
}

func TestFragmentsAndControlFrames(t *testing.T) {
	srv := serve(t, provisioned(t, nil))
	c := srv.raw(t, "")
	p125 := strings.Repeat("p", 125)
	c.write(masked(0x01, "a\xc3"), masked(pingFrame, p125)) // a character is cut in two
	c.wantFrame(pongFrame, p125)
	c.write(masked(0x00, ""), masked(pongFrame, "unasked"), masked(0x80, "\xa9b"))
	c.write(masked(pingFrame, ""))
	c.wantFrame(pongFrame, "")
	c.write(masked(closeFrame, "")) // without a code, and so is the answer
	c.wantFrame(closeFrame, "")
	srv.wantEnded(t, entrypoints.EndClient)
	if got := srv.s.Published(); len(got) != 1 || string(got[0].Payload) != "aéb" {
		t.Errorf("published %d", len(got))
	}
}

// A pong does not wait for a long backlog, and never lands inside a frame.
func TestPongWithinBacklog(t *testing.T) {
	srv := serve(t, provisioned(t, nil))
	c := srv.raw(t, "")
	const count, size = 500, 40_000
	for i := range count {
		srv.s.Feed.Deliver(entrypointtest.Delivery(i, strings.Repeat("x", size)))
	}
	c.write(masked(pingFrame, "now"))
	messages, pongAt := 0, -1
	for messages < count || pongAt < 0 {
		first, payload, err := c.frame()
		switch {
		case err != nil:
			t.Fatal(err)
		case first == pongFrame && payload == "now":
			pongAt = messages
		case first == textFrame && len(payload) == size:
			messages++
		default:
			t.Fatalf("frame %#x of %d bytes", first, len(payload))
		}
	}
	t.Logf("pong after %d of %d messages", pongAt, count)
	c.write(masked(closeFrame, "\x03\xe8"))
	c.wantCloseFrame(1000, "")
	srv.waitOver(t)
}

func TestPing(t *testing.T) {
	srv := serve(t, provisioned(t, func(e *Entrypoint) { d := caddy.Duration(time.Minute); e.Ping = &d }))
	c := srv.raw(t, "")
	entrypointtest.Await(t, "Every", func() bool { return len(srv.s.Intervals()) == 1 && srv.s.Intervals()[0] == time.Minute })
	srv.s.Tick(time.Now())
	c.wantFrame(pingFrame, "")
	c.write(masked(pongFrame, ""), masked(pingFrame, "sync"))
	c.wantFrame(pongFrame, "sync") // so the pong was read
	srv.s.Tick(time.Now())         // a sign of life: no ping
	srv.s.Tick(time.Now())
	c.wantFrame(pingFrame, "")
	srv.s.Tick(time.Now()) // none again
	c.wantEOF()
	srv.wantEnded(t, entrypoints.EndClient)
}

func TestPingOff(t *testing.T) {
	srv := serve(t, provisioned(t, func(e *Entrypoint) { e.Ping = new(caddy.Duration) }))
	conn := srv.dial(t, "")
	srv.s.Feed.Deliver(entrypointtest.Delivery(0, "x"))
	next(t, conn)
	if n := len(srv.s.Intervals()); n != 0 {
		t.Errorf("%d sweeps", n)
	}
	bye(t, conn)
	srv.waitOver(t)
}

func TestAbruptEnds(t *testing.T) {
	for name, cut := range map[string]func(c *net.TCPConn) error{
		"reset":  func(c *net.TCPConn) error { return errors.Join(c.SetLinger(0), c.Close()) },
		"closed": func(c *net.TCPConn) error { return c.Close() },
		"half":   func(c *net.TCPConn) error { return c.CloseWrite() },
		"in a frame": func(c *net.TCPConn) error {
			_, err := c.Write([]byte{textFrame})
			return errors.Join(err, c.CloseWrite())
		},
		"in a message": func(c *net.TCPConn) error {
			_, err := c.Write(masked(0x01, "half a"))
			return errors.Join(err, c.CloseWrite())
		},
		"in a payload": func(c *net.TCPConn) error {
			_, err := c.Write(masked(textFrame, "half a message")[:12])
			return errors.Join(err, c.CloseWrite())
		},
	} {
		t.Run(name, func(t *testing.T) {
			srv := serve(t, provisioned(t, nil))
			c := srv.raw(t, Protocol)
			c.write(masked(textFrame, `{"type":"publish","ref":"1","content":"was whole"}`))
			entrypointtest.Await(t, "the message", func() bool { return len(srv.s.Published()) == 1 })
			if err := cut(c.Conn.(*net.TCPConn)); err != nil {
				t.Fatal(err)
			}
			srv.wantEnded(t, entrypoints.EndClient)
			if n := len(srv.s.Published()); n != 1 {
				t.Errorf("%d published", n)
			}
		})
	}
}

// What a client sent before it closed is published, and it learns of it, also when the
// broker takes its time.
func TestPublishesSurviveTheClientsClose(t *testing.T) {
	srv := serve(t, provisioned(t, nil))
	begun, resume := make(chan struct{}), make(chan struct{})
	srv.s.PublishFunc = func(_ context.Context, messages []*message.Message) ([]message.Result, error) {
		if messages[0].ID == "0" {
			close(begun)
			<-resume
		}
		results := make([]message.Result, len(messages))
		for i := range results {
			results[i].Status = message.Stored
		}
		return results, nil
	}
	c := srv.raw(t, Protocol)
	for i := range 3 {
		c.write(masked(textFrame, fmt.Sprintf(`{"type":"publish","ref":"%d","id":"%d","content":""}`, i, i)))
	}
	<-begun
	c.write(masked(closeFrame, "\x03\xe8"))
	close(resume)
	for i := range 3 {
		c.wantFrame(textFrame, fmt.Sprintf(`{"type":"published","ref":"%d","status":"stored","metadata":{}}`, i))
	}
	c.wantFrame(closeFrame, "\x03\xe8")
	srv.waitOver(t)
}

// A broker that never answers holds nobody for ever.
func TestPublishThatNeverEnds(t *testing.T) {
	e := provisioned(t, nil)
	e.limits.closing, e.limits.finish = 20*time.Millisecond, 50*time.Millisecond
	srv := serve(t, e)
	srv.s.PublishFunc = func(ctx context.Context, _ []*message.Message) ([]message.Result, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	conn := srv.dial(t, "")
	say(t, conn, "x")
	entrypointtest.Await(t, "the call", func() bool { return len(srv.s.Published()) == 1 })
	bye(t, conn)
	srv.waitOver(t)
}

// A client that does not read is cut, and holds neither the session nor memory.
func TestSlowReader(t *testing.T) {
	e := provisioned(t, nil)
	e.limits.write, e.limits.closing = 300*time.Millisecond, 100*time.Millisecond
	srv := serve(t, e)
	payload := strings.Repeat("x", 1<<20)
	for i := range 32 { // more than the kernel's buffers hold
		srv.s.Feed.Deliver(entrypointtest.Delivery(i, payload))
	}
	c := srv.raw(t, "")
	srv.wantEnded(t, entrypoints.EndSlow)
	if n := srv.s.Feed.WrittenCount(); n != 0 {
		t.Errorf("%d of a burst that was cut count as written", n)
	}
	_ = c.Close()
}

// The goodbye to a client that stands still does not wait for the write deadline.
func TestEndOfStalledClient(t *testing.T) {
	e := provisioned(t, nil)
	e.limits.write, e.limits.closing = time.Hour, 100*time.Millisecond
	srv := serve(t, e)
	c := srv.raw(t, "")
	payload := strings.Repeat("x", 1<<20)
	for i := range 32 {
		srv.s.Feed.Deliver(entrypointtest.Delivery(i, payload))
	}
	if first, _, err := c.frame(); err != nil || first != textFrame { // the burst is under way
		t.Fatal(first, err)
	}
	srv.s.End(entrypoints.End{Reason: entrypoints.EndShutdown})
	srv.wantEnded(t, entrypoints.EndShutdown)
}

// A client that reads slowly, but reads, is no slow client.
func TestSlowButSteadyReader(t *testing.T) {
	e := provisioned(t, nil)
	e.limits.write = 500 * time.Millisecond
	srv := serve(t, e)
	c := srv.raw(t, "")
	size := 24 << 20
	srv.s.Feed.Deliver(entrypointtest.Delivery(0, strings.Repeat("x", size)))
	if err := c.Conn.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	buf := make([]byte, 32<<10)
	for got := 0; got < size+10; {
		n, err := c.r.Read(buf)
		if err != nil {
			t.Fatalf("cut after %d bytes and %s: %v", got, time.Since(began), err)
		}
		got += n
		<-tick.C
	}
	if took := time.Since(began); took < time.Second {
		t.Fatalf("the pipe was too fast for this test: %s", took)
	}
	c.write(masked(closeFrame, ""))
	srv.wantEnded(t, entrypoints.EndClient)
}

// Answers that nobody reads stop the reading, and do not pile up.
func TestAnswersNobodyReads(t *testing.T) {
	e := provisioned(t, func(e *Entrypoint) { e.Ping = new(caddy.Duration) })
	e.limits.write, e.limits.closing = 3*time.Second, 100*time.Millisecond
	srv := serve(t, e)
	c := srv.raw(t, Protocol)
	frame := masked(textFrame, `{"type":"nonsense","ref":"`+strings.Repeat("r", 128)+`"}`)
	before := memory()
	for {
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := c.Write(frame); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("cut before the gateway stopped reading: %v", err)
			}
			break
		}
	}
	if grown := memory() - before; grown > 2<<20 {
		t.Errorf("%d bytes are held", grown)
	}
	srv.wantEnded(t, entrypoints.EndSlow)
}

// What an idle connection costs in this process, without the client's half.
func TestIdleSessionsAreSmall(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("NOT RUN with -short or -race: memory is not what it is in production; scripts/integration.sh runs it without")
	}
	srv := serve(t, provisioned(t, func(e *Entrypoint) { e.Subscriber = new(bool) })) // the double has one feed
	const count = 500
	conns := make([]*rawConn, 0, count)
	before := memory()
	for range count {
		c := srv.raw(t, "")
		c.r = nil
		conns = append(conns, c)
	}
	each := (memory() - before) / count
	t.Logf("%d bytes for each idle connection", each)
	if each > 40<<10 {
		t.Errorf("%d bytes for each idle connection", each)
	}
	for _, c := range conns {
		c.write(masked(closeFrame, ""))
	}
	for range count {
		srv.waitOver(t)
	}
}

func memory() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}
