package brokers

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/caddy-message-api/caddy-message-api/test/brokers/kafka"
)

func TestKafkaKeepsWhatItAcknowledgedThroughKill(t *testing.T) {
	server := Kafka(t)
	topic := Topic(t, server.Addr(), 1)
	for round := range 3 {
		KcatProduce(t, server.Addr(), topic, fmt.Appendf(nil, "before kill %d\n", round))
		server.Kill()
		began := time.Now()
		server.Restart()
		t.Logf("accepts connections %v after kill -9", time.Since(began).Round(time.Millisecond))
	}
	records := KcatConsume(t, server.Addr(), topic)
	if len(records) != 3 {
		t.Fatalf("%d records after three kills, want 3: %v", len(records), records)
	}
	for round, record := range records {
		if want := fmt.Sprintf("before kill %d", round); string(record.Value) != want || record.Offset != int64(round) {
			t.Errorf("record %d is %q at offset %d, want %q", round, record.Value, record.Offset, want)
		}
	}
	if starts := strings.Count(server.Log(), "Kafka Server started"); starts != 4 {
		t.Errorf("its log tells of %d starts, want 4", starts)
	}
}

func TestKafkaStopsInOrder(t *testing.T) {
	server := Kafka(t)
	topic := Topic(t, server.Addr(), 1)
	KcatProduce(t, server.Addr(), topic, []byte("one\n"))
	server.Stop()
	if !strings.Contains(server.Log(), "SIGTERM") {
		t.Error("its log tells of no orderly end")
	}
	server.Restart()
	if records := KcatConsume(t, server.Addr(), topic); len(records) != 1 {
		t.Errorf("%d records after a restart, want 1", len(records))
	}
}

func TestProxiedKafka(t *testing.T) {
	server := Kafka(t)
	topic := Topic(t, server.Addr(), 1)
	proxy := server.Proxied()
	// kcat finds the broker by the metadata, so that it comes through or not at all.
	KcatProduce(t, proxy.Addr(), topic, []byte("through the proxy\n"))
	if records := KcatConsume(t, proxy.Addr(), topic); len(records) != 1 {
		t.Errorf("%d records through the proxy, want 1", len(records))
	}
	proxy.Refuse()
	if conn, err := net.Dial("tcp", proxy.Addr()); err == nil {
		_ = conn.Close()
		t.Error("a proxy that refuses let a client in")
	}
}

func TestKcatKeepsEveryByte(t *testing.T) {
	addr := SharedKafka(t).Plain
	topic := Topic(t, addr, 2)
	KcatProduce(t, addr, topic, []byte("key:value\n"), "-K:", "-p", "1", "-H", "a=1", "-H", "b=2")
	KcatProduce(t, addr, topic, []byte("key2:\n"), "-K:", "-Z", "-p", "1")
	binary := []byte{0, 0xff, '\r', 1, 0x80, ' ', 'x'}
	KcatProduce(t, addr, topic, append(bytes.Clone(binary), '\n'), "-p", "1")
	records := KcatConsume(t, addr, topic)
	if len(records) != 3 {
		t.Fatalf("%d records, want 3: %+v", len(records), records)
	}
	first, tombstone, last := records[0], records[1], records[2]
	if string(first.Key) != "key" || string(first.Value) != "value" || first.Headers != "a=1,b=2" || first.Partition != 1 {
		t.Errorf("first record: %+v", first)
	}
	if age := time.Since(first.Time); age < -time.Minute || age > time.Minute {
		t.Errorf("first record is %v old", age)
	}
	if string(tombstone.Key) != "key2" || tombstone.Value != nil {
		t.Errorf("tombstone: %+v", tombstone)
	}
	if last.Key != nil || !bytes.Equal(last.Value, binary) || last.Offset != 2 {
		t.Errorf("last record: %+v, want the value %v", last, binary)
	}
}

