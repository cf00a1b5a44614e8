package websocket

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"
	ws "github.com/gorilla/websocket"

	"github.com/caddy-message-api/caddy-message-api/entrypoints/entrypointtest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

func TestRawMessages(t *testing.T) {
	srv := serve(t, provisioned(t, nil))
	conn := srv.dial(t, "")
	srv.s.Feed.Deliver(entrypointtest.Delivery(0, "text"), entrypointtest.Delivery(1, "\xff"), entrypointtest.Delivery(2, ""))
	for _, want := range []struct {
		kind    int
		payload string
	}{{ws.TextMessage, "text"}, {ws.BinaryMessage, "\xff"}, {ws.TextMessage, ""}} {
		kind, data, err := conn.ReadMessage()
		if err != nil || kind != want.kind || string(data) != want.payload {
			t.Fatalf("%d %q %v, want %+v", kind, data, err, want)
		}
	}
	entrypointtest.Await(t, "Written", func() bool { return srv.s.Feed.WrittenCount() == 3 })
	bye(t, conn)
	srv.waitOver(t)
	if got := srv.s.SentCount(); got.Messages != 3 || got.Bytes != 11 {
		t.Errorf("sent %+v", got)
	}
}

func TestRawPublish(t *testing.T) {
	srv := serve(t, provisioned(t, nil))
	conn := srv.dial(t, "")
	say(t, conn, "one")
	if err := conn.WriteMessage(ws.BinaryMessage, []byte("\xff")); err != nil {
		t.Fatal(err)
	}
	say(t, conn, "")
	bye(t, conn) // what was sent before is published
	srv.waitOver(t)
	got := srv.s.Published()
	if len(got) != 3 || string(got[0].Payload) != "one" || string(got[1].Payload) != "\xff" || got[2].Payload == nil || len(got[2].Payload) != 0 {
		t.Errorf("published %d", len(got))
	}
	if got := srv.s.ReceivedCount(); got.Messages != 3 || got.Bytes != 4 {
		t.Errorf("received %+v", got)
	}
}

func TestBurstsOfAnySizeArriveWhole(t *testing.T) {
	for _, joined := range []bool{false, true} {
		srv := serve(t, provisioned(t, func(e *Entrypoint) { e.Frames = framesText }))
		srv.s.Feed.Joined = joined
		var want []string
		for i, n := range []int{0, 10, 60_000, 10, 70_000, 5_000, 65_000, 1, 300_000, 1, 1, 2 << 20, 3} {
			payload := fmt.Sprint(i, strings.Repeat("p", n))
			want = append(want, payload)
			srv.s.Feed.Deliver(entrypointtest.Delivery(i, payload))
		}
		conn := srv.dial(t, "")
		for i := range want {
			if got := next(t, conn); got != want[i] {
				t.Fatalf("message %d: %d bytes, want %d", i, len(got), len(want[i]))
			}
		}
		bye(t, conn)
		srv.waitOver(t)
	}
}

func TestRawGapCloses(t *testing.T) {
	for _, reason := range []message.GapReason{message.GapExpired, message.GapSlow} {
		srv := serve(t, provisioned(t, nil))
		conn := srv.dial(t, "")
		srv.s.Feed.Deliver(entrypointtest.Delivery(0, "before"))
		if got := next(t, conn); got != "before" {
			t.Errorf("got %q", got)
		}
		entrypointtest.Await(t, "Written", func() bool { return srv.s.Feed.WrittenCount() == 1 })
		srv.s.Feed.Gap(reason, "some are gone")
		srv.s.Feed.Deliver(entrypointtest.Delivery(7, "after"))
		wantClose(t, conn, 1013, "gap: "+string(reason)+": some are gone")
		srv.waitOver(t)
		if n := srv.s.Feed.WrittenCount(); n != 1 {
			t.Errorf("%d messages count as written", n)
		}
	}
}

