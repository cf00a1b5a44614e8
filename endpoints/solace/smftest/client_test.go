//go:build cgo && (linux || darwin)

package smftest

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"solace.dev/go/messaging"
	"solace.dev/go/messaging/pkg/solace"
	"solace.dev/go/messaging/pkg/solace/config"
	"solace.dev/go/messaging/pkg/solace/message"
	"solace.dev/go/messaging/pkg/solace/resource"
)

// patience bounds everything that a test waits for.
const patience = 15 * time.Second

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func listen(t *testing.T, options Options) *Server {
	t.Helper()
	s, err := Listen("127.0.0.1:0", options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if wrong := s.Malformed(); len(wrong) > 0 {
			t.Errorf("the client library was not understood: %v", wrong)
		}
		s.Close()
	})
	return s
}

func properties(s *Server, more config.ServicePropertyMap) config.ServicePropertyMap {
	all := config.ServicePropertyMap{
		config.TransportLayerPropertyHost:                             s.URL(),
		config.ServicePropertyVPNName:                                 "default",
		config.AuthenticationPropertySchemeBasicUserName:              "user",
		config.AuthenticationPropertySchemeBasicPassword:              "secret",
		config.TransportLayerPropertyConnectionAttemptsTimeout:        3000,
		config.TransportLayerPropertyReconnectionAttempts:             100,
		config.TransportLayerPropertyReconnectionAttemptsWaitInterval: 50,
	}
	for k, v := range more {
		all[k] = v
	}
	return all
}

// connect makes a service and has it disconnected before the broker ends.
func connect(t *testing.T, s *Server, more config.ServicePropertyMap) solace.MessagingService {
	t.Helper()
	service, err := messaging.NewMessagingServiceBuilder().FromConfigurationProvider(properties(s, more)).Build()
	if err != nil {
		t.Fatal(err)
	}
	if err := service.Connect(); err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() {
		if err := service.Disconnect(); err != nil {
			t.Logf("disconnect: %v", err)
		}
	})
	return service
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if holds() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("not within %v: %s", patience, what)
}

// publisher is a persistent publisher whose receipts come by a channel.
type publisher struct {
	solace.PersistentMessagePublisher
	service  solace.MessagingService
	receipts chan solace.PublishReceipt
}

func newPublisher(t *testing.T, service solace.MessagingService) *publisher {
	t.Helper()
	p, err := service.CreatePersistentMessagePublisherBuilder().OnBackPressureWait(1000).Build()
	if err != nil {
		t.Fatal(err)
	}
	out := &publisher{p, service, make(chan solace.PublishReceipt, 100_000)}
	p.SetMessagePublishReceiptListener(func(r solace.PublishReceipt) { out.receipts <- r })
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Terminate(100 * time.Millisecond) })
	return out
}

func (p *publisher) send(t *testing.T, topic, text string) {
	t.Helper()
	m, err := p.service.MessageBuilder().BuildWithByteArrayPayload([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Publish(m, resource.TopicOf(topic), nil, text); err != nil {
		t.Fatal(err)
	}
}

func (p *publisher) receipt(t *testing.T) solace.PublishReceipt {
	t.Helper()
	return soon(t, "receipt", p.receipts)
}

func (p *publisher) outcome(t *testing.T) (text string, err error) {
	t.Helper()
	r := p.receipt(t)
	return r.GetUserContext().(string), r.GetError()
}

// soon waits for what comes by a channel.
func soon[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatalf("no %s within %v", what, patience)
		panic("unreachable")
	}
}

func numbered(n int) string { return fmt.Sprintf("message %d", n) }

// receiver receives from a queue.
type receiver struct {
	solace.PersistentMessageReceiver
}

func newReceiver(
	t *testing.T, service solace.MessagingService, queue *resource.Queue, change func(solace.PersistentMessageReceiverBuilder),
) receiver {
	t.Helper()
	b := service.CreatePersistentMessageReceiverBuilder().WithMessageClientAcknowledgement().
		WithRequiredMessageOutcomeSupport(config.PersistentReceiverFailedOutcome, config.PersistentReceiverRejectedOutcome)
	if change != nil {
		change(b)
	}
	r, err := b.Build(queue)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Start(); err != nil {
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(func() { r.Terminate(0) })
	return receiver{r}
}

func (r receiver) next(t *testing.T) (message.InboundMessage, string) {
	t.Helper()
	m, err := r.ReceiveMessage(patience)
	if err != nil {
		t.Fatalf("receive: %v", err)
	}
	b, _ := m.GetPayloadAsBytes()
	return m, string(b)
}

func (r receiver) want(t *testing.T, text string) message.InboundMessage {
	t.Helper()
	m, got := r.next(t)
	if got != text {
		t.Fatalf("received %q, want %q", got, text)
	}
	return m
}

// ack accepts a message. It must be kept until that is done: the client library frees a
// message that nobody refers to, also one that it is just about to acknowledge.
func (r receiver) ack(t *testing.T, m message.InboundMessage) {
	t.Helper()
	if err := r.Ack(m); err != nil {
		t.Fatal(err)
	}
	runtime.KeepAlive(m)
}

// settle tells the outcome of a message.
func (r receiver) settle(t *testing.T, m message.InboundMessage, outcome config.MessageSettlementOutcome) {
	t.Helper()
	if err := r.Settle(m, outcome); err != nil {
		t.Fatal(err)
	}
	runtime.KeepAlive(m)
}
