package envelope

import (
	"crypto/rand"
	"encoding"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
)

const secretPrefix = "whsec_"

// The bounds of a secret in bytes, and the size of new ones.
const (
	MinSecret = 24
	MaxSecret = 64
	newSecret = 32
)

// Secret is a key that signs requests: 24 to 64 random bytes.
type Secret []byte

// secretEncoding takes only what every library of the receivers can read: Standard Webhooks
// says base64, and most of them insist on padding.
var secretEncoding = base64.StdEncoding.Strict()

// ParseSecret reads a secret in the form "whsec_<base64>". Its errors say what is wrong and
// never quote the text.
func ParseSecret(text string) (Secret, error) {
	switch {
	case text == "":
		return nil, errors.New("the secret is empty: it has the form whsec_<base64 of 24 to 64 random bytes>")
	case strings.ContainsAny(text, " \t\r\n"):
		return nil, errors.New("the secret contains white space: it has the form whsec_<base64>, in one piece")
	case strings.HasPrefix(text, "whsk_") || strings.HasPrefix(text, "whpk_"):
		return nil, errors.New("the secret is half of an asymmetric key pair (whsk_, whpk_): only symmetric secrets are supported, whsec_<base64>")
	}
	encoded, ok := strings.CutPrefix(text, secretPrefix)
	if !ok {
		return nil, errors.New("the secret does not begin with whsec_: it has the form whsec_<base64>")
	}
	raw, err := secretEncoding.DecodeString(encoded)
	if err != nil {
		return nil, errors.New("the secret is not base64: " + whyNotBase64(encoded))
	}
	if len(raw) < MinSecret || len(raw) > MaxSecret {
		return nil, fmt.Errorf("the secret has %d bytes: it needs %d to %d", len(raw), MinSecret, MaxSecret)
	}
	return raw, nil
}

// whyNotBase64 looks for what people do wrong.
func whyNotBase64(encoded string) string {
	switch {
	case strings.ContainsAny(encoded, "-_"):
		return "it is in the alphabet for URLs ('-' and '_'), and the standard one ('+' and '/') is wanted"
	case len(encoded)%4 != 0:
		return "its length after whsec_ is no multiple of 4, so something is missing; '=' at the end belongs to it"
	}
	return "after whsec_ come only A-Z, a-z, 0-9, '+' and '/', and '=' at the end"
}

// NewSecret makes a random secret of 32 bytes, as text.
func NewSecret() string {
	raw := make([]byte, newSecret)
	_, _ = rand.Read(raw) // it never fails: it ends the process instead
	return Secret(raw).Text()
}

// Text is the secret in the form that ParseSecret reads.
func (s Secret) Text() string { return secretPrefix + secretEncoding.EncodeToString(s) }

// String keeps the secret out of logs.
func (s Secret) String() string { return secretPrefix + "***" }

// Format does the same for all verbs, those for bytes included.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText does the same for JSON: who means the secret says Text.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Interface guards.
var (
	_ fmt.Formatter          = Secret(nil)
	_ encoding.TextMarshaler = Secret(nil)
)
