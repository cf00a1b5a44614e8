package jwt

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/go-jose/go-jose/v4"
)

const (
	leastRSA    = 2048 // bits
	mostRSA     = 8192 // bits: verifying with longer ones takes too long
	leastSecret = 32   // bytes: the output of SHA-256
)

var (
	rsaAlgorithms = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512}
	asymmetric    = append(slices.Clone(rsaAlgorithms), jose.ES256, jose.ES384, jose.ES512, jose.EdDSA)
	symmetric     = []jose.SignatureAlgorithm{jose.HS256, jose.HS384, jose.HS512}
)

// key verifies signatures of the algorithms that suit it, and of no other.
type key struct {
	id         string
	material   any // *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey; or []byte, a secret
	algorithms []jose.SignatureAlgorithm
}

// publicKey makes a key. Anything but a public key that is strong enough is an error, so
// that a secret never gets where public keys belong, nor the other way round.
func publicKey(id string, material any) (*key, error) {
	k := &key{id: id, material: material}
	switch m := material.(type) {
	case *rsa.PublicKey:
		if bits := m.N.BitLen(); bits < leastRSA || bits > mostRSA {
			return nil, fmt.Errorf("the RSA key has %d bits: %d to %d are taken", bits, leastRSA, mostRSA)
		}
		k.algorithms = rsaAlgorithms
	case *ecdsa.PublicKey:
		switch m.Curve {
		case elliptic.P256():
			k.algorithms = []jose.SignatureAlgorithm{jose.ES256}
		case elliptic.P384():
			k.algorithms = []jose.SignatureAlgorithm{jose.ES384}
		case elliptic.P521():
			k.algorithms = []jose.SignatureAlgorithm{jose.ES512}
		default:
			return nil, errors.New("the curve of the EC key is not P-256, P-384 or P-521")
		}
	case ed25519.PublicKey:
		k.algorithms = []jose.SignatureAlgorithm{jose.EdDSA}
	default:
		return nil, fmt.Errorf("%T is no public key of RSA, ECDSA or Ed25519", material)
	}
	return k, nil
}

// secretKey makes the key of a shared secret.
func secretKey(text string) (*key, error) {
	value, err := resolved(text)
	if err != nil {
		return nil, fmt.Errorf("secret: %w", err)
	}
	if strings.Contains(value, "-----BEGIN ") {
		return nil, errors.New("secret: that is a key in PEM form, which belongs under key: a public key is no secret, and whoever has it could make tokens")
	}
	k := &key{material: []byte(value)}
	for _, a := range []struct {
		name  jose.SignatureAlgorithm
		least int // RFC 7518 §3.2: the length of the hash
	}{{jose.HS256, leastSecret}, {jose.HS384, 48}, {jose.HS512, 64}} {
		if len(value) >= a.least {
			k.algorithms = append(k.algorithms, a.name)
		}
	}
	if len(k.algorithms) == 0 {
		return nil, fmt.Errorf("secret: it has %d bytes, and at least %d random ones are needed", len(value), leastSecret)
	}
	return k, nil
}

// pemKey makes the key of a public key or certificate in PEM form.
func pemKey(text string) (*key, error) {
	value, err := resolved(text)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	block, rest := pem.Decode([]byte(value))
	if block == nil {
		return nil, errors.New("key: that is no PEM text: give -----BEGIN PUBLIC KEY-----…, or {file.<path>} with it; an HMAC secret belongs under secret")
	}
	if next, _ := pem.Decode(rest); next != nil {
		return nil, errors.New("key: there is more than one key: give one; for several use jwks_url, or a plan each")
	}
	var material any
	switch block.Type {
	case "PUBLIC KEY":
		material, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		material, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var cert *x509.Certificate
		if cert, err = x509.ParseCertificate(block.Bytes); err == nil {
			material = cert.PublicKey
		}
	default:
		return nil, fmt.Errorf("key: that is a %.40q: give the public key, which the issuer can tell to everybody", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	k, err := publicKey("", material)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	return k, nil
}

// algorithm finds an algorithm by name, or says why it can't be chosen.
func algorithm(name string, possible []jose.SignatureAlgorithm) (jose.SignatureAlgorithm, error) {
	a := jose.SignatureAlgorithm(name)
	if slices.Contains(possible, a) {
		return a, nil
	}
	names := make([]string, len(possible))
	for i, p := range possible {
		names[i] = string(p)
	}
	why := "it does not suit the key"
	switch {
	case strings.EqualFold(name, "none"):
		why = "a token without a signature proves nothing"
	case slices.Contains(symmetric, a) && slices.Contains(symmetric, possible[0]):
		why = "the secret is too short for it"
	case slices.Contains(symmetric, a):
		why = "it is for secrets, and a public key is none"
	case !slices.Contains(asymmetric, a):
		why = "it is unknown"
	}
	return "", fmt.Errorf("algorithms: %q: %s; use %s", name, why, strings.Join(names, ", "))
}

// keySet are the keys of an issuer. It does not change.
type keySet struct {
	keys []*key
	byID map[string][]*key
}

func newKeySet(keys []*key) *keySet {
	s := &keySet{keys: keys, byID: make(map[string][]*key, len(keys))}
	for _, k := range keys {
		s.byID[k.id] = append(s.byID[k.id], k)
	}
	return s
}

var (
	errUnknownKey   = errors.New("no key of the issuer has this id")
	errWrongKey     = errors.New("the key of this id is not for this algorithm")
	errAmbiguousKey = errors.New("more than one key of the issuer could be meant")
)

// find returns the one key that has the id, which may be empty for any, and is for the
// algorithm.
func (s *keySet) find(id string, alg jose.SignatureAlgorithm) (*key, error) {
	candidates := s.keys
	if id != "" {
		if candidates = s.byID[id]; len(candidates) == 0 {
			return nil, errUnknownKey
		}
	}
	var found *key
	for _, k := range candidates {
		if !slices.Contains(k.algorithms, alg) {
			continue
		}
		if found != nil {
			return nil, errAmbiguousKey
		}
		found = k
	}
	switch {
	case found != nil:
		return found, nil
	case id == "":
		return nil, errUnknownKey
	}
	return nil, errWrongKey
}

// resolved replaces the placeholders of a text. Files of secrets usually end with a newline
// that belongs to nobody's secret.
func resolved(text string) (string, error) {
	value, err := caddy.NewReplacer().ReplaceOrErr(text, true, true)
	return strings.TrimRight(value, "\r\n"), err
}
