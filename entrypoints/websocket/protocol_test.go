package websocket

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ws "github.com/gorilla/websocket"

	"github.com/caddy-message-api/caddy-message-api/entrypoints/entrypointtest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

func TestProtocolMessages(t *testing.T) {
	srv := serve(t, provisioned(t, nil))
	srv.s.Feed.Resumable = true
	conn := srv.dial(t, "", Protocol)
	srv.s.Feed.Deliver(entrypointtest.Delivery(0, "zero"), *sample("\xff"))
	wantObject(t, conn, fmt.Sprintf(`{"type":"message","id":"0","content":"zero","headers":{},"metadata":{},"cursor":"%s"}`, entrypointtest.Cursor(0)))
	wantObject(t, conn, fmt.Sprintf(`{"type":"message","id":"1","content":"/w==","encoding":"base64","cursor":"%s",`+
		`"headers":{"a":["1","2"],"b":[{"base64":"/w=="}]},"metadata":{"topic":"orders","partition":3,"last":true}}`, entrypointtest.Cursor(1)))
	srv.s.Feed.Gap(message.GapExpired, "before 5")
	srv.s.Feed.Deliver(entrypointtest.Delivery(5, "five"))
	wantObject(t, conn, `{"type":"gap","reason":"expired","detail":"before 5"}`)
	if o := object(t, conn); o["content"] != "five" || o["seq"] != nil {
		t.Errorf("after the gap: %v", o)
	}
	bye(t, conn)
	srv.waitOver(t)
}

func TestProtocolPublish(t *testing.T) {
	srv := serve(t, provisioned(t, nil))
	srv.s.PublishFunc = func(_ context.Context, messages []*message.Message) ([]message.Result, error) {
		results := make([]message.Result, len(messages))
		for i, m := range messages {
			switch m.ID {
			case "refuse":
				e := message.Errorf(message.Busy, "slowly")
				e.RetryAfter = 1500 * time.Millisecond
				results[i] = message.Result{Status: message.Refused, Err: e}
			case "hand":
				results[i] = message.Result{Status: message.Handed}
			case "none", "few": // no result at all
				return nil, map[string]error{"none": message.Errorf(message.Unavailable, "broker down")}[m.ID]
			default:
				results[i] = message.Result{Status: message.Stored, ID: "id-" + m.ID, Metadata: []message.Field{message.Number("offset", 7)}}
			}
		}
		return results, nil
	}
	conn := srv.dial(t, "", Protocol)
	for _, c := range []struct{ say, want string }{
		{`{"type":"publish","ref":"a","id":"1","content":"x"}`, `{"type":"published","ref":"a","status":"stored","id":"id-1","metadata":{"offset":7}}`},
		{`{"type":"publish","id":"hand","content":"x"}`, `{"type":"published","status":"handed","metadata":{}}`},
		{`{"type":"publish","ref":"b","id":"refuse","content":"x"}`, `{"type":"refused","ref":"b","problem":` +
			`{"type":"urn:message-api:problem:busy","status":429,"detail":"slowly","retry_ms":1500}}`},
		{`{"type":"publish","ref":"c","id":"none","content":"x"}`, `{"type":"refused","ref":"c","problem":` +
			`{"type":"urn:message-api:problem:broker-unavailable","status":503,"detail":"broker down"}}`},
		{`{"type":"publish","ref":"d","id":"few","content":"x"}`, `{"type":"unknown","ref":"d","problem":` +
			`{"type":"urn:message-api:problem:outcome-unknown","status":504,"detail":"the broker's answer did not arrive"}}`},
		{`{"type":"publish","ref":"e","content":5}`, `{"type":"refused","ref":"e","problem":` +
			`{"type":"urn:message-api:problem:bad-input","status":400,"detail":"\"content\" must be a string"}}`},
		{`{"type":"sing","ref":"f"}`, `{"type":"error","ref":"f","detail":"unknown type \"sing\": use publish, ack, release or reject"}`},
		{`{"type":"ack","ref":"g","seq":1}`, `{"type":"error","ref":"g","detail":"there is nothing to settle: at qos auto the gateway does it"}`},
	} {
		say(t, conn, "%s", c.say)
		wantObject(t, conn, c.want)
	}
	bye(t, conn)
	srv.waitOver(t)
}

func TestProtocolHalves(t *testing.T) {
	srv := serve(t, provisioned(t, func(e *Entrypoint) { e.Publisher = new(bool) }))
	conn := srv.dial(t, "", Protocol)
	say(t, conn, `{"type":"publish","content":""}`)
	if o := object(t, conn); o["type"] != "refused" || !strings.Contains(fmt.Sprint(o), "publisher-off") {
		t.Errorf("%v", o)
	}
	bye(t, conn)
	srv.waitOver(t)

	srv = serve(t, provisioned(t, func(e *Entrypoint) { e.Subscriber = new(bool) }))
	conn = srv.dial(t, "", Protocol)
	say(t, conn, `{"type":"ack","seq":1}`)
	wantObject(t, conn, `{"type":"error","detail":"there is nothing to settle: this WebSocket only publishes"}`)
	bye(t, conn)
	srv.waitOver(t)
}

