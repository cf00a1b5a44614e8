//go:build linux

package kafka

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/caddy-message-api/caddy-message-api/bench/load"
	"github.com/caddy-message-api/caddy-message-api/bench/plain"
)

// open opens a broker in this process.
func open(t *testing.T) *Broker {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	t.Setenv("KAFKA_ADDR", cluster.ListenAddrs()[0])
	b, err := Open(-1, 0)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.What, os.Getenv("KAFKA_ADDR")) {
		t.Errorf("the broker says it is %s", b.What)
	}
	return b
}

func TestPlainClients(t *testing.T) {
	b := open(t)
	topic, err := b.Topic("test")
	if err != nil {
		t.Fatal(err)
	}
	const filled = 1000
	if err := b.Fill(topic, filled); err != nil {
		t.Fatal(err)
	}
	total := filled
	for name, publish := range map[string]func(PublishArgs) (plain.Calls, error){"Write": Write, "Produce": Produce} {
		calls, err := publish(PublishArgs{Addr: b.Addr, Topic: topic, Callers: 4, For: 50 * time.Millisecond})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(calls.Took) < 4 {
			t.Errorf("%s: only %d calls", name, len(calls.Took))
		}
		total += len(calls.Took)
	}
	took, err := Read(ReadArgs{Addr: b.Addr, Topic: topic, Messages: total})
	if err != nil || took <= 0 {
		t.Errorf("reading %d messages of %d bytes: %s, %v", total, load.Size, took, err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

func TestPublishToATopicThatIsNotThere(t *testing.T) {
	b := open(t)
	if _, err := Produce(PublishArgs{Addr: b.Addr, Topic: "nowhere", Callers: 1, For: time.Millisecond}); err == nil {
		t.Error("no error")
	}
}
