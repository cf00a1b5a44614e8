package httppost

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/caddy-message-api/caddy-message-api/message"
)

func TestDecodeLine(t *testing.T) {
	many := `{"content":"","headers":{"a":[` + strings.Repeat(`"",`, maxHeaders-1) + `""%s]}}`
	for _, c := range []struct {
		line, err string
		want      message.Message
	}{
		{line: `{"content":"x"}`, want: message.Message{Payload: []byte("x")}},
		{line: ` { "id" : "7" , "key" : "k" , "content" : "" , "headers" : { "a" : "1" , "b" : [ "2" , "3" ] , "c" : [] } } ` + "\r",
			want: message.Message{ID: "7", Key: []byte("k"), Payload: []byte{}, Headers: []message.Header{{Name: "a", Value: "1"}, {Name: "b", Value: "2"}, {Name: "b", Value: "3"}}}},
		{line: `{"content":null,"key":{"base64":"/w=="},"headers":{"a":{"base64":"AP8="},"b":[{"base64":""}]}}`,
			want: message.Message{Key: []byte{0xff}, Headers: []message.Header{{Name: "a", Value: "\x00\xff"}, {Name: "b"}},
				Metadata: []message.Field{message.Flag(message.TombstoneField, true)}}},
		{line: `{"encoding":"base64","content":"3q2+7w=="}`, want: message.Message{Payload: []byte{0xde, 0xad, 0xbe, 0xef}}},
		{line: `{"content":"a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é\u0000\ufffd"}`, want: message.Message{Payload: []byte("a\"\\/\b\f\n\r\té😀é\x00\ufffd")}},
		{line: `{"key":"","content":"x"}`, want: message.Message{Key: []byte{}, Payload: []byte("x")}},
		{line: `{"\u0063ontent":"x","headers":{"\u0061":"1"}}`, want: message.Message{Payload: []byte("x"), Headers: []message.Header{{Name: "a", Value: "1"}}}},
		{line: `{"content":"a very long text with a \"quote\" and more"}`, want: message.Message{Payload: []byte(`a very long text with a "quote" and more`)}},

		{line: `{}`, err: "content is missing"},
		{line: `{"id":"7"}`, err: "content is missing"},
		{line: ``, err: "not a JSON object"},
		{line: `[]`, err: "not a JSON object"},
		{line: `"x"`, err: "not a JSON object"},
		{line: `{"content":"x"} {}`, err: "something follows"},
		{line: `{"content":"x"},`, err: "something follows"},
		{line: `{"content":"x",}`, err: "the name of a member must be a string"},
		{line: `{"content":"x"`, err: "the line ends where a comma or } should stand"},
		{line: `{"content":"x" "id":"7"}`, err: "column 16: a comma or } should stand here"},
		{line: `{"content" "x"}`, err: "a colon should stand here"},
		{line: `{"content":"x`, err: "content is a string without end"},
		{line: `{"content":"x\`, err: "content is a string without end"},
		{line: `{"content":"\"`, err: "content is a string without end"},
		{line: `{"content":7}`, err: "content must be a string"},
		{line: `{"content":{"n":1}}`, err: "content must be a string"},
		{line: `{"content":nul}`, err: "content must be a string"},
		{line: `{"content":nullx}`, err: "a comma or } should stand here"},
		{line: `{"content":"x","content":"y"}`, err: `member "content" stands twice`},
		{line: `{"Content":"x"}`, err: `unknown member "Content": use content, id, key, encoding, headers`},
		{line: `{"content":"x","metadata":{}}`, err: `unknown member "metadata"`},
		{line: `{"content":"\x"}`, err: "content: bad escape"},
		{line: `{"content":"\u12"}`, err: "content: bad escape"},
		{line: `{"content":"\u12g4"}`, err: "content: bad escape"},
		{line: `{"content":"\ud800"}`, err: "content: bad escape"},
		{line: `{"content":"\ud800x\udc00"}`, err: "content: bad escape"},
		{line: `{"content":"\ud800\u0041"}`, err: "content: bad escape"},
		{line: `{"content":"\udc00\ud800"}`, err: "content: bad escape"},
		{line: "{\"content\":\"\xff\"}", err: "not UTF-8"},
		{line: "{\"content\":\"a\tb\"}", err: "control characters"},
		{line: `{"content":"x","encoding":"base64"}`, err: "content is not standard base64"},
		{line: `{"content":"/x==","encoding":"base64"}`, err: "content is not standard base64"}, // stray bits
		{line: `{"content":"-_==","encoding":"base64"}`, err: "content is not standard base64"},
		{line: `{"content":"x","encoding":"hex"}`, err: `encoding "hex" is unknown`},
		{line: `{"content":"x","encoding":null}`, err: "encoding must be a string"},
		{line: `{"content":"x","key":7}`, err: "key must be a string"},
		{line: `{"content":"x","key":{}}`, err: `key must be a string or {"base64":"…"}`},
		{line: `{"content":"x","key":{"hex":"00"}}`, err: `key must be a string or {"base64":"…"}`},
		{line: `{"content":"x","key":{"base64":"AA==","base64":"AA=="}}`, err: `key must be a string or {"base64":"…"}`},
		{line: `{"content":"x","key":{"base64":"!"}}`, err: "key is not standard base64"},
		{line: `{"content":"x","headers":[]}`, err: "headers is not a JSON object"},
		{line: `{"content":"x","headers":{"":"x"}}`, err: "a header has an empty name"},
		{line: `{"content":"x","headers":{"a":7}}`, err: "the value of a header must be a string"},
		{line: `{"content":"x","headers":{"a":[["b"]]}}`, err: "the value of a header must be a string"},
		{line: `{"content":"x","headers":{"a":["b"}}`, err: "a comma or ] should stand here"},
		{line: fmt.Sprintf(many, `,""`), err: "more than 256 header values"},
		{line: `{"content":"x","id":"` + strings.Repeat("x", maxID+1) + `"}`, err: "id is longer than 1024 bytes"},
	} {
		got, err := decodeLine([]byte(c.line))
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, want %q", c.line, err, c.err)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(*got, c.want) {
			t.Errorf("%s: %+v, %v", c.line, got, err)
		}
	}
	if m, err := decodeLine([]byte(fmt.Sprintf(many, ""))); err != nil || len(m.Headers) != maxHeaders {
		t.Errorf("as many headers as allowed: %v", err)
	}
}

func TestDecodedLineIsNotKept(t *testing.T) {
	line := []byte(`{"id":"i","key":"k","content":"c","headers":{"h":"v"}}`)
	m, err := decodeLine(line)
	if err != nil {
		t.Fatal(err)
	}
	for i := range line {
		line[i] = '!'
	}
	if m.ID != "i" || string(m.Key) != "k" || string(m.Payload) != "c" || m.Headers[0] != (message.Header{Name: "h", Value: "v"}) {
		t.Errorf("the message shares the line's memory: %+v", m)
	}
}

func TestDecodingIsLinear(t *testing.T) {
	for name, unit := range map[string]string{"escapes": `\n`, "quotes": `\"`, "surrogates": `\ud83d\ude00`} {
		duration := func(n int) time.Duration {
			line := []byte(`{"content":"` + strings.Repeat(unit, n) + `"}`)
			best := time.Hour
			for range 5 {
				start := time.Now()
				if _, err := decodeLine(line); err != nil {
					t.Fatal(err)
				}
				best = min(best, time.Since(start))
			}
			return best
		}
		if small, large := duration(10_000), duration(320_000); large > 32*8*small {
			t.Errorf("%s: 32 times the size takes %s instead of %s", name, large, small)
		}
	}
}

// FuzzDecodeLine compares with encoding/json: whatever is taken must be JSON that means
// the same there.
func FuzzDecodeLine(f *testing.F) {
	f.Add([]byte(`{"id":"7","key":"k","content":"x","headers":{"a":"1","b":["2"]}}`))
	f.Add([]byte(`{"content":"\ud83d\ude00","encoding":"base64"}`))
	f.Add([]byte(`{"content":"3q2+7w==","encoding":"base64","key":{"base64":"/w=="}}`))
	f.Add([]byte(`{"content":null}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := decodeLine(line)
		if err != nil {
			return
		}
		var reference struct {
			ID, Encoding string
			Content      *string
			Key          json.RawMessage
			Headers      map[string]json.RawMessage
		}
		if err := json.Unmarshal(line, &reference); err != nil {
			t.Fatalf("taken, but no JSON: %q: %v", line, err)
		}
		if m.ID != reference.ID || (m.Payload == nil) != (reference.Content == nil) || (m.Key == nil) != (reference.Key == nil) {
			t.Fatalf("%q reads as %+v, and as %+v", line, m, reference)
		}
		if reference.Encoding == "" && reference.Content != nil && string(m.Payload) != *reference.Content {
			t.Fatalf("%q: content %q, and %q", line, m.Payload, *reference.Content)
		}
		for _, h := range m.Headers {
			if _, ok := reference.Headers[h.Name]; !ok || !utf8.ValidString(h.Name) {
				t.Fatalf("%q: header %q is not there", line, h.Name)
			}
		}
		// What we write, we read.
		again := append([]byte("{"), message.AppendJSONContent(nil, m.Payload)...)
		again = append(message.AppendJSONHeaders(append(again, `,"headers":`...), m.Headers), '}')
		if back, err := decodeLine(again); err != nil || string(back.Payload) != string(m.Payload) || len(back.Headers) != len(m.Headers) {
			t.Fatalf("%q is written as %q, and reads as %+v, %v", line, again, back, err)
		}
	})
}

func BenchmarkDecodeLine(b *testing.B) {
	line := []byte(`{"id":"7","key":"customer-1","content":"` + strings.Repeat("x", 256) + `","headers":{"trace":"a1"}}`)
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodeLine(line); err != nil {
			b.Fatal(err)
		}
	}
}
