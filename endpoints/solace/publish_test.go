//go:build cgo && (linux || darwin)

package solace

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/endpointtest"
	"github.com/caddy-message-api/caddy-message-api/endpoints/solace/smftest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// limit is how long what somebody waits for may take: five seconds, and one for a busy
// machine.
const limit = 6 * time.Second

// inTime fails the test if something takes longer than it may.
func inTime(t *testing.T, what string, do func()) {
	t.Helper()
	begun := time.Now()
	do()
	if took := time.Since(begun); took > limit {
		t.Errorf("%s took %v", what, took)
	}
}

func wantFailure(t *testing.T, r message.Result, status message.Status, kind message.Kind) {
	t.Helper()
	if r.Status != status || message.KindOf(r.Err) != kind {
		t.Errorf("%s (%v), want %s with an error of kind %s", r.Status, r.Err, status, kind)
	}
}

func TestRefusals(t *testing.T) {
	b := startBroker(t, smftest.Options{})
	s := b.endpoint(t, &Solace{Producer: &Producer{Topics: []string{"t"}}})
	for text, kind := range map[string]message.Kind{
		"503 Spool Over Quota":              message.Busy,
		"403 Publish ACL Denied":            message.Denied,
		"503 Queue Shutdown":                message.Unavailable,
		"400 Document Is Too Large":         message.TooLarge,
		"503 No Subscription Match":         message.NotFound,
		"503 Sync Replication Ineligible":   message.Unavailable,
		"503 Something That Nobody Expects": message.Unavailable,
	} {
		code := 0
		if _, err := fmt.Sscan(text, &code); err != nil {
			t.Fatal(err)
		}
		b.OnFault(once(smftest.OpPublish, "", smftest.Fault{Code: code, Text: text[4:]}))
		r := publish(t, s, message.Auto, &message.Message{Payload: []byte("x")})
		wantFailure(t, r, message.Refused, kind)
		if text := fmt.Sprint(r.Err); !strings.Contains(text, "topic t") {
			t.Errorf("%q does not name the topic", text)
		}
		if r := publish(t, s, message.Auto, &message.Message{Payload: []byte("x")}); r.Status != message.Stored {
			t.Errorf("after a refusal: %s (%v)", r.Status, r.Err)
		}
	}
	if state := s.Status(); state.State != endpoints.Up {
		t.Errorf("refusals have changed the status to %+v", state)
	}
}

// In a batch, what the broker refuses touches nothing else.
func TestOneOfABatchIsRefused(t *testing.T) {
	for _, every := range []int{1, 7} {
		b := startBroker(t, smftest.Options{AckEvery: every})
		b.Queue("q", smftest.Queue{Topics: []string{"t"}})
		s := b.endpoint(t, &Solace{Producer: &Producer{Topics: []string{"t"}}})
		messages := make([]*message.Message, 100)
		for i := range messages {
			messages[i] = &message.Message{Payload: fmt.Append(nil, i)}
		}
		n := 0
		b.OnFault(func(op smftest.Op, _ string) *smftest.Fault {
			if op != smftest.OpPublish {
				return nil
			}
			if n++; n == 50 {
				return &smftest.Fault{Code: 503, Text: "Spool Over Quota"}
			}
			return nil
		})
		for i, r := range publisherOf(t, s, endpointtest.Verbatim{}).Publish(t.Context(), message.Auto, messages...) {
			want := message.Stored
			if i == 49 {
				want = message.Refused
			}
			if r.Status != want {
				t.Errorf("message %d is %s (%v)", i, r.Status, r.Err)
			}
		}
		if got := b.take(t, "q", 99); string(got[48].Payload) != "48" || string(got[49].Payload) != "50" {
			t.Errorf("the broker has %s, %s", got[48].Payload, got[49].Payload)
		}
	}
}

// What was sent when the connection broke is unknown, and never sent again.
func TestCutWhileUnacknowledged(t *testing.T) {
	b := startBroker(t, smftest.Options{})
	b.Queue("q", smftest.Queue{Topics: []string{"t"}})
	s := b.endpoint(t, &Solace{Producer: &Producer{Topics: []string{"t"}}})
	b.OnFault(always(smftest.OpPublish, smftest.Fault{Silent: true}))
	arrived := make(chan []message.Result, 1)
	messages := []*message.Message{{Payload: []byte("one")}, {Payload: []byte("two")}}
	p := publisherOf(t, s, endpointtest.Verbatim{})
	inTime(t, "publishing over a connection that breaks", func() {
		go func() { arrived <- p.Publish(context.Background(), message.Auto, messages...) }()
		eventually(t, "the connection stands", func() bool { return b.Clients() == 1 })
		time.AfterFunc(100*time.Millisecond, func() {
			// Else the library may be back before we have left it, and send again what is
			// unknown, under the same number.
			b.OnFault(always(smftest.OpLogin, smftest.Fault{Delay: time.Second}))
			b.Drop()
		})
		for _, r := range <-arrived {
			wantFailure(t, r, message.Unknown, message.OutcomeUnknown)
		}
	})
	b.OnFault(nil)
	eventually(t, "publishing works again", func() bool {
		return publish(t, s, message.Auto, &message.Message{Payload: []byte("three")}).Status == message.Stored
	})
	if got := b.take(t, "q", 1); string(got[0].Payload) != "three" {
		t.Errorf("%q was sent again", got[0].Payload)
	}
}

