// Package options holds what several endpoints say alike in their configuration: TLS,
// logins, addresses, and placeholders that are replaced when the configuration is loaded.
package options

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/caddyfile/parse"
)

// TLS is how connections to the broker are encrypted.
type TLS struct {
	// CAFile is a PEM file with the authorities that sign the brokers' certificates.
	// Default: those that the system trusts.
	CAFile string `json:"ca_file,omitempty"`
	// Cert and Key are PEM files by which the gateway identifies itself. Default: it
	// does not.
	Cert string `json:"cert,omitempty"`
	Key  string `json:"key,omitempty"`
	// ServerName is the name that the brokers' certificates must have. Default: the host
	// name of each broker's address.
	ServerName string `json:"server_name,omitempty"`
	// InsecureSkipVerify accepts any certificate. Everybody on the way can then read and
	// change everything: for experiments only.
	InsecureSkipVerify bool `json:"insecure_skip_verify,omitempty"`
}

// ParseTLS reads the option `tls` with its block, which may be missing: then the
// authorities that the system trusts are trusted.
func ParseTLS(into **TLS) parse.Option {
	return parse.Option{Name: "tls", Set: func(d *caddyfile.Dispenser) error {
		t := new(TLS)
		*into = t
		return parse.Nested("tls",
			parse.String("ca_file", &t.CAFile),
			parse.String("cert", &t.Cert),
			parse.String("key", &t.Key),
			parse.String("server_name", &t.ServerName),
			parse.Flag("insecure_skip_verify", &t.InsecureSkipVerify),
		).Set(d)
	}}
}

// Config reads the files. No TLS at all, which is nil, yields nil.
func (t *TLS) Config() (*tls.Config, error) {
	if t == nil {
		return nil, nil //nolint:nilnil // no TLS is no error
	}
	//nolint:gosec // the option says what it does
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName, InsecureSkipVerify: t.InsecureSkipVerify}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file: %s holds no certificate in PEM form", t.CAFile)
		}
	}
	if (t.Cert == "") != (t.Key == "") {
		return nil, errors.New("cert and key belong together: give both or neither")
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("cert and key: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// Auth is how the gateway logs in. User and password may be placeholders
// ({env.BROKER_PASSWORD}, {file./run/secrets/broker}), so that no secret stands in the
// configuration.
type Auth struct {
	User     string `json:"user,omitempty"`
	Password string `json:"password,omitempty"`
}

// ParseAuth reads the option `auth <user> <password>`.
func ParseAuth(into **Auth) parse.Option {
	return parse.Option{Name: "auth", Set: func(d *caddyfile.Dispenser) error {
		args := d.RemainingArgs()
		if len(args) != 2 {
			return d.Errf("option %q needs a user and a password", "auth")
		}
		*into = &Auth{User: args[0], Password: args[1]}
		return nil
	}}
}

// Resolve replaces the placeholders. No login at all, which is nil, yields nothing.
func (a *Auth) Resolve() (user, password string, err error) {
	if a == nil {
		return "", "", nil
	}
	if user, err = Secret(a.User); err != nil {
		return "", "", fmt.Errorf("user: %w", err)
	}
	if password, err = Secret(a.Password); err != nil {
		return "", "", fmt.Errorf("password: %w", err)
	}
	if user == "" || password == "" {
		return "", "", errors.New("user and password must not be empty")
	}
	return user, password, nil
}

// Secret replaces the placeholders of a text whose value is not to be told, or says which
// is unknown or empty. Files of secrets usually end with a newline that belongs to
// nobody's password, so that is cut off.
func Secret(text string) (string, error) {
	value, err := caddy.NewReplacer().ReplaceOrErr(text, true, true)
	return strings.TrimRight(value, "\r\n"), err
}

// Addresses replaces the placeholders in a list of addresses, in which a value may hold
// several with commas between.
func Addresses(list []string) ([]string, error) {
	var all []string
	repl := caddy.NewReplacer()
	for _, entry := range list {
		text, err := repl.ReplaceOrErr(entry, true, true)
		if err != nil {
			return nil, err
		}
		for address := range strings.SplitSeq(text, ",") {
			if address = strings.TrimSpace(address); address == "" {
				return nil, fmt.Errorf("an address in %q is empty", entry)
			}
			all = append(all, address)
		}
	}
	return all, nil
}

// Global replaces in place what environment and files say. What requests say is replaced
// for each of them, and stays.
func Global(texts ...*string) {
	repl := caddy.NewReplacer()
	for _, s := range texts {
		if strings.Contains(*s, "{env.") || strings.Contains(*s, "{file.") {
			*s = repl.ReplaceKnown(*s, "")
		}
	}
}

// Dynamic reports whether any of the texts has to be expanded for each request.
func Dynamic(texts ...string) bool {
	return slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(t, "{") })
}
