package mosquitto

import (
	"bytes"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha512"
	_ "embed"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/caddy-message-api/caddy-message-api/test/brokers/server"
)

//go:embed mosquitto.conf.tmpl
var configurationTemplate string

var configuration = template.Must(template.New("mosquitto.conf").Parse(configurationTemplate))

// Ports is how many consecutive ports a node uses.
const Ports = 6

// The places of the ports.
const (
	plainPort = iota
	tlsPort
	mutualTLSPort
	wsPort
	wssPort
	authPort
)

// Listeners are the addresses at which one node can be reached, as host:port, and what is
// needed there.
type Listeners struct {
	// Plain needs nothing.
	Plain string
	// TLS wants no client certificate.
	TLS string
	// MutualTLS wants one.
	MutualTLS string
	// WS is for WebSockets, WSS for those in TLS. Both need nothing.
	WS, WSS string
	// Auth needs server.User and server.Password. server.Stranger may connect there, and
	// neither publish nor subscribe.
	Auth string
	// Certificates belong to TLS, MutualTLS and WSS.
	Certificates server.Certificates
}

// Listeners returns the node's addresses.
func (n Node) Listeners() Listeners {
	return Listeners{
		Plain: n.address(plainPort), TLS: n.address(tlsPort), MutualTLS: n.address(mutualTLSPort),
		WS: n.address(wsPort), WSS: n.address(wssPort), Auth: n.address(authPort),
		Certificates: server.CertificatesIn(filepath.Join(n.Dir, "certs")),
	}
}

func (n Node) address(port int) string { return server.Loopback(n.FirstPort + port) }

func (n Node) configuration() string { return filepath.Join(n.Dir, "mosquitto.conf") }

func (n Node) writeConfiguration() error {
	if strings.ContainsAny(n.Dir, "\n") {
		return fmt.Errorf("%q: Mosquitto wants a directory without line ends", n.Dir)
	}
	var text bytes.Buffer
	port := func(place int) int { return n.FirstPort + place }
	err := configuration.Execute(&text, map[string]any{
		"Dir": n.Dir, "Volatile": n.Volatile, "Root": os.Getuid() == 0, "Certs": n.Listeners().Certificates,
		"Plain": port(plainPort), "TLS": port(tlsPort), "MutualTLS": port(mutualTLSPort),
		"WS": port(wsPort), "WSS": port(wssPort), "Auth": port(authPort),
	})
	if err != nil {
		return err
	}
	passwords, err := passwordFile(server.User, server.Stranger)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"mosquitto.conf": text.Bytes(), "passwords": passwords,
		"acl": []byte("user " + server.User + "\ntopic readwrite #\n"),
	} {
		if err := os.WriteFile(filepath.Join(n.Dir, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// passwordFile is what mosquitto_passwd would make: PBKDF2 with SHA-512, in its own form.
func passwordFile(users ...string) ([]byte, error) {
	const iterations, keyLength = 101, 64
	var lines []byte
	for _, user := range users {
		salt := make([]byte, 12)
		if _, err := rand.Read(salt); err != nil {
			return nil, err
		}
		key, err := pbkdf2.Key(sha512.New, server.Password, salt, iterations, keyLength)
		if err != nil {
			return nil, err
		}
		b64 := base64.StdEncoding
		lines = fmt.Appendf(lines, "%s:$7$%d$%s$%s\n", user, iterations, b64.EncodeToString(salt), b64.EncodeToString(key))
	}
	return lines, nil
}
