package smftest

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"
)

// captured decodes hex, in which blanks and bars are only for the reader.
func captured(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.NewReplacer(" ", "", "|", "", "\n", "", "\t", "").Replace(s))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func oneFrame(t testing.TB, s string) frame {
	t.Helper()
	f, err := readFrame(bufio.NewReader(bytes.NewReader(captured(t, s))))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

const (
	capturedLoginRefused = `038c00010000001e0000001e 081200000191 556e617574686f72697a6564`
	capturedOpen         = `030900010000000c0000002c 020008 820a0000000000000000 810a0000000000000000 8303ff 0a0300 000000`
	capturedSubscribe    = `038f0001000000100000001c 23000002 80 0000000c 0c 612f622f3e00`
	capturedSubscribed   = `038f00010000001800000018 23000002 0808000000c84f4b`
	capturedUnsubscribe  = `038f0001000000100000001a 23000004 81 0000000a 0c 632f2a00`
	capturedAgain        = `038f00010000000c00000016 80 0000000a 04 642f3e00`
	capturedShare        = `038f00010000001000000025 23000002 80 00000015 0c 2373686172652f67312f73682f3e00`
	capturedQueueTopic   = `038f00010000001000000023 23000002 82 00000013 0c 05 716e657700 06 6e65772f3e00`
	capturedKeepAlive    = `038b00010000000c0000000c`
	capturedDirect       = `0b8d00ff0000001500000018 9806632f3200 030304 | 010203`
	capturedString       = `0b8d00ff0000001d0000003b 9808612f622f3100 9606220b4213 030304 | 1f0000000b68656c6c6f00 |
		010000000e 2f0000000e 18040700 2b00000005`
	capturedPublish = `1b8d00ff0000004600000080 980b6f72646572732f3100 960622024238 030304 900301 170600000001 010600000002
		920a0000000000000000 910a0000000000000001 260008 | 6d30 | 0100000033 2f00000033 18048000 2b0000002a
		1c046800 2b00000010 1c056d6900 1c0669643000 1c047000 2b0000000d 1c046b00 1c047600`
	capturedStored  = `03890001000000140000002c 0808000000c84f4b 023006 060600000001 020a0000000000000001 0303ff 0000`
	capturedRefused = `0389000100000022 0000003a 0816000001f7 53706f6f6c204f7665722051756f7461 023006 060600000001
		020a0000000000000002 0303ff 0000`
	capturedBind   = `030900010000001000000024 23000001 024005 8705713100 830300 0b0301 920303 210301`
	capturedBindV4 = `030900010000001000000023 23000001 04 04 00000013 87047100 830300 0b0301 210301`
	capturedCredit = `030900010000000c00000024 023006 860600000002 820a0000000000000000 8303ff 0000`
	capturedSettle = `030900010000000c00000048 02300f 860600000002 820a0000000000000009 8303ff
		8512 0000000000000005 0000000000000006 8512 0000000000000009 0000000000000009 0000`
	capturedFailed = `030900010000000c00000038 02300b 860600000002 820a0000000000000008 8303ff
		8513 0000000000000008 0000000000000008 01 000000`
	capturedUnbind  = `030900010000000c00000018 025003 860600000002 000000`
	capturedUnbound = `038900010000001400000020 0808000000c84f4b 025003 060600000002 000000`
	capturedActive  = `038900010000000c00000018 02c003 060600000007 200301`
	capturedCreate  = `030900010000001000000040 23000040 02800c 870870726f763100 0b0301 0c0302 110600000003 13060000000a
		1406000003e8 22042000 160301 2a0303 000000`
)

func TestReadMessages(t *testing.T) {
	priority := 4
	for name, c := range map[string]struct {
		bytes string
		want  Message
		in    inbound
	}{
		"direct": {capturedDirect, Message{Topic: "c/2", Payload: []byte{1, 2, 3}, Priority: &priority, DMQEligible: true}, inbound{}},
		"string": {capturedString, Message{Topic: "a/b/1", Payload: []byte("hello"), Text: true, Priority: &priority, DMQEligible: true}, inbound{}},
		"guaranteed": {capturedPublish, Message{
			Topic: "orders/1", Payload: []byte("m0"), Persistent: true, Priority: &priority, DMQEligible: true,
			ApplicationMessageID: "id0", Properties: map[string]any{"k": "v"},
		}, inbound{flow: 1, id: 1}},
	} {
		p, in, err := newPacket(oneFrame(t, c.bytes))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		m, err := p.message()
		if err != nil || !reflect.DeepEqual(m, c.want) || in != c.in {
			t.Errorf("%s: %+v, %+v, %v; want %+v, %+v", name, m, in, err, c.want, c.in)
		}
	}
}

// A direct message goes on as it came.
func TestPassOn(t *testing.T) {
	for _, s := range []string{capturedDirect, capturedString} {
		p, _, err := newPacket(oneFrame(t, s))
		if err != nil {
			t.Fatal(err)
		}
		if got := p.appendDirect(nil, false); !bytes.Equal(got, captured(t, s)) {
			t.Errorf("passed on %x, want %x", got, captured(t, s))
		}
	}
}

func TestWriteAnswers(t *testing.T) {
	tag := []byte{0, 0, 2}
	over := status{503, "Spool Over Quota"}
	acked := func(id uint64) []byte {
		return append(append64(append32(nil, argFlow, 1), argLastAcked, id), argWindow, 3, 255)
	}
	for name, c := range map[string]struct {
		want string
		got  []byte
	}{
		"login refused": {capturedLoginRefused, appendControl(nil, protoClient, nil, status{401, "Unauthorized"}, nil)},
		"subscribed":    {capturedSubscribed, appendControl(nil, protoSubscribe, tag, statusOK, nil)},
		"stored":        {capturedStored, appendAssured(nil, 2, ctlAck, nil, statusOK, acked(1))},
		"refused":       {capturedRefused, appendAssured(nil, 2, ctlAck, nil, over, acked(2))},
		"unbound":       {capturedUnbound, appendAssured(nil, 2, ctlUnbind, nil, statusOK, append32(nil, argFlow, 2))},
		"active": {capturedActive, appendAssured(nil, 2, ctlActive, nil, status{},
			append(append32(nil, argFlow, 7), argActive, 3, 1))},
	} {
		// What the captured broker wrote as the answer's flags, we write alike: they tell
		// what to do with a frame that is not understood.
		if want := captured(t, c.want); !bytes.Equal(c.got, want) {
			t.Errorf("%s: %x, want %x", name, c.got, want)
		}
	}
}

func TestReadControl(t *testing.T) {
	for name, c := range map[string]struct {
		bytes string
		want  control
	}{
		"open":    {capturedOpen, control{version: 2, kind: ctlOpen, window: 255, hasWindow: true}},
		"bind":    {capturedBind, control{version: 2, kind: ctlBind, queue: "q1", hasWindow: true, durability: durable, wantsActive: true}},
		"bind v4": {capturedBindV4, control{version: 4, kind: ctlBind, queue: "q", hasWindow: true, durability: durable, wantsActive: true}},
		"credit":  {capturedCredit, control{version: 2, kind: ctlAck, flow: 2, window: 255, hasWindow: true}},
		"settle": {capturedSettle, control{
			version: 2, kind: ctlAck, flow: 2, lastAcked: 9, window: 255, hasWindow: true,
			outcomes: []outcome{{5, 6, accepted}, {9, 9, accepted}},
		}},
		"failed": {capturedFailed, control{
			version: 2, kind: ctlAck, flow: 2, lastAcked: 8, window: 255, hasWindow: true,
			outcomes: []outcome{{8, 8, failed}},
		}},
		"unbind": {capturedUnbind, control{version: 2, kind: ctlUnbind, flow: 2}},
		"create": {capturedCreate, control{
			version: 2, kind: ctlCreate, queue: "prov1", durability: durable, access: nonExclusive,
			respectTTL: true, redeliveries: 3,
		}},
	} {
		if m, err := parseControl(oneFrame(t, c.bytes).body); err != nil || !reflect.DeepEqual(m, c.want) {
			t.Errorf("%s: %+v, %v; want %+v", name, m, err, c.want)
		}
	}
}

func TestReadSubscriptions(t *testing.T) {
	type request struct {
		kind, flags  byte
		queue, topic string
	}
	for s, want := range map[string]request{
		capturedSubscribe:   {subAdd, 0x0c, "", "a/b/>"},
		capturedUnsubscribe: {subRemove, 0x0c, "", "c/*"},
		capturedAgain:       {subAdd, 0x04, "", "d/>"},
		capturedShare:       {subAdd, 0x0c, "", "#share/g1/sh/>"},
		capturedQueueTopic:  {subQueueAdd, 0x0c, "qnew", "new/>"},
	} {
		kind, flags, queue, topic, err := subscription(oneFrame(t, s).body)
		if got := (request{kind, flags, queue, topic}); err != nil || got != want {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
}

func TestMessagesAndBack(t *testing.T) {
	sequence, priority := int64(7), 9
	for _, m := range []Message{
		{Topic: "a", Payload: []byte("plain"), Priority: &priority},
		{Topic: "a/b", Payload: []byte("text"), Text: true, Persistent: true, Priority: &priority},
		{Topic: "empty", Properties: map[string]any{"nothing": nil}, Priority: &priority},
		{Topic: "large", Payload: bytes.Repeat([]byte("x"), 70_000), CorrelationID: "c", Priority: &priority},
		{
			Topic: "all", Payload: []byte{0, 255}, Persistent: true, DMQEligible: true, TTL: time.Minute,
			Properties: map[string]any{
				"text": "äöü", "long": strings.Repeat("y", 300), "bytes": []byte{1, 2}, "yes": true, "no": false,
				"i8": int8(-1), "i16": int16(-2), "i32": int32(-3), "i64": int64(-4),
				"u8": uint8(1), "u16": uint16(2), "u32": uint32(3), "u64": uint64(4), "f": 1.5, "f32": float32(2.5),
			},
			ApplicationMessageID: "id", ApplicationMessageType: "type", CorrelationID: "correlation", SenderID: "sender",
			HTTPContentType: "text/plain", HTTPContentEncoding: "gzip", SequenceNumber: &sequence,
			SenderTimestamp: time.UnixMilli(1_700_000_000_123), Expiration: time.UnixMilli(1_800_000_000_456), Priority: &priority,
		},
	} {
		p, err := m.packet()
		if err != nil {
			t.Fatal(err)
		}
		wire := p.appendDirect(nil, false)
		if m.Persistent {
			wire = p.appendGuaranteed(nil, delivery{flow: 3, id: 9, previous: 8, redelivered: true})
		}
		f, err := readFrame(bufio.NewReader(bytes.NewReader(wire)))
		if err != nil {
			t.Fatal(err)
		}
		read, _, err := newPacket(f)
		if err != nil {
			t.Fatal(err)
		}
		read.ttl = m.TTL // does not go on to consumers
		got, err := read.message()
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%+v, %v; want %+v", got, err, m)
		}
	}
	if _, err := (&Message{Properties: map[string]any{"x": struct{}{}}}).packet(); err == nil {
		t.Error("a property of a strange type was encoded")
	}
}

func TestMalformed(t *testing.T) {
	for name, s := range map[string]string{
		"version":          `078b00010000000c0000000c`,
		"short header":     `038b00010000000b0000000c`,
		"header too long":  `038b00010000000d0000000c`,
		"more than 64 MiB": `038b00010000000c04000001`,
	} {
		if _, err := readFrame(bufio.NewReader(bytes.NewReader(captured(t, s)))); !errors.Is(err, errMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, s := range map[string]string{"half a head": `038b0001`, "half a body": `0b8d00ff0000000c00000018 0102`} {
		if _, err := readFrame(bufio.NewReader(bytes.NewReader(captured(t, s)))); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, s := range []string{`98`, `9801`, `98ff00`, `9800000000`, `980000000005`, `23 0000`} {
		if _, _, err := nextParam(captured(t, s)); !errors.Is(err, errMalformed) {
			t.Errorf("parameter %s: %v", s, err)
		}
	}
}

func FuzzFrame(f *testing.F) {
	for _, s := range []string{
		capturedDirect, capturedString, capturedPublish, capturedSettle, capturedFailed, capturedCreate, capturedBindV4,
		capturedQueueTopic, capturedKeepAlive, capturedLoginRefused,
	} {
		f.Add(captured(f, s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		for {
			one, err := readFrame(r)
			if err != nil {
				return
			}
			tagOf(one.params)
			credentials(one.params)
			loginFields(one.body)
			parseControl(one.body)
			subscription(one.body)
			p, _, err := newPacket(one)
			if err != nil {
				continue
			}
			if m, err := p.message(); err == nil {
				p.ttl = 0
				if again, err := m.packet(); err == nil {
					again.message()
				}
			}
			wire := p.appendGuaranteed(nil, delivery{})
			if _, err := readFrame(bufio.NewReader(bytes.NewReader(wire))); err != nil && len(wire) <= maxFrame {
				t.Fatalf("we wrote %x: %v", wire, err)
			}
		}
	})
}
