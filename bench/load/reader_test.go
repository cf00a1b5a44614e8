package load

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

func TestContentHasOneMarker(t *testing.T) {
	content := Content()
	if len(content) != Size || Count(content) != 1 {
		t.Errorf("the content has %d bytes and %d markers", len(content), Count(content))
	}
	frame := Frame(content)
	if Count(frame) != 1 || !bytes.HasSuffix(frame, content) {
		t.Errorf("the frame is %q", frame)
	}
}

// feed gives a reader its bytes in pieces of a size.
func feed(t *testing.T, r reader, raw []byte, size int) (messages int, ready bool) {
	t.Helper()
	for piece := range chunks(raw, size) {
		n, now, err := r.read(piece)
		if err != nil {
			t.Fatalf("in pieces of %d: %v", size, err)
		}
		messages, ready = messages+n, now
	}
	return messages, ready
}

func chunks(raw []byte, size int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(raw) > 0 {
			n := min(size, len(raw))
			if !yield(raw[:n]) {
				return
			}
			raw = raw[n:]
		}
	}
}

func TestStreamIsCutAnywhere(t *testing.T) {
	raw := []byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
	for range 3 {
		event := fmt.Sprintf("event: message\ndata: %s\n\n", Content())
		raw = append(raw, fmt.Sprintf("%x\r\n%s\r\n", len(event), event)...)
	}
	for size := 1; size <= len(raw); size++ {
		messages, ready := feed(t, &stream{status: "HTTP/1.1 200 "}, raw, size)
		if messages != 3 || !ready {
			t.Fatalf("in pieces of %d: %d messages, ready %t", size, messages, ready)
		}
	}
}

func TestStreamThatIsRefused(t *testing.T) {
	s := &stream{status: "HTTP/1.1 200 "}
	_, _, err := s.read([]byte("HTTP/1.1 503 Service Unavailable\r\n\r\nbroker down"))
	if err == nil || !strings.Contains(err.Error(), "broker down") {
		t.Errorf("the error is %v", err)
	}
}

func TestH2IsCutAnywhere(t *testing.T) {
	var raw bytes.Buffer
	f := http2.NewFramer(&raw, nil)
	data := append(Content(), Content()...)
	for _, err := range []error{
		f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 250}),
		f.WriteSettingsAck(),
		f.WritePing(false, [8]byte{Marker}),
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x88}, EndHeaders: true}),
		f.WriteData(1, false, data[:100]),
		f.WriteData(1, false, nil),
		f.WriteData(1, false, data[100:]),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for size := 1; size <= raw.Len(); size++ {
		r := &h2{streams: 1}
		var replies []byte
		messages, ready := 0, false
		for piece := range chunks(raw.Bytes(), size) {
			n, now, err := r.read(piece)
			if err != nil {
				t.Fatalf("in pieces of %d: %v", size, err)
			}
			messages, ready = messages+n, now
			replies = append(replies, r.reply()...)
		}
		if messages != 2 || !ready {
			t.Fatalf("in pieces of %d: %d messages, ready %t", size, messages, ready)
		}
		checkReplies(t, replies)
	}
}

// checkReplies expects the acknowledgements of a SETTINGS and a PING.
func checkReplies(t *testing.T, raw []byte) {
	t.Helper()
	f := http2.NewFramer(nil, bytes.NewReader(raw))
	settings, err := f.ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	if s, ok := settings.(*http2.SettingsFrame); !ok || !s.IsAck() {
		t.Errorf("the first reply is %v", settings)
	}
	ping, err := f.ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	if p, ok := ping.(*http2.PingFrame); !ok || !p.IsAck() || p.Data[0] != Marker {
		t.Errorf("the second reply is %v", ping)
	}
}

func TestH2Ends(t *testing.T) {
	var raw bytes.Buffer
	if err := http2.NewFramer(&raw, nil).WriteRSTStream(1, http2.ErrCodeInternal); err != nil {
		t.Fatal(err)
	}
	if _, _, err := (&h2{streams: 1}).read(raw.Bytes()); err == nil {
		t.Error("a reset stream is no error")
	}
	raw.Reset()
	err := http2.NewFramer(&raw, nil).WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x8d}, EndHeaders: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := (&h2{streams: 1}).read(raw.Bytes()); err == nil {
		t.Error("a 404 is no error")
	}
}
