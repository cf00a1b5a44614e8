package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/endpointtest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// atPeer is an endpoint that publishes to a queue at a peer.
func atPeer(t *testing.T, p *peer) *RabbitMQ {
	return provision(t, &RabbitMQ{Server: []string{p.addr}, Producer: &Producer{RoutingKey: "orders"}})
}

func publishAll(t *testing.T, r *RabbitMQ, wait time.Duration, qos message.QoS, messages ...*message.Message) []message.Result {
	t.Helper()
	p, err := r.Publisher(endpointtest.Verbatim{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	return p.Publish(ctx, qos, messages...)
}

func publishOne(t *testing.T, r *RabbitMQ) message.Result {
	t.Helper()
	return publishAll(t, r, 5*time.Second, message.Auto, &message.Message{Payload: []byte("x")})[0]
}

func wantResult(t *testing.T, r message.Result, status message.Status, kind message.Kind) {
	t.Helper()
	if r.Status != status || status != message.Stored && (r.Err == nil || message.KindOf(r.Err) != kind) {
		t.Errorf("%s (%v), want %s with an error of kind %s", r.Status, r.Err, status, kind)
	}
}

func TestANackIsARefusal(t *testing.T) {
	p := startPeer(t)
	p.publish = func(c *peerConn, channel uint16, n uint64) { c.confirm(channel, n, n%2 == 0) }
	r := atPeer(t, p)
	wantResult(t, publishOne(t, r), message.Refused, message.Unavailable)
	wantResult(t, publishOne(t, r), message.Stored, 0)
	results := publishAll(t, r, time.Second, message.Auto, new(message.Message), new(message.Message), new(message.Message))
	for i, want := range []message.Status{message.Refused, message.Stored, message.Refused} {
		if results[i].Status != want {
			t.Errorf("message %d is %s, want %s", i, results[i].Status, want)
		}
	}
}

func TestNoConfirmationIsUnknown(t *testing.T) {
	p := startPeer(t)
	p.publish = func(*peerConn, uint16, uint64) {}
	r := atPeer(t, p)
	if err := r.Probe(t.Context()); err != nil { // what is measured begins with a connection
		t.Fatal(err)
	}
	began := time.Now()
	result := publishAll(t, r, 100*time.Millisecond, message.Auto, new(message.Message))[0]
	wantResult(t, result, message.Unknown, message.OutcomeUnknown)
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %v", took)
	}
}

// A caller who waits for ever is answered all the same.
func TestPatienceEnds(t *testing.T) {
	t.Parallel()
	p := startPeer(t)
	p.publish = func(*peerConn, uint16, uint64) {}
	r := atPeer(t, p)
	began := time.Now()
	for _, result := range publishAll(t, r, time.Minute, message.Auto, new(message.Message), new(message.Message), new(message.Message)) {
		wantResult(t, result, message.Unknown, message.OutcomeUnknown)
	}
	if took := time.Since(began); took > 6*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestClosedAfterTheWriteIsUnknown(t *testing.T) {
	p := startPeer(t)
	p.publish = func(c *peerConn, _ uint16, _ uint64) { c.Close() }
	r := atPeer(t, p)
	wantResult(t, publishOne(t, r), message.Unknown, message.OutcomeUnknown)
	p.set(func() { p.publish = nil })
	eventually(t, "publishing works again", func() bool { return publishOne(t, r).Status == message.Stored })
}

// The broker says why it closes the connection.
func TestAConnectionThatIsClosedByAnOperator(t *testing.T) {
	p := startPeer(t)
	p.publish = func(c *peerConn, _ uint16, _ uint64) {
		c.send(0, method{10, 50}, short16(amqp.ConnectionForced), short("CONNECTION_FORCED - maintenance"), []byte{0, 0, 0, 0})
	}
	r := atPeer(t, p)
	result := publishOne(t, r)
	wantResult(t, result, message.Unknown, message.OutcomeUnknown)
	if !strings.Contains(result.Err.Error(), "maintenance") {
		t.Errorf("%v does not tell the cause", result.Err)
	}
}

func TestABlockedConnectionRefusesAtOnce(t *testing.T) {
	p := startPeer(t)
	r := atPeer(t, p)
	wantResult(t, publishOne(t, r), message.Stored, 0)
	p.each(func(c *peerConn) { c.block("low on memory") })
	eventually(t, "blocked", func() bool { return publishOne(t, r).Status == message.Refused })
	began := time.Now()
	result := publishOne(t, r)
	wantResult(t, result, message.Refused, message.Unavailable)
	e, _ := errors.AsType[*message.Error](result.Err)
	if e == nil || e.RetryAfter == 0 || !strings.Contains(e.Detail, "low on memory") {
		t.Errorf("%+v says neither why nor when to try again", result.Err)
	}
	if took := time.Since(began); took > 100*time.Millisecond {
		t.Errorf("it took %v", took)
	}
	if err := r.Probe(t.Context()); message.KindOf(err) != message.Unavailable {
		t.Errorf("the probe says %v", err)
	}
	p.each(func(c *peerConn) { c.block("") })
	eventually(t, "unblocked", func() bool { return publishOne(t, r).Status == message.Stored })
}

// A peer that takes nothing costs callers no more than the time that they gave, and the
// connection after a while.
func TestAStalledWrite(t *testing.T) {
	t.Parallel()
	p := startPeer(t)
	p.deaf = true
	r := atPeer(t, p)
	const callers = 8
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range 3 {
				began := time.Now()
				result := publishAll(t, r, 300*time.Millisecond, message.Auto, &message.Message{Payload: make([]byte, 4<<20)})[0]
				if took := time.Since(began); took > time.Second {
					t.Errorf("it took %v", took)
				}
				if result.Status.OK() {
					t.Errorf("%s, though nobody reads", result.Status)
				}
			}
		})
	}
	eventually(t, "the connection is given up, and the status tells the cause", func() bool {
		status := r.Status()
		return status.State != endpoints.Up && strings.Contains(status.Error, "takes nothing")
	})
	wg.Wait()
}

