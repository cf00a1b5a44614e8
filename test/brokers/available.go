package brokers

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/test/brokers/kafka"
)

const howToGetKafka = "run `make brokers-up` (it needs Java 17 and Maven) and export what it prints, " +
	"or set MESSAGE_API_NO_KAFKA=1 to do without Apache Kafka"

// WithoutKafka says that MESSAGE_API_NO_KAFKA=1 is set: tests that need Apache Kafka are
// skipped, be it there or not.
func WithoutKafka() bool { return os.Getenv("MESSAGE_API_NO_KAFKA") == "1" }

// SharedKafka returns the addresses of the Apache Kafka that all packages share: the one
// that scripts/kafka.sh keeps. Tests use topics and groups of their own there (Topic), and
// do no harm to it; those that must start their own with Kafka.
func SharedKafka(t testing.TB) kafka.Listeners {
	t.Helper()
	skipWithoutKafka(t)
	addr := os.Getenv("KAFKA_ADDR")
	if addr == "" {
		missing(t, "KAFKA_ADDR is not set: no shared Apache Kafka")
	}
	certs := os.Getenv("KAFKA_CERTS")
	return kafka.Listeners{
		Plain: addr, SASL: os.Getenv("KAFKA_SASL_ADDR"), TLS: os.Getenv("KAFKA_TLS_ADDR"),
		SASLTLS: os.Getenv("KAFKA_SASL_TLS_ADDR"), Certificates: kafka.CertificatesIn(certs),
	}
}

// jars finds the directory of Kafka's jars: KAFKA_LIBS, or .brokers/kafka/libs in the
// module's root.
func jars(t testing.TB) string {
	t.Helper()
	skipWithoutKafka(t)
	if _, err := kafka.FindJava(); err != nil {
		missing(t, err.Error())
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
		missing(t, "the jars of Apache Kafka are not in "+libs)
	}
	return libs
}

func skipWithoutKafka(t testing.TB) {
	t.Helper()
	if WithoutKafka() {
		t.Skip("NOT RUN on Apache Kafka: MESSAGE_API_NO_KAFKA=1")
	}
}

// missing ends a test that has not what it needs.
func missing(t testing.TB, what string) {
	t.Helper()
	if WithoutKafka() {
		t.Skipf("NOT RUN (MESSAGE_API_NO_KAFKA=1): %s", what)
	}
	t.Fatalf("%s: %s", what, howToGetKafka)
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
