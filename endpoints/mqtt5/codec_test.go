package mqtt5

import (
	"bufio"
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/eclipse/paho.golang/packets"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// samePublish compares what we read with what paho reads.
func samePublish(t *testing.T, p *publish, want *packets.Publish) {
	t.Helper()
	got := &packets.Publish{
		Topic: string(p.topic), PacketID: p.id, QoS: p.qos, Duplicate: p.dup, Retain: p.retain, Payload: p.payload,
		Properties: &packets.Properties{
			ContentType: p.contentType, ResponseTopic: p.responseTopic, CorrelationData: p.correlation,
			SubscriptionIdentifier: want.Properties.SubscriptionIdentifier, TopicAlias: want.Properties.TopicAlias,
		},
	}
	if p.hasExpiry {
		got.Properties.MessageExpiry = &p.expiry
	}
	if p.hasFormat {
		got.Properties.PayloadFormat = &p.format
	}
	for _, u := range p.user {
		got.Properties.User = append(got.Properties.User, packets.User{Key: u.name, Value: u.value})
	}
	if len(got.Payload) == 0 {
		got.Payload, want.Payload = nil, nil
	}
	if len(got.Properties.CorrelationData) == 0 {
		got.Properties.CorrelationData, want.Properties.CorrelationData = nil, nil
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read %v, and paho %v", got, want)
	}
}

// What paho takes for a PUBLISH we read likewise; nothing makes us panic.
func FuzzReadPublish(f *testing.F) {
	expiry, format, id := uint32(7), byte(1), 300
	for _, p := range []*packets.Publish{
		{Topic: "a", Properties: &packets.Properties{}},
		{Topic: "a/b", QoS: 1, PacketID: 9, Payload: []byte("x"), Properties: &packets.Properties{
			ContentType: "t", ResponseTopic: "r", CorrelationData: []byte{0xff}, MessageExpiry: &expiry, PayloadFormat: &format,
			SubscriptionIdentifier: &id, User: []packets.User{{Key: "k", Value: "v"}, {Key: "k", Value: strings.Repeat("w", 200)}},
		}},
	} {
		var b bytes.Buffer
		if _, err := p.WriteTo(&b); err != nil {
			f.Fatal(err)
		}
		head, _ := readHeader(bufio.NewReader(bytes.NewReader(b.Bytes())))
		f.Add(head.flags, b.Bytes()[b.Len()-head.length:])
	}
	f.Add(byte(0), []byte{0, 1, 'a', 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, flags byte, body []byte) {
		var p publish
		ours := readPublish(flags&0xf, bytes.Clone(body), &p)
		theirs := &packets.Publish{
			QoS: flags >> 1 & 3, Duplicate: flags&8 != 0, Retain: flags&1 != 0, Properties: &packets.Properties{},
		}
		err := theirs.Unpack(bytes.NewBuffer(bytes.Clone(body)))
		if ours == nil && err == nil {
			samePublish(t, &p, theirs)
		}
		if ours != nil && !errors.Is(ours, errMalformed) {
			t.Errorf("the error is %v", ours)
		}
	})
}

// What we write paho reads, and what we made of headers comes back.
func FuzzPublish(f *testing.F) {
	f.Add("t", byte(1), "name", "value", []byte("payload"), "id")
	f.Add("t", byte(0), "n;base64", "\xff\x00", []byte{}, "")
	f.Add("t", byte(2), "n;base64", "/wA=", bytes.Repeat([]byte("x"), 20_000), "")
	f.Fuzz(func(t *testing.T, topic string, qos byte, name, value string, payload []byte, id string) {
		qos %= 3
		if topic == "" || !isText(topic) {
			return
		}
		m := &message.Message{ID: id, Headers: []message.Header{{Name: name, Value: value}, {Name: "last", Value: "x"}}}
		properties, err := appendMessageProperties(nil, m, "")
		if err != nil {
			if k := message.KindOf(err); k != message.TooLarge && k != message.BadInput {
				t.Errorf("the error is %v", err)
			}
			return
		}
		raw := appendPublish(nil, topic, qos, true, 77, properties, payload)
		packet, err := packets.ReadPacket(bytes.NewReader(raw))
		if err != nil {
			t.Fatalf("paho can't read it: %v", err)
		}
		theirs, _ := packet.Content.(*packets.Publish)
		head, err := readHeader(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil || len(raw)-head.length < 2 {
			t.Fatalf("the header is %+v, %v", head, err)
		}
		var p publish
		if err := readPublish(head.flags, raw[len(raw)-head.length:], &p); err != nil {
			t.Fatal(err)
		}
		samePublish(t, &p, theirs)
		var back message.Message
		fill(&back, &p, topic)
		if n := len(back.Headers); back.Headers[n-1].Name != "last" || strings.HasSuffix(name, binarySuffix) {
			return
		}
		if got := back.Headers[len(back.Headers)-2]; got.Name != name || got.Value != value {
			t.Errorf("header %q=%q came back as %q=%q", name, value, got.Name, got.Value)
		}
	})
}

// Acknowledgements are read with and without reasons, and paho reads ours.
func TestAcknowledgements(t *testing.T) {
	for _, kind := range []byte{packets.PUBACK, packets.PUBREC, packets.PUBREL, packets.PUBCOMP} {
		for _, reason := range []byte{0, 0x83} {
			packet, err := packets.ReadPacket(bytes.NewReader(appendAck(nil, kind, 515, reason)))
			if err != nil || packet.PacketID() != 515 || packet.Type != kind {
				t.Errorf("paho reads %v, %v", packet, err)
			}
			packet = packets.NewControlPacket(kind)
			var b bytes.Buffer
			if a, ok := packet.Content.(*packets.Puback); ok {
				a.PacketID, a.ReasonCode = 515, reason
				a.Properties.ReasonString = "why"
				a.Properties.User = []packets.User{{Key: "k", Value: "v"}}
				_, _ = packet.WriteTo(&b)
				id, code, text, err := readAck(kind, b.Bytes()[2:])
				if id != 515 || code != reason || text != "why" || err != nil {
					t.Errorf("read %d, %d, %q, %v", id, code, text, err)
				}
			}
		}
	}
	for _, bad := range [][]byte{{}, {1}, {0, 1, 0, 5}, {0, 1, 0, 2, 99, 0}, {0, 1, 0, 3, 31, 0, 9}} {
		if _, _, _, err := readAck(packets.PUBACK, bad); !errors.Is(err, errMalformed) {
			t.Errorf("%v was read: %v", bad, err)
		}
	}
}

// A header that lies about the length takes no memory.
func TestHeadersThatLie(t *testing.T) {
	for _, raw := range []string{"\x30", "\x30\xff", "\x30\xff\xff\xff\xff\x01", "\x30\xff\xff\xff\x7f"} {
		if h, err := readHeader(bufio.NewReader(strings.NewReader(raw))); err == nil {
			t.Errorf("%q was read as %+v", raw, h)
		}
	}
}
