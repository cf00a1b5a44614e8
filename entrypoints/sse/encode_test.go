package sse

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

func TestEncoderForm(t *testing.T) {
	full := message.Message{
		ID: "not shown", Payload: []byte(`{"n":1}`), Time: time.UnixMilli(1755800000000),
		Headers:  []message.Header{{Name: "trace", Value: "a1"}, {Name: "trace", Value: "b\r\n2\x00"}, {Name: "bin", Value: "\xff"}},
		Metadata: []message.Field{message.Text("topic", "orders"), message.Number("partition", 3), message.Flag("retained", true)},
	}
	for _, c := range []struct {
		name    string
		encoder encoder
		message message.Message
		cursor  string
		want    string
	}{
		{name: "plain", message: full, want: "event: message\ndata: {\"n\":1}\n\n"},
		{name: "resumable", message: full, cursor: "AbC-_9", want: "id: AbC-_9\nevent: message\ndata: {\"n\":1}\n\n"},
		{name: "comments", message: full, cursor: "c", encoder: encoder{metadata: true, headers: true},
			want: "id: c\nevent: message\ndata: {\"n\":1}\n:sourceTimestamp: 1755800000000\n:topic: orders\n:partition: 3\n" +
				":retained: true\n:trace: a1\n:trace: b2\n:bin: \ufffd\n\n"},
		{name: "no timestamp", message: message.Message{Payload: []byte("x")}, encoder: encoder{metadata: true},
			want: "event: message\ndata: x\n\n"},
		{name: "lines", message: message.Message{Payload: []byte("a\nb\r\nc\rd")},
			want: "event: message\ndata: a\ndata: b\ndata: c\ndata: d\n\n"},
		{name: "ends with a line end", message: message.Message{Payload: []byte("a\n")}, want: "event: message\ndata: a\ndata: \n\n"},
		{name: "injection", message: message.Message{Payload: []byte("x\n\nevent: goaway\ndata: bye\n\n")},
			want: "event: message\ndata: x\ndata: \ndata: event: goaway\ndata: data: bye\ndata: \ndata: \n\n"},
		{name: "empty", want: "event: message\ndata: \n\n"},
		{name: "binary", message: message.Message{Payload: []byte("\xff\xad\n")}, want: "event: message-base64\ndata: /60K\n\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := string(c.encoder.Append(nil, &message.Delivery{Message: &c.message}, []byte(c.cursor))); got != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestFormatNamesAllThatChangesBytes(t *testing.T) {
	seen := make(map[string]bool)
	for _, metadata := range []bool{false, true} {
		for _, headers := range []bool{false, true} {
			seen[newEncoder(&Entrypoint{MetadataAsComment: metadata, HeadersAsComment: headers}).Format()] = true
		}
	}
	if len(seen) != 4 || !(encoder{}).WantsCursor() {
		t.Errorf("%v", seen)
	}
}

func TestOwnEvents(t *testing.T) {
	stream := appendGap(nil, &message.Gap{Reason: message.GapExpired, Detail: "line\nend \"quoted\""})
	stream = appendGoaway(stream, &entrypoints.End{Reason: entrypoints.EndShutdown, Detail: "bye", Retry: 1500 * time.Millisecond})
	stream = appendError(stream, &message.Error{Kind: message.Unavailable, Detail: "kafka:9092 is down", RetryAfter: 2 * time.Second})
	stream = appendError(stream, errors.New("secret"))
	got := parseStream(string(stream))
	want := []event{
		{"", "gap", `{"reason":"expired","detail":"line\nend \"quoted\""}`},
		{"", "goaway", `{"reason":"shutdown","detail":"bye"}`},
		{"", "error", `{"type":"urn:message-api:problem:broker-unavailable","detail":"kafka:9092 is down"}`},
		{"", "error", `{"type":"urn:message-api:problem:internal","detail":"the gateway failed; its log says why"}`},
	}
	if !slices.Equal(got.events, want) || !slices.Equal(got.retry, []int{1500, 2000}) || got.rest != "" {
		t.Errorf("%q", stream)
	}
	for _, e := range got.events {
		if !json.Valid([]byte(e.data)) {
			t.Errorf("not JSON: %s", e.data)
		}
	}
}

// normalised is what SSE makes of line ends.
func normalised(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")
}

var stripped = strings.NewReplacer("\r", "", "\n", "", "\x00", "")

func FuzzEncoder(f *testing.F) {
	f.Add([]byte("hello"), "cursor", "name", "value", "field", "text")
	f.Add([]byte("a\r\nb\rc\n\n"), "id\nevent: x", "n\r\n\r\ndata: y", "v\x00", ":", "\xff\n")
	f.Add([]byte("\xff\x00\n"), "", "", "", "", "")
	f.Add([]byte("data: x\n\nid: 7\n"), "\x00", "retry: 1", " ", "\u2028", "")
	f.Fuzz(func(t *testing.T, payload []byte, cursor, headerName, headerValue, fieldName, fieldText string) {
		d := message.Delivery{Message: &message.Message{
			Payload: payload, Time: time.UnixMilli(7),
			Headers:  []message.Header{{Name: headerName, Value: headerValue}},
			Metadata: []message.Field{message.Text(fieldName, fieldText)},
		}}
		wire := encoder{metadata: true, headers: true}.Append(nil, &d, []byte(cursor))
		wire = encoder{}.Append(wire, &message.Delivery{Message: &message.Message{Payload: []byte("after")}}, nil)
		got := parseStream(string(wire))

		first := event{stripped.Replace(strings.ToValidUTF8(cursor, "\ufffd")), "message", normalised(string(payload))}
		if !utf8.Valid(payload) {
			first.name, first.data = "message-base64", base64.StdEncoding.EncodeToString(payload)
		}
		// An id stays in force until another one comes.
		want := []event{first, {first.id, "message", "after"}}
		if !slices.Equal(got.events, want) || got.rest != "" {
			t.Fatalf("wire %q\ngot  %q\nwant %q", wire, got.events, want)
		}
		if len(got.comments) != 3 || len(got.retry) != 0 {
			t.Fatalf("comments %q, retry %v", got.comments, got.retry)
		}
		for field := range got.fields {
			if !slices.Contains([]string{"id", "event", "data"}, field) {
				t.Fatalf("field %q came in by %q", field, wire)
			}
		}
		if got.fields["event"] != 2 || got.fields["id"] > 1 || !utf8.Valid(wire) {
			t.Fatalf("%q", wire)
		}
	})
}

var benchDelivery = message.Delivery{Message: &message.Message{
	Payload: []byte(`{"order":"` + strings.Repeat("x", 230) + `"}`), Time: time.UnixMilli(1755800000000),
	Headers:  []message.Header{{Name: "trace", Value: "a1b2c3"}},
	Metadata: []message.Field{message.Text("topic", "orders"), message.Number("partition", 3), message.Number("offset", 123456)},
}}

func BenchmarkEncoder(b *testing.B) {
	cursor := []byte(strings.Repeat("c", 60))
	for name, enc := range map[string]encoder{"plain": {}, "comments": {metadata: true, headers: true}} {
		b.Run(name, func(b *testing.B) {
			buf := make([]byte, 0, 4096)
			b.ReportAllocs()
			for b.Loop() {
				buf = enc.Append(buf[:0], &benchDelivery, cursor)
			}
			b.SetBytes(int64(len(buf)))
		})
	}
}

func TestEncoderDoesNotAllocate(t *testing.T) {
	buf, cursor := make([]byte, 0, 4096), []byte("cursor")
	enc := encoder{metadata: true, headers: true}
	if n := testing.AllocsPerRun(100, func() { buf = enc.Append(buf[:0], &benchDelivery, cursor) }); n > 0 {
		t.Errorf("%.1f allocations per event", n)
	}
}
