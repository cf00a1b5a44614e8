package rabbitmq

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/caddy-message-api/caddy-message-api/test/brokers/server"
)

//go:embed rabbitmq.conf.tmpl
var configurationTemplate string

var configuration = template.Must(template.New("rabbitmq.conf").Parse(configurationTemplate))

// advanced has what the other file can't say: quorum queues and streams tell their numbers
// every 200 ms too, instead of every five seconds.
const advanced = "[{rabbit, [{quorum_tick_interval, 200}, {stream_tick_interval, 200}]}].\n"

// Admin is the user who may do everything, at the management API too, and AdminPassword
// is the password. They are what a RabbitMQ has by itself.
const (
	Admin         = "guest"
	AdminPassword = "guest"
)

// Ports is how many consecutive ports a node uses.
const Ports = 5

// The places of the ports.
const (
	plainPort = iota
	tlsPort
	managementPort
	distributionPort
	epmdPort
)

// Listeners are the addresses at which one node can be reached, and what is needed there.
// Besides Admin they know server.User, who may do everything, and server.Stranger, who may
// log in at the virtual host "/" and is denied everything else there.
type Listeners struct {
	// Plain needs user and password, as host:port.
	Plain string
	// TLS needs them too, or a client certificate with SASL EXTERNAL.
	TLS string
	// API is the URL of the management HTTP API, without path.
	API string
	// Certificates belong to TLS.
	Certificates server.Certificates
}

// Listeners returns the node's addresses.
func (n Node) Listeners() Listeners {
	return Listeners{
		Plain: n.address(plainPort), TLS: n.address(tlsPort), API: "http://" + n.address(managementPort),
		Certificates: server.CertificatesIn(filepath.Join(n.Dir, "certs")),
	}
}

func (n Node) address(port int) string { return server.Loopback(n.FirstPort + port) }

func (n Node) writeConfiguration() error {
	if strings.ContainsAny(n.Dir, " \t\"'#\\\n") {
		return fmt.Errorf("%q: RabbitMQ wants a directory without spaces, quotes, # and backslashes", n.Dir)
	}
	var text bytes.Buffer
	err := configuration.Execute(&text, map[string]any{
		"Dir": n.Dir, "Certs": n.Listeners().Certificates, "Plain": n.FirstPort + plainPort,
		"TLS": n.FirstPort + tlsPort, "Management": n.FirstPort + managementPort,
	})
	if err != nil {
		return err
	}
	definitions, err := json.Marshal(definitions())
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"rabbitmq.conf": text.Bytes(), "definitions.json": definitions,
		"enabled_plugins": []byte("[rabbitmq_management,rabbitmq_auth_mechanism_ssl].\n"),
		"advanced.config": []byte(advanced),
	} {
		if err := os.WriteFile(n.file(name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (n Node) file(name string) string { return filepath.Join(n.Dir, name) }

// definitions are the users and what they may do in the virtual host "/", in the form of
// RabbitMQ's definition files.
func definitions() map[string]any {
	type object = map[string]any
	user := func(name, password string, tags ...string) object {
		return object{
			"name": name, "password_hash": passwordHash(password),
			"hashing_algorithm": "rabbit_password_hashing_sha256", "tags": append([]string{}, tags...),
		}
	}
	may := func(name, what string) object {
		return object{"user": name, "vhost": "/", "configure": what, "write": what, "read": what}
	}
	return object{
		"vhosts": []object{{"name": "/"}},
		"users": []object{
			user(Admin, AdminPassword, "administrator"),
			user(server.User, server.Password),
			user(server.Stranger, server.Password),
		},
		"permissions": []object{may(Admin, ".*"), may(server.User, ".*"), may(server.Stranger, "^$")},
	}
}

// passwordHash is RabbitMQ's: salt, then SHA-256 of salt and password.
func passwordHash(password string) string {
	salt := make([]byte, 4)
	_, _ = rand.Read(salt) // never fails
	sum := sha256.Sum256(append(slices.Clone(salt), password...))
	return base64.StdEncoding.EncodeToString(append(salt, sum[:]...))
}