// The broker closes a channel because of one message. What came before may be stored, the
// one is refused, and what came after is not stored.
func TestBlame(t *testing.T) {
	const (
		denied  = "ACCESS_REFUSED - access to exchange 'b' in vhost '/' refused for user 'guest'"
		topic   = "ACCESS_REFUSED - access to topic 'k2' in exchange 'a' in vhost '/' refused for user 'guest'"
		missing = "NOT_FOUND - no exchange 'b' in vhost '/'"
		large   = "PRECONDITION_FAILED - message size 2000 is larger than configured max size 1000"
	)
	a := func(key string, size int) *publication { return &publication{exchange: "a", key: key, size: size} }
	b := &publication{exchange: "b"}
	for _, tc := range []struct {
		name      string
		code      int
		text      string
		open      []*publication
		confirmed string
		want      string
	}{
		{"alone", amqp.AccessRefused, "in other words", []*publication{a("", 0)}, "", "refused:broker-denied"},
		{"nobody knows", amqp.AccessRefused, "in other words", []*publication{a("", 0), a("", 0)}, "", "unknown unknown"},
		{"denied", amqp.AccessRefused, denied, []*publication{a("", 0), b, a("", 0), b}, "",
			"unknown refused:broker-denied refused:broker-unavailable refused:broker-denied"},
		{"denied since", amqp.AccessRefused, denied, []*publication{a("", 0), b, b}, "b", "unknown unknown unknown"},
		{"topic", amqp.AccessRefused, topic, []*publication{a("k1", 0), a("k2", 0), a("k1", 0)}, "a",
			"unknown refused:broker-denied refused:broker-unavailable"},
		{"missing", amqp.NotFound, missing, []*publication{a("", 0), b}, "", "unknown refused:channel-not-found"},
		{"too large", amqp.PreconditionFailed, large, []*publication{a("", 10), a("", 2000), a("", 10)}, "a",
			"unknown refused:too-large refused:broker-unavailable"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			open := make([]*publication, len(tc.open))
			for i, u := range tc.open {
				clone := *u
				open[i] = &clone
			}
			e := &amqp.Error{Code: tc.code, Reason: tc.text, Server: true}
			blame(e, open, map[string]bool{tc.confirmed: true}, func(err error) error {
				return message.Errorf(message.OutcomeUnknown, "%w", err)
			})
			var got []string
			for _, u := range open {
				word := u.fate.status.String()
				if u.fate.status == message.Refused {
					word += ":" + message.KindOf(u.fate.err).String()
				}
				got = append(got, word)
			}
			if all := strings.Join(got, " "); all != tc.want {
				t.Errorf("got %s, want %s", all, tc.want)
			}
		})
	}
}

