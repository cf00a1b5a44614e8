package httpget

import (
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"strings"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// render makes a whole response of a format.
func render(f *format, p parts, c *collected, cursor string, ask ask, deliveries ...message.Delivery) string {
	enc := encoder{format: f, parts: p}
	for i := range deliveries {
		c.items = enc.Append(c.items, &deliveries[i], nil)
		c.messages++
	}
	items := string(c.items)
	if f.separated && items != "" {
		items = items[1:]
	}
	return string(f.head) + items + string(f.tail(nil, c, []byte(cursor), ask))
}

func TestJSON(t *testing.T) {
	deliveries := []message.Delivery{
		{Message: &message.Message{
			ID: "7", Payload: []byte(`say "hi"`), Time: time.UnixMilli(7),
			Headers:  []message.Header{{Name: "a", Value: "1"}, {Name: "b", Value: "\xff"}, {Name: "a", Value: "2"}},
			Metadata: []message.Field{message.Text("topic", "orders"), message.Number("offset", 7)},
		}},
		{Message: &message.Message{Payload: []byte{0xff, 0x00}}},
	}
	failed := &collected{
		err: &message.Error{Kind: message.Unavailable, Detail: "down"},
		gaps: []gap{
			{Gap: message.Gap{Reason: message.GapExpired, Detail: "old"}},
			{Gap: message.Gap{Reason: message.GapConnection}, Before: 1},
		},
	}
	for _, c := range []struct {
		name, got, want string
	}{
		{"empty", render(jsonFormat, parts{}, &collected{}, "", ask{}), `{"items":[]}`},
		{"empty with cursor", render(jsonFormat, parts{}, &collected{}, "c", ask{limit: 3}), `{"items":[],"pagination":{"nextCursor":"c"}}`},
		{"limit alone", render(jsonFormat, parts{}, &collected{}, "", ask{limit: 3, limited: true}), `{"items":[],"pagination":{"limit":"3"}}`},
		{"items", render(jsonFormat, parts{}, &collected{}, "c", ask{limit: 3, limited: true}, deliveries...),
			`{"items":[{"id":"7","content":"say \"hi\""},{"content":"/wA=","encoding":"base64"}],"pagination":{"nextCursor":"c","limit":"3"}}`},
		{"all parts", render(jsonFormat, parts{true, true}, &collected{}, "", ask{}, deliveries...),
			`{"items":[{"id":"7","content":"say \"hi\"","headers":{"a":["1","2"],"b":[{"base64":"/w=="}]},"metadata":{"topic":"orders","offset":7}},` +
				`{"content":"/wA=","encoding":"base64","headers":{},"metadata":{}}]}`},
		{"gaps and error", render(jsonFormat, parts{}, failed, "", ask{}, deliveries[1]),
			`{"items":[{"content":"/wA=","encoding":"base64"}],"gap":{"reason":"expired","detail":"old","before":0},` +
				`"gaps":[{"reason":"expired","detail":"old","before":0},{"reason":"connection","before":1}],` +
				`"error":{"type":"urn:message-api:problem:broker-unavailable","detail":"down"}}`},
	} {
		if c.got != c.want+"\n" {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, c.got, c.want)
		}
		if !json.Valid([]byte(c.got)) {
			t.Errorf("%s: not JSON", c.name)
		}
	}
}

// xmlResponse is how a client reads a response.
type xmlResponse struct {
	Items []struct {
		ID      string     `xml:"id"`
		Content xmlValue   `xml:"content"`
		Headers []xmlValue `xml:"headers>header"`
		Fields  []xmlValue `xml:"metadata>field"`
	} `xml:"items>item"`
	Gaps []struct {
		Reason string `xml:"reason,attr"`
		Before int    `xml:"before,attr"`
		Detail string `xml:",chardata"`
	} `xml:"gap"`
	Error struct {
		Type   string `xml:"type,attr"`
		Detail string `xml:",chardata"`
	} `xml:"error"`
	NextCursor string `xml:"pagination>nextCursor"`
	Limit      string `xml:"pagination>limit"`
}

type xmlValue struct {
	Name     string `xml:"name,attr"`
	Encoding string `xml:"encoding,attr"`
	Text     string `xml:",chardata"`
}

func (v xmlValue) value(t *testing.T) string {
	if v.Encoding == "" {
		return v.Text
	}
	b, err := base64.StdEncoding.DecodeString(v.Text)
	if err != nil || v.Encoding != "base64" {
		t.Errorf("%+v: %v", v, err)
	}
	return string(b)
}

func TestXML(t *testing.T) {
	c := &collected{
		err:  &message.Error{Kind: message.Unavailable, Detail: "<down>"},
		gaps: []gap{{Gap: message.Gap{Reason: message.GapExpired, Detail: "a & b"}, Before: 1}},
	}
	text := render(xmlFormat, parts{true, true}, c, "cur", ask{limit: 2, limited: true}, message.Delivery{Message: &message.Message{
		ID: "<7>", Payload: []byte("]]></content>"),
		Headers:  []message.Header{{Name: `x" y`, Value: "1"}, {Name: "1<", Value: "\x00"}},
		Metadata: []message.Field{message.Number("offset", 7)},
	}})
	var r xmlResponse
	if err := xml.Unmarshal([]byte(text), &r); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	if len(r.Items) != 1 || r.Items[0].ID != "<7>" || r.Items[0].Content.value(t) != "]]></content>" ||
		len(r.Items[0].Headers) != 2 || r.Items[0].Headers[0].Name != `x" y` || r.Items[0].Headers[1].value(t) != "\x00" ||
		r.Items[0].Fields[0].Name != "offset" || r.Items[0].Fields[0].value(t) != "7" ||
		r.Gaps[0].Reason != "expired" || r.Gaps[0].Before != 1 || r.Gaps[0].Detail != "a & b" ||
		r.Error.Type != "urn:message-api:problem:broker-unavailable" || r.Error.Detail != "<down>" ||
		r.NextCursor != "cur" || r.Limit != "2" {
		t.Errorf("%s\nreads as %+v", text, r)
	}
}

