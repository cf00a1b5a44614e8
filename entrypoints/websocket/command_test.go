package websocket

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/caddy-message-api/caddy-message-api/message"
)

func TestParsePublish(t *testing.T) {
	for _, c := range []struct {
		input string
		want  message.Message
		ref   string
	}{
		{`{"type":"publish","content":"hi"}`, message.Message{Payload: []byte("hi")}, ""},
		{` { "content" : "" , "type" : "publish" } `, message.Message{Payload: []byte{}}, ""},
		{`{"type":"publish","content":"a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é😀","ref":"r","id":"i","key":"k"}`,
			message.Message{ID: "i", Key: []byte("k"), Payload: []byte("a\"\\/\b\f\n\r\té😀é😀")}, "r"},
		{`{"type":"publish","content":"/wA=","encoding":"base64","key":{"base64":"/w=="}}`,
			message.Message{Key: []byte{0xff}, Payload: []byte{0xff, 0}}, ""},
		{`{"type":"publish","content":"","headers":{"b":"1","a":["2",{"base64":"/w=="}],"c":[]}}`, message.Message{
			Payload: []byte{}, Headers: []message.Header{{Name: "b", Value: "1"}, {Name: "a", Value: "2"}, {Name: "a", Value: "\xff"}},
		}, ""},
		{`{"type":"publish","content":"x","key":null,"id":null,"headers":null,"encoding":null,"ref":null}`,
			message.Message{Payload: []byte("x")}, ""},
	} {
		got, err := parseCommand([]byte(c.input))
		if err != nil || got.fault != "" || got.kind != publishKind || got.ref != c.ref || !reflect.DeepEqual(got.message, c.want) {
			t.Errorf("%s: %+v, %v", c.input, got, err)
		}
	}
}

func TestParseSettlements(t *testing.T) {
	for _, c := range []struct {
		input string
		kind  kind
		seqs  []uint64
		upTo  uint64
	}{
		{`{"type":"ack","seq":1}`, ackKind, []uint64{1}, 0},
		{`{"type":"release","seq":[1,2,18446744073709551615]}`, releaseKind, []uint64{1, 2, 1<<64 - 1}, 0},
		{`{"upto":7,"type":"reject","ref":"x","seq":null}`, rejectKind, nil, 7},
	} {
		got, err := parseCommand([]byte(c.input))
		if err != nil || got.fault != "" || got.kind != c.kind || !slices.Equal(got.seqs, c.seqs) || got.upTo != c.upTo {
			t.Errorf("%s: %+v, %v", c.input, got, err)
		}
	}
}

func TestFaultyCommands(t *testing.T) {
	many := strings.Repeat(`"v",`, maxHeaders) + `"v"`
	for _, c := range []struct{ input, want string }{
		{`{}`, `"type" is missing`},
		{`{"type":null}`, `"type" is missing`},
		{`{"type":"subscribe"}`, `unknown type "subscribe"`},
		{`{"type":5}`, `"type" must be a string`},
		{`{"type":"publish"}`, `"content" is missing`},
		{`{"type":"publish","content":null}`, `"content" is missing`},
		{`{"type":"publish","content":5}`, `"content" must be a string`},
		{`{"type":"publish","content":{"a":[1,{"b":null}]}}`, `"content" must be a string`},
		{`{"type":"publish","content":"a","content":"b"}`, `"content" stands twice`},
		{`{"type":"publish","content":"\ud800"}`, `half a surrogate pair`},
		{`{"type":"publish","content":"\ud800\u0041"}`, `half a surrogate pair`},
		{`{"type":"publish","content":"\udc00\ud83d\ude00"}`, `half a surrogate pair`},
		{`{"type":"publish","content":"x","Content":"y"}`, `unknown member "Content"`},
		{`{"type":"publish","content":"x","encoding":"hex"}`, `unknown encoding "hex"`},
		{`{"type":"publish","content":"x","encoding":"base64"}`, `"content" is not base64`},
		{`{"type":"publish","content":"/w=\n=","encoding":"base64"}`, `"content" is not base64`},
		{`{"type":"publish","content":"","ref":"` + strings.Repeat("x", 129) + `"}`, `ref has 129 bytes`},
		{`{"type":"publish","content":"","key":5}`, `"key" must be a string or`},
		{`{"type":"publish","content":"","key":{}}`, `"key" must be a string or`},
		{`{"type":"publish","content":"","key":{"base64":"!"}}`, `"key" is not base64`},
		{`{"type":"publish","content":"","key":{"base64":"","x":1}}`, `"key" must be a string or`},
		{`{"type":"publish","content":"","headers":[]}`, `"headers" must be an object`},
		{`{"type":"publish","content":"","headers":{"":"x"}}`, `a header has no name`},
		{`{"type":"publish","content":"","headers":{"a":5}}`, `"a" must be a string or`},
		{`{"type":"publish","content":"","headers":{"a":[["x"]]}}`, `"a" must be a string or`},
		{`{"type":"publish","content":"","headers":{"a":[` + many + `]}}`, `more than 256 headers`},
		{`{"type":"publish","content":"","seq":1}`, `not for publish`},
		{`{"type":"ack"}`, `needs "seq" or "upto"`},
		{`{"type":"ack","seq":[]}`, `needs "seq" or "upto"`},
		{`{"type":"ack","seq":1,"upto":1}`, `and not both`},
		{`{"type":"ack","seq":0}`, `whole number from 1 on`},
		{`{"type":"ack","seq":-1}`, `whole number from 1 on`},
		{`{"type":"ack","seq":1.5}`, `whole number from 1 on`},
		{`{"type":"ack","seq":1e3}`, `whole number from 1 on`},
		{`{"type":"ack","seq":18446744073709551616}`, `whole number from 1 on`},
		{`{"type":"ack","seq":"1"}`, `whole number from 1 on`},
		{`{"type":"ack","seq":[1,[2]]}`, `whole number from 1 on`},
		{`{"type":"ack","upto":true}`, `whole number from 1 on`},
		{`{"type":"ack","seq":1,"content":"x"}`, `and nothing else`},
	} {
		got, err := parseCommand([]byte(c.input))
		if err != nil || !strings.Contains(got.fault, c.want) {
			t.Errorf("%s: %q %v, want %q", c.input, got.fault, err, c.want)
		}
	}
	// A faulty publish is answered under its name, wherever that stands.
	if got, _ := parseCommand([]byte(`{"content":5,"type":"publish","ref":"me"}`)); got.ref != "me" || got.kind != publishKind {
		t.Errorf("%+v", got)
	}
}

