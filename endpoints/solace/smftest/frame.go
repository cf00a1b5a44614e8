package smftest

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The protocols that a frame may carry.
const (
	protoAssured   = 0x09
	protoKeepAlive = 0x0b
	protoClient    = 0x0c
	protoMessage   = 0x0d
	protoSubscribe = 0x0f
)

// Flags of the first byte of a frame, besides the version.
const (
	flagDiscarded   = 0x80
	flagEliding     = 0x40
	flagGuaranteed  = 0x10
	flagDMQEligible = 0x08
	frameVersion    = 3
)

const (
	frameHead = 12
	// maxFrame bounds a frame, and so what one client can make us allocate.
	maxFrame = 64 << 20
)

var errMalformed = errors.New("malformed frame")

// frame is one frame with its parameters and body still encoded. It owns its bytes.
type frame struct {
	flags  byte // of the first byte, without the version
	proto  byte // without the bits that say what to do when it is not understood
	class  byte // class of service, as it stands in the third byte
	ttl    byte
	params []byte
	body   []byte
}

// readFrame reads one frame.
func readFrame(r *bufio.Reader) (frame, error) {
	head, err := r.Peek(frameHead)
	if err != nil {
		if errors.Is(err, io.EOF) && len(head) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return frame{}, err
	}
	headLen, total := binary.BigEndian.Uint32(head[4:]), binary.BigEndian.Uint32(head[8:])
	switch {
	case head[0]&7 != frameVersion:
		return frame{}, fmt.Errorf("%w: version %d", errMalformed, head[0]&7)
	case headLen < frameHead || total < headLen || total > maxFrame:
		return frame{}, fmt.Errorf("%w: header of %d bytes in a frame of %d", errMalformed, headLen, total)
	}
	f := frame{flags: head[0] &^ 7, proto: head[1] & 0x3f, class: head[2], ttl: head[3]}
	if _, err := r.Discard(frameHead); err != nil {
		return frame{}, err
	}
	rest := make([]byte, total-frameHead)
	if _, err := io.ReadFull(r, rest); err != nil {
		return frame{}, fmt.Errorf("frame of %d bytes: %w", total, err)
	}
	f.params, f.body = rest[:headLen-frameHead:headLen-frameHead], rest[headLen-frameHead:]
	return f, nil
}

// beginFrame appends the head of a frame, whose parameters are appended next; endHeader
// and endFrame fill in the lengths. They return what they were given, grown.
func beginFrame(b []byte, flags, proto, class, ttl byte) []byte {
	return append(b, flags|frameVersion, 0x80|proto, class, ttl, 0, 0, 0, 0, 0, 0, 0, 0)
}

// endHeader says that the parameters of the frame at b[start:] end here.
func endHeader(b []byte, start int) {
	binary.BigEndian.PutUint32(b[start+4:], uint32(len(b)-start))
}

// endFrame says that the frame at b[start:] ends here.
func endFrame(b []byte, start int) {
	binary.BigEndian.PutUint32(b[start+8:], uint32(len(b)-start))
}

// The header parameters that we know.
const (
	paramPublisher   = 0x01
	paramPriority    = 0x03
	paramUser        = 0x06
	paramPassword    = 0x07
	paramResponse    = 0x08
	paramMode        = 0x10
	paramID          = 0x11
	paramPrevious    = 0x12
	paramRedelivered = 0x13
	paramSummary     = 0x16
	paramFlow        = 0x17
	paramTopic       = 0x18
	paramTTL         = 0x1c

	lightTag       = 0 // the tag by which an answer is matched to its question
	lightTopicAt   = 1 // where in the header the topic stands
	lightAckSoon   = 3
	lightweight    = 0x20
	lightHeadBytes = 1
)

// param is one header parameter.
type param struct {
	kind  byte
	light bool
	value []byte
	raw   []byte // with its own head
}

// nextParam splits the first parameter off; an empty rest and no error is the end.
func nextParam(b []byte) (p param, rest []byte, err error) {
	for len(b) > 0 && b[0] == 0 { // padding
		b = b[1:]
	}
	if len(b) == 0 {
		return param{}, nil, nil
	}
	if b[0]&lightweight != 0 {
		n := lightHeadBytes + int(b[0]&3)
		if len(b) < n {
			return param{}, nil, fmt.Errorf("%w: parameter %02x is cut short", errMalformed, b[0])
		}
		return param{kind: b[0] >> 2 & 7, light: true, value: b[1:n], raw: b[:n]}, b[n:], nil
	}
	value, n, err := lengthValue(b)
	if err != nil {
		return param{}, nil, err
	}
	return param{kind: b[0] & 0x1f, value: value, raw: b[:n]}, b[n:], nil
}

// lengthValue reads a value with a head of one byte and a length that counts head and
// itself: one byte, or 0 and four more.
func lengthValue(b []byte) (value []byte, n int, err error) {
	if len(b) < 2 {
		return nil, 0, fmt.Errorf("%w: parameter %02x is cut short", errMalformed, b[0])
	}
	head, size := 2, uint64(b[1])
	if size == 0 {
		if head = 6; len(b) < head {
			return nil, 0, fmt.Errorf("%w: parameter %02x is cut short", errMalformed, b[0])
		}
		size = uint64(binary.BigEndian.Uint32(b[2:]))
	}
	if size < uint64(head) || size > uint64(len(b)) {
		return nil, 0, fmt.Errorf("%w: parameter %02x says it has %d bytes", errMalformed, b[0], size)
	}
	return b[head:size], int(size), nil
}

// appendParam appends one value with a head and a length, as a frame's header and the
// control messages have them.
func appendParam(b []byte, head byte, value ...byte) []byte {
	if n := len(value) + 2; n <= 255 {
		b = append(b, head, byte(n))
	} else {
		b = append(b, head, 0)
		b = binary.BigEndian.AppendUint32(b, uint32(len(value)+6))
	}
	return append(b, value...)
}

func appendText(b []byte, head byte, text string) []byte {
	return appendParam(b, head, append([]byte(text), 0)...)
}

func append32(b []byte, head byte, n uint32) []byte {
	return binary.BigEndian.AppendUint32(append(b, head, 6), n)
}

func append64(b []byte, head byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, head, 10), n)
}

// status is a broker's answer.
type status struct {
	code int
	text string
}

var statusOK = status{200, "OK"}

func (s status) ok() bool { return s.code == 200 }

func (s status) append(b []byte) []byte {
	value := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(s.text)), uint32(s.code))
	return appendParam(b, paramResponse, append(value, s.text...)...)
}

// number reads an integer of whatever width.
func number(b []byte) uint64 {
	var n uint64
	for _, x := range b {
		n = n<<8 | uint64(x)
	}
	return n
}

// text reads a string that ends in a NUL, or does not.
func text(b []byte) string {
	if n := len(b); n > 0 && b[n-1] == 0 {
		b = b[:n-1]
	}
	return string(b)
}
