package servicebustest

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/Azure/go-amqp"
)

func TestValuesComeBack(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_123).UTC()
	for _, value := range []any{
		nil, true, false, uint8(7), uint16(700), uint32(0), uint32(7), uint32(70_000), uint64(7), uint64(1 << 40), int8(-7), int16(-700),
		int32(-70_000), int64(-1 << 40), float32(1.5), math.Pi, "", "text", strings.Repeat("long", 100), symbol("sym"), []byte{}, []byte{0, 255},
		bytes.Repeat([]byte{1}, 300), now, uuid{1, 2, 15: 16}, described{uint64(5), "x"}, []any{}, []any{"a", int32(1), nil, []any{true}},
		map[any]any{"k": "v", int32(1): []any{}}, opaque{0x73, []byte{0, 0, 0, 65}}, opaque{0x94, make([]byte, 16)},
	} {
		d := decoder{buf: append(appendValue(nil, value), 0xee)}
		if got := d.value(); d.err != nil || !reflect.DeepEqual(got, value) || len(d.buf) != 1 {
			t.Errorf("%T %v came back as %T %v, error %v, %d bytes left", value, value, got, got, d.err, len(d.buf)-1)
		}
		d = decoder{buf: appendValue(nil, value)}
		if raw := d.raw(); d.err != nil || len(d.buf) != 0 || len(raw) == 0 {
			t.Errorf("%T %v: stepping over leaves %d bytes, error %v", value, value, len(d.buf), d.err)
		}
	}
}

// TestClientsAgree has the client library read what is encoded here, and the other way round.
func TestClientsAgree(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_123).UTC()
	value := map[string]any{
		"numbers": []int64{1, -2}, "times": []time.Time{now}, "texts": []string{"a", strings.Repeat("b", 300)}, "uuid": uuid{1, 15: 2},
		"list": []any{int32(1), "x", []byte{1}}, "empty": []any{}, "null": nil, "wide": uint64(1 << 50), "narrow": int8(-1), "double": 2.5,
	}
	var m amqp.Message
	if err := m.UnmarshalBinary(appendValue([]byte{0x00, 0x53, 0x77}, value)); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{}
	for k, v := range value {
		want[k] = v
	}
	want["uuid"], want["empty"] = amqp.UUID(value["uuid"].(uuid)), []any{}
	if got := m.Value.(map[string]any); len(got) != len(want) || !reflect.DeepEqual(got["numbers"], want["numbers"]) ||
		!reflect.DeepEqual(got["times"], want["times"]) || !reflect.DeepEqual(got["texts"], want["texts"]) || got["uuid"] != want["uuid"] ||
		!reflect.DeepEqual(got["list"], want["list"]) || got["wide"] != want["wide"] || got["narrow"] != want["narrow"] || got["double"] != want["double"] {
		t.Fatalf("client reads %v, want %v", got, want)
	}
	encoded, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	r, err := parseRequest(encoded)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{
		"numbers": []any{int64(1), int64(-2)}, "times": []any{now}, "texts": []any{"a", strings.Repeat("b", 300)}, "uuid": value["uuid"],
		"list": value["list"], "null": nil, "wide": value["wide"], "narrow": value["narrow"], "double": value["double"],
	} {
		if got := r.arg(key); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: read %T %v, want %T %v", key, got, got, want, want)
		}
	}
}

func TestMalformedValues(t *testing.T) {
	deep := bytes.Repeat([]byte{0xc0, 0xff, 1}, 100)
	for name, encoded := range map[string][]byte{
		"nothing":                {},
		"unknown type":           {0x3f},
		"short number":           {0x71, 0, 0},
		"short text":             {0xa1, 5, 'a'},
		"huge text":              {0xb1, 0xff, 0xff, 0xff, 0xff},
		"list beyond its end":    {0xc0, 2, 5, 0x40},
		"list that lies":         {0xd0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x40},
		"map of odd count":       {0xc1, 3, 3, 0x40, 0x40},
		"map with list as key":   {0xc1, 4, 2, 0x45, 0x41, 0},
		"array that lies":        {0xf0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x40},
		"array of described":     {0xe0, 5, 1, 0x00, 0x53, 1, 0x40},
		"array without elements": {0xe0, 1, 5},
		"described without end":  {0x00, 0x53},
		"deep lists":             deep,
		"deep descriptors":       bytes.Repeat([]byte{0}, 1000),
	} {
		d := decoder{buf: encoded}
		if got := d.value(); d.err == nil {
			t.Errorf("%s: read as %v", name, got)
		}
	}
}

