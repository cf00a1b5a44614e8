package subscriptions

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/json"
	"fmt"
)

// Sealed is a consumer configuration as it is stored: encrypted, and good for one subscription
// only.
type Sealed struct {
	// Key tells which key secret it was sealed under, and nothing about it. It is what
	// Key.HashedWith says of keys.
	Key string `json:"key"`
	// Data is the nonce and what AES-256-GCM made of the configuration.
	Data []byte `json:"data"`
}

// newAEAD makes what seals under a key that is derived from the secret: keys are hashed with
// the secret itself, and one key is for one purpose.
func newAEAD(secret []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, secret, nil, "message_api: consumer configurations of subscriptions", 32)
	if err != nil {
		return nil, fmt.Errorf("deriving the key for consumer configurations: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("the cipher for consumer configurations: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("the cipher for consumer configurations: %w", err)
	}
	return aead, nil
}

// seal seals the configuration of a subscription. The id is part of what is sealed, so that
// nobody who can write to the storage gives a configuration to another subscription.
func (h *hasher) seal(id string, whole json.RawMessage) (*Sealed, error) {
	aead, err := h.aead()
	if err != nil {
		return nil, err
	}
	return &Sealed{Key: h.name, Data: aead.Seal(nil, nil, whole, []byte(id))}, nil
}

// open opens what is sealed for a subscription. Its errors say what to do.
func (r *Registry) open(id string, s *Sealed) (json.RawMessage, error) {
	h := r.hasher.Load()
	switch {
	case s == nil:
		return nil, conflict("the subscription %q has no consumer configuration: give it one", clip(id))
	case h == nil:
		return nil, conflict("the consumer configuration of %q was sealed under the key secret %s, and there is no key secret here: "+
			"configure that one, or give the subscription its whole configuration anew", clip(id), clip(s.Key))
	case h.name != s.Key:
		return nil, conflict("the consumer configuration of %q was sealed under another key secret (%s) than the one in use (%s): "+
			"configure that one, or give the subscription its whole configuration anew", clip(id), clip(s.Key), h.name)
	}
	aead, err := h.aead()
	if err != nil {
		return nil, err
	}
	whole, err := aead.Open(nil, nil, s.Data, []byte(id))
	if err != nil {
		return nil, conflict("the consumer configuration of %q is damaged, or was made for another subscription: "+
			"import a backup of it, or give the subscription its whole configuration anew", clip(id))
	}
	return whole, nil
}

// bury drops what is secret of a subscription that is over.
func (s *Subscription) bury() { s.Sealed, s.Proposed, s.NewConsumer = nil, nil, nil }