// The same, over the wire: several messages are under way when the channel is closed.
func TestAClosedChannel(t *testing.T) {
	p := startPeer(t)
	p.publish = func(c *peerConn, channel uint16, n uint64) {
		switch n {
		case 1:
			c.confirm(channel, n, true)
		case 3:
			c.closeChannel(channel, amqp.PreconditionFailed, "PRECONDITION_FAILED - message size 500 is larger than configured max size 100")
		}
	}
	r := atPeer(t, p)
	results := publishAll(t, r, 5*time.Second, message.Auto,
		new(message.Message), new(message.Message), &message.Message{Payload: make([]byte, 500)}, new(message.Message))
	wantResult(t, results[0], message.Stored, 0)
	wantResult(t, results[1], message.Unknown, message.OutcomeUnknown)
	wantResult(t, results[2], message.Refused, message.TooLarge)
	wantResult(t, results[3], message.Refused, message.Unavailable)
	p.set(func() { p.publish = nil })
	wantResult(t, publishOne(t, r), message.Stored, 0) // on another channel of the same connection
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.conns) != 1 {
		t.Errorf("%d connections were made", len(p.conns))
	}
}

// What nobody waited for and was lost is counted.
func TestLossesOfMessagesThatNobodyWaitsFor(t *testing.T) {
	p := startPeer(t)
	p.publish = func(c *peerConn, channel uint16, n uint64) { c.confirm(channel, n, n > 2) }
	r := atPeer(t, p)
	lost := make(chan error, 10)
	r.producer.lost = func(_ string, err error) { lost <- err }
	for i, result := range publishAll(t, r, time.Second, message.None, new(message.Message), new(message.Message), new(message.Message)) {
		if result.Status != message.Handed || result.Err != nil {
			t.Errorf("message %d is %s (%v)", i, result.Status, result.Err)
		}
	}
	for range 2 {
		if err := <-lost; message.KindOf(err) != message.Unavailable {
			t.Errorf("lost because of %v", err)
		}
	}
	p.set(func() { p.publish = func(c *peerConn, _ uint16, _ uint64) { c.Close() } })
	publishAll(t, r, time.Second, message.None, new(message.Message))
	if err := <-lost; message.KindOf(err) != message.OutcomeUnknown {
		t.Errorf("lost because of %v", err)
	}
}

func TestMessagesThatTheBrokerWouldEndTheConnectionFor(t *testing.T) {
	p := startPeer(t)
	r := atPeer(t, p)
	long := strings.Repeat("x", 300)
	for _, tc := range []struct {
		m    message.Message
		kind message.Kind
	}{
		{message.Message{ID: long}, message.BadInput},
		{message.Message{Headers: []message.Header{{Name: long, Value: "v"}}}, message.BadInput},
		{message.Message{Headers: []message.Header{{Name: "n", Value: strings.Repeat("v", 200<<10)}}}, message.TooLarge},
	} {
		results := publishAll(t, r, time.Second, message.Auto, new(message.Message), &tc.m, new(message.Message))
		wantResult(t, results[0], message.Stored, 0)
		wantResult(t, results[1], message.Refused, tc.kind)
		wantResult(t, results[2], message.Stored, 0)
	}
}

func TestRefusedLogins(t *testing.T) {
	for _, tc := range []struct {
		on   method
		why  closing
		want string
	}{
		{method{10, 11}, closing{amqp.AccessRefused, "ACCESS_REFUSED - Login was refused", true}, "look at auth"},
		{method{10, 40}, closing{amqp.NotAllowed, "NOT_ALLOWED - vhost / not found", true}, "virtual host"},
	} {
		p := startPeer(t)
		p.refuse[tc.on] = tc.why
		r := atPeer(t, p)
		result := publishOne(t, r)
		wantResult(t, result, message.Refused, message.Unavailable)
		if !strings.Contains(result.Err.Error(), tc.want) || !strings.Contains(result.Err.Error(), p.addr) {
			t.Errorf("%v names neither address nor what to do", result.Err)
		}
	}
}

