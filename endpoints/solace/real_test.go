//go:build cgo && (linux || darwin)

package solace

import (
	"cmp"
	"os"
	"sync"
	"testing"
	"time"

	"solace.dev/go/messaging"
	api "solace.dev/go/messaging/pkg/solace"
	"solace.dev/go/messaging/pkg/solace/config"
	"solace.dev/go/messaging/pkg/solace/resource"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/endpointtest"
	"github.com/caddy-message-api/caddy-message-api/endpoints/options"
	"github.com/caddy-message-api/caddy-message-api/endpoints/solace/smftest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// site is a broker of which nothing is known but how to log in: other clients use the plain
// library.
type site struct{ url, vpn, user, password string }

// TestRealPromises runs the suite against a Solace broker:
//
//	SOLACE_URL=tcp://localhost:55555 SOLACE_VPN=default SOLACE_USER=admin SOLACE_PASSWORD=admin \
//		go test ./endpoints/solace -run TestRealPromises
//
// The login must be allowed to make queues. Those of the suite's identities (suite-*) stay.
func TestRealPromises(t *testing.T) {
	url := os.Getenv("SOLACE_URL")
	if url == "" {
		t.Skip("no real Solace broker: set SOLACE_URL (and SOLACE_VPN, SOLACE_USER, SOLACE_PASSWORD) to run this against one")
	}
	site{url, os.Getenv("SOLACE_VPN"), os.Getenv("SOLACE_USER"), os.Getenv("SOLACE_PASSWORD")}.promises(t, time.Second)
}

// What runs against a real broker runs here too, so that it works when there is one.
func TestRealPromisesAtThePeer(t *testing.T) {
	b := startBroker(t, smftest.Options{AckEvery: 4})
	site{b.URL(), "", "someone", "secret"}.promises(t, 0)
}

func (w site) promises(t *testing.T, quiet time.Duration) {
	for name, consumer := range map[string]func(topic, queue string) *Consumer{"topics": ofTopics, "queue": ofAQueue} {
		t.Run(name, func(t *testing.T) {
			endpointtest.Run(t, endpointtest.Harness{
				New:  func(t *testing.T) *endpointtest.Rig { return w.newRig(t, consumer) },
				Keys: true, Headers: true, BinaryHeaders: true, Quiet: quiet,
			})
		})
	}
}

func (w site) endpoint(t *testing.T, s *Solace) *Solace {
	t.Helper()
	if s.URL == nil {
		s.URL = []string{w.url}
	}
	s.VPN = w.vpn
	if w.user != "" {
		s.Auth = &options.Auth{User: w.user, Password: w.password}
	}
	return provision(t, s)
}

// client connects the plain library.
func (w site) client(t *testing.T) api.MessagingService {
	t.Helper()
	svc, err := messaging.NewMessagingServiceBuilder().FromConfigurationProvider(w.properties()).Build()
	if err == nil {
		err = svc.Connect()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := svc.Disconnect(); err != nil {
			t.Error(err)
		}
	})
	return svc
}

// queue makes a queue with one topic, for the time of the test.
func (w site) queue(t *testing.T, svc api.MessagingService, name, topic string) {
	t.Helper()
	if err := svc.EndpointProvisioner().WithDurability(true).WithExclusiveAccess(false).Provision(name, true).GetError(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := svc.EndpointProvisioner().Deprovision(name, true); err != nil {
			t.Error(err)
		}
	})
	w.receiver(t, svc, name, topic)
}

// receiver subscribes a queue, and ends again.
func (site) receiver(t *testing.T, svc api.MessagingService, name, topic string) {
	t.Helper()
	r, err := svc.CreatePersistentMessageReceiverBuilder().WithSubscriptions(resource.TopicSubscriptionOf(topic)).
		Build(resource.QueueDurableNonExclusive(name))
	if err == nil {
		err = r.Start()
	}
	if err == nil {
		err = r.Terminate(0)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (w site) newRig(t *testing.T, consumer func(topic, queue string) *Consumer) *endpointtest.Rig {
	in, out := unique("in"), unique("out")
	svc := w.client(t)
	w.queue(t, svc, out, out)
	c := consumer(in+"/>", in)
	if c.Queue != "" {
		w.queue(t, svc, in, in+"/>")
	}
	build := func(t *testing.T, url string, c Consumer) endpoints.Endpoint {
		return w.endpoint(t, &Solace{URL: []string{url}, Producer: &Producer{Topics: []string{out}}, Consumer: &c})
	}
	producing := sync.OnceValue(func() api.PersistentMessagePublisher {
		p, err := svc.CreatePersistentMessagePublisherBuilder().Build()
		if err == nil {
			err = p.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Terminate(0) }) // with everything acknowledged
		return p
	})
	return &endpointtest.Rig{
		Endpoint: build(t, w.url, *c),
		Produce: func(t *testing.T, messages ...*message.Message) {
			for _, m := range messages {
				built, err := (&draft{}).build(svc.MessageBuilder(), m)
				if err == nil {
					err = producing().PublishAwaitAcknowledgement(built, resource.TopicOf(in+"/a"), 10*time.Second, nil)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		},
		Consume:     func(t *testing.T, n int) []*message.Message { return w.consume(t, svc, out, n) },
		Again:       func(t *testing.T) endpoints.Endpoint { return build(t, w.url, *c) },
		Unreachable: func(t *testing.T) endpoints.Endpoint { return build(t, "tcp://127.0.0.1:1", *c) },
	}
}

// consume takes the next n messages out of a queue.
func (site) consume(t *testing.T, svc api.MessagingService, queue string, n int) (all []*message.Message) {
	t.Helper()
	r, err := svc.CreatePersistentMessageReceiverBuilder().WithMessageClientAcknowledgement().Build(resource.QueueDurableNonExclusive(queue))
	if err == nil {
		err = r.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	for len(all) < n {
		in, err := r.ReceiveMessage(15 * time.Second)
		if err != nil {
			t.Fatalf("%d of %d messages came out of queue %s: %v", len(all), n, queue, err)
		}
		m := new(message.Message)
		decode(in, false, m)
		all = append(all, m)
		if err := r.Ack(in); err != nil {
			t.Fatal(err)
		}
		in.Dispose()
	}
	if err := r.Terminate(time.Second); err != nil {
		t.Fatal(err)
	}
	return all
}

// properties are how the plain library logs in.
func (w site) properties() config.ServicePropertyMap {
	return config.ServicePropertyMap{
		config.TransportLayerPropertyHost: w.url, config.ServicePropertyVPNName: cmp.Or(w.vpn, defaultVPN),
		config.AuthenticationPropertySchemeBasicUserName: cmp.Or(w.user, defaultUser),
		config.AuthenticationPropertySchemeBasicPassword: w.password,
		config.ServicePropertyGenerateSendTimestamps:     true,
	}
}