func TestFrameBounds(t *testing.T) {
	for name, head := range map[string][]byte{
		"too small":       {0, 0, 0, 7, 2, 0, 0, 0},
		"too big":         {0, 1, 0, 1, 2, 0, 0, 0},
		"offset in head":  {0, 0, 0, 8, 1, 0, 0, 0},
		"offset past end": {0, 0, 0, 12, 4, 0, 0, 0, 0, 0, 0, 0},
		"cut short":       {0, 0, 0, 12, 2, 0, 0, 0, 0},
	} {
		fr := frameReader{r: bufio.NewReader(bytes.NewReader(head))}
		if f, err := fr.next(); err == nil {
			t.Errorf("%s: read as %v", name, f)
		}
	}
	fr := frameReader{r: bufio.NewReader(bytes.NewReader(append(bytes.Clone(heartbeat), 0, 0, 0, 14, 3, 1, 0, 9, 1, 2, 3, 4, 5, 6)))}
	if f, err := fr.next(); err != nil || f.body != nil {
		t.Fatalf("heartbeat: %v %v", f, err)
	}
	if f, err := fr.next(); err != nil || f.kind != 1 || f.channel != 9 || !bytes.Equal(f.body, []byte{5, 6}) {
		t.Fatalf("extended header: %v %v", f, err)
	}
}

func TestMessagesKeepWhatTheyHold(t *testing.T) {
	original := &amqp.Message{
		Header:                &amqp.MessageHeader{Durable: true, Priority: 7, TTL: time.Minute},
		Annotations:           amqp.Annotations{"x-opt-partition-key": "p", "x-opt-sequence-number": int64(99), "mine": int32(1)},
		DeliveryAnnotations:   amqp.Annotations{"x": "y"},
		Properties:            &amqp.MessageProperties{MessageID: uint64(5), UserID: []byte("u"), CorrelationID: amqp.UUID{1}},
		ApplicationProperties: map[string]any{"a": "b", "list": []any{"x"}},
		Sequence:              [][]any{{"one", int32(2)}, {}},
		Footer:                amqp.Annotations{"sum": "1"},
	}
	encoded, err := original.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	m, err := parseMessage(encoded)
	if err != nil {
		t.Fatal(err)
	}
	m.sequence = 7
	m.change(map[any]any{"a": "c", "new": uint32(3)})
	var got amqp.Message
	if err := got.UnmarshalBinary(m.appendTo(nil, true)); err != nil {
		t.Fatal(err)
	}
	if *got.Header != (amqp.MessageHeader{Durable: true, Priority: 7, TTL: time.Minute, FirstAcquirer: true}) {
		t.Errorf("header %+v", got.Header)
	}
	if !reflect.DeepEqual(got.Properties, original.Properties) || !reflect.DeepEqual(got.Sequence[0], original.Sequence[0]) || !reflect.DeepEqual(got.Footer, original.Footer) {
		t.Errorf("%+v", got)
	}
	if want := map[string]any{"a": "c", "list": []any{"x"}, "new": uint32(3)}; !reflect.DeepEqual(got.ApplicationProperties, want) {
		t.Errorf("properties %v, want %v", got.ApplicationProperties, want)
	}
	if a := got.Annotations; a["x-opt-partition-key"] != "p" || a["mine"] != int32(1) || a["x-opt-sequence-number"] != int64(7) {
		t.Errorf("annotations %v", a)
	}
}

// FuzzFrame reads bytes as a client's frames, and all that may be in them.
func FuzzFrame(f *testing.F) {
	for code := byte(codeOpen); code <= codeClose; code++ {
		b, start, mark := openFrame(nil, frameAMQP, 1, code)
		b = appendUint(appendUint(appendString(b, "x"), 1), 2)
		f.Add(closeFrame(b, start, mark, 3, appendValue([]byte{0x00, 0x53, 0x77}, map[string]any{"k": []any{"v"}})))
	}
	message := (&message{body: []byte{0x00, 0x53, 0x75, 0xa0, 1, 'x'}}).appendTo(nil, false)
	f.Add(append(binary.BigEndian.AppendUint32(nil, uint32(8+len(message))), append([]byte{2, 0, 0, 0}, message...)...))
	f.Add(append(bytes.Clone(heartbeat), heartbeat...))
	f.Fuzz(func(t *testing.T, data []byte) {
		fr := frameReader{r: bufio.NewReader(bytes.NewReader(data))}
		for {
			frame, err := fr.next()
			if err != nil {
				return
			}
			if len(fr.buf) > maxFrame {
				t.Fatalf("buffer of %d bytes", len(fr.buf))
			}
			readEverything(frame.body)
		}
	})
}

func readEverything(body []byte) {
	for _, read := range []func(f *fields, payload []byte){
		func(f *fields, _ []byte) { readAttach(f) },
		func(f *fields, _ []byte) { readFlow(f) },
		func(f *fields, payload []byte) { readTransfer(f, payload) },
		func(f *fields, _ []byte) { readDisposition(f) },
	} {
		d := decoder{buf: body}
		_, f := d.composite()
		read(&f, d.buf)
	}
	d := decoder{buf: body}
	d.value()
	d = decoder{buf: body}
	d.raw()
	for _, format := range []uint32{0, batchFormat} {
		messages, err := unpack(format, body)
		if err != nil {
			continue
		}
		for _, m := range messages {
			m.scheduled()
			m.change(map[any]any{"k": "v"})
			if _, err := parseMessage(m.appendTo(nil, false)); err != nil {
				panic(err)
			}
		}
	}
	_, _ = parseRequest(body)
}
