package websocket

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/entrypoints/entrypointtest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// payloadOf takes one frame apart.
func payloadOf(t *testing.T, frame []byte) (first byte, payload string) {
	t.Helper()
	body, n := 2, int(frame[1])
	switch n {
	case 126:
		body, n = 4, int(frame[2])<<8|int(frame[3])
	case 127:
		body, n = 10, 0
		for _, b := range frame[2:10] {
			n = n<<8 | int(b)
		}
	}
	if len(frame) != body+n {
		t.Fatalf("a frame of %d bytes says %d+%d", len(frame), body, n)
	}
	switch {
	case n > 125 && body == 2, n <= 125 && body != 2, n > 0xFFFF && body != 10, n <= 0xFFFF && body == 10:
		t.Errorf("length %d is not written in its shortest form", n)
	}
	return frame[0], string(frame[body:])
}

var sizes = []int{0, 1, 124, 125, 126, 127, 65534, 65535, 65536, 200000}

func TestRawFrames(t *testing.T) {
	for _, n := range sizes {
		text := strings.Repeat("é", n/2) + strings.Repeat("x", n%2)
		for _, c := range []struct {
			kind, payload string
			first         byte
		}{
			{framesAuto, text, textFrame}, {framesText, text, textFrame}, {framesBinary, text, binaryFrame},
			{framesAuto, text + "\xff", binaryFrame}, {framesText, text + "\xff", binaryFrame},
		} {
			d := entrypointtest.Delivery(0, c.payload)
			frame := rawEncoder(c.kind).Append([]byte("before"), &d, nil)
			if string(frame[:6]) != "before" {
				t.Error("what was there is gone")
			}
			if first, payload := payloadOf(t, frame[6:]); first != c.first || payload != c.payload {
				t.Errorf("%s, %d bytes: opcode %#x, %d bytes", c.kind, len(c.payload), first, len(payload))
			}
		}
	}
	if rawEncoder(framesAuto).Format() == rawEncoder(framesText).Format() {
		t.Error("different bytes under one format")
	}
}

func TestTextFrameOfAnyLength(t *testing.T) {
	for _, n := range append(sizes, 3, 4, 5, 6) {
		dst, at := beginText([]byte("ab"))
		frame := endText(append(dst, strings.Repeat("y", n)...), at)
		if first, payload := payloadOf(t, frame[2:]); first != textFrame || payload != strings.Repeat("y", n) || string(frame[:2]) != "ab" {
			t.Errorf("%d bytes: %#x %d", n, first, len(payload))
		}
	}
}

func sample(payload string) *message.Delivery {
	d := entrypointtest.Delivery(1, payload)
	d.Headers = []message.Header{{Name: "a", Value: "1"}, {Name: "b", Value: "\xff"}, {Name: "a", Value: "2"}}
	d.Metadata = []message.Field{message.Text("topic", "orders"), message.Number("partition", 3), message.Flag("last", true)}
	return &d
}

func TestEnvelope(t *testing.T) {
	_, payload := payloadOf(t, envelopeEncoder{}.Append(nil, sample("say \"hi\""), []byte("CUR")))
	const want = `{"type":"message","id":"1","content":"say \"hi\"","headers":{"a":["1","2"],"b":[{"base64":"/w=="}]},` +
		`"metadata":{"topic":"orders","partition":3,"last":true},"cursor":"CUR"}`
	if payload != want {
		t.Errorf("got  %s\nwant %s", payload, want)
	}
	_, payload = payloadOf(t, envelopeEncoder{}.Append(nil, &message.Delivery{Message: &message.Message{Payload: []byte{0xff}}}, nil))
	if payload != `{"type":"message","id":"","content":"/w==","encoding":"base64","headers":{},"metadata":{}}` {
		t.Error(payload)
	}
}

func TestNumbers(t *testing.T) {
	var frames, want []byte
	for i, n := range sizes {
		d := entrypointtest.Delivery(i, strings.Repeat("z", n))
		frames = envelopeEncoder{}.Append(frames, &d, nil)
		_, payload := payloadOf(t, envelopeEncoder{}.Append(nil, &d, nil))
		numbered := strings.Replace(payload, `{"type":"message",`, fmt.Sprintf(`{"type":"message","seq":%d,`, 99+i), 1)
		want = append(appendHeader(want, textFrame, len(numbered)), numbered...)
	}
	got, n := appendNumbered(nil, frames, 99)
	if n != len(sizes) || string(got) != string(want) {
		t.Errorf("%d frames, %d bytes, want %d", n, len(got), len(want))
	}
}

func TestOurFramesAreJSON(t *testing.T) {
	nasty := "\" \\ \n \xff \u2028 é"
	for _, frame := range [][]byte{
		appendGap(nil, &message.Gap{Reason: message.GapExpired, Detail: nasty}),
		appendResult(nil, nasty, &message.Result{Status: message.Stored, ID: nasty, Metadata: []message.Field{message.Text(nasty, nasty)}}),
		appendResult(nil, "", &message.Result{Status: message.Handed}),
		appendResult(nil, nasty, &message.Result{Status: message.Refused, Err: message.Errorf(message.Busy, "%s", nasty)}),
		appendResult(nil, nasty, &message.Result{}),
		appendError(nil, nasty, nasty),
	} {
		if _, payload := payloadOf(t, frame); !json.Valid([]byte(payload)) {
			t.Errorf("not JSON: %s", payload)
		}
	}
}

func TestCloseReasonIsBounded(t *testing.T) {
	for n := range 300 {
		frame := appendClose(nil, 1001, strings.Repeat("x", n)+strings.Repeat("é", 100))
		if len(frame) > 2+maxControl || int(frame[1]) != len(frame)-2 {
			t.Fatalf("%d bytes", len(frame))
		}
		if reason := string(frame[4:]); strings.ToValidUTF8(reason, "?") != reason {
			t.Fatalf("cut inside a character: %q", reason)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	d := sample(strings.Repeat("x", 256))
	cursor := []byte(entrypointtest.Cursor(7))
	buf := make([]byte, 0, 4096)
	b.Run("raw", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf = rawEncoder(framesAuto).Append(buf[:0], d, nil)
		}
	})
	b.Run("envelope", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf = envelopeEncoder{}.Append(buf[:0], d, cursor)
		}
	})
	frames := envelopeEncoder{}.Append(nil, d, cursor)
	b.Run("numbered", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf, _ = appendNumbered(buf[:0], frames, 12345)
		}
	})
}

func TestEncodersDoNotAllocate(t *testing.T) {
	d := sample(strings.Repeat("x", 256))
	d.Headers[1].Value = "plain"
	buf := make([]byte, 0, 4096)
	frames := envelopeEncoder{}.Append(nil, d, nil)
	for name, f := range map[string]func(){
		"raw":      func() { buf = rawEncoder(framesAuto).Append(buf[:0], d, nil) },
		"envelope": func() { buf = envelopeEncoder{}.Append(buf[:0], d, nil) },
		"numbered": func() { buf, _ = appendNumbered(buf[:0], frames, 1) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
