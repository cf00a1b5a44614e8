package egress

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// pair makes a certificate that signs itself, and its key.
func pair(name string) (certificate, key string) {
	private := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private))
	certificate = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	key = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(private))}))
	return certificate, key
}

func TestTLS(t *testing.T) {
	certificate, key := pair("receiver.internal")
	clientCertificate, clientKey := pair("gateway")
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM([]byte(clientCertificate))
	serve := func(most uint16) *httptest.Server {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		server.Config.ErrorLog = log.New(io.Discard, "", 0)
		server.TLS = &tls.Config{
			Certificates: []tls.Certificate{must(tls.X509KeyPair([]byte(certificate), []byte(key)))},
			ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: clients, MinVersion: tls.VersionTLS10, MaxVersion: most,
		}
		server.StartTLS()
		t.Cleanup(server.Close)
		return server
	}
	good := TLSOptions{CA: []string{clientCertificate, certificate}, Certificate: clientCertificate, Key: clientKey, ServerName: "receiver.internal"}
	for name, c := range map[string]struct {
		change func(*TLSOptions)
		most   uint16
		says   string
	}{
		"all":               {func(*TLSOptions) {}, 0, ""},
		"TLS 1.2":           {func(*TLSOptions) {}, tls.VersionTLS12, ""},
		"TLS 1.1":           {func(*TLSOptions) {}, tls.VersionTLS11, "protocol version"},
		"insecure":          {func(o *TLSOptions) { o.CA, o.ServerName, o.Insecure = nil, "", true }, 0, ""},
		"other server name": {func(o *TLSOptions) { o.ServerName = "other.internal" }, 0, "not other.internal"},
		"no server name":    {func(o *TLSOptions) { o.ServerName = "" }, 0, "127.0.0.1"},
		"system's CAs":      {func(o *TLSOptions) { o.CA = nil }, 0, "unknown authority"},
		"no certificate":    {func(o *TLSOptions) { o.Certificate, o.Key = "", "" }, tls.VersionTLS12, "remote error"},
	} {
		t.Run(name, func(t *testing.T) {
			server := serve(c.most)
			opt := good
			c.change(&opt)
			client := newClient(t, Options{Policy: Policy{Networks: networks("loopback")}, TLS: must(NewTLS(opt))})
			status, err := post(client, server.URL)
			switch {
			case c.says == "" && (err != nil || status != http.StatusOK):
				t.Errorf("%d, %v", status, err)
			case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
				t.Errorf("%d, %v, want %q", status, err, c.says)
			}
		})
	}
}

func TestTLSFlaws(t *testing.T) {
	certificate, key := pair("a")
	_, other := pair("b")
	for name, c := range map[string]struct {
		opt  TLSOptions
		says string
	}{
		"no PEM":         {TLSOptions{CA: []string{"/etc/ca.pem"}}, "ca: it holds no certificate"},
		"empty":          {TLSOptions{CA: []string{certificate, ""}}, "ca: it holds no certificate"},
		"a key":          {TLSOptions{CA: []string{certificate + key}}, "ca: it holds a \"PRIVATE KEY\""},
		"cut off":        {TLSOptions{CA: []string{certificate + certificate[:100]}}, "ca: it ends within a certificate"},
		"damaged":        {TLSOptions{CA: []string{string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("no DER")}))}}, "ca: it holds a certificate that is not understood"},
		"too long":       {TLSOptions{CA: []string{strings.Repeat(certificate, 200)}}, "are allowed"},
		"no key":         {TLSOptions{Certificate: certificate}, "come together"},
		"no certificate": {TLSOptions{Key: key}, "come together"},
		"other key":      {TLSOptions{Certificate: certificate, Key: other}, "client_certificate: "},
		"server name":    {TLSOptions{ServerName: "https://a"}, "server_name: "},
		"address":        {TLSOptions{ServerName: "127.0.0.1"}, "server_name: "},
	} {
		if _, err := NewTLS(c.opt); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}