// A broker that acknowledges nothing costs a request five seconds, and nobody blocks: what
// is in the library's window is unknown, what did not fit has certainly not left.
func TestSilentBroker(t *testing.T) {
	t.Parallel()
	const window, n = 255, 300
	b := startBroker(t, smftest.Options{})
	b.Queue("q", smftest.Queue{Topics: []string{"t"}})
	s := b.endpoint(t, &Solace{Producer: &Producer{Topics: []string{"t"}}})
	b.OnFault(always(smftest.OpPublish, smftest.Fault{Silent: true}))
	messages := make([]*message.Message, n)
	for i := range messages {
		messages[i] = &message.Message{Payload: []byte("x")}
	}
	p := publisherOf(t, s, endpointtest.Verbatim{})
	var results []message.Result
	inTime(t, "publishing to a silent broker", func() { results = p.Publish(t.Context(), message.Auto, messages...) })
	for i, r := range results {
		if i < window {
			wantFailure(t, r, message.Unknown, message.OutcomeUnknown)
		} else {
			wantFailure(t, r, message.Refused, message.Unavailable)
		}
	}
	b.OnFault(nil)
	eventually(t, "publishing works again", func() bool {
		return publish(t, s, message.Auto, &message.Message{Payload: []byte("y")}).Status == message.Stored
	})
	if got := b.Counts("q").Ready; got > 10 {
		t.Errorf("%d messages are in the queue: those of the silent time were sent again", got)
	}
}

// A broker that hears nothing any more is given up when it has not answered in all the time
// that a request has, and the request's own deadline is kept.
func TestMutePublish(t *testing.T) {
	t.Parallel()
	b := startBroker(t, smftest.Options{})
	s := b.endpoint(t, &Solace{Producer: &Producer{Topics: []string{"t"}}})
	publish(t, s, message.Auto, &message.Message{})
	b.Mute(true)
	defer b.Mute(false)
	p := publisherOf(t, s, endpointtest.Verbatim{})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	begun := time.Now()
	wantFailure(t, p.Publish(ctx, message.Auto, &message.Message{})[0], message.Unknown, message.OutcomeUnknown)
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("a request with 200ms took %v", took)
	}
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			inTime(t, "publishing to a mute broker", func() {
				r := p.Publish(context.Background(), message.Auto, &message.Message{})[0]
				if r.Status != message.Unknown && r.Status != message.Refused {
					t.Errorf("%s, while the broker is mute", r.Status)
				}
			})
		})
	}
	wg.Wait()
	inTime(t, "publishing with a new connection", func() {
		wantFailure(t, p.Publish(t.Context(), message.Auto, &message.Message{})[0], message.Refused, message.Unavailable)
	})
	b.Mute(false)
	eventually(t, "publishing works again", func() bool {
		return publish(t, s, message.Auto, &message.Message{}).Status == message.Stored
	})
}

func TestDirectDelivery(t *testing.T) {
	b := startBroker(t, smftest.Options{})
	s := b.endpoint(t, &Solace{Producer: &Producer{Topics: []string{"t"}, Delivery: direct}, Consumer: &Consumer{Topics: []string{"t"}}})
	if caps := s.Capabilities(); !caps.Publish || caps.Confirm {
		t.Errorf("capabilities are %+v", caps)
	}
	stream := open(t, s, message.Subscription{})
	for i := range 3 {
		r := publish(t, s, message.QoS(i%2), &message.Message{Payload: fmt.Append(nil, i)})
		if r.Status != message.Handed || r.Err != nil {
			t.Errorf("%+v", r)
		}
		if got, _ := receive(t, stream, 1); string(got[0].Payload) != fmt.Sprint(i) {
			t.Errorf("payload is %q", got[0].Payload)
		}
	}
}

// Unused connections are closed, and made again.
func TestIdle(t *testing.T) {
	b := startBroker(t, smftest.Options{})
	s := b.endpoint(t, &Solace{Idle: caddy.Duration(100 * time.Millisecond), Producer: &Producer{Topics: []string{"t"}}})
	for range 2 {
		if r := publish(t, s, message.Auto, &message.Message{}); r.Status != message.Stored {
			t.Fatalf("%+v", r)
		}
		eventually(t, "the connection is closed", func() bool { return b.Clients() == 0 && s.Status().State == endpoints.Idle })
	}
}

// Nobody waits at level none, and what was lost is counted.
func TestLossesAreCounted(t *testing.T) {
	b := startBroker(t, smftest.Options{})
	s := b.endpoint(t, &Solace{Producer: &Producer{Topics: []string{"t"}}})
	b.OnFault(once(smftest.OpPublish, "", smftest.Fault{Code: 503, Text: "Spool Over Quota"}))
	for range 2 {
		if r := publish(t, s, message.None, &message.Message{}); r.Status != message.Handed {
			t.Errorf("%+v", r)
		}
	}
	eventually(t, "the loss is counted", func() bool { return s.state.producer.losses.Count() == 1 })
}
