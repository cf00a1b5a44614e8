package servicebustest

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Descriptors of performatives, sections, delivery states, termini and errors.
const (
	codeOpen        = 0x10
	codeBegin       = 0x11
	codeAttach      = 0x12
	codeFlow        = 0x13
	codeTransfer    = 0x14
	codeDisposition = 0x15
	codeDetach      = 0x16
	codeEnd         = 0x17
	codeClose       = 0x18
	codeError       = 0x1d
	codeAccepted    = 0x24
	codeRejected    = 0x25
	codeReleased    = 0x26
	codeModified    = 0x27
	codeSource      = 0x28
	codeTarget      = 0x29
	codeMechanisms  = 0x40
	codeSASLInit    = 0x41
	codeOutcome     = 0x44

	frameAMQP = 0
	frameSASL = 1

	// maxFrame is what the service announces as max-frame-size, and the most that is read.
	maxFrame = 64 << 10
	// minMaxFrame is the smallest max-frame-size that a peer may announce.
	minMaxFrame = 512
	// transferRoom is what a transfer's frame needs beside its payload.
	transferRoom = 128
)

// frame is one frame as read; body is valid until the next read.
type frame struct {
	kind    byte
	channel uint16
	body    []byte // nil: a heartbeat
}

// frameReader reads frames of at most maxFrame bytes into a buffer of its own.
type frameReader struct {
	r   *bufio.Reader
	buf []byte
}

func (fr *frameReader) next() (frame, error) {
	var head [8]byte
	if _, err := io.ReadFull(fr.r, head[:]); err != nil {
		return frame{}, err
	}
	size, offset := binary.BigEndian.Uint32(head[:]), uint32(head[4])*4
	if size < 8 || size > maxFrame {
		return frame{}, protocolError("amqp:connection:framing-error", "frame of %d bytes, allowed are 8 to %d", size, maxFrame)
	}
	if offset < 8 || offset > size {
		return frame{}, protocolError("amqp:connection:framing-error", "data offset %d in a frame of %d bytes", offset, size)
	}
	n := int(size) - 8
	if cap(fr.buf) < n {
		fr.buf = make([]byte, max(n, 4096))
	}
	body := fr.buf[:n]
	if _, err := io.ReadFull(fr.r, body); err != nil {
		return frame{}, err
	}
	f := frame{kind: head[5], channel: binary.BigEndian.Uint16(head[6:])}
	if body = body[offset-8:]; len(body) > 0 {
		f.body = body
	}
	return f, nil
}

// wireError is an AMQP error: a condition and what a human is told.
type wireError struct{ condition, description string }

func (e *wireError) Error() string { return e.condition + ": " + e.description }

func protocolError(condition, format string, args ...any) *wireError {
	return &wireError{condition, fmt.Sprintf(format, args...)}
}

// asWireError makes any error one that can be sent.
func asWireError(err error) *wireError {
	var we *wireError
	if errors.As(err, &we) {
		return we
	}
	return &wireError{"amqp:decode-error", err.Error()}
}

func appendError(b []byte, e *wireError) []byte {
	if e == nil {
		return appendNull(b)
	}
	b, mark := openComposite(b, codeError)
	b = appendString(appendSymbol(b, symbol(e.condition)), e.description)
	return closeCompound(appendNull(b), mark, 3) // Python's client looks at all three fields
}

// openFrame begins a frame with a performative; closeFrame fills in sizes and count.
func openFrame(b []byte, kind byte, channel uint16, code byte) (_ []byte, start, mark int) {
	start = len(b)
	b = append(b, 0, 0, 0, 0, 2, kind)
	b = binary.BigEndian.AppendUint16(b, channel)
	b, mark = openComposite(b, code)
	return b, start, mark
}

func closeFrame(b []byte, start, mark, count int, payload []byte) []byte {
	b = append(closeCompound(b, mark, count), payload...)
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start))
	return b
}

// heartbeat is a frame without body.
var heartbeat = []byte{0, 0, 0, 8, 2, 0, 0, 0}