// While one call is under way the next messages come together, and in their order.
func TestPublishesAreBatchedInOrder(t *testing.T) {
	srv := serve(t, provisioned(t, nil))
	var calls atomic.Int32
	first, resume := make(chan struct{}), make(chan struct{})
	srv.s.PublishFunc = func(_ context.Context, messages []*message.Message) ([]message.Result, error) {
		if calls.Add(1) == 1 {
			close(first)
			<-resume
		}
		results := make([]message.Result, len(messages))
		for i := range results {
			results[i] = message.Result{Status: message.Stored, ID: messages[i].ID}
		}
		return results, nil
	}
	conn := srv.dial(t, "", Protocol)
	const count = 200
	for i := range count {
		say(t, conn, `{"type":"publish","ref":"r%d","id":"%d","content":"x"}`, i, i)
		if i == 0 {
			<-first
		}
	}
	entrypointtest.Await(t, "all to be read", func() bool { return srv.s.ReceivedCount().Messages == count })
	close(resume)
	for i := range count {
		wantObject(t, conn, fmt.Sprintf(`{"type":"published","ref":"r%d","status":"stored","id":"%d","metadata":{}}`, i, i))
	}
	bye(t, conn)
	srv.waitOver(t)
	if n := calls.Load(); n != 2 {
		t.Errorf("%d calls", n)
	}
	for i, m := range srv.s.Published() {
		if m.ID != fmt.Sprint(i) {
			t.Fatalf("message %d is %s", i, m.ID)
		}
	}
}

// With too much under way the gateway stops reading, and goes on when there is room. A
// client that waits for that is not taken for dead.
func TestPublishBackPressure(t *testing.T) {
	for _, c := range []struct {
		name  string
		size  int
		bound int
	}{{"messages", 1, maxPublishing}, {"bytes", 200_000, maxPublishingBytes/200_000 + 1}} {
		t.Run(c.name, func(t *testing.T) {
			srv := serve(t, provisioned(t, nil))
			resume := make(chan struct{})
			srv.s.PublishFunc = func(_ context.Context, messages []*message.Message) ([]message.Result, error) {
				<-resume
				return make([]message.Result, len(messages)), nil
			}
			conn := srv.dial(t, "", Protocol)
			const more = 50
			sent := make(chan error, 1)
			go func() {
				frame := []byte(`{"type":"publish","content":"` + strings.Repeat("x", c.size) + `"}`)
				for range c.bound + more {
					if err := conn.WriteMessage(ws.TextMessage, frame); err != nil {
						sent <- err
						return
					}
				}
				sent <- nil
			}()
			// One more is read, and waits for room.
			entrypointtest.Await(t, "the bound", func() bool { return srv.s.ReceivedCount().Messages == c.bound+1 })
			for range 5 {
				srv.s.Tick(time.Now())
			}
			if n := srv.s.ReceivedCount().Messages; n != c.bound+1 {
				t.Errorf("%d were read, over the bound of %d", n, c.bound)
			}
			close(resume)
			for range c.bound + more {
				if o := object(t, conn); o["type"] != "unknown" {
					t.Fatalf("%v", o)
				}
			}
			if err := <-sent; err != nil {
				t.Error(err)
			}
			bye(t, conn)
			srv.waitOver(t)
		})
	}
}

func TestAcknowledgements(t *testing.T) {
	srv := serve(t, provisioned(t, qos(message.AtLeastOnce)))
	conn := srv.dial(t, "", Protocol)
	srv.s.Feed.Deliver(entrypointtest.Deliveries(0, 9)...)
	for i := range 10 {
		if o := object(t, conn); o["seq"] != float64(i+1) || o["id"] != fmt.Sprint(i) {
			t.Fatalf("message %d: %v", i, o)
		}
	}
	say(t, conn, `{"type":"ack","seq":2}`)
	say(t, conn, `{"type":"release","seq":[4,3]}`)
	say(t, conn, `{"type":"reject","seq":[10]}`)
	say(t, conn, `{"type":"ack","upto":6}`)
	say(t, conn, `{"type":"ack","ref":"again","seq":[2,7,99]}`)
	wantObject(t, conn, `{"type":"error","ref":"again","detail":"not outstanding in this session: [2 99]"}`)
	say(t, conn, `{"type":"ack","upto":1000}`)
	say(t, conn, `{"type":"ack","upto":1000}`) // nothing is left, and that is no fault
	bye(t, conn)
	srv.waitOver(t)
	want := map[message.Settlement][]uint64{
		message.Ack: {1, 2, 5, 6, 7, 8, 9}, message.Release: {3, 4}, message.Reject: {10},
	}
	for how, seqs := range want {
		for _, seq := range seqs {
			if got, ok := srv.s.Feed.Settled(seq); !ok || got != how {
				t.Errorf("%d: %v %v, want %v", seq, got, ok, how)
			}
		}
	}
}

