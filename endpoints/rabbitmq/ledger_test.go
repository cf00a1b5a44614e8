package rabbitmq

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// An acknowledgement of all up to a tag covers nothing that was not acknowledged, whatever
// the order.
func TestLedger(t *testing.T) {
	l := newLedger()
	steps := []struct {
		lend, ack, drop, want uint64
	}{
		{lend: 1}, {lend: 2}, {lend: 3}, {lend: 5}, // 4 is still on its way
		{ack: 2, want: 0},
		{ack: 5, want: 0},
		{ack: 1, want: 2},
		{drop: 3, want: 0}, // it was given back, which says nothing about others
		{lend: 4},
		{ack: 4, want: 5},
		{lend: 6}, {lend: 7},
		{ack: 6, want: 6},
		{drop: 7, want: 0},
	}
	for i, s := range steps {
		switch {
		case s.lend > 0:
			l.lend(s.lend)
			if !l.holds(s.lend) {
				t.Fatalf("step %d: %d is not held", i, s.lend)
			}
			continue
		case s.ack > 0:
			l.set(s.ack, acked)
		default:
			l.set(s.drop, over)
		}
		if got := l.advance(); got != s.want {
			t.Errorf("step %d: all up to %d, want %d", i, got, s.want)
		}
		if l.holds(s.ack) || l.holds(s.drop) {
			t.Errorf("step %d: it is still held", i)
		}
	}
	if l.base != 8 || len(l.slots) != 0 || l.holds(3) || l.holds(100) {
		t.Errorf("in the end it is %+v", l)
	}
}

// selfSigned makes a certificate, and returns where it lies.
func selfSigned(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "gateway"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, block := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: cert}, "key.pem": {Type: "EC PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