// Whoever expects TLS closes the connection, and says nothing.
func TestAnAddressThatIsNoRabbitMQ(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	r := provision(t, &RabbitMQ{Server: []string{listener.Addr().String()}, Producer: &Producer{RoutingKey: "orders"}})
	result := publishOne(t, r)
	wantResult(t, result, message.Refused, message.Unavailable)
	if !strings.Contains(result.Err.Error(), "TLS") {
		t.Errorf("%v does not say what may be wrong", result.Err)
	}
	// What the library says of it depends on who is first.
	if err := new(connConfig).explain("localhost:5671", amqp.ErrClosed); !strings.Contains(err.Error(), "TLS") {
		t.Errorf("%v does not say what may be wrong", err)
	}
}

func TestAMissingExchangeHarmsNobody(t *testing.T) {
	p := startPeer(t)
	p.refuse[method{40, 10}] = closing{amqp.NotFound, "NOT_FOUND - no exchange 'x' in vhost '/'", false}
	r := provision(t, &RabbitMQ{Server: []string{p.addr}, Producer: &Producer{Exchange: &Exchange{Name: "x"}, RoutingKey: "k"}})
	wantResult(t, publishOne(t, r), message.Refused, message.NotFound)
	p.set(func() { delete(p.refuse, method{40, 10}) })
	wantResult(t, publishOne(t, r), message.Stored, 0)
}

// An exchange of a type that the broker does not know ends the connection on which it is
// declared. That is nobody else's.
func TestADeclarationThatEndsTheConnection(t *testing.T) {
	p := startPeer(t)
	r := provision(t, &RabbitMQ{Server: []string{p.addr}, Producer: &Producer{Exchange: &Exchange{Name: "x", Type: "x-none"}, RoutingKey: "k"}})
	conn, err := r.producer.link.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.set(func() {
		p.refuse[method{40, 10}] = closing{amqp.CommandInvalid, "COMMAND_INVALID - unknown exchange type 'x-none'", true}
	})
	for range 3 {
		wantResult(t, publishOne(t, r), message.Refused, message.Mismatch)
	}
	select {
	case <-conn.Gone:
		t.Error("the connection that others use was ended")
	default:
	}
}

func TestIDs(t *testing.T) {
	p := startPeer(t)
	r := atPeer(t, p)
	seen := make(map[string]bool)
	for i := range 100 {
		result := publishOne(t, r)
		if result.ID == "" || seen[result.ID] {
			t.Fatalf("message %d has the id %q", i, result.ID)
		}
		seen[result.ID] = true
	}
	if result := publishAll(t, r, time.Second, message.Auto, &message.Message{ID: "mine"})[0]; result.ID != "mine" {
		t.Errorf("the id became %q", result.ID)
	}
	if got := fmt.Sprint(publishOne(t, r).Metadata); !strings.Contains(got, "orders") {
		t.Errorf("metadata is %s", got)
	}
}

// What was not sent because the broker had closed the channel for a message before it is denied
// as that one was; anything else keeps its own cause.
func TestDenialIsShared(t *testing.T) {
	denied := error(message.Errorf(message.Denied, "no right to write"))
	closed := error(message.Errorf(message.Unavailable, "not sent: %w", reason(amqp.ErrClosed)))
	other := error(message.Errorf(message.TooLarge, "too large"))
	results := []message.Result{
		{Status: message.Refused, Err: closed}, {Status: message.Refused, Err: denied},
		{Status: message.Refused, Err: other}, {Status: message.Refused, Err: closed}, {Status: message.Stored},
	}
	shareDenial(results)
	for i, want := range []error{closed, denied, other, denied, nil} {
		if results[i].Err != want {
			t.Errorf("message %d: %v, want %v", i, results[i].Err, want)
		}
	}
}