func TestSharedKafkaListeners(t *testing.T) {
	l := SharedKafka(t)
	topic := Topic(t, l.Plain, 1)
	KcatProduce(t, l.Plain, topic, []byte("x\n"))
	tls := []string{"-X", "ssl.ca.location=" + l.Certificates.CA}
	certificate := append(tls, "-X", "security.protocol=SSL",
		"-X", "ssl.certificate.location="+l.Certificates.ClientCert, "-X", "ssl.key.location="+l.Certificates.ClientKey)
	expectOne(t, KcatConsume(t, l.TLS, topic, certificate...))
	login := []string{
		"-X", "sasl.mechanism=PLAIN", "-X", "sasl.username=" + kafka.User, "-X", "sasl.password=" + kafka.Password,
	}
	expectOne(t, KcatConsume(t, l.SASL, topic, append(login, "-X", "security.protocol=SASL_PLAINTEXT")...))
	expectOne(t, KcatConsume(t, l.SASLTLS, topic, append(append(login, tls...), "-X", "security.protocol=SASL_SSL")...))
}

// librdkafka before 2.6.1, which Debian's kcat has, repeats a nonce that Kafka has checked
// since 3.9.1, so SCRAM needs another client.
func TestSharedKafkaTakesScram(t *testing.T) {
	l := SharedKafka(t)
	topic := Topic(t, l.Plain, 1)
	auth := scram.Auth{User: kafka.User, Pass: kafka.Password}
	for _, mechanism := range []sasl.Mechanism{auth.AsSha256Mechanism(), auth.AsSha512Mechanism()} {
		if err := topicMetadata(t, l.SASL, topic, kgo.SASL(mechanism)); err != nil {
			t.Errorf("%s: %v", mechanism.Name(), err)
		}
	}
	stranger := scram.Auth{User: kafka.Stranger, Pass: kafka.Password}.AsSha256Mechanism()
	if err := topicMetadata(t, l.SASL, topic, kgo.SASL(stranger)); !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Errorf("the stranger gets %v, want to be denied the topic", err)
	}
	wrong := scram.Auth{User: kafka.User, Pass: "guess"}.AsSha256Mechanism()
	if err := topicMetadata(t, l.SASL, topic, kgo.SASL(wrong)); !errors.Is(err, kerr.SaslAuthenticationFailed) {
		t.Errorf("a wrong password gets %v, want to be refused", err)
	}
}

func topicMetadata(t *testing.T, addr, topic string, options ...kgo.Opt) error {
	t.Helper()
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(addr), kgo.RequestRetries(0))...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	request := kmsg.NewPtrMetadataRequest()
	asked := kmsg.NewMetadataRequestTopic()
	asked.Topic = &topic
	request.Topics = append(request.Topics, asked)
	response, err := request.RequestWith(t.Context(), client)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(response.Topics[0].ErrorCode)
}

func expectOne(t *testing.T, records []KcatRecord) {
	t.Helper()
	if len(records) != 1 || string(records[0].Value) != "x" {
		t.Errorf("records %+v, want the one", records)
	}
}

func TestTopicAdministration(t *testing.T) {
	addr := SharedKafka(t).Plain
	topic := Topic(t, addr, 1, "cleanup.policy=delete")
	KcatProduce(t, addr, topic, []byte("a\nb\nc\n"))
	DeleteRecords(t, addr, topic, 0, 2)
	AddPartitions(t, addr, topic, 3)
	KcatProduce(t, addr, topic, []byte("d\n"), "-p", "2")
	var got []string
	for _, r := range KcatConsume(t, addr, topic) {
		got = append(got, fmt.Sprintf("%d/%d=%s", r.Partition, r.Offset, r.Value))
	}
	if s := strings.Join(got, " "); s != "0/2=c 2/0=d" && s != "2/0=d 0/2=c" {
		t.Errorf("records %s, want 0/2=c and 2/0=d", s)
	}
	if err := DeleteTopic(addr, topic); err != nil {
		t.Error(err)
	}
	if err := DeleteTopic(addr, topic); err != nil {
		t.Errorf("deleting it again: %v", err)
	}
}
