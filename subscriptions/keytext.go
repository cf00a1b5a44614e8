package subscriptions

import (
	"crypto/rand"
	"encoding/base32"
	"hash/crc32"
	"strings"
)

// A key is "cma_", 26 random characters (130 bits) and 6 characters of checksum, all of
// a-z2-7. The checksum is the first 30 bits of the CRC-32 (IEEE) of the 30 characters before
// it. By both, a scanner finds keys that leaked, and a typing error is told from a key that is
// unknown without a look at any key.
const (
	keyPrefix   = "cma_"
	keyRandom   = 26
	keyChecksum = 6
	keyLength   = len(keyPrefix) + keyRandom + keyChecksum
)

// The lengths of custom keys. Longer ones are refused before anything is computed.
const (
	minCustomKey = 16
	maxCustomKey = 128
)

// base32Lower is RFC 4648's alphabet in lower case.
var base32Lower = base32.NewEncoding(base32Alphabet).WithPadding(base32.NoPadding)

// newSecret makes a key.
func newSecret() string {
	var random [17]byte         // 136 bits: the first 26 of its characters are 130
	_, _ = rand.Read(random[:]) // never fails: it ends the process instead
	text := keyPrefix + base32Lower.EncodeToString(random[:])[:keyRandom]
	sum := checksum(text)
	return text + string(sum[:])
}

const base32Alphabet = "abcdefghijklmnopqrstuvwxyz234567"

func checksum(text string) (out [keyChecksum]byte) {
	sum := ^uint32(0)
	for i := range len(text) { // crc32.ChecksumIEEE would have a copy of the text on the heap
		sum = crc32.IEEETable[byte(sum)^text[i]] ^ sum>>8
	}
	sum = ^sum
	for i := range out {
		out[i] = base32Alphabet[sum>>27]
		sum <<= 5
	}
	return out
}

// WellFormed says that a text can be a key: one that was made here, with the right checksum,
// or a custom one of 16 to 128 of A-Z, a-z, 0-9, '.', '_', '~' and '-'. Whether anybody has
// it is another question.
func WellFormed(text string) bool {
	if strings.HasPrefix(text, keyPrefix) {
		if len(text) != keyLength || !allOf(text[len(keyPrefix):], base32Char) {
			return false
		}
		sum := checksum(text[:keyLength-keyChecksum])
		return string(sum[:]) == text[keyLength-keyChecksum:]
	}
	return len(text) >= minCustomKey && len(text) <= maxCustomKey && allOf(text, keyChar)
}

func base32Char(c byte) bool { return 'a' <= c && c <= 'z' || '2' <= c && c <= '7' }

func keyChar(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '.' || c == '_' || c == '~' || c == '-'
}

func allOf(text string, is func(byte) bool) bool {
	for i := range len(text) {
		if !is(text[i]) {
			return false
		}
	}
	return true
}

// customProblem says why a text can't be a custom key, or nothing. It does not quote it.
func customProblem(text string) string {
	switch {
	case strings.HasPrefix(text, keyPrefix):
		return "a key of your own cannot begin with " + keyPrefix
	case len(text) < minCustomKey || len(text) > maxCustomKey:
		return "a key has 16 to 128 characters"
	case !allOf(text, keyChar):
		return "a key consists of A-Z, a-z, 0-9, '.', '_', '~' and '-'"
	}
	return ""
}