func FuzzXML(f *testing.F) {
	f.Add([]byte("a\r\nb\tc"), "name", "value\r")
	f.Add([]byte("\xff"), "\x00<", "]]>")
	f.Add([]byte("\ufffe\uffff\ufffd"), "'\"", "\u0085")
	f.Fuzz(func(t *testing.T, payload []byte, name, value string) {
		text := render(xmlFormat, parts{headers: true}, &collected{}, "", ask{}, message.Delivery{Message: &message.Message{
			Payload: payload, Headers: []message.Header{{Name: "n" + name, Value: value}},
		}})
		var r xmlResponse
		if err := xml.Unmarshal([]byte(text), &r); err != nil {
			t.Fatalf("%v in %q", err, text)
		}
		if len(r.Items) != 1 || r.Items[0].Content.value(t) != string(payload) ||
			len(r.Items[0].Headers) != 1 || r.Items[0].Headers[0].value(t) != value {
			t.Fatalf("%q\nreads as %+v", text, r)
		}
	})
}

func TestText(t *testing.T) {
	one := message.Delivery{Message: &message.Message{ID: "0", Payload: []byte("mock message")}}
	tricky := message.Delivery{Message: &message.Message{
		Payload:  []byte("x\r\n\nitem\rid: 9"),
		Headers:  []message.Header{{Name: "a", Value: "b\nc"}},
		Metadata: []message.Field{message.Number("offset", 7)},
	}}
	binary := message.Delivery{Message: &message.Message{ID: "1\n2", Payload: []byte{0xff}}}
	for _, c := range []struct{ name, got, want string }{
		{"as documented", render(textFormat, parts{}, &collected{}, "1", ask{}, one, one),
			"items\nitem\nid: 0\ncontent: mock message\n\nitem\nid: 0\ncontent: mock message\n\npagination\nnextCursor: 1\n"},
		{"tricky", render(textFormat, parts{true, true}, &collected{}, "", ask{}, tricky),
			"items\nitem\ncontent: x\n  \n  item\n  id: 9\nheaders: {\"a\":[\"b\\nc\"]}\nmetadata: {\"offset\":7}\n\n"},
		{"binary", render(textFormat, parts{}, &collected{}, "", ask{}, binary),
			"items\nitem\nid: 1\n  2\ncontent: /w==\nencoding: base64\n\n"},
		{"troubled", render(textFormat, parts{}, &collected{
			gaps: []gap{{Gap: message.Gap{Reason: message.GapSlow, Detail: "a\nb"}}}, err: message.Errorf(message.Busy, "later"),
		}, "", ask{limit: 2, limited: true}),
			"items\n\ngap\nreason: slow_client\ndetail: a\n  b\nbefore: 0\n\nerror\ntype: urn:message-api:problem:busy\ndetail: later\n\npagination\nlimit: 2\n"},
	} {
		if c.got != c.want {
			t.Errorf("%s:\ngot  %q\nwant %q", c.name, c.got, c.want)
		}
	}
}

func TestEncoderFormats(t *testing.T) {
	seen := make(map[string]bool)
	for _, f := range formats {
		for i := range 4 {
			enc := f.encoder(&Entrypoint{HeadersInPayload: i&1 > 0, MetadataInPayload: i&2 > 0})
			if enc.WantsCursor() {
				t.Errorf("%s wants cursors that it does not use", enc.Format())
			}
			seen[enc.Format()] = true
		}
	}
	if len(seen) != 12 {
		t.Errorf("%v", seen)
	}
}

var benchDelivery = message.Delivery{Message: &message.Message{
	ID: "123456", Payload: []byte(`{"order":"` + strings.Repeat("x", 230) + `"}`),
	Headers:  []message.Header{{Name: "trace", Value: "a1b2c3"}},
	Metadata: []message.Field{message.Text("topic", "orders"), message.Number("partition", 3), message.Number("offset", 123456)},
}}

func BenchmarkEncoder(b *testing.B) {
	for _, f := range formats {
		b.Run(f.mediaType, func(b *testing.B) {
			enc := encoder{format: f, parts: parts{true, true}}
			buf := make([]byte, 0, 4096)
			b.ReportAllocs()
			for b.Loop() {
				buf = enc.Append(buf[:0], &benchDelivery, nil)
			}
			b.SetBytes(int64(len(buf)))
		})
	}
}

func TestEncodersDoNotAllocate(t *testing.T) {
	for _, f := range formats {
		enc, buf := encoder{format: f, parts: parts{true, true}}, make([]byte, 0, 4096)
		if n := testing.AllocsPerRun(100, func() { buf = enc.Append(buf[:0], &benchDelivery, nil) }); n > 0 {
			t.Errorf("%s: %.1f allocations per item", f.name, n)
		}
	}
}
