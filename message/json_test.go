package message

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// sameString compares with what encoding/json makes of a string, as a reader sees it.
func sameString(t *testing.T, s string) {
	t.Helper()
	got := AppendJSONString(nil, s)
	if fromBytes := AppendJSONString(nil, []byte(s)); !bytes.Equal(fromBytes, got) {
		t.Errorf("%q as bytes: %s, as a string: %s", s, fromBytes, got)
	}
	reference, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var have, want string
	if err := json.Unmarshal(got, &have); err != nil {
		t.Fatalf("%q became %q: %v", s, got, err)
	}
	if err := json.Unmarshal(reference, &want); err != nil {
		t.Fatal(err)
	}
	if have != want {
		t.Errorf("%q became %q, which reads as %q and not %q", s, got, have, want)
	}
	if bytes.ContainsAny(got, "\n\r\u2028\u2029") {
		t.Errorf("%q became %q, which is more than one line", s, got)
	}
}

func TestAppendJSONString(t *testing.T) {
	for _, s := range []string{
		"", "plain", `"quoted" \back\slash/`, "\x00\x01\x1f\x20\x7f\u0080", "\b\f\n\r\t", "<script>&amp;</script>",
		"grüße 漢字 🚀", "\u2028 and \u2029", "\ufffd", "\xff", "a\xc3", "\xed\xa0\x80", "\xf0\x9f\x9a", "\xf4\x90\x80\x80",
		"\xc0\x80", "ok\xe2\x80", "\xe2\x80\xa8x", strings.Repeat("\xff", 70),
	} {
		sameString(t, s)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		b := make([]byte, r.IntN(40))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		sameString(t, string(b))
		runes := make([]rune, r.IntN(20))
		for i := range runes {
			runes[i] = r.Int32N(0x110000)
		}
		sameString(t, string(runes))
	}
	if got := string(AppendJSONString([]byte("before "), "\x1fé/<")); got != `before "\u001fé/<"` {
		t.Errorf("got %s", got)
	}
}

func FuzzAppendJSONString(f *testing.F) {
	for _, s := range []string{"", "a\"\\\n\x00", "\u2028", "\xff\xfe", "漢\xe6\xbc"} {
		f.Add(s)
	}
	f.Fuzz(sameString)
}

func TestAppendJSONContent(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	payloads := [][]byte{nil, {}, []byte("text"), []byte("\x00"), {0xff}, []byte("grüße\n"), {0xc3}, []byte("a\u2028")}
	for range 200 {
		b := make([]byte, r.IntN(100))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		payloads = append(payloads, b)
	}
	for _, payload := range payloads {
		line := append(AppendJSONContent([]byte("{"), payload), '}')
		var got struct {
			Content  string
			Encoding string
		}
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("%q became %s: %v", payload, line, err)
		}
		back := []byte(got.Content)
		if got.Encoding != "" {
			var err error
			if back, err = base64.StdEncoding.DecodeString(got.Content); err != nil || got.Encoding != "base64" {
				t.Fatalf("%s: %v", line, err)
			}
		}
		if !bytes.Equal(back, payload) {
			t.Errorf("%q came back as %q", payload, back)
		}
		if (got.Encoding == "") != utf8.Valid(payload) {
			t.Errorf("%q became %s", payload, line)
		}
	}
}

func TestAppendJSONHeaders(t *testing.T) {
	for name, tc := range map[string]struct {
		headers []Header
		want    string
	}{
		"none": {nil, `{}`},
		"one":  {[]Header{{"a", "1"}}, `{"a":["1"]}`},
		"a name that repeats": {
			[]Header{{"b", "1"}, {"a", "2"}, {"b", "3"}, {"B", "4"}, {"b", "1"}}, `{"b":["1","3","1"],"a":["2"],"B":["4"]}`},
		"binary value": {[]Header{{"a", "\xff\x00"}, {"a", "text"}}, `{"a":[{"base64":"/wA="},"text"]}`},
		"odd names":    {[]Header{{"", ""}, {`"`, "\n"}}, `{"":[""],"\"":["\n"]}`},
	} {
		if got := string(AppendJSONHeaders(nil, tc.headers)); got != tc.want || !json.Valid([]byte(got)) {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

func TestAppendJSONMetadata(t *testing.T) {
	fields := []Field{Text("topic", `a"b`), Number("offset", -9223372036854775808), Flag("retained", true), Flag("duplicate", false)}
	const want = `{"topic":"a\"b","offset":-9223372036854775808,"retained":true,"duplicate":false}`
	if got := string(AppendJSONMetadata(nil, fields)); got != want {
		t.Errorf("got %s", got)
	}
	if got := string(AppendJSONMetadata(nil, nil)); got != `{}` {
		t.Errorf("none: %s", got)
	}
	for _, f := range fields {
		marshalled, err := json.Marshal(f)
		if appended := f.AppendJSON(nil); err != nil || !bytes.Equal(appended, marshalled) {
			t.Errorf("%s: %s and %s, %v", f.Name, appended, marshalled, err)
		}
	}
}

// What brokers write is encoded without allocating.
func TestJSONDoesNotAllocate(t *testing.T) {
	m := typicalMessage()
	dst := make([]byte, 0, 4<<10)
	if n := testing.AllocsPerRun(100, func() { dst = appendAll(dst[:0], m) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if !json.Valid(dst) {
		t.Errorf("not JSON: %s", dst)
	}
}

func typicalMessage() *Message {
	return &Message{
		Payload: slices.Repeat([]byte(`{"order":12345,"customer":"Grüße"}`), 7),
		Headers: []Header{{"content-type", "application/json"}, {"trace", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}},
		Metadata: []Field{
			Text("topic", "orders"), Number("partition", 3), Number("offset", 123456789), Flag("retained", false),
		},
	}
}

func appendAll(dst []byte, m *Message) []byte {
	dst = append(dst, '{')
	dst = AppendJSONContent(dst, m.Payload)
	dst = append(dst, `,"headers":`...)
	dst = AppendJSONHeaders(dst, m.Headers)
	dst = append(dst, `,"metadata":`...)
	dst = AppendJSONMetadata(dst, m.Metadata)
	return append(dst, '}')
}

func BenchmarkAppendJSON(b *testing.B) {
	for name, payload := range map[string][]byte{
		"json 256": typicalMessage().Payload, "ascii 1k": bytes.Repeat([]byte("abcdefgh"), 128),
		"binary 1k": bytes.Repeat([]byte{0xff, 0, 1, 2}, 256),
	} {
		b.Run(name, func(b *testing.B) {
			m := typicalMessage()
			m.Payload = payload
			dst := make([]byte, 0, 4<<10)
			b.SetBytes(int64(len(payload)))
			b.ReportAllocs()
			for b.Loop() {
				dst = appendAll(dst[:0], m)
			}
		})
	}
}
