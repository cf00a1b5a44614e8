//go:build cgo && (linux || darwin)

package solace

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/caddy-message-api/caddy-message-api/endpoints/endpointtest"
	"github.com/caddy-message-api/caddy-message-api/endpoints/solace/smftest"
)

func promises(t *testing.T, options smftest.Options, consumer func(topic, queue string) *Consumer) {
	options.RejectNoMatch = true
	b := startBroker(t, options)
	endpointtest.Run(t, endpointtest.Harness{
		New: func(t *testing.T) *endpointtest.Rig {
			b.OnFault(nil)
			return b.newRig(t, consumer)
		},
		Keys: true, Headers: true, BinaryHeaders: true,
		Ignore: []goleak.Option{goleak.IgnoreAnyFunction(
			"github.com/caddy-message-api/caddy-message-api/endpoints/solace/smftest.(*Server).accept")},
	})
}

func ofTopics(topic, _ string) *Consumer {
	return &Consumer{Topics: []string{topic}, DeadLetter: true}
}

func ofAQueue(_, queue string) *Consumer {
	return &Consumer{Queue: queue, Shared: true, DeadLetter: true}
}

func TestPromisesOfTopics(t *testing.T) { promises(t, smftest.Options{}, ofTopics) }

// A broker may give new ids to what it delivers again, and acknowledge publishes in groups.
func TestPromisesOfTopicsAtAnotherBroker(t *testing.T) {
	if testing.Short() {
		t.Skip("NOT RUN with -short: the suite runs at the other kind of broker, and at both in make test")
	}
	promises(t, smftest.Options{RenumberAfterRebind: true, AckEvery: 16}, ofTopics)
}

func TestPromisesOfASharedQueue(t *testing.T) { promises(t, smftest.Options{AckEvery: 3}, ofAQueue) }
