package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Certificates are the files of a certificate authority made for one broker.
type Certificates struct {
	// Dir is where the files are.
	Dir string
	// CA is the authority's certificate, which clients must trust.
	CA string
	// ClientCert and ClientKey identify a client as User.
	ClientCert, ClientKey string
	// ServerCert is the broker's own chain, ServerKey its key, and ServerKeystore both in
	// one file.
	ServerCert, ServerKey, ServerKeystore string
}

// CertificatesIn names the files of a directory that MakeCertificates has filled.
func CertificatesIn(dir string) Certificates {
	in := func(name string) string { return filepath.Join(dir, name) }
	return Certificates{
		Dir: dir,
		CA:  in("ca.pem"), ClientCert: in("client.pem"), ClientKey: in("client-key.pem"),
		ServerCert: in("server.pem"), ServerKey: in("server-key.pem"), ServerKeystore: in("server-keystore.pem"),
	}
}

// MakeCertificates writes a new authority, a server certificate for localhost and a client
// certificate into dir, unless they are there.
func MakeCertificates(dir string) error {
	files := CertificatesIn(dir)
	if _, err := os.Stat(files.ClientKey); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	ca := certificate("Test CA")
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	authority, err := issue(ca, nil)
	if err != nil {
		return err
	}
	server := certificate("localhost")
	server.DNSNames = []string{"localhost"}
	server.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	broker, err := issue(server, authority)
	if err != nil {
		return err
	}
	user := certificate(User)
	user.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	client, err := issue(user, authority)
	if err != nil {
		return err
	}
	chain := slices.Concat(broker.certPEM, authority.certPEM)
	for _, file := range []struct {
		name    string
		content []byte
	}{
		{files.CA, authority.certPEM},
		{files.ServerCert, chain},
		{files.ServerKey, broker.keyPEM},
		{files.ServerKeystore, slices.Concat(broker.keyPEM, chain)},
		{files.ClientCert, client.certPEM},
		{files.ClientKey, client.keyPEM}, // the last: where it is, all are
	} {
		if err := os.WriteFile(file.name, file.content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func certificate(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, SerialNumber: big.NewInt(time.Now().UnixNano()),
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
}

type issued struct {
	cert            *x509.Certificate
	key             *ecdsa.PrivateKey
	certPEM, keyPEM []byte
}

// issue signs cert with by's key, or with its own when by is nil.
func issue(cert *x509.Certificate, by *issued) (*issued, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key for %s: %w", cert.Subject.CommonName, err)
	}
	parent, signer := cert, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, fmt.Errorf("signing the certificate of %s: %w", cert.Subject.CommonName, err)
	}
	signed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return &issued{
		cert: signed, key: key,
		certPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		keyPEM:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
	}, nil
}
