package subscriptions

import (
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"sync"
	"time"
)

// minKeySecret is how long a configured secret must be, in bytes.
const minKeySecret = 32

// keyHash is what a key is known by.
type keyHash [sha256.Size]byte

// id names the key: half of its hash, which is as unique as the key and leads nobody back to
// it.
func (h keyHash) id() string { return base32Lower.EncodeToString(h[:16]) }

// hasher turns keys into hashes. A hash needs the secret, so what is in the store is of no use
// to try out keys against.
type hasher struct {
	// name tells secrets apart.
	name string
	pool sync.Pool
	// aead seals under a key that is derived from the secret, once somebody needs it.
	aead func() (cipher.AEAD, error)
}

// workspace is what one hash takes, kept so that a request allocates nothing.
type workspace struct {
	mac  hash.Hash
	text [maxCustomKey]byte
	sum  [sha256.Size]byte
}

func newHasher(secret []byte) *hasher {
	secret = append([]byte(nil), secret...)
	name := sha256.Sum256(append([]byte("name of the key secret\x00"), secret...))
	return &hasher{
		name: hex.EncodeToString(name[:8]),
		pool: sync.Pool{New: func() any { return &workspace{mac: hmac.New(sha256.New, secret)} }},
		aead: sync.OnceValues(func() (cipher.AEAD, error) { return newAEAD(secret) }),
	}
}

// hash computes the hash of a well-formed key.
func (h *hasher) hash(text string) (out keyHash) {
	w := h.pool.Get().(*workspace)
	n := copy(w.text[:], text)
	w.mac.Reset()
	w.mac.Write(w.text[:n])
	w.mac.Sum(w.sum[:0])
	out = w.sum
	clear(w.text[:n])
	h.pool.Put(w)
	return out
}

// storedSecret is the record of the secret.
type storedSecret struct {
	Secret    string    `json:"secret"`
	CreatedAt time.Time `json:"created_at"`
}

// newStoredSecret makes a secret of 32 random bytes.
func newStoredSecret(now time.Time) storedSecret {
	var random [minKeySecret]byte
	_, _ = rand.Read(random[:]) // never fails: it ends the process instead
	return storedSecret{Secret: base64.StdEncoding.EncodeToString(random[:]), CreatedAt: now}
}

// readSecret makes the hasher of a stored secret. Its errors do not quote it.
func readSecret(data json.RawMessage) (*hasher, error) {
	var stored storedSecret
	if err := json.Unmarshal(data, &stored); err != nil {
		return nil, fmt.Errorf("the stored key secret is damaged (%T)", err)
	}
	secret, err := base64.StdEncoding.DecodeString(stored.Secret)
	if err != nil || len(secret) < minKeySecret {
		return nil, fmt.Errorf("the stored key secret is damaged: it is not %d bytes in base64", minKeySecret)
	}
	return newHasher(secret), nil
}

func readHash(text string) (out keyHash, err error) {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(raw) != len(out) {
		return out, fmt.Errorf("the hash is not %d bytes in base64", len(out))
	}
	return keyHash(raw), nil
}