// Numbers go on over bursts and gaps.
func TestNumbersOverBursts(t *testing.T) {
	srv := serve(t, provisioned(t, qos(message.AtLeastOnce)))
	srv.s.Feed.Joined = true
	conn := srv.dial(t, "", Protocol)
	srv.s.Feed.Deliver(entrypointtest.Deliveries(0, 4)...)
	srv.s.Feed.Gap(message.GapConnection, "")
	srv.s.Feed.Deliver(entrypointtest.Delivery(5, strings.Repeat("x", 70_000)))
	srv.s.Feed.Deliver(entrypointtest.Deliveries(6, 8)...)
	var seqs []float64
	for len(seqs) < 9 {
		if o := object(t, conn); o["type"] == "message" {
			seqs = append(seqs, o["seq"].(float64))
		}
	}
	if !slices.Equal(seqs, []float64{1, 2, 3, 4, 5, 6, 7, 8, 9}) {
		t.Errorf("%v", seqs)
	}
	bye(t, conn)
	srv.waitOver(t)
}

func TestAtMostOnceHasNumbersAndNoAcks(t *testing.T) {
	srv := serve(t, provisioned(t, qos(message.AtMostOnce)))
	conn := srv.dial(t, "", Protocol)
	srv.s.Feed.Deliver(entrypointtest.Delivery(0, "x"))
	if o := object(t, conn); o["seq"] != 1.0 {
		t.Errorf("%v", o)
	}
	say(t, conn, `{"type":"ack","seq":1}`)
	wantObject(t, conn, `{"type":"error","detail":"there is nothing to settle: at qos at_most_once the gateway does it"}`)
	bye(t, conn)
	srv.waitOver(t)
}

func TestSettleFails(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want string
		logs int
	}{
		{"stale", fmt.Errorf("x: %w", message.ErrStale), "they may come again", 0},
		{"revoked", message.Errorf(message.BadInput, "gone to another consumer"), "gone to another consumer", 0},
		{"broker", message.Errorf(message.Unavailable, "broker down"), "not known to be in force, and messages may come again: broker down", 1},
		{"our fault", fmt.Errorf("secret"), "its log says why", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := serve(t, provisioned(t, qos(message.AtLeastOnce)))
			srv.s.Feed.SettleErr = c.err
			conn := srv.dial(t, "", Protocol)
			srv.s.Feed.Deliver(entrypointtest.Delivery(0, "x"))
			object(t, conn)
			say(t, conn, `{"type":"ack","ref":"me","seq":1}`)
			if o := object(t, conn); o["type"] != "error" || o["ref"] != "me" || !strings.Contains(o["detail"].(string), c.want) {
				t.Errorf("%v", o)
			}
			bye(t, conn)
			srv.waitOver(t)
			if n := srv.s.Logs.FilterMessage("settling failed").Len(); n != c.logs {
				t.Errorf("%d log lines", n)
			}
		})
	}
}

func TestOutstanding(t *testing.T) {
	var o outstanding
	o.add(1, 5)
	check := func(s settlement, wantKnown, wantUnknown, left []uint64) {
		t.Helper()
		known, unknown := o.take(nil, &s)
		if !slices.Equal(known, wantKnown) || !slices.Equal(unknown, wantUnknown) || !slices.Equal(o.seqs[o.head:], left) {
			t.Errorf("%+v: known %v, unknown %v, left %v", s, known, unknown, o.seqs[o.head:])
		}
	}
	check(settlement{seqs: []uint64{3, 3, 9}}, []uint64{3}, []uint64{3, 9}, []uint64{1, 2, 4, 5})
	check(settlement{seqs: []uint64{1}}, []uint64{1}, nil, []uint64{2, 4, 5})
	check(settlement{upTo: 3}, []uint64{2}, nil, []uint64{4, 5})
	o.add(6, 2)
	check(settlement{upTo: 100}, []uint64{4, 5, 6, 7}, nil, nil)
	o.add(8, 1)
	check(settlement{upTo: 8}, []uint64{8}, nil, nil)
	// A client that settles one by one from the front needs no new memory.
	seq := uint64(9)
	known, s := make([]uint64, 0, 8), settlement{seqs: make([]uint64, 1)}
	if n := testing.AllocsPerRun(1000, func() {
		o.add(seq, 2)
		for range 2 {
			s.seqs[0] = seq
			known, _ = o.take(known[:0], &s)
			seq++
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestWrittenFails(t *testing.T) {
	srv := serve(t, provisioned(t, nil))
	srv.s.Feed.WrittenErr = fmt.Errorf("no commit")
	conn := srv.dial(t, "", Protocol)
	srv.s.Feed.Deliver(entrypointtest.Delivery(0, "x"))
	object(t, conn)
	bye(t, conn)
	srv.waitOver(t)
	if srv.s.Logs.FilterMessage("settling what was written failed").Len() == 0 {
		t.Error("nobody was told")
	}
}
