package load

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	frameHeaderLen = 9
	maxWindow      = 1<<31 - 1
	firstWindow    = 1<<16 - 1
	// grantAt is after how much data the connection's window is filled up again; the
	// windows of the streams are too large to be used up.
	grantAt = 1 << 28
)

// h2 reads one HTTP/2 connection with one or more streams. It looks into the payload of
// DATA frames and answers what must be answered; nothing else is parsed.
type h2 struct {
	streams int // to wait for
	open    int // that have answered
	header  []byte
	left    int // of the current frame's payload
	kind    http2.FrameType
	flags   http2.Flags
	small   []byte // payload of a frame that is kept: all but DATA
	granted int
	out     []byte
}

// h2Request is what a client sends to open streams that GET a path.
func h2Request(authority, path string, accept string, streams int) ([]byte, error) {
	var out bytes.Buffer
	out.WriteString(http2.ClientPreface)
	framer := http2.NewFramer(&out, nil)
	err := framer.WriteSettings(
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: maxWindow})
	if err != nil {
		return nil, fmt.Errorf("http/2 settings: %w", err)
	}
	if err := framer.WriteWindowUpdate(0, maxWindow-firstWindow); err != nil {
		return nil, fmt.Errorf("http/2 window: %w", err)
	}
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for i := range streams {
		block.Reset()
		for _, f := range []hpack.HeaderField{
			{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"},
			{Name: ":authority", Value: authority}, {Name: ":path", Value: path},
			{Name: "accept", Value: accept},
		} {
			if err := enc.WriteField(f); err != nil {
				return nil, fmt.Errorf("http/2 header: %w", err)
			}
		}
		err := framer.WriteHeaders(http2.HeadersFrameParam{
			StreamID: uint32(2*i + 1), BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})
		if err != nil {
			return nil, fmt.Errorf("http/2 header: %w", err)
		}
	}
	return out.Bytes(), nil
}

func (h *h2) read(p []byte) (messages int, ready bool, err error) {
	h.out = h.out[:0]
	for len(p) > 0 {
		if h.left == 0 {
			n := min(frameHeaderLen-len(h.header), len(p))
			h.header = append(h.header, p[:n]...)
			p = p[n:]
			if len(h.header) < frameHeaderLen {
				break
			}
			h.begin()
		}
		n := min(h.left, len(p))
		if h.kind == http2.FrameData {
			messages += Count(p[:n])
			h.granted += n
		} else {
			h.small = append(h.small, p[:n]...)
		}
		p = p[n:]
		if h.left -= n; h.left == 0 {
			if err := h.end(); err != nil {
				return messages, false, err
			}
		}
	}
	if h.granted >= grantAt {
		h.out = appendFrame(h.out, http2.FrameWindowUpdate, 0, binary.BigEndian.AppendUint32(nil, uint32(h.granted)))
		h.granted = 0
	}
	return messages, h.open == h.streams, nil
}

func (h *h2) begin() {
	h.left = int(h.header[0])<<16 | int(h.header[1])<<8 | int(h.header[2])
	h.kind, h.flags = http2.FrameType(h.header[3]), http2.Flags(h.header[4])
	h.header, h.small = h.header[:0], h.small[:0]
}

// end looks at a frame that is complete.
func (h *h2) end() error {
	switch h.kind {
	case http2.FrameHeaders:
		const status200 = 0x88 // the static table's field, which Go's server sends first
		if len(h.small) == 0 || h.small[0] != status200 {
			return fmt.Errorf("http/2: the server's answer is not 200: %q", h.small)
		}
		h.open++
	case http2.FrameSettings:
		if !h.flags.Has(http2.FlagSettingsAck) {
			h.out = appendFrame(h.out, http2.FrameSettings, http2.FlagSettingsAck, nil)
		}
	case http2.FramePing:
		if !h.flags.Has(http2.FlagPingAck) {
			h.out = appendFrame(h.out, http2.FramePing, http2.FlagPingAck, h.small)
		}
	case http2.FrameRSTStream, http2.FrameGoAway:
		return fmt.Errorf("http/2: the server ended it: %s %q", h.kind, h.small)
	}
	return nil
}

func (h *h2) reply() []byte { return h.out }

// appendFrame appends a frame that belongs to the connection.
func appendFrame(dst []byte, kind http2.FrameType, flags http2.Flags, payload []byte) []byte {
	n := len(payload)
	dst = append(dst, byte(n>>16), byte(n>>8), byte(n), byte(kind), byte(flags), 0, 0, 0, 0)
	return append(dst, payload...)
}
