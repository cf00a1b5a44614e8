package load

import (
	"bytes"
	"encoding/binary"
)

const (
	// Marker stands once in every message, and nowhere else in what a server sends: not in
	// header fields, chunk sizes, SSE fields, cursors, JSON or the header of a frame of Size.
	Marker = '^'
	// Size is the length of a message in bytes.
	Size = 256
)

// Content is the message that is sent: text of Size bytes with one Marker.
func Content() []byte {
	content := bytes.Repeat([]byte("abcdefghijklmnopqrstuvwxyz012345"), Size/32)
	content[0] = Marker
	return content
}

// Count is how many messages stand in p.
func Count(p []byte) int { return bytes.Count(p, []byte{Marker}) }

// Frame is the WebSocket text frame by which a client sends content. Its mask is zero,
// which the protocol allows and saves the work.
func Frame(content []byte) []byte {
	const text, masked = 0x81, 0x80
	frame := []byte{text}
	if n := len(content); n <= 125 {
		frame = append(frame, masked|byte(n))
	} else {
		frame = binary.BigEndian.AppendUint16(append(frame, masked|126), uint16(n))
	}
	return append(append(frame, 0, 0, 0, 0), content...)
}
