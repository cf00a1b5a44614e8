package envelope

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"slices"
	"strings"

	"github.com/caddy-message-api/caddy-message-api/message"
)

const (
	idPrefix      = "msg_"
	contentPrefix = "sum_"
	// idDigits of base32 are 130 bits.
	idDigits = 26
	maxID    = 128
)

// What an identity stands on, so that none is ever equal to one of another kind.
const (
	byPosition = 'p'
	byName     = 'n'
	byContent  = 'c'
)

// Identify names a delivery. id is the webhook-id; fingerprint is how the message is known
// again when it comes again, also to another process.
//
// Receivers drop what comes under an id that they have seen, so an id that two messages share
// loses the second one. What id stands on is therefore, in this order:
//
//   - The position, where the endpoint has positions (Kafka, streams of RabbitMQ): channel,
//     partition, offset, and the time of the record, because a topic that was deleted and made
//     anew counts from 0 again. It is the broker's word, and no two messages share it.
//   - The id of the message with its lane, payload and key. That id is mostly the publisher's
//     word, and publishers are known to number from 1 after each start, or to write the same
//     word into every message. With the payload, messages that differ never share a
//     webhook-id. A publisher who sends a message again under its id, with the same content,
//     because he did not learn whether it had arrived, says that it is the same one, and
//     receivers are told so.
//   - Nothing, where there is neither: id is then random, and another one at each call. Two
//     messages that are equal to the last byte may both be meant (two ticks of a clock), so
//     equality is no reason to drop one. Here fingerprint, which otherwise equals id, is a hash
//     of lane, key, time, payload and headers, by which whoever keeps the id of a message that
//     failed finds it again. Equal messages share a fingerprint.
//
// Not part of it is what a broker changes from delivery to delivery: the attempt, metadata,
// and the headers in which RabbitMQ counts.
func Identify(api string, d *message.Delivery) (fingerprint, id string) {
	var stack [256]byte
	switch {
	case d.Mark != (message.Mark{}):
		b := identity(stack[:0], byPosition, api, d.Mark.Channel)
		b = binary.BigEndian.AppendUint32(b, uint32(d.Mark.Partition))
		b = binary.BigEndian.AppendUint64(b, uint64(d.Mark.Next))
		b = binary.BigEndian.AppendUint64(b, uint64(d.Mark.Time))
		id = digest(idPrefix, b)
		return id, id
	case d.ID != "":
		b := appendText(identity(stack[:0], byName, api, d.Lane), d.ID)
		sum := sha256.Sum256(d.Payload)
		id = digest(idPrefix, appendBytes(append(b, sum[:]...), d.Key))
		return id, id
	}
	b := identity(stack[:0], byContent, api, d.Lane)
	return digest(contentPrefix, appendContent(b, d.Message)), randomID()
}

// identity begins a hash. Lengths go before texts, or two could be read as one.
func identity(dst []byte, kind byte, api, scope string) []byte {
	return appendText(appendText(append(dst, kind), api), scope)
}

func appendText(dst []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(dst, uint32(len(s))), s...)
}

func appendBytes(dst, b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(dst, uint32(len(b))), b...)
}

func appendContent(dst []byte, m *message.Message) []byte {
	if !m.Time.IsZero() {
		dst = binary.BigEndian.AppendUint64(dst, uint64(m.Time.UnixNano()))
	}
	sum := sha256.Sum256(m.Payload)
	dst = appendBytes(append(dst, sum[:]...), m.Key)
	for i := range m.Headers {
		if h := &m.Headers[i]; !counts(h.Name) {
			dst = appendText(appendText(dst, h.Name), h.Value)
		}
	}
	return dst
}

// counts reports whether RabbitMQ changes the header when it delivers a message again.
func counts(header string) bool {
	switch header {
	case "x-death", "x-delivery-count", "x-acquired-count":
		return true
	}
	return strings.HasPrefix(header, "x-first-death-") || strings.HasPrefix(header, "x-last-death-")
}

func digest(prefix string, b []byte) string {
	sum := sha256.Sum256(b)
	return printable(prefix, &sum)
}

func randomID() string {
	var sum [sha256.Size]byte
	_, _ = rand.Read(sum[:17]) // it never fails: it ends the process instead
	return printable(idPrefix, &sum)
}

func printable(prefix string, sum *[sha256.Size]byte) string {
	var text [len(idPrefix) + 56]byte
	return string(base32.StdEncoding.AppendEncode(append(text[:0], prefix...), sum[:])[:len(prefix)+idDigits])
}

// checkID refuses what would make a signature ambiguous, or a header invalid. Ids that come
// back with dead letters were in the hands of others.
func checkID(id string) error {
	if id == "" || len(id) > maxID || slices.ContainsFunc([]byte(id), notOfID) {
		return errors.New("the webhook-id is not 1 to 128 of A-Z, a-z, 0-9, '_' and '-'")
	}
	return nil
}

func notOfID(c byte) bool {
	return (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-'
}