func TestNotJSON(t *testing.T) {
	for _, input := range []string{
		``, ` `, `x`, `[]`, `"type"`, `null`, `5`, `{`, `{"type"`, `{"type":`, `{"type":"ack"`, `{"type":"ack",}`, `{"type":"ack"} x`,
		`{"type":"ack"}{}`, `{type:"ack"}`, `{'type':'ack'}`, `{"type":"ack",,"seq":1}`, `{"type":"a` + "\n" + `"}`, `{"type":"\x"}`,
		`{"type":"\u12"}`, `{"type":"\u12G4"}`, `{"type":"\`, `{"type":"\u`, `{"seq":01}`, `{"seq":+1}`, `{"seq":1.}`, `{"seq":.5}`,
		`{"seq":1e}`, `{"seq":-}`, `{"seq":[1,]}`, `{"seq":[1 2]}`, `{"seq":tru}`, `{"seq":nul}`, `{"key":{"base64":"a"`, `{"headers":{"a"}}`,
		`{"x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, "{\"type\":\"ack\"}\x00", "\ufeff{}", "{\x00}",
	} {
		if c, err := parseCommand([]byte(input)); err == nil || !strings.Contains(err.Error(), "not a JSON object: at byte") {
			t.Errorf("%q: %+v, %v", input, c, err)
		}
	}
}

func depthOf(data []byte) (deepest int) {
	depth, quoted := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == '{' || c == '['):
			depth++
			deepest = max(deepest, depth)
		case !quoted && (c == '}' || c == ']'):
			depth--
		}
	}
	return deepest
}

// FuzzCommand compares with encoding/json: what is taken for an object must be one, and
// what is understood must mean the same there.
func FuzzCommand(f *testing.F) {
	for _, seed := range []string{
		`{"type":"publish","content":"a\u00e9\ud83d\ude00","ref":"r","id":"i","key":{"base64":"/w=="},"headers":{"a":["1",{"base64":""}]}}`,
		`{"type":"ack","seq":[1,2,3]}`, `{"type":"release","upto":12}`, `{"type":"publish","content":"AAEC","encoding":"base64"}`,
		`{"type":"publish","content":"\ud800"}`, `{"x":[{"y":null},true,false,-1.5e+3]}`, `{`, `{"a":1}{}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if !utf8.Valid(data) {
			t.Skip("refused before")
		}
		c, err := parseCommand(data)
		object := json.Valid(data) && bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{"))
		switch {
		case err == nil && !object:
			t.Fatalf("%q is no object", data)
		case err != nil && object && depthOf(data) < maxDepth:
			t.Fatalf("%q is refused: %v", data, err)
		case err != nil || c.fault != "":
			return
		}
		compare(t, data, &c)
	})
}

func compare(t *testing.T, data []byte, c *command) {
	var want struct {
		Type, ID, Content, Encoding, Ref string
		UpTo                             uint64
		Headers                          map[string]json.RawMessage
		Seq                              json.RawMessage
	}
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatalf("%q: %v", data, err)
	}
	content := want.Content
	if want.Encoding == "base64" {
		raw, err := base64.StdEncoding.DecodeString(content)
		if err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		content = string(raw)
	}
	var numbers []uint64
	if len(want.Seq) > 0 && json.Unmarshal(want.Seq, &numbers) != nil {
		numbers = make([]uint64, 1)
		if err := json.Unmarshal(want.Seq, &numbers[0]); err != nil {
			t.Fatal(err)
		}
	}
	if kinds[want.Type] != c.kind || want.ID != c.message.ID || want.Ref != c.ref || want.UpTo != c.upTo ||
		content != string(c.message.Payload) || !slices.Equal(numbers, c.seqs) {
		t.Fatalf("%q: %+v, want %+v", data, c, want)
	}
	for _, h := range c.message.Headers {
		if _, ok := want.Headers[h.Name]; !ok {
			t.Fatalf("%q: header %q from nowhere", data, h.Name)
		}
	}
}

func BenchmarkParsePublish(b *testing.B) {
	data := fmt.Appendf(nil, `{"type":"publish","ref":"42","key":"k","content":"%s","headers":{"a":"1"}}`, strings.Repeat("x", 256))
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if c, err := parseCommand(data); err != nil || c.fault != "" {
			b.Fatal(err, c.fault)
		}
	}
}
