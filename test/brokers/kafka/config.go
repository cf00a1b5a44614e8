package kafka

import (
	"bytes"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/caddy-message-api/caddy-message-api/test/brokers/server"
)

//go:embed server.properties.tmpl
var propertiesTemplate string

//go:embed log4j2.properties
var log4jProperties []byte

var properties = template.Must(template.New("server.properties").Parse(propertiesTemplate))

// Ports is how many consecutive ports a node uses.
const Ports = 7

// The places of the ports.
const (
	plainPort = iota
	controllerPort
	saslPort
	tlsPort
	saslTLSPort
	proxiedPort
	proxyPort
)

// Listeners are the addresses at which one node can be reached, and what is needed there.
type Listeners struct {
	// Plain needs nothing.
	Plain string
	// SASL needs User (or Stranger) and Password, by PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
	SASL string
	// TLS takes a client certificate when there is one.
	TLS string
	// SASLTLS is SASL in TLS.
	SASLTLS string
	// Certificates belong to TLS and SASLTLS.
	Certificates server.Certificates
}

// Listeners returns the node's addresses.
func (n Node) Listeners() Listeners {
	return Listeners{
		Plain: n.address(plainPort), SASL: n.address(saslPort), TLS: n.address(tlsPort),
		SASLTLS: n.address(saslTLSPort), Certificates: server.CertificatesIn(filepath.Join(n.Dir, "certs")),
	}
}

// Proxied returns the address of a listener whose clients are told to connect to proxy: a
// proxy that listens there stays between client and broker.
func (n Node) Proxied() (listener, proxy string) { return n.address(proxiedPort), n.address(proxyPort) }

func (n Node) address(port int) string { return server.Loopback(n.FirstPort + port) }

func (n Node) properties() string { return filepath.Join(n.Dir, "server.properties") }

func (n Node) writeConfiguration() error {
	if strings.ContainsAny(n.Dir, " ,\\\n") {
		return fmt.Errorf("%q: Kafka wants a directory without spaces, commas and backslashes", n.Dir)
	}
	var text bytes.Buffer
	port := func(place int) int { return n.FirstPort + place }
	err := properties.Execute(&text, map[string]any{
		"Dir": n.Dir, "User": User, "Stranger": Stranger, "Password": Password,
		"SASLListeners": []string{"saslplain", "sasltls"},
		"Plain":         port(plainPort), "Controller": port(controllerPort), "SASL": port(saslPort),
		"TLS": port(tlsPort), "SASLTLS": port(saslTLSPort), "Proxied": port(proxiedPort), "Proxy": port(proxyPort),
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(n.properties(), text.Bytes(), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(n.Dir, "log4j2.properties"), log4jProperties, 0o600)
}
