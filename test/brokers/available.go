package brokers

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/test/brokers/kafka"
	"github.com/caddy-message-api/caddy-message-api/test/brokers/mosquitto"
	"github.com/caddy-message-api/caddy-message-api/test/brokers/server"
)

// broker is a kind of broker, and what is said where it is missing.
type broker struct {
	name string
	// without is the variable that is 1 where tests do without it.
	without string
	// needs is what its start needs.
	needs string
}

var (
	apacheKafka     = broker{"Apache Kafka", "MESSAGE_API_NO_KAFKA", "Java 17 and Maven"}
	rabbitMQ        = broker{"RabbitMQ", "MESSAGE_API_NO_RABBITMQ", "Debian's rabbitmq-server and amqp-tools"}
	mosquittoBroker = broker{"Mosquitto", "MESSAGE_API_NO_MOSQUITTO", "Debian's mosquitto and mosquitto-clients"}
	redisServer     = broker{"Redis", "MESSAGE_API_NO_REDIS", "Debian's redis-server"}
)

func (b broker) isForgone() bool { return os.Getenv(b.without) == "1" }

// WithoutKafka says that MESSAGE_API_NO_KAFKA=1 is set: tests that need Apache Kafka are
// skipped, be it there or not.
func WithoutKafka() bool { return apacheKafka.isForgone() }

// WithoutRabbitMQ says the same of MESSAGE_API_NO_RABBITMQ=1.
func WithoutRabbitMQ() bool { return rabbitMQ.isForgone() }

// WithoutMosquitto says the same of MESSAGE_API_NO_MOSQUITTO=1.
func WithoutMosquitto() bool { return mosquittoBroker.isForgone() }

// SharedKafka returns the addresses of the Apache Kafka that all packages share: the one
// that scripts/kafka.sh keeps. Tests use topics and groups of their own there (Topic), and
// do no harm to it; those that must start their own with Kafka.
func SharedKafka(t testing.TB) kafka.Listeners {
	t.Helper()
	skipWithout(t, apacheKafka)
	return kafka.Listeners{
		Plain: fromEnvironment(t, apacheKafka, "KAFKA_ADDR"),
		SASL:  os.Getenv("KAFKA_SASL_ADDR"), TLS: os.Getenv("KAFKA_TLS_ADDR"),
		SASLTLS: os.Getenv("KAFKA_SASL_TLS_ADDR"), Certificates: server.CertificatesIn(os.Getenv("KAFKA_CERTS")),
	}
}

// SharedMosquitto returns the addresses of the Mosquitto that all packages share: the one
// that scripts/mosquitto.sh keeps. Tests use topics of their own there (UniqueName), and do
// no harm to it; those that must start their own with Mosquitto.
func SharedMosquitto(t testing.TB) mosquitto.Listeners {
	t.Helper()
	skipWithout(t, mosquittoBroker)
	return mosquitto.Listeners{
		Plain: fromEnvironment(t, mosquittoBroker, "MQTT_ADDR"),
		TLS:   os.Getenv("MQTT_TLS_ADDR"), MutualTLS: os.Getenv("MQTT_MTLS_ADDR"),
		WS: os.Getenv("MQTT_WS_ADDR"), WSS: os.Getenv("MQTT_WSS_ADDR"), Auth: os.Getenv("MQTT_AUTH_ADDR"),
		Certificates: server.CertificatesIn(os.Getenv("MQTT_CERTS")),
	}
}

// jars finds the directory of Kafka's jars: KAFKA_LIBS, or .brokers/kafka/libs in the
// module's root.
func jars(t testing.TB) string {
	t.Helper()
	skipWithout(t, apacheKafka)
	if _, err := kafka.FindJava(); err != nil {
		missing(t, apacheKafka, err.Error())
	}
	libs := os.Getenv("KAFKA_LIBS")
	if libs == "" {
		root, err := moduleRoot()
		if err != nil {
			t.Fatal(err)
		}
		libs = filepath.Join(root, ".brokers", "kafka", "libs")
	}
	if !kafka.HasJars(libs) {
		missing(t, apacheKafka, "the jars of Apache Kafka are not in "+libs)
	}
	return libs
}

func skipWithout(t testing.TB, b broker) {
	t.Helper()
	if b.isForgone() {
		t.Skipf("NOT RUN on %s: %s=1", b.name, b.without)
	}
}

func fromEnvironment(t testing.TB, b broker, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		missing(t, b, name+" is not set: no shared "+b.name)
	}
	return value
}

// missing ends a test that has not what it needs.
func missing(t testing.TB, b broker, what string) {
	t.Helper()
	if b.isForgone() {
		t.Skipf("NOT RUN (%s=1): %s", b.without, what)
	}
	t.Fatalf("%s: run `make brokers-up` (it needs %s) and export what it prints, or set %s=1 to do without %s",
		what, b.needs, b.without, b.name)
}

// moduleRoot is the nearest directory above the test's that holds a go.mod.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = parent
	}
}