func TestRawPublishFails(t *testing.T) {
	for _, c := range []struct {
		name   string
		result message.Result
		err    error
		code   int
		text   string
	}{
		{"refused", message.Result{Status: message.Refused, Err: message.Errorf(message.Denied, "not this topic")}, nil,
			1011, "publish refused: message 2: not this topic"},
		{"unknown", message.Result{}, nil, 1011, "publish unknown: message 2: the broker's answer did not arrive"},
		{"down", message.Result{Status: message.Refused, Err: message.Errorf(message.Unavailable, "down")}, nil, 1013, "down"},
		{"none was tried", message.Result{}, message.Errorf(message.Busy, "too many"), 1013, "publish refused: message 2: too many"},
		{"too large", message.Result{Status: message.Refused, Err: message.Errorf(message.TooLarge, "big")}, nil, 1009, "big"},
		{"our fault", message.Result{}, errors.New("secret"), 1011, "its log says why"},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := serve(t, provisioned(t, nil))
			var calls atomic.Int32
			stored := make(chan struct{})
			srv.s.PublishFunc = func(_ context.Context, messages []*message.Message) ([]message.Result, error) {
				if calls.Add(1) == 1 {
					close(stored)
					return []message.Result{{Status: message.Stored}}, nil
				}
				if c.err != nil {
					return nil, c.err
				}
				return []message.Result{c.result}, nil
			}
			conn := srv.dial(t, "")
			say(t, conn, "good")
			<-stored
			say(t, conn, "bad")
			wantClose(t, conn, c.code, c.text)
			srv.waitOver(t)
		})
	}
}

// What follows a message that failed is dropped, so that the client knows what was stored.
func TestRawPublishStopsAtTheFirstFailure(t *testing.T) {
	srv := serve(t, provisioned(t, nil))
	begun, fail := make(chan struct{}), make(chan struct{})
	srv.s.PublishFunc = func(_ context.Context, messages []*message.Message) ([]message.Result, error) {
		close(begun) // a second call would panic
		<-fail
		return nil, message.Errorf(message.OutcomeUnknown, "cut")
	}
	conn := srv.dial(t, "")
	say(t, conn, "1")
	<-begun
	say(t, conn, "2")
	say(t, conn, "3")
	entrypointtest.Await(t, "three messages", func() bool { return srv.s.ReceivedCount().Messages == 3 })
	close(fail)
	wantClose(t, conn, 1011, "message 1: cut")
	srv.waitOver(t)
	if n := len(srv.s.Published()); n != 1 {
		t.Errorf("%d messages went to the broker", n)
	}
}

func TestPublisherOff(t *testing.T) {
	srv := serve(t, provisioned(t, func(e *Entrypoint) { e.Publisher = new(bool) }))
	conn := srv.dial(t, "")
	say(t, conn, "hello?")
	wantClose(t, conn, 1008, "takes no messages")
	srv.waitOver(t)
	if len(srv.s.Published()) != 0 {
		t.Error("published all the same")
	}
}

func TestSubscriberOff(t *testing.T) {
	srv := serve(t, provisioned(t, func(e *Entrypoint) { e.Subscriber = new(bool) }))
	conn := srv.dial(t, "")
	say(t, conn, "only this")
	bye(t, conn)
	srv.waitOver(t)
	if len(srv.s.Wants()) != 0 || len(srv.s.Published()) != 1 {
		t.Errorf("%d subscriptions, %d published", len(srv.s.Wants()), len(srv.s.Published()))
	}
}

// A client that shares no code with the library that the server is made of.
func TestForeignClient(t *testing.T) {
	srv := serve(t, provisioned(t, nil))
	conn, _, err := websocket.Dial(t.Context(), srv.URL, &websocket.DialOptions{
		Subprotocols: []string{Protocol}, CompressionMode: websocket.CompressionContextTakeover,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(1 << 20)
	if conn.Subprotocol() != Protocol {
		t.Errorf("protocol %q", conn.Subprotocol())
	}
	big := strings.Repeat("é", 100_000)
	srv.s.Feed.Deliver(entrypointtest.Delivery(0, big))
	kind, data, err := conn.Read(t.Context())
	if err != nil || kind != websocket.MessageText || !strings.Contains(string(data), big) {
		t.Fatalf("%v, %d bytes, %v", kind, len(data), err)
	}
	answer := make(chan string, 1)
	go func() { // a ping is answered to whoever reads
		_, data, err := conn.Read(t.Context())
		answer <- fmt.Sprint(string(data), err)
		_, _, _ = conn.Read(t.Context())
	}()
	if err := conn.Ping(t.Context()); err != nil {
		t.Errorf("ping: %v", err)
	}
	if err := conn.Write(t.Context(), websocket.MessageText, []byte(`{"type":"publish","content":"from afar"}`)); err != nil {
		t.Error(err)
	}
	if got := <-answer; !strings.Contains(got, `"type":"published"`) {
		t.Errorf("answer %q", got)
	}
	if err := conn.Close(websocket.StatusNormalClosure, "thanks"); err != nil {
		t.Errorf("close: %v", err)
	}
	srv.waitOver(t)
}
