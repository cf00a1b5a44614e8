package envelope

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"hash"
	"strconv"
	"sync"
	"time"
)

const (
	signatureVersion = "v1,"
	signatureSize    = len(signatureVersion) + (sha256.Size+2)/3*4
)

// Sign returns the value of webhook-signature: "v1," and the base64 of the HMAC-SHA256 of
// "<id>.<Unix seconds>.<body>", once per secret, in their order and separated by blanks. It is
// empty without secrets. An Envelope signs the same with less work.
func Sign(id string, at time.Time, body []byte, secrets []Secret) string {
	return string(newSigners(secrets).append(nil, id, strconv.AppendInt(nil, at.Unix(), 10), body))
}

// signers sign with one secret each.
type signers []*signer

// signer keeps states that know the secret already: keying one costs two blocks of SHA-256 and
// some allocations.
type signer struct{ states sync.Pool }

// state has room for what is computed, because buffers that pass through an interface would be
// allocated each time.
type state struct {
	mac    hash.Hash
	prefix []byte
	sum    [sha256.Size]byte
}

func newSigners(secrets []Secret) signers {
	all := make(signers, len(secrets))
	for i, secret := range secrets {
		all[i] = &signer{states: sync.Pool{New: func() any {
			return &state{mac: hmac.New(sha256.New, secret), prefix: make([]byte, 0, 64)}
		}}}
	}
	return all
}

// append appends the signatures. The body is read once per secret and not copied.
func (all signers) append(dst []byte, id string, timestamp, body []byte) []byte {
	for i, s := range all {
		if i > 0 {
			dst = append(dst, ' ')
		}
		dst = s.append(dst, id, timestamp, body)
	}
	return dst
}

func (s *signer) append(dst []byte, id string, timestamp, body []byte) []byte {
	st := s.states.Get().(*state)
	st.prefix = append(append(st.prefix[:0], id...), '.')
	st.prefix = append(append(st.prefix, timestamp...), '.')
	st.mac.Write(st.prefix)
	st.mac.Write(body)
	dst = append(dst, signatureVersion...)
	dst = base64.StdEncoding.AppendEncode(dst, st.mac.Sum(st.sum[:0]))
	st.mac.Reset()
	s.states.Put(st)
	return dst
}
