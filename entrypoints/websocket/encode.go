package websocket

import (
	"encoding/binary"
	"strconv"
	"unicode/utf8"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// The kinds of raw frames.
const (
	framesAuto   = "auto"
	framesText   = "text"
	framesBinary = "binary"
)

// First bytes of frames: FIN and the opcode.
const (
	textFrame   = 0x81
	binaryFrame = 0x82
	closeFrame  = 0x88
	pingFrame   = 0x89
	pongFrame   = 0x8A
)

// maxControl is the largest payload of a control frame (RFC 6455 §5.5).
const maxControl = 125

// appendHeader appends the header of an unmasked frame with n bytes of payload: what a
// server sends is not masked, which is why one frame can go to every client as it is.
func appendHeader(dst []byte, first byte, n int) []byte {
	switch {
	case n <= 125:
		return append(dst, first, byte(n))
	case n <= 0xFFFF:
		return binary.BigEndian.AppendUint16(append(dst, first, 126), uint16(n))
	default:
		return binary.BigEndian.AppendUint64(append(dst, first, 127), uint64(n))
	}
}

// beginText opens a text frame whose length is not known yet, and leaves the room that
// most headers take. endText closes it; at is what beginText returned.
func beginText(dst []byte) (_ []byte, at int) {
	return append(dst, textFrame, 0, 0, 0), len(dst)
}

const roomForHeader = 4

func endText(dst []byte, at int) []byte {
	n := len(dst) - at - roomForHeader
	var header [10]byte
	h := appendHeader(header[:0], textFrame, n)
	if shift := len(h) - roomForHeader; shift > 0 {
		dst = append(dst, header[:shift]...) // any bytes: they are overwritten
		copy(dst[at+len(h):], dst[at+roomForHeader:at+roomForHeader+n])
	} else if shift < 0 {
		copy(dst[at+len(h):], dst[at+roomForHeader:])
		dst = dst[:len(dst)+shift]
	}
	copy(dst[at:], h)
	return dst
}

// rawEncoder makes one frame of the payload and nothing else. Its value is the kind of frames.
type rawEncoder string

// Format implements entrypoints.Encoder.
func (k rawEncoder) Format() string { return "websocket/raw/" + string(k) }

// WantsCursor implements entrypoints.Encoder.
func (rawEncoder) WantsCursor() bool { return false }

// Append implements entrypoints.Encoder. A text frame must be UTF-8, or the client fails
// the connection; so other bytes never go into one.
func (k rawEncoder) Append(dst []byte, d *message.Delivery, _ []byte) []byte {
	first := byte(binaryFrame)
	if k != framesBinary && utf8.Valid(d.Payload) {
		first = textFrame
	}
	return append(appendHeader(dst, first, len(d.Payload)), d.Payload...)
}

// envelopeEncoder makes the message frames of the sub-protocol, without numbers: they are
// the same for every session and can be shared.
type envelopeEncoder struct{}

// Format implements entrypoints.Encoder.
func (envelopeEncoder) Format() string { return "websocket/" + Protocol }

// WantsCursor implements entrypoints.Encoder.
func (envelopeEncoder) WantsCursor() bool { return true }

const messagePrefix = `{"type":"message",`

// Append implements entrypoints.Encoder.
func (envelopeEncoder) Append(dst []byte, d *message.Delivery, cursor []byte) []byte {
	dst, at := beginText(dst)
	dst = append(dst, messagePrefix...)
	return endText(appendMessage(dst, d, cursor), at)
}

// appendNumbered appends the message frames that stand in frames, and gives each the
// number by which it is acknowledged, from seq on. It returns how many there were.
//
// An encoder makes bytes that sessions may share, and does not know where in a session a
// message stands; the burst does. So the number is put in here, and only for the levels
// that have one.
func appendNumbered(dst, frames []byte, seq uint64) (_ []byte, count int) {
	for ; len(frames) > 0; count++ {
		body := 2
		n := int(frames[1])
		switch n {
		case 126:
			n, body = int(binary.BigEndian.Uint16(frames[2:])), 4
		case 127:
			n, body = int(binary.BigEndian.Uint64(frames[2:])), 10
		}
		var number [32]byte
		member := append(strconv.AppendUint(append(number[:0], `"seq":`...), seq, 10), ',')
		dst = appendHeader(dst, textFrame, n+len(member))
		dst = append(dst, messagePrefix...)
		dst = append(dst, member...)
		dst = append(dst, frames[body+len(messagePrefix):body+n]...)
		frames = frames[body+n:]
		seq++
	}
	return dst, count
}

// appendMessage appends what a message frame tells after its type and number.
func appendMessage(dst []byte, d *message.Delivery, cursor []byte) []byte {
	dst = append(dst, `"id":`...)
	dst = message.AppendJSONString(dst, d.ID)
	dst = append(dst, ',')
	dst = message.AppendJSONContent(dst, d.Payload)
	dst = append(dst, `,"headers":`...)
	dst = message.AppendJSONHeaders(dst, d.Headers)
	dst = append(dst, `,"metadata":`...)
	dst = message.AppendJSONMetadata(dst, d.Metadata)
	if len(cursor) > 0 { // base64url: nothing to escape
		dst = append(append(dst, `,"cursor":"`...), cursor...)
		dst = append(dst, '"')
	}
	return append(dst, '}')
}

// Interface guards
var (
	_ entrypoints.Encoder = rawEncoder("")
	_ entrypoints.Encoder = envelopeEncoder{}
)
