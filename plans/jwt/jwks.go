package jwt

import (
	"crypto"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
)

// maxKeys is how many keys an issuer may have.
const maxKeys = 100

// parseJWKS reads a JSON Web Key Set. Keys that can't verify tokens are left out (RFC 7517
// §5), with the reasons.
func parseJWKS(body []byte) (set *keySet, leftOut []error, err error) {
	var document struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &document); err != nil {
		return nil, nil, fmt.Errorf("that is no JSON Web Key Set: %w", err)
	}
	if document.Keys == nil {
		return nil, nil, errors.New("that is no JSON Web Key Set: it has no keys")
	}
	if n := len(document.Keys); n > maxKeys {
		return nil, nil, fmt.Errorf("the key set has %d keys: at most %d are taken", n, maxKeys)
	}
	var keys []*key
	for i, raw := range document.Keys {
		k, err := parseJWK(raw)
		if err != nil {
			leftOut = append(leftOut, fmt.Errorf("key %d: %w", i, err))
			continue
		}
		if !slices.ContainsFunc(keys, k.same) {
			keys = append(keys, k)
		}
	}
	return newKeySet(keys), leftOut, nil
}

// parseJWK makes a key of a JSON Web Key.
func parseJWK(raw []byte) (*key, error) {
	var about struct {
		Type       string          `json:"kty"`
		Use        string          `json:"use"`
		Operations []string        `json:"key_ops"`
		Private    json.RawMessage `json:"d"`
	}
	if err := json.Unmarshal(raw, &about); err != nil {
		return nil, err
	}
	switch {
	case about.Type == "oct":
		return nil, errors.New("it is a secret, which is none when it stands at a URL")
	case about.Private != nil:
		return nil, errors.New("it is a private key, which anybody could sign with who has seen it here: replace it")
	case about.Use != "" && about.Use != "sig",
		about.Operations != nil && !slices.Contains(about.Operations, "verify"):
		return nil, errors.New("it is not for signatures")
	}
	var jwk jose.JSONWebKey
	if err := json.Unmarshal(raw, &jwk); err != nil {
		return nil, err
	}
	k, err := publicKey(jwk.KeyID, jwk.Key)
	if err != nil || jwk.Algorithm == "" {
		return k, err
	}
	alg := jose.SignatureAlgorithm(jwk.Algorithm)
	if !slices.Contains(k.algorithms, alg) {
		return nil, fmt.Errorf("it is for the algorithm %.40q, with which it can't verify signatures", jwk.Algorithm)
	}
	k.algorithms = []jose.SignatureAlgorithm{alg}
	return k, nil
}

// same says that another key is this one once more.
func (k *key) same(other *key) bool {
	equal, ok := k.material.(interface {
		Equal(other crypto.PublicKey) bool
	})
	return ok && k.id == other.id && equal.Equal(other.material) && slices.Equal(k.algorithms, other.algorithms)
}
