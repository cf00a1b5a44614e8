package main

import (
	"fmt"
	"path/filepath"

	"github.com/caddy-message-api/caddy-message-api/test/brokers/kafka"
	"github.com/caddy-message-api/caddy-message-api/test/brokers/mosquitto"
	"github.com/caddy-message-api/caddy-message-api/test/brokers/rabbitmq"
)

// The first of their consecutive ports, outside the kernel's ephemeral range, so that
// nobody gets them by chance.
const (
	kafkaPort     = 19092
	rabbitMQPort  = 19672
	mosquittoPort = 19883
)

// find returns the shared broker of that name.
func find(dir, broker string) (shared, error) {
	dir = filepath.Join(dir, broker)
	node := filepath.Join(dir, "node")
	s := shared{pids: filepath.Join(dir, "pid"), script: "scripts/" + broker + ".sh"}
	switch broker {
	case "kafka":
		n := kafka.Node{Dir: node, Libs: filepath.Join(dir, "libs"), FirstPort: kafkaPort}
		s.node, s.firstPort, s.ports, s.variables = n, kafkaPort, kafka.Ports, kafkaVariables(n)
		s.installed = func() error {
			if !kafka.HasJars(n.Libs) {
				return fmt.Errorf("no jars in %s", n.Libs)
			}
			return nil
		}
	case "rabbitmq":
		n := rabbitmq.Node{Dir: node, FirstPort: rabbitMQPort}
		s.node, s.firstPort, s.ports, s.variables = n, rabbitMQPort, rabbitmq.Ports, rabbitMQVariables(n)
		s.installed = func() error { return installed(rabbitmq.FindProgram()) }
	case "mosquitto":
		n := mosquitto.Node{Dir: node, FirstPort: mosquittoPort}
		s.node, s.firstPort, s.ports, s.variables = n, mosquittoPort, mosquitto.Ports, mosquittoVariables(n)
		s.installed = func() error { return installed(mosquitto.FindProgram()) }
	default:
		return shared{}, fmt.Errorf("%q is not a broker: use kafka, rabbitmq or mosquitto", broker)
	}
	s.dir = node
	return s, nil
}

func installed(_ string, err error) error { return err }

func kafkaVariables(n kafka.Node) [][2]string {
	l := n.Listeners()
	return [][2]string{
		{"KAFKA_ADDR", l.Plain}, {"KAFKA_SASL_ADDR", l.SASL}, {"KAFKA_TLS_ADDR", l.TLS},
		{"KAFKA_SASL_TLS_ADDR", l.SASLTLS}, {"KAFKA_CERTS", l.Certificates.Dir}, {"KAFKA_LIBS", n.Libs},
	}
}

func rabbitMQVariables(n rabbitmq.Node) [][2]string {
	l := n.Listeners()
	return [][2]string{
		{"RABBITMQ_ADDR", l.Plain}, {"RABBITMQ_TLS_ADDR", l.TLS}, {"RABBITMQ_API", l.API},
		{"RABBITMQ_CERTS", l.Certificates.Dir},
	}
}

func mosquittoVariables(n mosquitto.Node) [][2]string {
	l := n.Listeners()
	return [][2]string{
		{"MQTT_ADDR", l.Plain}, {"MQTT_TLS_ADDR", l.TLS}, {"MQTT_MTLS_ADDR", l.MutualTLS},
		{"MQTT_WS_ADDR", l.WS}, {"MQTT_WSS_ADDR", l.WSS}, {"MQTT_AUTH_ADDR", l.Auth},
		{"MQTT_CERTS", l.Certificates.Dir},
	}
}
